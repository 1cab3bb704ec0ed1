"""Who is next: fair between people, bounded, durable, cancellable, and honest about how long it takes. asyncio only.

Start-time fair queueing (Goyal et al. 1996): every job gets a start tag, the later of the queue's virtual time and the finish tag of the same
person's job before; its finish tag is the start tag plus its cost. The smallest start tag is served first. So a person who asks for ten
pictures delays nobody's first one by more than the job that is being painted, and who asks again as soon as one is done gets no more than others.

Of one person's, and of one server's, jobs only so many are in line at once. What is asked beyond that is accepted and held back until one of the
earlier ones is done.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import Cancelled, EngineError, QueueFull, TooManyJobs
from engine.history import History
from engine.jobs import Job, Kind, Origin, Painting, Progress, Request, State
from engine.options import EFFORTS

log = logging.getLogger(__name__)

DEFAULT_STEPS = 30
"""Steps that a request without any is taken to cost; only the ratio between jobs matters."""
TIMES = {Kind.INPAINT: 5, Kind.EDIT: 2}
"""How often each step is taken, where it is more than once."""
PRIOR_SHARE = 0.1
"""What a step of the prior costs, in those of a decoder: 11 ms instead of 108 with the bundled model, on a CPU that was busy with something else."""
SMOOTHING = 0.2
"""Weight of the latest job in the running mean of seconds per unit of cost."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs may wait in all, and how many of a person and of a server are in line at once; their others are held back.

    The last half of the places is for people who have fewer jobs than `per_user`: nobody can fill the queue alone.
    """

    waiting: int
    per_user: int
    per_server: int


def cost(request: Request) -> float:
    """Return what a request costs, in denoising steps of the base decoder."""
    effort = EFFORTS[request.preset]
    if request.kind in (Kind.EMBED, Kind.DRAWS):
        drawn = request.count if request.kind is Kind.DRAWS else request.candidates or effort.candidates
        return drawn * (request.prior_steps or DEFAULT_STEPS * effort.share) * PRIOR_SHARE
    # Who sets out from a picture walks to it first.
    times = 2 if request.strength is not None and request.kind is Kind.VARIATION else TIMES.get(request.kind, 1)
    return request.count * (request.base_steps or DEFAULT_STEPS * effort.share) * times


class Queue:
    """Everything that was asked and is not finished. Lives on the event loop."""

    def __init__(self, history: History, limits: Limits) -> None:
        self._history = history
        self._limits = limits
        self._jobs: dict[int, Job] = {}
        self._starts: dict[int, float] = {}
        """Start tags of the jobs that wait."""
        self._finishes: dict[int, float] = {}
        """Finish tag of each person's latest job, where the virtual time has not passed it."""
        self._held: list[int] = []
        """Jobs that wait until their person's or their server's earlier ones are done, in the order of asking."""
        self._places: dict[int, tuple[int, float]] | None = None
        """Place and cost up to there of every waiting job; None where it is to be worked out anew: hundreds ask for theirs again and again."""
        self._virtual_time = 0.0
        self._reserved: list[int] = []
        """People whose job is being written to SQLite just now: it counts already, so that nobody slips past a limit meanwhile."""
        self._seconds_per_cost: float | None = None
        self._painting_since: dict[int, float] = {}
        self.devices = 1
        """How many jobs are painted at a time without sharing a device."""
        self._filled = asyncio.Event()
        self.restored = asyncio.Event()
        """Set once this holds what an earlier run left unfinished."""

    @property
    def waiting(self) -> int:
        """How many jobs wait for the painter, in line or held back."""
        return len(self._starts) + len(self._held)

    @property
    def unfinished(self) -> list[Job]:
        """Every job that is waiting, being painted or being delivered, in the order in which they are served."""
        return sorted(self._jobs.values(), key=lambda job: (self.position(job), job.id))

    async def restore(self) -> list[Job]:
        """Take up what an earlier run left unfinished, in its order, and return it; limits do not apply to what was promised."""
        pace = await self._history.seconds_per_picture()
        self._seconds_per_cost = None if pace is None else pace / DEFAULT_STEPS
        jobs = await self._history.unfinished()
        for job in jobs:
            self._jobs[job.id] = job
            if job.state is State.WAITING:
                self._line_up(job)
        self._moved()
        self.restored.set()
        return jobs

    async def submit(self, request: Request, origin: Origin, parent: int | None = None, source: int | None = None) -> Job:
        """Put a request into the queue; once this returns, it is on disk and will be answered. For `parent` and `source` see `History.add`.

        Raises:
            QueueFull: as many jobs wait as may.
            TooManyJobs: half as many wait as may, and this person has jobs enough.
            Repeated: Discord told of this event before.
        """
        waiting = self.waiting + len(self._reserved)
        if waiting >= self._limits.waiting:
            raise QueueFull(self._limits.waiting)
        mine = sum(job.origin.user_id == origin.user_id for job in self._jobs.values()) + self._reserved.count(origin.user_id)
        if mine >= self._limits.per_user and waiting >= self._limits.waiting // 2:
            raise TooManyJobs(mine)
        self._reserved.append(origin.user_id)
        try:
            job = await self._history.add(request, origin, parent, source)
        finally:
            self._reserved.remove(origin.user_id)
        self._jobs[job.id] = job
        self._line_up(job)
        self._moved()
        log.info("job %d: queued, %d waiting", job.id, self.waiting)
        return job

    def _line_up(self, job: Job) -> None:
        """Put a job into the line, or hold it back where its person or its server has enough in there; nobody overtakes their own jobs."""
        if self._is_held_back(job):
            self._held.append(job.id)
            return
        start = max(self._virtual_time, self._finishes.get(job.origin.user_id, 0.0))
        self._starts[job.id] = start
        self._finishes[job.origin.user_id] = start + cost(job.request)
        self._filled.set()

    def _is_held_back(self, job: Job) -> bool:
        """Tell whether as many jobs of this person, or of this server, are in line or being painted as may be."""
        origin = job.origin
        active = [self._jobs[job_id].origin for job_id in self._starts]
        active += [other.origin for other in self._jobs.values() if other.state is State.PAINTING]
        mine = sum(other.user_id == origin.user_id for other in active)
        of_server = sum(other.guild_id == origin.guild_id for other in active) if origin.guild_id else 0
        return mine >= self._limits.per_user or of_server >= self._limits.per_server

    def _let_in(self) -> None:
        """Put those into the line that need not be held back any longer, the longest waiting first."""
        held, self._held = self._held, []
        for job_id in held:
            self._line_up(self._jobs[job_id])
        self._moved()

    def _order(self) -> list[int]:
        return sorted(self._starts, key=lambda job_id: (self._starts[job_id], job_id))

    def _moved(self) -> None:
        """Note that places have changed. Nobody is woken for it: who shows a place looks it up from time to time, and there may be thousands."""
        self._places = None

    def _place(self, job: Job) -> tuple[int, float]:
        """Return a job's place, 1 is next and 0 none, and the cost of all up to and with it."""
        if self._places is None:
            order = [*self._order(), *self._held]
            costs = itertools.accumulate(cost(self._jobs[job_id].request) for job_id in order)
            self._places = {job_id: (place, total) for place, (job_id, total) in enumerate(zip(order, costs, strict=True), start=1)}
        return self._places.get(job.id, (0, 0.0))

    async def next(self) -> Job:
        """Wait for the job whose turn it is; it counts as being painted from now on."""
        while not self._starts:
            # Where nobody waits, nobody was held up by what others got.
            self._finishes.clear()
            self._filled.clear()
            await self._filled.wait()
        return self.begin(self._jobs[self._order()[0]])

    def next_if(self, fits: Callable[[Job], bool]) -> Job | None:
        """Return the job whose turn it is, if there is one and it fits; then it counts as being painted from now on."""
        if not self._starts:
            return None
        job = self._jobs[self._order()[0]]
        return self.begin(job) if fits(job) else None

    def begin(self, job: Job) -> Job:
        """Take a job out of the line: it is being painted from now on."""
        self._virtual_time = self._starts.pop(job.id)
        # A tag that has been passed says nothing more, and the table must not grow for ever.
        self._finishes = {user_id: finish for user_id, finish in self._finishes.items() if finish > self._virtual_time}
        job.state = State.PAINTING
        self._painting_since[job.id] = time.monotonic()
        job.touch()
        self._moved()
        return job

    def position(self, job: Job) -> int:
        """Return a job's place: 1 is next, 0 is being painted or done."""
        return self._place(job)[0]

    def eta_s(self, job: Job) -> float | None:
        """Estimate the seconds until a job is painted; None before there is any experience."""
        if job.state not in (State.WAITING, State.PAINTING):
            return 0.0
        if self._seconds_per_cost is None:
            return None
        now, running = time.monotonic(), [other for other in self._jobs.values() if other.state is State.PAINTING]
        share = min(self.devices / max(len(running), 1), 1.0)
        spent_s = {other.id: (now - self._painting_since.get(other.id, now)) * share for other in running}
        left_s = sum(max(cost(other.request) * self._seconds_per_cost - spent_s[other.id], 0.0) for other in running)
        own_s = cost(job.request) * self._seconds_per_cost if job.state is State.WAITING else 0.0
        return (left_s + self._place(job)[1] * self._seconds_per_cost - own_s) / self.devices + own_s

    async def cancel(self, job: Job) -> bool:
        """Call a job off: at once while it waits, between two steps while it is painted; a painted one is left alone, which is told."""
        if job.state not in (State.WAITING, State.PAINTING):
            return False
        job.cancelled = True
        if job.state is State.WAITING:
            if job.id in self._starts:
                self._withdraw(job)
            await self.failed(job, Cancelled())
        return True

    def _withdraw(self, job: Job) -> None:
        """Take a waiting job out of the line; nobody pays for what was not painted, so the same person's later jobs move up."""
        user_id = job.origin.user_id
        tag = self._starts.pop(job.id)
        for other in [self._jobs[job_id] for job_id in sorted(self._starts) if job_id > job.id]:
            if other.origin.user_id == user_id:
                self._starts[other.id] = tag
                tag += cost(other.request)
        self._finishes[user_id] = tag

    def report(self, job: Job, progress: Progress, preview: bytes | None) -> None:
        """Note how far the job is that is being painted."""
        job.progress = progress
        job.preview = preview or job.preview
        job.touch()

    async def painted(self, job: Job, painting: Painting) -> None:
        """Note that a job's pictures are there and on disk."""
        await self._history.painted(job, painting)
        pace = painting.seconds / cost(job.request)
        before = self._seconds_per_cost
        self._seconds_per_cost = pace if before is None else (1 - SMOOTHING) * before + SMOOTHING * pace
        job.painting = painting
        job.state = State.PAINTED
        job.touch()
        self._let_in()

    async def failed(self, job: Job, error: EngineError) -> None:
        """Note that a job ends without a result; `Cancelled` is an end like others, but no failure.

        The job has ended for whoever waits for it even where this cannot be written down and raises; then the next start takes it up again.
        """
        called_off = isinstance(error, Cancelled)
        try:
            await (self._history.cancelled(job) if called_off else self._history.failed(job, str(error)))
        finally:
            job.error = error
            job.state = State.CANCELLED if called_off else State.FAILED
            self._forget(job)

    async def show(self, job: Job, message_id: int) -> None:
        """Note which message shows a job's progress."""
        job.message_id = message_id
        await self._history.set_message(job, message_id)

    async def kept(self, job: Job) -> None:
        """Note that no place took the result: the person may ask for it."""
        await self._history.kept(job)
        job.state = State.KEPT
        self._forget(job)

    async def delivered(self, job: Job, message_id: int) -> None:
        """Note that the result was posted."""
        await self._history.delivered(job, message_id)
        job.state = State.DELIVERED
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._starts.pop(job.id, None)
        self._painting_since.pop(job.id, None)
        if job.id in self._held:
            self._held.remove(job.id)
        job.touch()
        self._let_in()

    def find(self, job_id: int) -> Job | None:
        """Return an unfinished job by its id."""
        return self._jobs.get(job_id)
