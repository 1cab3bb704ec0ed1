"""A GPU's work, recorded and played back: asking for the hundreds of operations of a step one by one may take longer than they do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

RECORDINGS = 64
"""Kept at most: each takes some memory of the GPU beside what they share."""


def record(work: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph | None:
    """Record some work, which is not done meanwhile; None, and a warning, where that cannot be had. `pool` is the memory that recordings share."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            work()
    except RuntimeError as error:
        log.warning("the GPU goes on without recordings: %s", " ".join(str(error).split())[:200])
        return None
    return graph


@dataclass(eq=False, slots=True)
class Recording:
    """Where a function finds its tensors and leaves its result each time, and what plays it back, once there is that."""

    given: list[Tensor | None]
    result: Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None


class Playback:
    """A function of tensors whose work on a GPU is played back when shapes come again; equal to the bit, for the same operations run.

    The first time is as usual, which lets libraries set themselves up, the second is recorded: nobody waits longer than for a step. Where recording
    fails, everything goes on as usual.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recordings: dict[tuple[object, ...], Recording] = {}
        self._pool: Any = None
        self.is_on = True

    def __call__(self, *given: Tensor | None) -> Tensor:
        """Return what the function does, in memory of its own."""
        if not self.is_on:
            return self._function(*given)
        key = tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in given)
        if (known := self._recordings.get(key)) is None:
            while len(self._recordings) >= RECORDINGS:
                self._recordings.pop(next(iter(self._recordings)))
            self._recordings[key] = Recording([None if tensor is None else torch.empty_like(tensor) for tensor in given])
            return self._function(*given)
        for place, tensor in zip(known.given, given, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor)
        if known.graph is None and not self._record(known):
            return self._function(*given)
        assert known.graph is not None and known.result is not None
        known.graph.replay()
        return known.result.clone()

    def _record(self, recording: Recording) -> bool:
        """Record the function on a recording's own tensors; tell whether that was possible."""

        def work() -> None:
            recording.result = self._function(*recording.given)

        self._pool = self._pool or torch.cuda.graph_pool_handle()
        recording.graph = record(work, self._pool)
        if recording.graph is None:
            self.is_on = False
            self._recordings.clear()
        return self.is_on
