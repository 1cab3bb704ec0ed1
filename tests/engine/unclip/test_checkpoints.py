"""Files from strangers: every way in which weights are wrapped, and every way in which a file is none."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging import version
from safetensors.torch import save_file
from torch import nn

from engine.errors import Misconfigured
from engine.unclip.checkpoints import load_into, read_checkpoint

ROOT = Path(__file__).parents[3]
WEIGHTS = {"net.a": torch.arange(6.0).view(2, 3), "net.b": torch.ones(3)}


def saved(tmp_path: Path, content: Any, name: str = "w.pth", **options: Any) -> Path:
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


def refusal(path: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        read_checkpoint(path)
    message = str(refused.value)
    assert str(path) in message and "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        OrderedDict(WEIGHTS),
        {"model": WEIGHTS, "optimizer": {"state": {}, "lr": 0.1}, "step": 3, "scaler": {}},
        {"ema_model": WEIGHTS},
        {"model": {key: value + 1 for key, value in WEIGHTS.items()}, "ema_model": WEIGHTS, "ema": {"step": torch.tensor(3)}},
        {"model": {key: value + 1 for key, value in WEIGHTS.items()}, "ema": {f"ema_model.{key}": value for key, value in WEIGHTS.items()}},
        {"model": {f"module.{key}": value for key, value in WEIGHTS.items()}},
        {"state_dict": WEIGHTS, "hparams": {"lr": 1e-4}},
    ],
    ids=["bare", "ordered", "trainer", "ema only", "both", "ema wrapped", "distributed", "state_dict"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_weights_are_found_in_every_wrapping(tmp_path: Path, content: Any, legacy: bool) -> None:
    found = read_checkpoint(saved(tmp_path, content, _use_new_zipfile_serialization=not legacy))
    assert found.weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in WEIGHTS.items())
    assert (found.version, found.config) == (None, None)


def test_the_averaged_unets_of_a_decoder_come_before_the_others(tmp_path: Path) -> None:
    model = {"unets.0.a": torch.zeros(2), "unets.1.a": torch.zeros(2), "noise_schedulers.0.betas": torch.zeros(4)}
    ema = {"0.online_model.a": torch.zeros(2), "0.ema_model.a": torch.ones(2), "1.ema_model.a": torch.full((2,), 2.0), "0.step": torch.tensor([4])}
    found = read_checkpoint(saved(tmp_path, {"model": model, "ema": ema})).weights
    assert [found[f"unets.{index}.a"][0].item() for index in range(2)] == [1, 2]
    assert found.keys() == model.keys()


def test_release_and_config_are_read(tmp_path: Path) -> None:
    config = {"decoder": {"unets": [{"dim": 8}]}, "data": {"path": "s3://bucket"}}
    found = read_checkpoint(saved(tmp_path, {"model": WEIGHTS, "version": "1.1.0", "config": config}))
    assert (found.version, found.config) == ("1.1.0", config)
    save_file(WEIGHTS, tmp_path / "w.safetensors", metadata={"version": "1.2.0", "config": json.dumps(config)})
    found = read_checkpoint(tmp_path / "w.safetensors")
    assert (found.version, found.config) == ("1.2.0", config)
    assert found.weights.keys() == WEIGHTS.keys()


def test_a_version_object_of_packaging_is_read_without_making_one(tmp_path: Path) -> None:
    assert read_checkpoint(saved(tmp_path, {"model": WEIGHTS, "version": version.parse("0.23.10")})).version == "0.23.10"


class _Version(tuple):  # type: ignore[type-arg]  # as packaging of 2022 had it
    """The numbers of a version, as a trainer of 2022 wrote them."""

    def __new__(cls, *values: Any) -> "_Version":
        return super().__new__(cls, values)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Version, tuple(self)


class Version:
    """A version, as a trainer of 2022 wrote it."""

    def __init__(self) -> None:
        self._version = _Version(0, (1, 1, 0), None, None, None, None)
        self._key = (0, (1, 1), InfinityType(), NegativeInfinityType())


class InfinityType:
    """More than everything."""


class NegativeInfinityType:
    """Less than everything."""


def test_a_version_object_of_2022_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    torch.save({"model": WEIGHTS, "version": Version()}, buffer)
    here = __name__.encode()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "w.pth", "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                for name, home in ((b"_Version", b"packaging.version"), (b"Version", b"packaging.version")):
                    content = content.replace(b"c" + here + b"\n" + name + b"\n", b"c" + home + b"\n" + name + b"\n")
                for name in (b"InfinityType", b"NegativeInfinityType"):
                    content = content.replace(b"c" + here + b"\n" + name + b"\n", b"cpackaging._structures\n" + name + b"\n")
                assert here not in content
            new.writestr(entry.filename, content)
    assert read_checkpoint(tmp_path / "w.pth").version == "1.1.0"


class Trap:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_that_brings_code_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    content = {"model": WEIGHTS, "trap": Trap(tmp_path / "sprung")}
    path = tmp_path / "w.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"trap": Trap(tmp_path / "sprung")}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    message = refusal(path)
    assert kind == "pickle" or ("running code" in message and "system" in message)
    assert not (tmp_path / "sprung").exists()


def test_the_trap_would_spring(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"  <!DOCTYPE html><html>sign in</html>", "web page"),
        (b"<HTML><body>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1", "git lfs pull"),
        (b'{"prior": {}}', "is JSON"),
        (b"PK\x03\x04 but no archive", "damaged"),
        (b"\x80\x02 but no pickle", ""),
        (os.urandom(5000), ""),
        (b"\xff" * 8 + b"{}", "damaged"),
        (b"\0" * 5000, "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert says in refusal(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {}, {"model": {}}, torch.ones(3), "text"])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    assert "hold" in refusal(saved(tmp_path, content))


def test_missing_files_folders_and_zips_of_something_else_are_named(tmp_path: Path) -> None:
    assert "are missing" in refusal(tmp_path / "nowhere.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.pth")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "damaged or no file of torch" in refusal(tmp_path / "photos.zip")


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["zip", "legacy", "safetensors"]))
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save({"model": WEIGHTS, "version": "1.1.0"}, path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except Misconfigured as error:
        assert "\n" not in str(error)


def meta(*sizes: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(size, size) for size in sizes))


def state(*sizes: int) -> dict[str, torch.Tensor]:
    return {key: torch.randn(value.shape) for key, value in meta(*sizes).state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_go_straight_to_their_format(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = state(600, 700)
    net = meta(600, 700)
    load_into(net, read_checkpoint(saved(tmp_path, weights)).weights, tmp_path, dtype=dtype, device="cpu", exact=lambda key: key == "0.bias")
    for key, value in net.state_dict().items():
        assert value.dtype == (torch.float32 if key == "0.bias" else dtype)
        assert torch.equal(value, weights[key].to(value.dtype))
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_named(bad: float, tmp_path: Path) -> None:
    weights = state(4, 5)
    weights["1.bias"][2] = bad
    with pytest.raises(Misconfigured, match="1.bias holds values that are no numbers"):
        load_into(meta(4, 5), weights, tmp_path, dtype=torch.float32, device="cpu")


def test_loading_takes_little_more_memory_than_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.loading", "--mb", "400"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peaks = [float(line.split("peak ")[1].split(" ")[0]) for line in run.stdout.splitlines()]
    assert len(peaks) == 6 and max(peaks) < 1.2, run.stdout + run.stderr


@pytest.mark.parametrize("length", range(64, 64 + 256, 8))
def test_the_length_of_a_header_is_not_taken_for_a_pickle(length: int, tmp_path: Path) -> None:
    """One safetensors file of 32 begins with the byte that begins a pickle."""
    path = tmp_path / "one.safetensors"
    for filler in range(400):
        save_file({"w": torch.ones(1)}, path, metadata={"version": "1.15.6", "config": json.dumps({"x": "y" * filler})})
        if int.from_bytes(path.read_bytes()[:8], "little") % 256 == length % 256:
            break
    read = read_checkpoint(path)
    assert path.read_bytes()[0] == length % 256 and read.config == {"x": "y" * filler} and read.version == "1.15.6"
