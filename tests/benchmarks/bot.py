"""How the whole bot feels: loading, acknowledging, painting a grid, and whether the event loop stays free meanwhile.

    python -m tests.benchmarks.bot [--grids 5]

Runs the bot with the bundled model on Discord of this machine, in one process, as `make run` does without a token, asks for grids of four and
looks at the clock of the event loop every 5 ms.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from cogs._client import Endpoint, Reverie
from engine.history import History
from engine.jobs import Painter
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Loopback

MODEL = Path(__file__).parents[2] / "configs" / "picturebook" / "picturebook.json"
LOOK_EVERY_S = 0.005


class Clock:
    """Collects by how much the event loop was late."""

    def __init__(self) -> None:
        self.lags_s: list[float] = []

    async def run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(LOOK_EVERY_S)
            self.lags_s.append(time.perf_counter() - before - LOOK_EVERY_S)

    def show(self, title: str) -> None:
        """Print the lags since the last call."""
        ordered, self.lags_s = sorted(self.lags_s), []
        p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        print(f"{title:<28} lag p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {1000 * ordered[-1]:.0f} ms ({len(ordered)} looks)")


@contextlib.asynccontextmanager
async def beside(*parts: object) -> AsyncIterator[None]:
    """Run coroutines while a block lasts."""
    tasks = [asyncio.ensure_future(part) for part in parts]  # type: ignore[call-overload] # coroutines
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def load(seconds: dict[str, float]) -> Painter:
    """Load the bundled model, and note how long the libraries and the weights took."""
    started = time.perf_counter()
    from engine.unclip.painter import Painter as Unclip

    imported = time.perf_counter()
    painter = Unclip.from_config(MODEL)
    seconds |= {"libraries": imported - started, "weights": time.perf_counter() - imported}
    return painter


async def measure(grids: int, folder: Path) -> None:
    """Start the bot, ask for one grid after the other, and print."""
    clock, seconds = Clock(), dict[str, float]()
    history = await History.open(folder)
    queue = Queue(history, Limits(100, 100, 100))
    worker = Worker(queue, history, lambda: load(seconds))
    async with Loopback(folder=folder / "loopback") as server, Reverie(queue, history, worker, 2.0, Endpoint(server.api, server.gateway)) as bot:
        async with beside(clock.run(), bot.start(server.token), worker.run()):
            await worker.ready.wait()
            clock.show("while the model is loaded")
            print(f"libraries imported in {seconds['libraries']:.2f} s, weights loaded in {seconds['weights']:.2f} s")
            acknowledged, whole = [], []
            for number in range(grids):
                before = len(server.general.messages)
                started = time.perf_counter()
                asked = await server.command(server.ann, server.general, "dream", {"prompt": "a fox on a blue background", "seed": number})
                await asked.acknowledged.wait()
                acknowledged.append(time.perf_counter() - started)
                await server.wait_for(lambda number=number: any(f"reverie-{number + 1}." in str(m.raw) for m in server.general.messages), 300)
                whole.append(time.perf_counter() - started)
                await server.wait_for(lambda before=before: len(server.general.messages) == before + 1, 60)
            clock.show("while grids are painted")
    await history.close()
    print(f"acknowledged after median {1000 * statistics.median(acknowledged):.0f} ms, worst {1000 * max(acknowledged):.0f} ms")
    print(f"/dream to posted grid of 4: median {statistics.median(whole):.2f} s, {min(whole):.2f} to {max(whole):.2f} s, {grids} grids")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options.grids, Path(folder)))


if __name__ == "__main__":
    main()
