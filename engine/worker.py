"""The engine threads, one per device: each alone touches its painters. The event loop hands them jobs that paint well together, and never waits."""

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


Load = Callable[[], Painter]


class Lane:
    """A device: its thread, its usual painter, and those of `others` that were asked for here, by their names.

    `others` is looked at whenever a job begins: another loader than the one that loaded a painter stands for a newer model.
    """

    def __init__(self, load: Load, others: Mapping[str, Load] | None = None) -> None:
        self.load = load
        # Not a copy, and also where it is empty: models come and go.
        self.others = {} if others is None else others
        self.engine = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self.painter: Painter | None = None
        self.loaded: dict[str, Painter] = {}
        self.loaders: dict[str, Load] = {}
        """What loaded these painters."""

    @property
    def painters(self) -> list[Painter]:
        """Everything that is loaded here, the usual one first."""
        return [*([self.painter] if self.painter else []), *self.loaded.values()]

    async def do(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on the device's thread."""
        return await asyncio.get_running_loop().run_in_executor(self.engine, partial(work, *args, **kwargs))


class Worker:
    """Serves a queue on one thread per device: with the usual painter of `load`, or with one of `others`; `more` are further devices."""

    def __init__(
        self,
        queue: Queue,
        history: History,
        load: Load,
        preview_every_s: float = 2.0,
        others: Mapping[str, Load] | None = None,
        more: Sequence[Lane] = (),
    ) -> None:
        self._queue = queue
        self._history = history
        self._preview_every_s = preview_every_s
        self._lanes = [Lane(load, others), *more]
        queue.devices = len(self._lanes)
        self._stopping = threading.Event()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Load the painters, then serve the queue until cancelled. Jobs that run then stop between two steps and wait for the next start.

        Raises:
            Misconfigured: a usual painter cannot be loaded.
        """
        tasks = [asyncio.create_task(self._run(lane)) for lane in self._lanes]
        try:
            await asyncio.gather(*tasks)
        finally:
            self._stopping.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in self._lanes:
                lane.engine.shutdown(wait=False, cancel_futures=True)

    async def _run(self, lane: Lane) -> None:
        lane.painter = await lane.do(self._loaded_by, lane.load)
        self.ready.set()
        while True:
            await self._serve(lane, lane.painter, await self._queue.next())

    # Painters.

    @property
    def painter(self) -> Painter | None:
        """The usual painter, once it is loaded on some device."""
        return next((lane.painter for lane in self._lanes if lane.painter is not None), None)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be asked for, the usual one first; it is not known while that is being loaded."""
        return tuple(dict.fromkeys([*([self.painter.model] if self.painter else []), *self._lanes[0].others]))

    def painter_of(self, model: str) -> Painter | None:
        """Return a painter by its model's name; the usual one for an empty or unknown name, None for one that is not loaded yet."""
        if model not in self._lanes[0].others:
            return self.painter
        return next((lane.loaded[model] for lane in self._lanes if model in lane.loaded), None)

    def painter_in(self, space: str) -> Painter | None:
        """Return a loaded painter whose CLIP is that of a space."""
        loaded = [painter for lane in self._lanes for painter in lane.painters]
        return next((painter for painter in loaded if space and painter.space == space), None)

    async def embed_texts(self, painter: Painter, texts: Sequence[str]) -> list[bytes]:
        """Embed texts between two jobs; see `engine.jobs.Painter`."""
        return await self._lane_of(painter).do(painter.embed_texts, texts)

    async def embed_picture(self, painter: Painter, picture: bytes) -> bytes:
        """Embed a picture between two jobs.

        Raises:
            InvalidRequest: it cannot be read.
        """
        return await self._lane_of(painter).do(painter.embed_picture, picture)

    def _lane_of(self, painter: Painter) -> Lane:
        """Return where a painter lives; one that was let go meanwhile may work anywhere."""
        return next((lane for lane in self._lanes if any(painter is other for other in lane.painters)), self._lanes[0])

    def _right_painter(self, lane: Lane, usual: Painter, model: str) -> Painter:
        """Run on a lane's thread: return the painter that a request asks for, loaded now where it was not. What is no longer offered is let go.

        Raises:
            Misconfigured: it cannot be loaded.
        """
        for name in [name for name in lane.loaded if lane.others.get(name) != lane.loaders[name]]:
            del lane.loaded[name]
        load = lane.others.get(model)
        if load is None:
            return usual
        if model not in lane.loaded:
            lane.loaders[model], lane.loaded[model] = load, self._loaded_by(load)
        return lane.loaded[model]

    def _loaded_by(self, load: Load) -> Painter:
        """Run on a lane's thread: load a painter, and note how long it took, where that is still of interest.

        Raises:
            Misconfigured: it cannot be loaded.
        """
        started = time.monotonic()
        painter = load()
        if not self._stopping.is_set():
            log.info("model %s loaded in %.1f s", painter.model, time.monotonic() - started)
        return painter

    async def _serve(self, lane: Lane, usual: Painter, first: Job) -> None:
        """Serve a job, and those that may join it, until nobody is left."""
        load = lane.others.get(first.request.model)
        company: Company | None = None
        under_way: dict[Ticket, Job] = {}
        job: Job | None = first
        while job is not None or under_way:
            if job is not None:
                company = await self._take_on(lane, usual, job, company, under_way)
            if company is not None:
                await self._step(lane, company, under_way)
            may_join = company is not None and bool(under_way) and company.has_room
            job = self._queue.next_if(lambda job: lane.others.get(job.request.model) == load) if may_join else None

    async def _step(self, lane: Lane, company: Company, under_way: dict[Ticket, Job]) -> None:
        """Have a company paint for a moment. A thread cannot be cancelled: at a stop it is told to, and waited for."""
        painting = asyncio.ensure_future(self._paint_on(lane, company, under_way))
        try:
            await asyncio.shield(painting)
        except asyncio.CancelledError:
            self._stopping.set()
            await asyncio.wait([painting])
            await self._drop_cancelled(company, under_way)
            raise

    async def _paint_on(self, lane: Lane, company: Company, under_way: dict[Ticket, Job]) -> None:
        """Have a company paint for a moment, and note what came of it."""
        await self._drop_cancelled(company, under_way)
        try:
            done = await lane.do(company.step) if under_way else ()
        except Exception as error:
            for ticket, job in under_way.items():
                company.drop(ticket)
                await self._give_up(job, error)
            under_way.clear()
            return
        for ticket in done:
            await self._finish(lane, under_way.pop(ticket), ticket)

    async def _drop_cancelled(self, company: Company, under_way: dict[Ticket, Job]) -> None:
        """End the jobs that are called off, and may not get to a step that tells them."""
        for ticket, job in list(under_way.items()):
            if job.cancelled:
                company.drop(ticket)
                del under_way[ticket]
                await self._give_up(job, Cancelled())

    async def _take_on(self, lane: Lane, usual: Painter, job: Job, company: Company | None, under_way: dict[Ticket, Job]) -> Company | None:
        """Begin a job in a company, the painter's own where there is none yet, and return that."""
        loop = asyncio.get_running_loop()

        def begin() -> tuple[Company, Ticket]:
            joined = self._right_painter(lane, usual, job.request.model).company() if company is None else company
            return joined, joined.join(job.request, partial(self._report, job, loop, Reported.now()))

        try:
            await self._history.start(job)
            company, ticket = await lane.do(begin)
            under_way[ticket] = job
        except Exception as error:
            await self._give_up(job, error)
        return company

    async def _finish(self, lane: Lane, job: Job, ticket: Ticket) -> None:
        """Note what a job came to."""
        try:
            if ticket.error is not None:
                raise ticket.error
            assert ticket.result is not None
            if job.cancelled:
                # There was no step left to stop at.
                raise Cancelled
            painting = replace(ticket.result, seconds=ticket.busy_s)
            await lane.do(self._history.store, job, painting)
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
        """Run on a lane's thread: tell the loop how far a job is, not too often, and stop it where it is to be stopped.

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
