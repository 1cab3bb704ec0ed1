import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.company import Turn
from engine.errors import Broken, InvalidRequest, Misconfigured
from engine.history import History
from engine.jobs import Job, Origin, Painting, Progress, Request, State
from engine.queue import Limits, Queue
from engine.telemetry import CountingQueue, Counts
from engine.worker import Lane, Worker
from tests.conftest import ScriptedPainter


@pytest.fixture
def queue(history: History) -> Queue:
    return Queue(history, Limits(waiting=50, per_user=50, per_server=1000))


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker, and stop it as bot.py does."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Misconfigured):
            await task


async def ask(queue: Queue) -> Job:
    return await queue.submit(Request("a cat", seed=3, count=2), Origin(user_id=1, channel_id=1))


async def until(job: Job, *states: State) -> None:
    """Wait for a job to come into one of these states."""
    async with asyncio.timeout(10):
        while job.state not in states:
            await job.change()


async def test_a_job_is_painted_and_its_pictures_are_on_disk(queue: Queue, history: History, painter: ScriptedPainter, tmp_path: Path) -> None:
    async with working(Worker(queue, history, lambda: painter)):
        job = await ask(queue)
        await until(job, State.PAINTED)
    assert job.painting is not None and [picture.seed for picture in job.painting.pictures] == [3, 4]
    files = [(tmp_path / "data" / "pictures" / "1" / f"{n}.png").read_bytes() for n in range(2)]
    assert files == [picture.png for picture in job.painting.pictures]


