"""Work that is played back is the work that would have been done; without a GPU, a stand-in does it again where a graph would."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.unclip import recording
from engine.unclip.recording import Playback


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let there be recordings without a GPU; return how often one was played."""
    played: list[int] = []

    class Graph:
        """Does its work again where CUDA's would repeat it."""

        def __init__(self, work: Callable[[], None], pool: object) -> None:
            self.work = work
            work()

        def replay(self) -> None:
            played.append(1)
            self.work()

    monkeypatch.setattr(recording, "record", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    return played


MEMORY: dict[tuple[int, ...], Tensor] = {}


def scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    """Multiply, and leave the result in the same place each time, as a recording does."""
    place = MEMORY.setdefault((*x.shape, factor is None), torch.empty_like(x))
    return torch.mul(x, torch.tensor(3.0) if factor is None else factor, out=place)


def test_what_is_played_back_is_the_functions_result_for_what_is_given(played: list[int]) -> None:
    ask = Playback(scaled)
    results = []
    for value in range(5):
        x, factor = torch.full((2, 3), float(value)), torch.full((2, 1), value + 1.0)
        results.append(ask(x, factor))
        assert torch.equal(ask(x, None), x * 3)
    # The first one lies where the function left it.
    assert [float(result[0, 0]) for result in results[1:]] == [value * (value + 1) for value in range(1, 5)], (
        "a result was overwritten by a later one"
    )
    assert len(played) == 8, "each of two shapes is done as usual once, then played"


def test_the_oldest_recording_is_forgotten_and_made_again(played: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDINGS", 2)
    ask = Playback(scaled)
    for rows in (1, 1, 2, 2, 3, 3, 1, 1):
        assert torch.equal(ask(torch.ones(rows), None), torch.full((rows,), 3.0))
    assert len(played) == 4 and len(ask._recordings) == 2


def test_where_nothing_can_be_recorded_the_work_is_done_as_usual(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine can record")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    ask = Playback(scaled)
    for value in range(4):
        assert torch.equal(ask(torch.tensor([float(value)]), None), torch.tensor([3.0 * value]))
    assert not ask.is_on and caplog.text.count("goes on without recordings") == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_a_gpu_plays_back_the_same_bits() -> None:
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1, device="cuda")
    ask = Playback(convolution)
    for _ in range(4):
        x = torch.randn(2, 8, 16, 16, device="cuda")
        assert torch.equal(ask(x), convolution(x))
    assert ask.is_on
