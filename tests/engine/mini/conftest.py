"""A small model with random weights and the file layout of min-dalle's, and the package itself, which says what is right."""

import importlib
import importlib.util
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.mini import Painter
from engine.mini.detokenizer import Detokenizer, Ladder
from engine.mini.loading import parts_of
from engine.mini.networks import Decoder, Encoder, Size

SIZE = Size(layers=2, width=64, heads=4, glu=96, texts=400, reads=64, codes=300, paints=256)
LADDER = Ladder(codes=300, embedding=32, inner=64, channels=(64, 32, 32, 32, 32), has_attention=(True, False, False, False, False))
EXTRA_CODES = 5
"""Of the decoder beyond those of the detokenizer; min-dalle's have them too."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are slower on several threads, and far slower where other tests use the cores."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Package:
    """min-dalle, without what it does to torch when it is imported, and without its client of the network."""

    tokenizer: Any
    encoder: Any
    decoder: Any
    detokenizer: Any


@pytest.fixture(scope="session")
def package() -> Package:
    """The package, where it is installed: pip install --no-deps min-dalle==0.4.11."""
    found = importlib.util.find_spec("min_dalle")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("min-dalle is not installed: pip install --no-deps min-dalle==0.4.11")
    if "min_dalle" not in sys.modules:
        bare = types.ModuleType("min_dalle")
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules["min_dalle"] = bare
    names = ("text_tokenizer", "models.dalle_bart_encoder", "models.dalle_bart_decoder", "models.vqgan_detokenizer")
    return Package(*(importlib.import_module(f"min_dalle.{name}") for name in names))


def random_weights(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Return weights as a file has them; large enough that every part of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in network.state_dict().items():
        parts = parts_of(key)
        for part in parts:
            shape = (len(value) // len(parts), *value.shape[1:])
            noise = torch.randn(shape, generator=generator)
            if value.ndim == 1:
                weights[part] = 0.1 * noise + (1 if part.endswith("weight") else 0)
            else:
                weights[part] = noise if "embed" in part else noise / value[0].numel() ** 0.5
    return weights


def files_of(folder: Path, size: Size = SIZE, ladder: Ladder = LADDER, seed: int = 0) -> Path:
    """Write a model, and return its config."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        encoder, decoder, detokenizer = Encoder(size), Decoder(size), Detokenizer(ladder)
    painted = random_weights(decoder, seed + 1)
    for key in ("embed_tokens.weight", "lm_head.weight"):
        painted[key] = torch.cat([painted[key], torch.randn(EXTRA_CODES, size.width)])
    for name, weights in (("encoder", random_weights(encoder, seed)), ("decoder", painted), ("detoker", random_weights(detokenizer, seed + 2))):
        torch.save({key: value.half() for key, value in weights.items()}, folder / f"{name}.pt")
    merges = [f"\u0120 {letter}" for letter in LETTERS] + ["c a", "ca t", "\u0120 cat", "d o", "do g", "r e", "re d", "t h", "th e", "\u0120 the"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *LETTERS, *"0123456789_-.,!?'", *("".join(merge.split()) for merge in merges)]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(dict.fromkeys(pieces))}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    names = {"vocabulary": "vocab.json", "merges": "merges.txt", "encoder": "encoder.pt", "decoder": "decoder.pt", "detokenizer": "detoker.pt"}
    config = {"kind": "dalle-mini", "layers": size.layers, "width": size.width, "heads": size.heads, "devices": "cpu"}
    config |= {key: {"load_type": "local", "path": name} for key, name in names.items()}
    path = folder / "tiny.json"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a small model; its files lie beside it."""
    return files_of(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def painter(config: Path) -> Painter:
    """The small model, loaded."""
    return Painter.from_config(config, device="cpu", dtype="float32")
