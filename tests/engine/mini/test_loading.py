"""Configs and files that fit, and those that do not: one sentence each, before anything is painted."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Misconfigured
from engine.files import kept
from engine.jobs import Request
from engine.mini import MiniSettings, Painter
from engine.mini.config import is_mini, read_mini_config
from tests.engine.mini.conftest import LADDER, SIZE, files_of

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def folder(config: Path, tmp_path: Path) -> Path:
    """A copy of the small model's files."""
    return Path(shutil.copytree(config.parent, tmp_path / "mini"))


def changed(folder: Path, **keys: Any) -> Path:
    """Change keys of its config."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return path


@pytest.mark.parametrize(("name", "size", "suffix"), [("dalle-mini", (12, 1024, 16), "_mini"), ("dalle-mega", (24, 2048, 32), "")])
def test_the_configs_name_min_dalle_s_files(name: str, size: tuple[int, int, int], suffix: str, tmp_path: Path, monkeypatch: Any) -> None:
    config = read_mini_config(CONFIGS / f"{name}.json")
    assert is_mini(json.loads((CONFIGS / f"{name}.json").read_text()))
    assert (config.layers, config.width, config.heads) == size
    assert (config.usual.temperature, config.usual.top_k, config.usual.guidance) == (1, 256, 16)
    names = [f"vocab{suffix}.json", f"merges{suffix}.txt", f"encoder{suffix}.pt", f"decoder{suffix}.pt", "detoker.pt"]
    assert [file.path for file in config.files] == [f"https://huggingface.co/kuprel/min-dalle/resolve/main/{name}" for name in names]
    assert all(kept(file.model_copy(update={"cache_dir": str(tmp_path)}), tmp_path) is None for file in config.files)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_number_format_paints(config: Path, dtype: str) -> None:
    painter = Painter.from_config(config, device="cpu", dtype=dtype)
    assert next(painter.parts.decoder.take().parameters()).dtype is getattr(torch, dtype)
    painting = painter.paint(Request("the cat", seed=1, count=1), settings=MiniSettings(top_k=5))
    assert painting.pictures[0].width == 256


def test_networks_that_are_not_kept_are_let_go(config: Path) -> None:
    painter = Painter.from_config(config, device="cpu", memory="offload")
    parts = (painter.parts.encoder, painter.parts.decoder, painter.parts.detokenizer)
    assert not any(part.is_loaded for part in parts)
    first = painter.paint(Request("the cat", seed=1, count=1))
    assert not any(part.is_loaded for part in parts)
    resident = Painter.from_config(config, device="cpu", memory="resident")
    assert all(part.is_loaded for part in (resident.parts.encoder, resident.parts.decoder, resident.parts.detokenizer))
    assert resident.paint(Request("the cat", seed=1, count=1)).pictures == first.pictures
    assert painter.paint(Request("the cat", seed=1, count=1)).pictures == first.pictures


def test_the_config_may_say_that_networks_are_let_go(folder: Path) -> None:
    assert not Painter.from_config(changed(folder, memory="release"), device="cpu").parts.decoder.is_loaded


def test_files_of_a_larger_model_are_refused(folder: Path, tmp_path: Path) -> None:
    mega = files_of(tmp_path / "mega", replace(SIZE, layers=3, width=128)).parent
    for name in ("encoder", "decoder"):
        shutil.copy(mega / f"{name}.pt", folder / f"{name}.pt")
        with pytest.raises(Misconfigured, match=rf"{name}.pt have 3 layers and are 128 wide, but model config tiny.json is for 2 layers and 64\."):
            Painter.from_config(folder / "tiny.json", device="cpu")
        files_of(folder)


def test_a_size_that_is_not_that_of_the_files_is_refused(folder: Path) -> None:
    with pytest.raises(Misconfigured, match="for 2 layers and 96"):
        Painter.from_config(changed(folder, width=96), device="cpu")
    with pytest.raises(Misconfigured, match="heads must divide width"):
        Painter.from_config(changed(folder, width=64, heads=7), device="cpu")


def test_parts_in_each_other_s_place_are_refused(folder: Path) -> None:
    local = {name: {"load_type": "local", "path": f"{name}.pt"} for name in ("encoder", "decoder", "detoker")}
    for keys, complaint in (
        ({"encoder": local["decoder"]}, "decoder.pt are those of a decoder"),
        ({"decoder": local["encoder"]}, "encoder.pt are those of another network: 17 tensors are missing"),
        ({"detokenizer": local["encoder"]}, "encoder.pt are no detokenizer"),
        ({"encoder": local["detoker"]}, "detoker.pt have 0 layers"),
    ):
        good = (folder / "tiny.json").read_text()
        with pytest.raises(Misconfigured, match=complaint):
            Painter.from_config(changed(folder, **keys), device="cpu")
        (folder / "tiny.json").write_text(good)


def test_parts_of_two_models_are_refused(folder: Path, tmp_path: Path) -> None:
    other = files_of(tmp_path / "other", replace(SIZE, glu=80, texts=30, codes=400), replace(LADDER, codes=400)).parent
    for name, complaint in (
        ("decoder.pt", "decoder.pt are those of another network|encoder.pt are those of another network"),
        ("encoder.pt", "counts up to"),
        ("detoker.pt", "decoder.pt are those of another network: .*have another shape"),
    ):
        shutil.copy(other / name, folder / name)
        with pytest.raises(Misconfigured, match=complaint):
            Painter.from_config(folder / "tiny.json", device="cpu")
        files_of(folder)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "encoder.pt", "decoder.pt", "detoker.pt"])
def test_missing_and_truncated_files_are_told(folder: Path, name: str) -> None:
    path = folder / name
    # So short that only what comes first of it is left.
    os.truncate(path, 5 if name == "merges.txt" else path.stat().st_size // 2)
    with pytest.raises(Misconfigured, match=name):
        Painter.from_config(folder / "tiny.json", device="cpu")
    path.unlink()
    with pytest.raises(Misconfigured, match=f"{name} is missing"):
        Painter.from_config(folder / "tiny.json", device="cpu")


def test_a_file_that_would_run_code_is_refused(folder: Path) -> None:
    torch.save({"final_ln.weight": os.system}, folder / "decoder.pt")
    with pytest.raises(Misconfigured, match="without running code"):
        Painter.from_config(folder / "tiny.json", device="cpu")


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    weights = torch.load(folder / "decoder.pt", weights_only=True)
    weights["layers.1.glu.fc1.weight"][3, 3] = torch.nan
    torch.save(weights, folder / "decoder.pt")
    with pytest.raises(Misconfigured, match="layers.1.glu.fc1.weight holds values that are no numbers"):
        Painter.from_config(folder / "tiny.json", device="cpu", memory="resident")


def test_tensors_that_nobody_needs_are_no_fault(folder: Path) -> None:
    weights = torch.load(folder / "encoder.pt", weights_only=True)
    torch.save(weights | {"position_ids": torch.zeros(3)}, folder / "encoder.pt")
    Painter.from_config(folder / "tiny.json", device="cpu")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"kind": "dalle-2"}, "kind: "),
        ({"layers": 0}, "layers: "),
        ({"colour": 1}, "colour: this key is not known here"),
        ({"usual": {"temperature": 0}}, "usual.temperature"),
        ({"dtype": "int8"}, "dtype"),
        ({"memory": "never"}, "memory"),
    ],
)
def test_a_config_that_says_something_else_is_refused(folder: Path, keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        Painter.from_config(changed(folder, **keys), device="cpu")
