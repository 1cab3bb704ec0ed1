"""Where weights live between two uses: on the device that computes, or on the host, from where they visit it one module at a time."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import Misconfigured

log = logging.getLogger(__name__)

WORKSPACE_BYTES = 3 * 2**30
"""Left free beside resident weights: what a batch of nine pictures of LAION's sizes needs while it is painted, counted by
`python -m tests.benchmarks.memory`, and a margin."""


@dataclass(frozen=True, slots=True)
class Lodging:
    """A device, and whether weights stay on it."""

    device: torch.device
    is_resident: bool

    @property
    def home(self) -> torch.device:
        """Where weights are loaded to."""
        return self.device if self.is_resident else torch.device("cpu")

    @contextlib.contextmanager
    def visit(self, *modules: nn.Module) -> Iterator[None]:
        """Have modules on the device for a while; only their copies leave it again, for weights do not change."""
        if self.is_resident:
            yield
            return
        parts = [part for module in modules for part in (*module.parameters(), *module.buffers())]
        at_home = [part.data for part in parts]
        try:
            for part in parts:
                part.data = part.data.to(self.device, copy=True, non_blocking=True)
            yield
        finally:
            for part, data in zip(parts, at_home, strict=True):
                part.data = data


BUCKETS = (1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32)
"""Rows of the batches that networks see; above, multiples of the difference of the last two. Grids of 1, 2, 3, 4 and 9 fill theirs, guided or not."""


def bucket(rows: int) -> int:
    """Return the size of the batch that so many rows are brought to.

    How a device adds up a row hangs on the size of the batch, not on what else is in it: with few sizes a seed gives the same picture to the bit
    whoever else is painted for.
    """
    stride = BUCKETS[-1] - BUCKETS[-2]
    return next((size for size in BUCKETS if size >= rows), -(-rows // stride) * stride)


Rows = slice | Tensor
"""Which rows of a batch: neighbours, or indices."""


class Room:
    """How many rows of a batch a network takes at once: as many as come, until memory does not suffice."""

    def __init__(self) -> None:
        self.most: int | None = None

    def fill(self, rows: int, answer: Callable[[Rows], Tensor], device: torch.device) -> Tensor:
        """Have all rows answered, in as few parts as memory takes; the last row of a part is repeated until that fills its bucket.

        Raises:
            torch.OutOfMemoryError: it does not take a single one.
        """
        while True:
            most = min(self.most or rows, rows)
            try:
                parts = [self._part(first, min(most, rows - first), answer, device) for first in range(0, rows, most)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
            except torch.OutOfMemoryError:
                if most == 1:
                    raise
                self.most = (most + 1) // 2
                log.warning("out of memory with %d rows: %d at once from now on", most, self.most)
            torch.cuda.empty_cache()

    @staticmethod
    def _part(first: int, count: int, answer: Callable[[Rows], Tensor], device: torch.device) -> Tensor:
        whole = bucket(count)
        if whole == count:
            return answer(slice(first, first + count))
        return answer(torch.arange(first, first + whole, device=device).clamp(max=first + count - 1))[:count]


def choose_lodging(device: torch.device, weights_bytes: int, memory: str) -> Lodging:
    """Decide where weights live: `memory` is "resident", "offload" or "auto", which lets them stay where they fit.

    Raises:
        Misconfigured: `memory` is something else.
    """
    if memory not in ("auto", "resident", "offload"):
        raise Misconfigured(f"memory is '{memory}'; it must be auto, resident or offload.")
    if memory != "auto":
        return Lodging(device, memory == "resident")
    if device.type != "cuda":
        return Lodging(device, is_resident=True)
    free, _ = torch.cuda.mem_get_info(device)
    return Lodging(device, weights_bytes + WORKSPACE_BYTES <= free)


def described(device: torch.device) -> str:
    """Say what a device is and how much memory it has."""
    if device.type != "cuda":
        return f"CPU with {torch.get_num_threads()} threads"
    free, total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)} ({device}), {total / 2**30:.0f} GiB, {free / 2**30:.0f} free"
