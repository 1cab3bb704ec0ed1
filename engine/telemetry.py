"""How the bot fares, for programs that watch over it: /health and Prometheus's /metrics, for this machine only."""

import asyncio
import collections
import contextlib
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from engine.errors import EngineError, Misconfigured
from engine.history import History
from engine.jobs import UNFINISHED, Job, Kind, Origin, Painter, Painting, Progress, Request, State
from engine.queue import Limits, Queue

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What this machine may be called by who asks; another name was made to point here (DNS rebinding)."""
PAINTING_S = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
WAITING_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
SILENT_S = 600.0
"""No painter takes so long for one step: one that does not report meanwhile hangs."""
BEAT_S = 0.5
BEATS = 120
"""A minute of them: whoever asks every 30 seconds hears of every time that the loop was late."""
LATE_S = 3.0
"""Discord waits so long for an answer; a loop that is later serves nobody."""


class Loaded(Protocol):
    """What is to be known of the worker."""

    @property
    def painter(self) -> Painter | None: ...


class Connection(Protocol):
    """What is to be known of Discord."""

    @property
    def connected(self) -> bool: ...

    @property
    def latency(self) -> float: ...


class Counts:
    """What has happened since the start, as Prometheus counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._jobs = Counter("reverie_jobs", "Jobs that came into a state since the start", ["kind", "state"], registry=self.registry)
        self._waited = Histogram("reverie_queue_wait_seconds", "From asking to painting", buckets=WAITING_S, registry=self.registry)
        self._painted = Histogram("reverie_painting_seconds", "Painting a job", ["kind"], buckets=PAINTING_S, registry=self.registry)
        for kind in Kind:
            self._painted.labels(kind)
            for state in State:
                # What has not happened yet is counted too, as 0: the first time is a rise like others.
                self._jobs.labels(kind, state)

    def came(self, job: Job, state: State) -> None:
        """Count a job that came into a state."""
        self._jobs.labels(job.request.kind, state).inc()

    def waited(self, job: Job) -> None:
        """Count how long a job waited until now."""
        self._waited.observe(max(time.time() - job.created_at, 0.0))

    def took(self, job: Job, painting: Painting) -> None:
        """Count how long a job was painted."""
        self._painted.labels(job.request.kind).observe(painting.seconds)


class CountingQueue(Queue):
    """A queue that counts what becomes of its jobs, and notes when the engine was last heard of."""

    def __init__(self, history: History, limits: Limits, counts: Counts) -> None:
        super().__init__(history, limits)
        self._counts = counts
        self._heard_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """For how long the engine has not reported on the job that it paints; 0 where it has none."""
        return time.monotonic() - self._heard_at if any(job.state is State.PAINTING for job in self.unfinished) else 0.0

    async def submit(self, request: Request, origin: Origin, parent: int | None = None, source: int | None = None) -> Job:
        """Take in a request, and count it."""
        job = await super().submit(request, origin, parent, source)
        self._counts.came(job, State.WAITING)
        return job

    def begin(self, job: Job) -> Job:
        """Take a job out of the line, and count how long it waited."""
        super().begin(job)
        self._heard_at = time.monotonic()
        self._counts.came(job, State.PAINTING)
        self._counts.waited(job)
        return job

    def report(self, job: Job, progress: Progress, preview: bytes | None) -> None:
        """Note how far a job is, and that the engine was heard of."""
        self._heard_at = time.monotonic()
        super().report(job, progress, preview)

    async def painted(self, job: Job, painting: Painting) -> None:
        """Note that a job's pictures are there, and count them."""
        await super().painted(job, painting)
        self._counts.came(job, State.PAINTED)
        self._counts.took(job, painting)

    async def failed(self, job: Job, error: EngineError) -> None:
        """Note that a job ends without a result, and count it even where this cannot be written down."""
        try:
            await super().failed(job, error)
        finally:
            self._counts.came(job, job.state)

    async def kept(self, job: Job) -> None:
        """Note that no place took a result, and count it."""
        await super().kept(job)
        self._counts.came(job, State.KEPT)

    async def delivered(self, job: Job, message_id: int) -> None:
        """Note that a result was posted, and count it."""
        await super().delivered(job, message_id)
        self._counts.came(job, State.DELIVERED)


