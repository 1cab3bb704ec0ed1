"""Paint with random weights of LAION's sizes: python -m tests.benchmarks.laion [--dtype bfloat16] [--memory auto] [--count 1] [--steps 2]

Writes 7 GB of checkpoints as release 1.1.0 would have into a temporary folder, loads them as a dalle2-laion config, paints, and tells seconds and
memory. The pictures are noise: only size and speed are those of the published models.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from engine.unclip import Painter
from engine.unclip.dialects import Dialect, Release
from engine.unclip.prior import PriorNetwork
from engine.unclip.unet import Unet

RELEASE = Release(1, 1, 0)
BASE: dict[str, Any] = {
    "dim": 320, "dim_mults": [1, 2, 3, 4], "image_embed_dim": 768, "cond_dim": 512, "num_resnet_blocks": 4,
    "self_attn": [False, True, True, True], "memory_efficient": True,
}  # fmt: skip
UPSAMPLER: dict[str, Any] = {"dim": 192, "dim_mults": [1, 2, 3, 4], "cond_dim": 512, "num_resnet_blocks": 2, "memory_efficient": True}
PRIOR: dict[str, Any] = {"dim": 768, "depth": 24, "heads": 32, "num_timesteps": 1000, "max_text_len": 77}


def write(folder: Path) -> Path:
    """Write a whole model and return its config."""
    dialect = Dialect(RELEASE)
    base = Unet(**BASE, cond_on_image_embeds=True, channels_out=6, dialect=dialect).state_dict()
    config = {"decoder": {"unets": [BASE], "image_sizes": [64], "learned_variance": True}}
    torch.save({"model": {f"unets.0.{key}": value for key, value in base.items()}, "version": str(RELEASE), "config": config}, folder / "base.pth")
    del base
    upsampler = Unet(**UPSAMPLER, lowres_cond=True, dialect=dialect).state_dict()
    config = {"decoder": {"unets": [BASE, UPSAMPLER], "image_sizes": [64, 256], "learned_variance": [True, False]}}
    content = {"model": {f"unets.1.{key}": value for key, value in upsampler.items()}, "version": str(RELEASE), "config": config}
    torch.save(content, folder / "upsampler.pth")
    prior = PriorNetwork(**PRIOR, dialect=dialect).state_dict()
    prior["null_text_embed"] = prior.pop("null_text_encodings")
    config = {"prior": {"net": PRIOR, "image_embed_dim": 768, "cond_drop_prob": 0.1}}
    torch.save({"ema_model": {f"net.{key}": value for key, value in prior.items()}, "version": str(RELEASE), "config": config}, folder / "prior.pth")
    (folder / "clip").mkdir()
    sizes = open_clip.get_model_config("ViT-L-14")
    save_file({key: value.contiguous() for key, value in open_clip.CLIP(**sizes).state_dict().items()}, folder / "clip/open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.3] * 3}
    (folder / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": preprocess}))
    sources = [
        {"unet_numbers": [number], "load_model_from": {"load_type": "local", "path": path}}
        for number, path in enumerate(("base.pth", "upsampler.pth"), start=1)
    ]
    model = {
        "decoder": {"unet_sources": sources},
        "prior": {"load_model_from": {"load_type": "local", "path": "prior.pth"}},
        "clip": {"make": "open_clip", "model": "local-dir:clip"},
    }
    (folder / "laion-sizes.json").write_text(json.dumps(model))
    return folder / "laion-sizes.json"


def main() -> None:
    """Write, load, paint, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = write(Path(folder))
        files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        started = time.perf_counter()
        painter = Painter.from_config(config, options.device, options.dtype, options.memory)
        loaded = time.perf_counter()
        how: dict[str, Any] = {"count": options.count, "seed": 1, "steps": [options.steps] * 2, "guidance": 1.7, "prior_steps": options.steps + 1}
        times = []
        for _ in range(4):
            before = time.perf_counter()
            painter.dream(["a fox"], **how)
            times.append(time.perf_counter() - before)
    device = painter.parts.lodging.device
    print(f"{files / 1e9:.2f} GB of files; {device}, {options.dtype}, {'resident' if painter.parts.lodging.is_resident else 'offloaded'}")
    print(
        f"loaded in {loaded - started:.1f} s; {options.count} pictures, {options.steps} steps of each stage: {times[0]:.1f} s, again {times[1]:.1f} s"
    )
    print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, with what writing the files took")
    if device.type == "cuda":
        print(f"peak of the GPU {torch.cuda.max_memory_reserved(device) / 2**30:.2f} GiB reserved")


if __name__ == "__main__":
    main()
