from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.training.data.embed import Eye
from engine.training.data.shards import Making, Shards
from engine.training.data.sources import open_source
from tests.engine.training.drawing import CONFIG, SIDE

Make = Callable[..., dict]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are slower on several threads, and far slower where other tests use the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def eye() -> Eye:
    return Eye.from_config(CONFIG, "cpu")


@pytest.fixture
def make(eye: Eye) -> Make:
    """Make shards in this process."""

    def run(source: Path, out: Path, *, embed: bool = True, size: int = 10, side: int = SIDE, quality: int = 95) -> dict:
        made = Making(side, quality, size, eye.fingerprint() if embed else None)
        return Shards(out, open_source(source, None, (None, None), out), made, eye if embed else None).write()

    return run
