"""The engine thread: the only one that touches a painter. The event loop hands it jobs that paint well together, and is never blocked by it."""

import asyncio
import concurrent.futures
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from engine.errors import Broken, Cancelled, EngineError, Misconfigured
from engine.history import History
from engine.jobs import Company, Job, Painter, Progress, Ticket
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
    """Serves a queue on one thread: with the usual painter, or with one of `others`, loaded when they are first asked for, by their names.

    `others` is looked at whenever a job begins: another loader than the one that loaded a painter stands for a newer model.
    """

    def __init__(
        self,
        queue: Queue,
        history: History,
        load: Callable[[], Painter],
        preview_every_s: float = 2.0,
        others: Mapping[str, Callable[[], Painter]] | None = None,
    ) -> None:
        self._queue = queue
        self._history = history
        self._load = load
        self._preview_every_s = preview_every_s
        self._engine = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._stopping = threading.Event()
        # Not a copy, and also where it is empty: models come and go.
        self._others = {} if others is None else others
        self._loaded: dict[str, Painter] = {}
        self._loaders: dict[str, Callable[[], Painter]] = {}
        """What loaded these painters."""
        self.painter: Painter | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Load the painter, then serve the queue until cancelled. The job that runs then stops between two steps and waits for the next start.

        Raises:
            Misconfigured: the painter cannot be loaded.
        """
        try:
            self.painter = await asyncio.get_running_loop().run_in_executor(self._engine, self._loaded_by, self._load)
            self.ready.set()
            while True:
                await self._serve(self.painter, await self._queue.next())
        finally:
            self._stopping.set()
            self._engine.shutdown(wait=False, cancel_futures=True)

    # Painters.

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be asked for, the usual one first; it is not known while that is being loaded."""
        return tuple(dict.fromkeys([*([self.painter.model] if self.painter else []), *self._others]))

    def painter_of(self, model: str) -> Painter | None:
        """Return a painter by its model's name; the usual one for an empty or unknown name, None for one that is not loaded yet."""
        return self._loaded.get(model) if model in self._others else self.painter

    def painter_in(self, space: str) -> Painter | None:
        """Return a loaded painter whose CLIP is that of a space."""
        loaded = [*([self.painter] if self.painter else []), *self._loaded.values()]
        return next((painter for painter in loaded if space and painter.space == space), None)

    async def embed_texts(self, painter: Painter, texts: Sequence[str]) -> list[bytes]:
        """Embed texts between two jobs; see `engine.jobs.Painter`."""
        return await asyncio.get_running_loop().run_in_executor(self._engine, painter.embed_texts, texts)

    async def embed_picture(self, painter: Painter, picture: bytes) -> bytes:
        """Embed a picture between two jobs.

        Raises:
            InvalidRequest: it cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._engine, painter.embed_picture, picture)

    def _right_painter(self, usual: Painter, model: str) -> Painter:
        """Run on the engine thread: return the painter that a request asks for, loaded now where it was not. What is no longer offered is let go.

        Raises:
            Misconfigured: it cannot be loaded.
        """
        for name in [name for name in self._loaded if self._others.get(name) != self._loaders[name]]:
            del self._loaded[name]
        load = self._others.get(model)
        if load is None:
            return usual
        if model not in self._loaded:
            self._loaders[model], self._loaded[model] = load, self._loaded_by(load)
        return self._loaded[model]

    def _loaded_by(self, load: Callable[[], Painter]) -> Painter:
        """Run on the engine thread: load a painter, and note how long it took, where that is still of interest.

        Raises:
            Misconfigured: it cannot be loaded.
        """
        started = time.monotonic()
        painter = load()
        if not self._stopping.is_set():
            log.info("model %s loaded in %.1f s", painter.model, time.monotonic() - started)
        return painter

    async def _serve(self, usual: Painter, first: Job) -> None:
        """Serve a job, and those that may join it, until nobody is left."""
        load = self._others.get(first.request.model)
        company: Company | None = None
        under_way: dict[Ticket, Job] = {}
        job: Job | None = first
        while job is not None or under_way:
            if job is not None:
                company = await self._take_on(usual, job, company, under_way)
            if company is not None:
                await self._step(company, under_way)
            may_join = company is not None and bool(under_way) and company.has_room
            job = self._queue.next_if(lambda job: self._others.get(job.request.model) is load) if may_join else None

    async def _step(self, company: Company, under_way: dict[Ticket, Job]) -> None:
        """Have a company paint for a moment. A thread cannot be cancelled: at a stop it is told to, and waited for."""
        painting = asyncio.ensure_future(self._paint_on(company, under_way))
        try:
            await asyncio.shield(painting)
        except asyncio.CancelledError:
            self._stopping.set()
            await asyncio.wait([painting])
            await self._drop_cancelled(company, under_way)
            raise

    async def _paint_on(self, company: Company, under_way: dict[Ticket, Job]) -> None:
        """Have a company paint for a moment, and note what came of it."""
        await self._drop_cancelled(company, under_way)
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._engine, company.step) if under_way else ()
        except Exception as error:
            for ticket, job in under_way.items():
                company.drop(ticket)
                await self._give_up(job, error)
            under_way.clear()
            return
        for ticket in done:
            await self._finish(under_way.pop(ticket), ticket)

    async def _drop_cancelled(self, company: Company, under_way: dict[Ticket, Job]) -> None:
        """End the jobs that are called off, and may not get to a step that tells them."""
        for ticket, job in list(under_way.items()):
            if job.cancelled:
                company.drop(ticket)
                del under_way[ticket]
                await self._give_up(job, Cancelled())

    async def _take_on(self, usual: Painter, job: Job, company: Company | None, under_way: dict[Ticket, Job]) -> Company | None:
        """Begin a job in a company, the painter's own where there is none yet, and return that."""
        loop = asyncio.get_running_loop()

        def begin() -> tuple[Company, Ticket]:
            joined = self._right_painter(usual, job.request.model).company() if company is None else company
            return joined, joined.join(job.request, partial(self._report, job, loop, Reported.now()))

        try:
            await self._history.start(job)
            company, ticket = await loop.run_in_executor(self._engine, begin)
            under_way[ticket] = job
        except Exception as error:
            await self._give_up(job, error)
        return company

    async def _finish(self, job: Job, ticket: Ticket) -> None:
        """Note what a job came to."""
        try:
            if ticket.error is not None:
                raise ticket.error
            assert ticket.result is not None
            if job.cancelled:
                # There was no step left to stop at.
                raise Cancelled
            painting = replace(ticket.result, seconds=ticket.busy_s)
            await asyncio.get_running_loop().run_in_executor(self._engine, self._history.store, job, painting)
            await self._queue.painted(job, painting)
            log.info("job %d: painted in %.1f s", job.id, painting.seconds)
        except Exception as error:
            if not (isinstance(error, Cancelled) and self._stopping.is_set() and not job.cancelled):
                await self._give_up(job, error)

    async def _give_up(self, job: Job, error: Exception) -> None:
        """Tell why a job ends without pictures; what nobody foresaw is told by a reference to the log."""
        if isinstance(error, Misconfigured):
            log.error("job %d: %s", job.id, error)
        elif isinstance(error, EngineError):
            log.info("job %d: %s", job.id, type(error).__name__)
        else:
            reference = f"{job.id}-{secrets.token_hex(2)}"
            log.error("job %d: failed, reference %s", job.id, reference, exc_info=error)
            error = Broken(reference)
        await self._fail(job, error)

    async def _fail(self, job: Job, error: EngineError) -> None:
        try:
            await self._queue.failed(job, error)
        except Exception:
            # A full disk, mostly. The queue has ended the job for those who wait, and the others are to be served.
            log.exception("job %d: its end cannot be written down, so the next start takes it up again", job.id)

    def _report(self, job: Job, loop: asyncio.AbstractEventLoop, reported: "Reported", progress: Progress) -> None:
        """Run on the engine thread: tell the loop how far a job is, not too often, and stop it where it is to be stopped.

        Raises:
            Cancelled: it is.
        """
        if job.cancelled or self._stopping.is_set():
            raise Cancelled
        now = time.monotonic()
        if now - reported.told < REPORT_EVERY_S and progress.done < progress.total:
            return
        preview = None
        if progress.preview is not None and now - reported.previewed >= self._preview_every_s:
            preview, reported.previewed = progress.preview(), now
        reported.told = now
        # The closure of the preview holds tensors: it stays on this thread.
        told = Progress(progress.stage, progress.done, progress.total)
        loop.call_soon_threadsafe(self._queue.report, job, told, preview)


@dataclass(slots=True)
class Reported:
    """When a job's progress was told and shown last, in seconds of the monotonic clock."""

    told: float
    previewed: float

    @classmethod
    def now(cls) -> "Reported":
        """Have the first report be told, and the first preview wait."""
        began = time.monotonic() - REPORT_EVERY_S
        return cls(began, began)
