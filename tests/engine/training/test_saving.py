"""What is written is there as a whole, or one sentence says why not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import Misconfigured
from engine.training.saving import write_networks, write_tensors, write_whole
from engine.unclip.dialects import LATEST
from tests.engine.training.test_data_shards import files_at_most

LARGE = torch.arange(10_000.0)


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    write_networks(tmp_path, "net", {"a": LARGE, "b": LARGE, "c": LARGE[5:10], "d": LARGE.view(100, 100).T}, {}, LATEST)
    kept = load_file(tmp_path / "net.safetensors")
    assert torch.equal(kept["a"], LARGE) and torch.equal(kept["b"], LARGE) and torch.equal(kept["c"], LARGE[5:10])
    assert torch.equal(kept["d"], LARGE.view(100, 100).T)


WRITERS = {"torch": lambda path: torch.save(LARGE, path), "safetensors": lambda path: write_tensors(path, {"a": LARGE})}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_says_that_the_disk_is_full(tmp_path: Path, write: Callable[[Path], object]) -> None:
    with files_at_most(1000), pytest.raises(Misconfigured, match="the disk is full. Make room"):
        write_whole(tmp_path / "weights", write)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        raise RuntimeError("Some tensors share memory")

    with pytest.raises(RuntimeError, match="share memory"):
        write_whole(tmp_path / "weights", write)