class Pulse:
    """How late the event loop is, over the last minute."""

    def __init__(self) -> None:
        self._late_s: collections.deque[float] = collections.deque([0.0], maxlen=BEATS)
        self._due = time.monotonic() + BEAT_S

    @property
    def latest_s(self) -> float:
        """Seconds that the last beat came late, or that the one which is due is late already."""
        return max(self._late_s[-1], time.monotonic() - self._due)

    @property
    def worst_s(self) -> float:
        """The most of the last minute."""
        return max(*self._late_s, self.latest_s)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._late_s.append(max(time.monotonic() - self._due, 0.0))


class Telemetry:
    """Answers those who watch over the bot; what it is now is looked up when somebody asks."""

    def __init__(self, counts: Counts, queue: CountingQueue, worker: Loaded, bot: Connection, folder: Path) -> None:
        self._registry = counts.registry
        self._queue = queue
        self._worker = worker
        self._bot = bot
        self._folder = folder
        self._pulse = Pulse()
        counts.registry.register(self)

    def failing(self) -> list[str]:
        """Name the parts that keep the bot from serving: discord, model, engine, loop."""
        parts = {
            "discord": self._bot.connected,
            "model": self._worker.painter is not None,
            "engine": self._queue.silent_s < SILENT_S,
            "loop": self._pulse.worst_s < LATE_S,
        }
        return [name for name, is_well in parts.items() if not is_well]

    def collect(self) -> Iterator[Metric]:
        """Give Prometheus what is looked up and not counted."""
        states = collections.Counter(job.state for job in self._queue.unfinished)
        unfinished = GaugeMetricFamily("reverie_unfinished_jobs", "Jobs that wait, are painted or are delivered just now", labels=["state"])
        for state in UNFINISHED:
            unfinished.add_metric([state], states[state])
        yield unfinished
        model = GaugeMetricFamily("reverie_model_info", "1 for the model that is loaded", labels=["model"])
        if self._worker.painter is not None:
            model.add_metric([self._worker.painter.model], 1)
        yield model
        asked = CounterMetricFamily(
            "reverie_cache_asked", "How often the usual model looked for what it may have worked out before", labels=["cache"]
        )
        known = CounterMetricFamily("reverie_cache_known", "How often it found that", labels=["cache"])
        for name, (times_asked, times_known) in (self._worker.painter.cached if self._worker.painter is not None else {}).items():
            asked.add_metric([name], times_asked)
            known.add_metric([name], times_known)
        yield from (asked, known)
        files = [path.stat().st_size for path in self._folder.glob("reverie.db*")]
        # discord.py says infinity before the first heartbeat; one such value spoils every average.
        latency = self._bot.latency if math.isfinite(self._bot.latency) else math.nan
        for name, text, value in (
            ("discord_connected", "1 while every connection to Discord stands", self._bot.connected),
            ("discord_latency_seconds", "From a heartbeat to Discord's answer, NaN before the first", latency),
            ("engine_silent_seconds", "Since the engine reported on the job that it paints, 0 without one", self._queue.silent_s),
            ("event_loop_late_seconds", "How late the event loop is", self._pulse.latest_s),
            ("event_loop_latest_minute_seconds", "The latest that the event loop was in the last minute", self._pulse.worst_s),
            ("database_bytes", "Size of the database with its journal", sum(files)),
            ("disk_free_bytes", "Room on the disk of the data folder", shutil.disk_usage(self._folder).free),
        ):
            yield GaugeMetricFamily(f"reverie_{name}", text, float(value))

    @contextlib.asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        """Answer on a port of this machine while a block runs; 0 answers nowhere.

        Raises:
            Misconfigured: the port cannot be had.
        """
        if not port:
            yield
            return
        app = web.Application(middlewares=[only_this_machine])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        pulse = asyncio.create_task(self._pulse.run())
        try:
            try:
                await web.TCPSite(runner, HOST, port).start()
            except OSError as error:
                raise Misconfigured(f"Port {port} of this machine is taken ({error.strerror}). Set another metrics_port, or 0 for none.") from None
            yield
        finally:
            pulse.cancel()
            await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        failing = self.failing()
        return web.json_response({"status": "failing" if failing else "ok", "failing": failing}, status=503 if failing else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@web.middleware
async def only_this_machine(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Answer nobody who calls this machine by another machine's name."""
    if request.headers.get("Host", "").partition(":")[0] not in NAMES:
        return web.Response(status=403, text="Only this machine may ask.\n")
    return await handler(request)
