"""Several requests painted at once: walks through the same network take their steps in one batch, and join and leave between two steps.

The oldest request says which network works next. Others that are at the same network come along, the oldest first, where that makes more rows
a second: on a device that one request fills they wait in turn, which is sooner for everybody than sharing.
"""

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import nn

from engine.unclip.memory import Lodging
from engine.unclip.sampling import Network, Prediction, Walk

STRETCH_S = 0.05
"""How long steps are taken before somebody may join: short beside what people wait, long beside what it costs to look."""
GAIN = 1.05
"""How many times more rows a second a larger batch must make than a smaller one."""
SMOOTHING = 0.3
"""Weight of the latest measurement in the running mean of a batch's seconds."""
STALE_AFTER_S = 60.0
"""When a size that was not worth it is tried again: what else the machine does changes."""
SEATS = 8
"""Requests that are under way at most: who comes later waits in the queue, which is fair."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a course: a walk to be walked to its end with a network, which `ask` asks."""

    network: nn.Module
    ask: Network[Any]
    walk: Walk[Any]


Course = Generator[Leg, None, R]
"""What it takes to paint something: yields each walk and goes on when that is done. Runs under `torch.inference_mode`."""


@dataclass(eq=False, slots=True)
class Member(Generic[R]):
    """A course on its way, the walk that it is at, and how many seconds of the device it took; then what it came to."""

    course: Course[R]
    leg: Leg = field(init=False)
    busy_s: float = 0.0
    result: R | None = None
    error: Exception | None = None
    is_done: bool = False


class Paces:
    """Measured seconds of a step of so many rows, and when that was."""

    def __init__(self) -> None:
        self._seconds: dict[int, tuple[float, float]] = {}
        self.total_s = 0.0
        self._alone_at: float | None = None
        """When somebody was left behind last."""

    def may_share(self, now: float) -> bool:
        """Whether another walk would come along, as far as is known."""
        return self._alone_at is None or now - self._alone_at >= STALE_AFTER_S

    def note(self, rows: int, seconds: float, now: float) -> None:
        """Note a measurement; times are seconds of one clock."""
        known = self._seconds.get(rows)
        self._seconds[rows] = (seconds if known is None else (1 - SMOOTHING) * known[0] + SMOOTHING * seconds, now)

    def best(self, sizes: Sequence[int], now: float) -> int:
        """Return which of the sizes, in growing order, to take: the first that is not known, else the smallest of the fastest ones."""
        index = self._best(sizes, now)
        if len(sizes) > 1:
            self._alone_at = now if index < len(sizes) - 1 else None
        return index

    def _best(self, sizes: Sequence[int], now: float) -> int:
        chosen, fastest = 0, 0.0
        for index, rows in enumerate(sizes):
            seconds, at = self._seconds.get(rows, (0.0, -math.inf))
            if now - at >= STALE_AFTER_S:
                return index
            if rows / seconds > fastest * GAIN:
                chosen, fastest = index, rows / seconds
        return chosen


class Company(Generic[P, R]):
    """Courses that are under way with one model, which `begin` begins. One thread at a time. `paces` is what is known of its networks."""

    def __init__(self, lodging: Lodging, begin: Callable[P, Course[R]], paces: dict[nn.Module, Paces]) -> None:
        self._lodging, self._begin, self._paces = lodging, begin, paces
        self._members: list[Member[R]] = []

    @property
    def has_room(self) -> bool:
        """Whether another course would come along with those that are under way, rather than wait here instead of in the queue."""
        slowest = max(self._paces.values(), key=lambda paces: paces.total_s, default=None)
        return len(self) < SEATS and (not self._members or slowest is None or slowest.may_share(time.monotonic()))

    def __len__(self) -> int:
        return len(self._members)

    @torch.inference_mode()
    def join(self, *args: P.args, **kwargs: P.kwargs) -> Member[R]:
        """Begin a course; what it ends with, or the exception that it raises, is in what is returned.

        Raises:
            EngineError: it cannot be begun.
        """
        started = time.perf_counter()
        course = self._begin(*args, **kwargs)
        member = Member(course)
        try:
            member.leg = next(course)
        except StopIteration as end:
            # Nothing was left to be walked.
            member.result, member.is_done = end.value, True
        member.busy_s = time.perf_counter() - started
        self._members.append(member)
        return member

    @torch.inference_mode()
    def step(self) -> list[Member[R]]:
        """Take steps for a moment, until somebody's walk is done at the latest; return who is done altogether, well or not."""
        if done := self._leave():
            return done
        together = self._chosen()
        network, rows = together[0].leg.network, sum(member.leg.walk.told.rows for member in together)
        paces = self._paces.setdefault(network, Paces())
        with self._lodging.visit(network):
            started, taken = time.perf_counter(), 0
            while not any(member.is_done or member.leg.walk.is_done for member in together):
                self._advance(together)
                taken += 1
                # Weights that came to visit stay for the whole walk: moving them takes longer than many steps.
                if self._lodging.is_resident and time.perf_counter() - started > STRETCH_S:
                    break
            if self._lodging.device.type == "cuda":
                torch.cuda.synchronize(self._lodging.device)
            elapsed = time.perf_counter() - started
        if taken:
            paces.note(rows, elapsed / taken, time.monotonic())
            paces.total_s += elapsed
        for member in together:
            member.busy_s += elapsed * member.leg.walk.told.rows / rows
            if not member.is_done and member.leg.walk.is_done:
                self._go_on(member)
        return self._leave()

    def drop(self, member: Member[R]) -> None:
        """End a course between two steps."""
        member.course.close()
        self._members.remove(member)

    def _leave(self) -> list[Member[R]]:
        """Take leave of who is done."""
        done = [member for member in self._members if member.is_done]
        self._members = [member for member in self._members if not member.is_done]
        return done

    def _chosen(self) -> list[Member[R]]:
        """Return who takes the next steps: the oldest, and those at the same network who are worth it."""
        network = self._members[0].leg.network
        same = [member for member in self._members if member.leg.network is network]
        sizes = list(itertools.accumulate(member.leg.walk.told.rows for member in same))
        return same[: self._paces.setdefault(network, Paces()).best(sizes, time.monotonic()) + 1]

    def _advance(self, together: list[Member[R]]) -> None:
        """Take one step of each; whoever stops or fails does so alone."""
        for member in together:
            member.leg.walk.enter()
        for member, prediction in zip(together, self._asked(together), strict=True):
            if isinstance(prediction, Exception):
                self._end(member, prediction)
                continue
            try:
                member.leg.walk.take(prediction)
            except Exception as error:
                self._end(member, error)

    def _asked(self, together: list[Member[R]]) -> Iterator[Prediction | Exception]:
        """Ask the network for all at once; where that fails, one after the other, to find out whose fault it is."""
        walks: list[Walk[object]] = [member.leg.walk for member in together]
        ask = together[0].leg.ask
        try:
            yield from ask(walks)
            return
        except Exception as error:
            if len(walks) == 1:
                yield error
                return
        for walk in walks:
            try:
                yield ask([walk])[0]
            except Exception as error:
                yield error

    def _go_on(self, member: Member[R]) -> None:
        """Let a course work up what its walk came to, and begin its next one."""
        started = time.perf_counter()
        try:
            member.leg = next(member.course)
        except StopIteration as end:
            member.result, member.is_done = end.value, True
        except Exception as error:
            self._end(member, error)
        member.busy_s += time.perf_counter() - started

    def _end(self, member: Member[R], error: Exception) -> None:
        member.error, member.is_done = error, True
        member.course.close()
