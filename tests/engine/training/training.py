"""Tiny networks and configs to train in tests."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engine.training import __main__ as training
from engine.training.loop import Part
from engine.training.source import Batch
from tests.engine.training.drawing import files_of, npy, write_tar

WIDTH = 8
CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
UNET = {"dim": 8, "dim_mults": [1, 2], "cond_dim": 12, "attn_heads": 2, "attn_dim_head": 4, "init_cross_embed": False, "num_resnet_blocks": 1}
TRACKER = {"log": {"log_type": "console"}, "save": {"save_to": "local"}}
SPLITS = {"train": 0.8, "val": 0.2, "test": 0.0}


def run_command(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command of `engine.training` in this process, and return its exit code."""
    patch.setattr(training.logging, "basicConfig", lambda **options: None)
    patch.setattr("sys.argv", ["training", *map(str, arguments)])
    return training.main()


def decoder_config(shards: Path, **train: Any) -> dict[str, Any]:
    """A cascade of 16 and 32 px."""
    return {
        "decoder": {
            "unets": [{**UNET, "image_embed_dim": WIDTH}, {**UNET, "lowres_noise_cond": True}],
            "image_sizes": [16, 32],
            "timesteps": 50,
            "learned_variance": False,
            "use_noise_for_lowres_cond": True,
            "use_blur_for_lowres_cond": False,
        },
        "data": {"webdataset_base_url": str(shards), "batch_size": 4, "splits": SPLITS},
        "train": {"lr": 1e-3, "device": "cpu", "n_sample_images": 2, "steps": 6, "validate_every_steps": 3, "save_every_steps": 2} | train,
        "evaluate": {},
        "tracker": TRACKER,
    }


def prior_config(shards: Path, clip: Path, **train: Any) -> dict[str, Any]:
    """A prior for the tiny CLIP."""
    return {
        "prior": {
            "clip": {"make": "open_clip", "model": f"local-dir:{clip}"},
            "net": {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "max_text_len": 16, "num_timesteps": 50},
            "image_embed_dim": 16,
            "image_size": 16,
            "timesteps": 50,
            "cond_drop_prob": 0.1,
        },
        "data": {"image_url": str(shards), "batch_size": 4, "splits": SPLITS},
        "train": {"lr": 1e-3, "steps": 6, "validate_every_steps": 3, "eval_timesteps": [5]} | train,
        "tracker": TRACKER,
    }


def clip_config(shards: Path, clip: Path, **train: Any) -> dict[str, Any]:
    """The tiny CLIP."""
    return {
        "clip": {"make": "open_clip", "model": f"local-dir:{clip}"},
        "data": {"webdataset_base_url": str(shards), "batch_size": 4, "splits": SPLITS, "typo_share": 0.5, "nonsense_share": 0.5},
        "train": {"lr": 1e-3, "device": "cpu", "steps": 6, "validate_every_steps": 3} | train,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_shards(folder: Path, count: int = 24, width: int | None = WIDTH, size: int = 12) -> Path:
    """Shards with embeddings of a width, or without."""
    generator = torch.Generator().manual_seed(0)
    colours = ("red", "green", "blue")
    for shard, start in enumerate(range(0, count, size)):
        samples = []
        for index in range(min(size, count - start)):
            embed = {} if width is None else {"npy": npy(torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0).numpy())}
            samples.append((f"{shard:05}{index:04}", files_of(start + index, f"a {colours[index % 3]} fox", **embed)))
        write_tar(folder / f"{shard:05}.tar", samples)
    return folder


class Line:
    """A trainee of two numbers: the brightness of pictures, learnt."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.module = nn.Linear(1, 1)
        self.parts = {"line": Part(self.module, 0.05, 0.0)}
        self.broken_at, self.calls, self.measured = broken_at, 0, iter([3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5])

    def loss(self, name: str, batch: Batch) -> Tensor:
        assert batch.pictures is not None
        self.calls += 1
        target = batch.pictures.mean((1, 2, 3))[:, None]
        loss = (self.module(target + 0.1 * torch.randn_like(target)) - target).square().mean()
        return loss * (float("nan") if self.calls == self.broken_at else 1.0)

    def measure(self, batches: Iterator[Batch]) -> dict[str, float]:
        return {"loss": next(self.measured)}

    def show(self, batch: Batch) -> Image.Image | None:
        return Image.new("RGB", (4, 4))

    def write(self, folder: Path, name: str) -> None:
        (folder / name).write_text(str(self.module.weight.item()))
