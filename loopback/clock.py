"""Time that tests may push forward. Everything that expires asks this clock, never the machine's."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class Clock:
    """Follows the machine's time, plus whatever was skipped with `advance`."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the time here in Unix seconds."""
        return time.time() + self._skipped_s

    def advance(self, seconds: float) -> None:
        """Skip `seconds`; what falls due in them happens now."""
        self._skipped_s += seconds
        self._ring()

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Call `action` once, when this clock reaches `when`."""
        heapq.heappush(self._due, (when, next(self._order), action))
        self._ring()

    def stop(self) -> None:
        """Forget everything that was to happen."""
        self._due.clear()
        self._ring()

    def _ring(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        while self._due and self._due[0][0] <= self.now():
            heapq.heappop(self._due)[2]()
        if self._due:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, self._due[0][0] - self.now()) + 0.001, self._ring)
