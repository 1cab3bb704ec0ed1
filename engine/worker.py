"""The engine thread: the only one that touches a painter. The event loop hands it one job at a time and is never blocked by it."""

import asyncio
import concurrent.futures
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from engine.errors import Broken, Cancelled, EngineError
from engine.history import History
from engine.jobs import Job, Painter, Painting, Progress
from engine.queue import Queue

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
REPORT_EVERY_S = 0.05
"""Between two reports to the loop; a fast painter takes hundreds of steps a second and nobody reads that fast."""


async def aside(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run short work that needs no painter, such as encoding a picture, beside the loop and beside the engine thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


class Worker:
    """Serves a queue with one painter on one thread."""

    def __init__(self, queue: Queue, history: History, load: Callable[[], Painter], preview_every_s: float = 2.0) -> None:
        self._queue = queue
        self._history = history
        self._load = load
        self._preview_every_s = preview_every_s
        self._stopping = threading.Event()
        self.painter: Painter | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Load the painter, then serve the queue until cancelled. The job that runs then stops between two steps and waits for the next start.

        Raises:
            Misconfigured: the painter cannot be loaded.
        """
        engine = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        loop = asyncio.get_running_loop()
        try:
            started = time.monotonic()
            painter = self.painter = await loop.run_in_executor(engine, self._load)
            log.info("model %s loaded in %.1f s", painter.model, time.monotonic() - started)
            self.ready.set()
            while True:
                job = await self._queue.next()
                await self._serve(job, loop.run_in_executor(engine, self._paint, painter, job, loop))
        finally:
            self._stopping.set()
            engine.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, job: Job, painted: "asyncio.Future[Painting]") -> None:
        try:
            # Shielded, because a thread cannot be cancelled: it is told to stop, and waited for.
            painting = await asyncio.shield(painted)
            await self._queue.painted(job, painting)
            log.info("job %d: painted in %.1f s", job.id, painting.seconds)
        except asyncio.CancelledError:
            self._stopping.set()
            await asyncio.wait([painted])
            if not painted.cancelled() and painted.exception() is None:
                await self._queue.painted(job, painted.result())
            raise
        except EngineError as error:
            log.info("job %d: %s", job.id, type(error).__name__)
            await self._queue.failed(job, error)
        except Exception:
            reference = f"{job.id}-{secrets.token_hex(2)}"
            log.exception("job %d: failed, reference %s", job.id, reference)
            await self._queue.failed(job, Broken(reference))

    def _paint(self, painter: Painter, job: Job, loop: asyncio.AbstractEventLoop) -> Painting:
        """Run on the engine thread: paint a job and write its pictures to disk."""
        reported = previewed = time.monotonic() - REPORT_EVERY_S

        def report(progress: Progress) -> None:
            nonlocal reported, previewed
            if job.cancelled or self._stopping.is_set():
                raise Cancelled
            now = time.monotonic()
            if now - reported < REPORT_EVERY_S and progress.done < progress.total:
                return
            preview = None
            if progress.preview is not None and now - previewed >= self._preview_every_s:
                preview, previewed = progress.preview(), now
            reported = now
            # The closure of the preview holds tensors: it stays on this thread.
            told = Progress(progress.stage, progress.done, progress.total)
            loop.call_soon_threadsafe(self._queue.report, job, told, preview)

        painting = painter.paint(job.request, report)
        self._history.store(job, painting)
        return painting
