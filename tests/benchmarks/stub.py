"""A whole bot in a process of its own, with a painter that only takes its time: python -m tests.benchmarks.stub DATA API GATEWAY PACE_S

`PACE_S` are the seconds that a picture takes. The benchmarks of crowds and kills start it, look at its memory and kill it.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from cogs._client import Endpoint, Reverie
from engine.company import InTurn
from engine.history import History
from engine.jobs import Kind, Painting, Picture, Progress, Request
from engine.queue import Limits, Queue
from engine.worker import Worker
from tests.conftest import png

STEPS = 5


class Patience:
    """Paints plain pictures, each in `pace_s` seconds."""

    model = "patience"
    known_words = ()
    kinds = frozenset(Kind)
    cached = MappingProxyType({})

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s

    def company(self) -> InTurn:
        return InTurn(self.paint)

    def paint(self, request: Request, report: Callable[[Progress], None]) -> Painting:
        started = time.perf_counter()
        for step in range(1, STEPS + 1):
            time.sleep(self._pace_s * request.count / STEPS)
            report(Progress("base", step, STEPS))
        pictures = tuple(Picture(png((seed % 256, 100, 50)), seed, 8, 8) for seed in request.seeds)
        return Painting(pictures, self.model, STEPS, 1.0, time.perf_counter() - started)


async def run(folder: Path, endpoint: Endpoint, pace_s: float) -> None:
    """Run until killed."""
    history = await History.open(folder)
    queue = Queue(history, Limits(waiting=5000, per_user=5, per_server=5000))
    worker = Worker(queue, history, lambda: Patience(pace_s))
    async with Reverie(queue, history, worker, 2.0, endpoint) as bot:
        await asyncio.gather(bot.start("loopback"), worker.run())


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(run(Path(sys.argv[1]), Endpoint(sys.argv[2], sys.argv[3]), float(sys.argv[4])))