async def test_all_painting_happens_on_one_thread_that_is_not_the_loops(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    threads = set()
    paint = painter.paint

    def spy(request: Request, report: object) -> Painting:
        threads.add(threading.current_thread())
        return paint(request, report)  # type: ignore[arg-type] # handed on as it came

    painter.paint = spy  # type: ignore[method-assign] # a spy for this test
    async with working(Worker(queue, history, lambda: painter)):
        for job in [await ask(queue) for _ in range(3)]:
            await until(job, State.PAINTED)
    assert len(threads) == 1 and threading.current_thread() not in threads


async def test_progress_and_a_preview_reach_the_loop(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    async with working(Worker(queue, history, lambda: painter, preview_every_s=0)):
        job = await ask(queue)
        await until(job, State.PAINTED)
    assert job.progress is not None and (job.progress.done, job.progress.total) == (3, 3)
    assert job.preview is not None and job.preview.startswith(b"\x89PNG")


async def test_a_fast_painter_does_not_flood_the_loop(queue: Queue, history: History) -> None:
    reports = []
    report = queue.report

    def count(job: Job, progress: Progress, preview: bytes | None) -> None:
        reports.append(progress.done)
        report(job, progress, preview)

    queue.report = count  # type: ignore[method-assign] # counts on the way
    async with working(Worker(queue, history, lambda: ScriptedPainter(steps=5000))):
        await until(await ask(queue), State.PAINTED)
    assert len(reports) < 100
    assert reports[-1] == 5000


async def test_what_breaks_one_job_is_logged_and_the_next_is_served(
    queue: Queue, history: History, painter: ScriptedPainter, caplog: pytest.LogCaptureFixture
) -> None:
    painter.failures = [RuntimeError("out of paint"), MemoryError()]
    async with working(Worker(queue, history, lambda: painter)):
        jobs = [await ask(queue) for _ in range(3)]
        await until(jobs[2], State.PAINTED)
    assert [job.state for job in jobs] == [State.FAILED, State.FAILED, State.PAINTED]
    assert isinstance(jobs[0].error, Broken)
    assert jobs[0].error.reference in caplog.text and "out of paint" in caplog.text
    assert "a cat" not in caplog.text


async def test_a_disk_that_is_full_fails_the_job_and_nothing_else(
    queue: Queue, history: History, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: Job, painting: Painting) -> None:
        if job.id == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "store", full)
    async with working(Worker(queue, history, lambda: painter)):
        first, second = await ask(queue), await ask(queue)
        await until(second, State.PAINTED)
    assert first.state is State.FAILED and isinstance(first.error, Broken)


async def test_a_database_that_takes_nothing_more_does_not_end_the_worker(
    queue: Queue, history: History, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failed = history.start, history.failed

    async def full_at_start(job: Job) -> None:
        if job.id == 1:
            raise sqlite3.OperationalError("database or disk is full")
        await start(job)

    async def full_at_end(job: Job, reason: str) -> None:
        if job.id == 1:
            raise sqlite3.OperationalError("database or disk is full")
        await failed(job, reason)

    monkeypatch.setattr(history, "start", full_at_start)
    monkeypatch.setattr(history, "failed", full_at_end)
    async with working(Worker(queue, history, lambda: painter)):
        first, second = await ask(queue), await ask(queue)
        await until(second, State.PAINTED)
    assert first.state is State.FAILED and isinstance(first.error, Broken)


class Quit(BaseException):
    """Stands for KeyboardInterrupt and its like, which the loop itself would not survive here."""


async def test_what_ends_the_program_is_not_swallowed(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    painter.failures = [Quit()]
    await ask(queue)
    with pytest.raises(Quit):
        await asyncio.wait_for(Worker(queue, history, lambda: painter).run(), 10)


async def test_cancelling_stops_a_running_job_between_two_steps(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with working(Worker(queue, history, lambda: painter)):
        job = await ask(queue)
        await until(job, State.PAINTING)
        await queue.cancel(job)
        await until(job, State.CANCELLED)
    assert painter.painted == []
    assert await history.unfinished() == []


async def test_cancelling_during_the_last_step_still_counts(queue: Queue, history: History, painter: ScriptedPainter, tmp_path: Path) -> None:
    paint = painter.paint

    def last_step(request: Request, report: object) -> Painting:
        painting = paint(request, report)  # type: ignore[arg-type] # handed on as it came
        job.cancelled = True
        return painting

    painter.paint = last_step  # type: ignore[method-assign] # cancels when no step is left
    job = await ask(queue)
    async with working(Worker(queue, history, lambda: painter)):
        await until(job, State.CANCELLED, State.PAINTED)
    assert job.state is State.CANCELLED
    assert not (tmp_path / "data" / "pictures").exists()


async def test_a_job_cancelled_while_the_worker_stops_stays_cancelled(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with working(Worker(queue, history, lambda: painter)) as task:
        job = await ask(queue)
        await asyncio.to_thread(painter.started.wait)
        await queue.cancel(job)
        task.cancel()
        await asyncio.wait([task])
    assert job.state is State.CANCELLED
    assert await history.unfinished() == []


async def test_a_picture_finished_while_the_worker_stops_is_kept(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    stored, go_on = threading.Event(), threading.Event()
    store = history.store

    def slow(job: Job, painting: Painting) -> None:
        store(job, painting)
        stored.set()
        go_on.wait(10)

    history.store = slow  # type: ignore[method-assign] # a disk that takes its time
    async with working(Worker(queue, history, lambda: painter)) as task:
        await ask(queue)
        await asyncio.to_thread(stored.wait)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        await asyncio.wait([task])
    assert [job.state for job in await history.unfinished()] == [State.PAINTED]


async def test_a_stop_leaves_the_running_job_for_the_next_start(queue: Queue, history: History, painter: ScriptedPainter, tmp_path: Path) -> None:
    painter.hold.clear()
    async with working(Worker(queue, history, lambda: painter)):
        job = await ask(queue)
        await until(job, State.PAINTING)
        await asyncio.to_thread(painter.started.wait)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "reverie.db")) as database:
        assert database.execute("SELECT state, started_at > 0 FROM job").fetchall() == [("painting", 1)]
    assert [(found.id, found.state) for found in await history.unfinished()] == [(job.id, State.WAITING)]
    assert painter.painted == []


async def test_a_painter_that_cannot_be_loaded_ends_the_worker(queue: Queue, history: History) -> None:
    def load() -> ScriptedPainter:
        raise Misconfigured("Weights are missing.")

    with pytest.raises(Misconfigured, match="Weights"):
        await Worker(queue, history, load).run()


async def test_what_only_the_operator_can_mend_is_in_the_log(
    queue: Queue, history: History, painter: ScriptedPainter, caplog: pytest.LogCaptureFixture
) -> None:
    painter.failures = [Misconfigured("Set another dtype.")]
    async with working(Worker(queue, history, lambda: painter)):
        job = await ask(queue)
        await until(job, State.FAILED)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["job 1: Set another dtype."]


async def test_jobs_asked_before_the_painter_is_loaded_wait_for_it(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    job = await ask(queue)
    worker = Worker(queue, history, lambda: painter)
    assert worker.painter is None
    async with working(worker):
        await asyncio.wait_for(worker.ready.wait(), 10)
        await until(job, State.PAINTED)
    assert worker.painter is painter


async def test_a_database_that_fails_while_noting_a_result_fails_the_job(
    queue: Queue, history: History, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(job: Job, painting: Painting) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(history, "painted", broken)
    async with working(Worker(queue, history, lambda: painter)):
        job = await ask(queue)
        await until(job, State.FAILED)
    assert isinstance(job.error, Broken)


async def test_other_models_are_loaded_when_they_are_first_asked_for_and_stay(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    other, loads = ScriptedPainter(), []
    other.model = other.space = "other"

    def load() -> ScriptedPainter:
        loads.append(threading.current_thread().name)
        return other

    worker = Worker(queue, history, lambda: painter, others={"other": load})
    async with working(worker):
        await worker.ready.wait()
        assert worker.models == ("scripted", "other") and worker.painter_of("other") is None and worker.painter_in("other") is None
        jobs = [await queue.submit(Request("a cat", 3, 1, model=model), Origin(1, 1)) for model in ("other", "", "other", "gone")]
        for job in jobs:
            await until(job, State.PAINTED)
        assert [job.painting.model for job in jobs if job.painting] == ["other", "scripted", "other", "scripted"]
        assert len(other.painted) == len(painter.painted) == 2
        assert len(loads) == 1 and loads[0].startswith("engine")
        assert worker.painter_of("other") is other and worker.painter_in("other") is other and worker.painter_of("gone") is painter
        assert await worker.embed_texts(other, ["a cat"]) == [other.seen("a cat")]


async def test_models_come_change_and_go_while_the_worker_runs(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    others: dict[str, Callable[[], ScriptedPainter]] = {}
    loads: list[ScriptedPainter] = []

    def load_one() -> ScriptedPainter:
        loads.append(ScriptedPainter())
        loads[-1].space = "another"
        return loads[-1]

    def load_newer() -> ScriptedPainter:
        # Two may not fit into the memory at once.
        assert worker.painter_in("another") is None
        return load_one()

    async def paint() -> None:
        job = await queue.submit(Request("a cat", 3, 1, model="other"), Origin(1, 1))
        await until(job, State.PAINTED)

    worker = Worker(queue, history, lambda: painter, others=others)
    async with working(worker):
        await worker.ready.wait()
        assert worker.models == ("scripted",)
        others["other"] = load_one
        assert worker.models == ("scripted", "other")
        await paint()
        await paint()
        assert [len(one.painted) for one in loads] == [2]
        others["other"] = load_newer
        assert worker.painter_of("other") is loads[0]
        await paint()
        assert [len(one.painted) for one in loads] == [2, 1] and worker.painter_of("other") is loads[1]
        del others["other"]
        assert worker.models == ("scripted",) and worker.painter_of("other") is painter
        await paint()
        assert len(painter.painted) == 1 and worker.painter_in("another") is None


async def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_no_others(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    def load() -> ScriptedPainter:
        raise Misconfigured("The file is missing.")

    async with working(Worker(queue, history, lambda: painter, others={"broken": load})):
        broken, fine = [await queue.submit(Request("a cat", 3, 1, model=model), Origin(1, 1)) for model in ("broken", "")]
        await until(broken, State.FAILED)
        await until(fine, State.PAINTED)
        assert isinstance(broken.error, Misconfigured)


class Circle:
    """A company in which everybody who is not `waiting` gets one step at a time; `most` is how many were in it at once."""

    def __init__(self, painter: ScriptedPainter, places: int) -> None:
        self.painter, self.places, self.most = painter, places, 0
        self.turns: dict[Turn, int] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.breaks = False

    has_room = property(lambda self: len(self.turns) < self.places)

    def __len__(self) -> int:
        return len(self.turns)

    def join(self, request: Request, report: Callable[[Progress], None]) -> Turn:
        if request.prompt == "nothing":
            raise InvalidRequest("prompt", "hold at least one word")
        turn = Turn(request, report)
        self.turns[turn] = 0
        self.most = max(self.most, len(self.turns))
        return turn

    def step(self) -> list[Turn]:
        self.hold.wait(10)
        if self.breaks:
            self.breaks = False
            raise RuntimeError("the circle is broken")
        done = []
        for turn in list(self.turns):
            if turn.request.prompt == "patience":
                continue
            self.turns[turn] += 1
            try:
                turn.report(Progress("base", self.turns[turn], 5))
                if self.turns[turn] == 5:
                    turn.result, turn.busy_s = self.painter.paint(turn.request, lambda progress: None), 0.25
            except Exception as error:
                turn.error = error
            if turn.result or turn.error:
                done.append(turn)
                del self.turns[turn]
        return done

    def drop(self, turn: Turn) -> None:
        del self.turns[turn]


@pytest.fixture
def circle(painter: ScriptedPainter) -> Circle:
    circle = Circle(painter, places=3)
    painter.company = lambda: circle  # type: ignore[method-assign, assignment, return-value] # more than one at a time
    return circle


async def ask_for(queue: Queue, prompt: str, model: str = "") -> Job:
    return await queue.submit(Request(prompt, seed=3, count=1, model=model), Origin(user_id=1, channel_id=1))


async def test_jobs_are_painted_together_as_far_as_there_is_room(
    queue: Queue, history: History, painter: ScriptedPainter, circle: Circle, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [await ask_for(queue, prompt) for prompt in ("a cat", "nothing", "a dog", "a house", "a tree")]
    async with working(Worker(queue, history, lambda: painter)):
        for job in jobs:
            await until(job, State.PAINTED, State.FAILED)
    assert [job.state for job in jobs] == [State.PAINTED, State.FAILED, *[State.PAINTED] * 3]
    assert circle.most == 3 and not circle
    assert [job.painting.seconds for job in jobs if job.painting] == [0.25] * 4, "the share of the device, not the wait for others"


async def test_a_job_that_joins_is_counted_like_any_other(history: History, painter: ScriptedPainter, circle: Circle) -> None:
    counts = Counts()
    queue = CountingQueue(history, Limits(waiting=50, per_user=50, per_server=1000), counts)
    jobs = [await ask_for(queue, "a cat") for _ in range(3)]
    async with working(Worker(queue, history, lambda: painter)):
        for job in jobs:
            await until(job, State.PAINTED)
    assert circle.most == 3
    assert counts.registry.get_sample_value("reverie_queue_wait_seconds_count") == 3
    assert counts.registry.get_sample_value("reverie_jobs_total", {"kind": "dream", "state": "painting"}) == 3


async def test_a_job_of_another_model_does_not_join(queue: Queue, history: History, painter: ScriptedPainter, circle: Circle) -> None:
    other = ScriptedPainter()
    other.model = "other"
    jobs = [await ask_for(queue, "a cat"), await ask_for(queue, "a dog", "other"), await ask_for(queue, "a tree")]
    async with working(Worker(queue, history, lambda: painter, others={"other": lambda: other})):
        for job in jobs:
            await until(job, State.PAINTED)
    assert circle.most == 1 and [request.prompt for request in other.painted] == ["a dog"]


async def test_a_job_that_gets_no_step_can_be_called_off(queue: Queue, history: History, painter: ScriptedPainter, circle: Circle) -> None:
    async with working(Worker(queue, history, lambda: painter)):
        patient = await ask_for(queue, "patience")
        await until(patient, State.PAINTING)
        await queue.cancel(patient)
        await until(patient, State.CANCELLED)
        await until(await ask_for(queue, "a cat"), State.PAINTED)
    assert not circle


async def test_at_a_stop_all_jobs_that_are_painted_wait_for_the_next_start(
    queue: Queue, history: History, painter: ScriptedPainter, circle: Circle
) -> None:
    circle.hold.clear()
    jobs = [await ask_for(queue, prompt) for prompt in ("a cat", "patience", "a dog")]
    async with working(Worker(queue, history, lambda: painter)) as task:
        await until(jobs[0], State.PAINTING)
        task.cancel()
        await asyncio.sleep(0)
        circle.hold.set()
    assert [job.state for job in await history.unfinished()] == [State.WAITING] * 3


async def test_a_company_that_breaks_fails_who_is_in_it_and_the_next_are_served(
    queue: Queue, history: History, painter: ScriptedPainter, circle: Circle
) -> None:
    circle.breaks = True
    first = await ask_for(queue, "a cat")
    async with working(Worker(queue, history, lambda: painter)):
        await until(first, State.FAILED)
        await until(await ask_for(queue, "a dog"), State.PAINTED)
    assert isinstance(first.error, Broken) and not circle


async def test_every_device_has_a_thread_of_its_own_and_all_serve_one_line(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    painters = [painter, ScriptedPainter()]
    threads: list[set[threading.Thread]] = [set(), set()]
    for one, its in zip(painters, threads, strict=True):
        one.hold.clear()
        paint = one.paint
        one.paint = lambda request, report, its=its, paint=paint: its.add(threading.current_thread()) or paint(request, report)  # type: ignore[method-assign, misc] # a spy
    jobs = [await ask(queue) for _ in range(6)]
    worker = Worker(queue, history, lambda: painter, more=[Lane(lambda: painters[1], {})])
    async with working(worker):
        await until(jobs[0], State.PAINTING)
        await until(jobs[1], State.PAINTING)
        assert queue.waiting == 4 and queue.eta_s(jobs[5]) is None
        for one in painters:
            one.hold.set()
        for job in jobs:
            await until(job, State.PAINTED)
        assert len(painters[0].painted) + len(painters[1].painted) == 6 and all(one.painted for one in painters)
        assert await worker.embed_texts(painters[1], ["a cat"]) == painter.embed_texts(["a cat"])
    assert [len(its) for its in threads] == [1, 1] and not threads[0] & threads[1]


async def test_a_device_whose_model_cannot_be_loaded_stops_the_worker(queue: Queue, history: History, painter: ScriptedPainter) -> None:
    def missing() -> ScriptedPainter:
        raise Misconfigured("torch sees no such GPU")

    with pytest.raises(Misconfigured, match="no such GPU"):
        await asyncio.wait_for(Worker(queue, history, lambda: painter, more=[Lane(missing)]).run(), 10)
