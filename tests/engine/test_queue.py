import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Broken, Cancelled, QueueFull, TooManyJobs
from engine.history import History
from engine.jobs import Job, Kind, Origin, Painting, Picture, Progress, Request, State
from engine.queue import Limits, Queue, cost
from tests.conftest import png

WIDE = Limits(waiting=1000, per_user=1000, per_server=1000)


def request(count: int = 1, steps: int | None = 10) -> Request:
    return Request("a cat", seed=1, count=count, steps=steps)


def painting(job: Job, seconds: float = 1.0) -> Painting:
    return Painting(tuple(Picture(png((1, 1, 1)), seed, 8, 8) for seed in job.request.seeds), "m", 10, 1.0, seconds)


async def ask(queue: Queue, user: int, count: int = 1, guild: int | None = None) -> Job:
    return await queue.submit(request(count), Origin(user_id=user, channel_id=1, guild_id=guild))


async def drain(queue: Queue) -> list[Job]:
    """Serve everything that waits."""
    served = []
    while queue.waiting:
        job = await queue.next()
        await queue.painted(job, painting(job))
        await queue.delivered(job, 1)
        served.append(job)
    return served


async def test_one_person_with_ten_jobs_does_not_delay_anothers_first(history: History) -> None:
    queue = Queue(history, WIDE)
    many = [await ask(queue, user=1) for _ in range(10)]
    running = await queue.next()
    first = await ask(queue, user=2)
    assert running is many[0]
    assert queue.position(first) == 1
    assert await queue.next() is first


async def test_a_newcomer_takes_turns_with_those_who_have_been_served_before(history: History) -> None:
    queue = Queue(history, WIDE)
    for _ in range(8):
        await ask(queue, user=1)
    for _ in range(4):
        job = await queue.next()
        await queue.painted(job, painting(job))
        await queue.delivered(job, 1)
    for _ in range(4):
        await ask(queue, user=2)
    users = [job.origin.user_id for job in await drain(queue)]
    assert users in ([1, 2] * 4, [2, 1] * 4)


def test_an_embedding_costs_the_steps_of_the_prior_for_each_candidate() -> None:
    asked = Request("a cat", 1, 1, kind=Kind.EMBED, candidates=1, prior_steps=100)
    one, more_draws, more_steps = cost(asked), cost(replace(asked, candidates=4)), cost(replace(asked, prior_steps=400))
    assert more_draws == more_steps == 4 * one and 0 < one < cost(request(steps=100))


async def test_small_requests_are_not_held_up_by_large_ones(history: History) -> None:
    queue = Queue(history, WIDE)
    large = [await ask(queue, user=1, count=9) for _ in range(2)]
    small = [await ask(queue, user=2, count=1) for _ in range(3)]
    order = await drain(queue)
    assert order == [large[0], *small, large[1]]


async def test_asking_again_as_soon_as_one_is_done_wins_nothing(history: History) -> None:
    queue = Queue(history, WIDE)
    for _ in range(20):
        await ask(queue, user=1)
    await ask(queue, user=2, count=9)
    got = {1: 0.0, 2: 0.0}
    for _ in range(12):
        job = await queue.next()
        await queue.painted(job, painting(job))
        await queue.delivered(job, 1)
        got[job.origin.user_id] += cost(job.request)
        if job.origin.user_id == 2:
            await ask(queue, user=2, count=9)
    assert abs(got[1] - got[2]) <= 2 * cost(request(count=9)) and got[1] >= cost(request(count=9))


async def test_nobody_pays_for_what_was_called_off(history: History) -> None:
    queue = Queue(history, WIDE)
    called_off = [await ask(queue, user=1, count=9) for _ in range(3)]
    others = [await ask(queue, user=2) for _ in range(2)]
    for job in called_off:
        await queue.cancel(job)
    mine = await ask(queue, user=1)
    assert await drain(queue) == [others[0], mine, others[1]]


async def test_jobs_behind_a_cancelled_one_move_up(history: History) -> None:
    queue = Queue(history, WIDE)
    large, small, last = await ask(queue, 1, count=9), await ask(queue, 1, count=2), await ask(queue, 1)
    others = [await ask(queue, user=2) for _ in range(3)]
    await queue.cancel(large)
    assert await drain(queue) == [small, others[0], others[1], last, others[2]]


async def test_an_idle_queue_forgives_all_debts(history: History) -> None:
    queue = Queue(history, WIDE)
    await ask(queue, user=1, count=9)
    await drain(queue)
    idle = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    jobs = [await ask(queue, user) for user in (1, 2, 1)]
    served = await idle
    await queue.painted(served, painting(served))
    assert [served, *await drain(queue)] == [jobs[0], jobs[1], jobs[2]]


async def test_position_and_eta_fall_as_the_queue_moves(history: History) -> None:
    queue = Queue(history, WIDE)
    jobs = [await ask(queue, user=1) for _ in range(3)]
    assert [queue.position(job) for job in jobs] == [1, 2, 3]
    assert queue.eta_s(jobs[2]) is None
    job = await queue.next()
    await queue.painted(job, painting(job, seconds=10))
    assert [queue.position(job) for job in jobs] == [0, 1, 2]
    assert queue.eta_s(jobs[1]) == pytest.approx(10)
    assert queue.eta_s(jobs[2]) == pytest.approx(20)
    assert queue.eta_s(jobs[0]) == 0
    await queue.next()
    assert queue.eta_s(jobs[0]) == 0
    assert queue.eta_s(jobs[2]) == pytest.approx(20, abs=0.5)


async def test_two_devices_halve_the_wait_and_not_the_work(history: History) -> None:
    queue = Queue(history, WIDE)
    queue.devices = 2
    jobs = [await ask(queue, user=1) for _ in range(5)]
    await queue.painted(await queue.next(), painting(jobs[0], seconds=10))
    assert queue.eta_s(jobs[1]) == pytest.approx(10) and queue.eta_s(jobs[3]) == pytest.approx(20)
    for _ in range(2):
        await queue.next()
    assert queue.eta_s(jobs[1]) == pytest.approx(10, abs=0.5) and queue.eta_s(jobs[2]) == pytest.approx(10, abs=0.5)
    assert queue.eta_s(jobs[3]) == pytest.approx(20, abs=0.5) and queue.eta_s(jobs[4]) == pytest.approx(25, abs=0.5)


async def test_the_pace_of_earlier_runs_gives_the_first_eta(history: History) -> None:
    before = Queue(history, WIDE)
    job = await ask(before, user=1)
    await before.next()
    await before.painted(job, painting(job, seconds=30))
    await before.delivered(job, 1)
    queue = Queue(history, WIDE)
    await queue.restore()
    assert queue.eta_s(await queue.submit(request(steps=None), Origin(1, 1))) == pytest.approx(30)


async def test_a_full_queue_refuses_and_says_its_limit(history: History) -> None:
    queue = Queue(history, Limits(waiting=2, per_user=9, per_server=1000))
    await ask(queue, 1)
    await ask(queue, 2)
    with pytest.raises(QueueFull) as refused:
        await ask(queue, 3)
    assert refused.value.limit == 2
    await queue.next()
    await ask(queue, 3)


async def test_what_one_asks_beyond_a_share_waits_for_ones_earlier_jobs(history: History) -> None:
    queue = Queue(history, Limits(waiting=9, per_user=1, per_server=1000))
    small = await ask(queue, 1)
    large = [await ask(queue, 2, count=9), await ask(queue, 2, count=9)]
    second = await ask(queue, 1)
    assert [queue.position(job) for job in (small, *large, second)] == [1, 2, 3, 4]
    job = await queue.next()
    assert [queue.position(job) for job in (small, *large, second)] == [0, 1, 2, 3]
    await queue.painted(job, painting(job))
    assert [queue.position(job) for job in (large[0], second, large[1])] == [1, 2, 3]
    assert [job.id for job in await drain(queue)] == [large[0].id, second.id, large[1].id]


async def test_a_servers_share_holds_back_its_people_and_nobody_else(history: History) -> None:
    queue = Queue(history, Limits(waiting=9, per_user=9, per_server=2))
    of_server = [await ask(queue, user, guild=7) for user in (1, 2, 3)]
    elsewhere = await ask(queue, 4)
    assert [queue.position(job) for job in (*of_server, elsewhere)] == [1, 2, 4, 3]
    await queue.cancel(of_server[0])
    assert [queue.position(job) for job in (*of_server[1:], elsewhere)] == [1, 2, 3]
    await queue.cancel(of_server[2])
    assert queue.waiting == 2


async def test_nobody_fills_the_queue_alone(history: History) -> None:
    queue = Queue(history, Limits(waiting=4, per_user=1, per_server=1000))
    await ask(queue, 1)
    await ask(queue, 1)
    with pytest.raises(TooManyJobs):
        await ask(queue, 1)
    await ask(queue, 2)
    await ask(queue, 3)
    with pytest.raises(QueueFull):
        await ask(queue, 4)


async def test_an_event_that_is_told_twice_is_one_job(history: History) -> None:
    queue = Queue(history, WIDE)
    origin = Origin(1, 1, event_id=77)
    results = await asyncio.gather(*(queue.submit(request(), origin) for _ in range(3)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Job", "Repeated", "Repeated"]
    assert queue.waiting == 1


async def test_asking_many_times_at_once_slips_past_no_limit(history: History) -> None:
    queue = Queue(history, Limits(waiting=5, per_user=3, per_server=1000))
    results = await asyncio.gather(*(ask(queue, user) for user in (1, 1, 1, 1, 1, 2, 2, 2, 2)), return_exceptions=True)
    accepted = [result for result in results if isinstance(result, Job)]
    assert [job.origin.user_id for job in accepted] == [1, 1, 1, 2, 2]
    assert len(await history.unfinished()) == 5


async def test_cancelling_a_waiting_job_ends_it_at_once(history: History) -> None:
    queue = Queue(history, WIDE)
    first, second = await ask(queue, 1), await ask(queue, 1)
    await queue.cancel(first)
    assert first.state is State.CANCELLED and isinstance(first.error, Cancelled)
    assert queue.position(second) == 1
    assert [job.id for job in await history.unfinished()] == [second.id]


async def test_cancelling_a_running_job_asks_the_painter_to_stop(history: History) -> None:
    queue = Queue(history, WIDE)
    job = await ask(queue, 1)
    await queue.next()
    await queue.cancel(job)
    assert job.cancelled and job.state is State.PAINTING


async def test_a_job_ends_for_those_who_wait_even_where_its_end_cannot_be_written(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(job: Job, reason: str) -> None:
        raise OSError(28, "No space left on device")

    queue = Queue(history, WIDE)
    job = await ask(queue, 1)
    await queue.next()
    monkeypatch.setattr(history, "failed", full)
    with pytest.raises(OSError, match="No space"):
        await queue.failed(job, Broken("x"))
    assert job.state is State.FAILED and isinstance(job.error, Broken)
    assert queue.find(job.id) is None
    assert [found.id for found in await history.unfinished()] == [job.id]


async def test_next_waits_for_a_job(history: History) -> None:
    queue = Queue(history, WIDE)
    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    job = await ask(queue, 1)
    assert await waiting is job


async def test_whoever_waits_for_a_change_sees_every_stage(history: History) -> None:
    queue = Queue(history, WIDE)
    job = await ask(queue, 1)
    seen = []

    async def watch() -> None:
        while job.state not in (State.DELIVERED,):
            seen.append((job.state, job.progress.done if job.progress else None))
            await job.change()

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await queue.next()
    await asyncio.sleep(0)
    queue.report(job, Progress("base", 2, 3), b"preview")
    await asyncio.sleep(0)
    assert job.preview == b"preview"
    await queue.painted(job, painting(job))
    await asyncio.sleep(0)
    await queue.delivered(job, 1)
    await task
    assert seen == [(State.WAITING, None), (State.PAINTING, None), (State.PAINTING, 2), (State.PAINTED, 2)]


async def test_a_restart_keeps_the_order_and_returns_what_only_waits_to_be_delivered(history: History) -> None:
    before = Queue(history, WIDE)
    jobs = [await ask(before, user) for user in (1, 1, 2)]
    first = await before.next()
    history.store(first, painting(first))
    await before.painted(first, painting(first))
    queue = Queue(history, Limits(waiting=1, per_user=1, per_server=1000))
    found = await queue.restore()
    assert [(job.id, job.state) for job in found] == [(1, State.PAINTED), (2, State.WAITING), (3, State.WAITING)]
    assert [job.id for job in await drain(queue)] == [jobs[1].id, jobs[2].id]
    assert queue.find(1) is found[0]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 4), st.integers(1, 9)),
        st.tuples(st.just("serve"), st.booleans(), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=25,
)
folders = itertools.count()


@given(actions)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_lost_or_served_twice_and_positions_tell_the_order(tmp_path: Path, script: list[tuple[str, int, int]]) -> None:
    async def play() -> None:
        history = await History.open(tmp_path / str(next(folders)))
        try:
            await check(history, script)
        finally:
            await history.close()

    asyncio.run(play())


async def check(history: History, script: list[tuple[str, int, int]]) -> None:
    """Play a script on a queue and hold it to its promises after every line."""
    limits = Limits(waiting=8, per_user=2, per_server=3)
    queue = Queue(history, limits)
    waiting: dict[int, Job] = {}
    served: list[int] = []
    for action, first, second in script:
        if action == "ask":
            try:
                job = await ask(queue, first, second, guild=5 if first % 2 else None)
            except (QueueFull, TooManyJobs):
                mine = sum(job.origin.user_id == first for job in waiting.values())
                assert len(waiting) >= limits.waiting or mine >= limits.per_user
            else:
                waiting[job.id] = job
        elif action == "serve" and waiting:
            expected = min(waiting.values(), key=queue.position)
            job = await queue.next()
            assert job is expected
            # Within one person the order is that of asking.
            assert job.id == min(other.id for other in waiting.values() if other.origin.user_id == job.origin.user_id)
            served.append(waiting.pop(job.id).id)
            if first:
                await queue.painted(job, painting(job))
                await queue.delivered(job, 1)
            else:
                await queue.failed(job, Broken("x"))
        elif action == "cancel" and waiting:
            job = waiting.pop(sorted(waiting)[first % len(waiting)])
            await queue.cancel(job)
        elif action == "restart":
            queue = Queue(history, limits)
            waiting = {job.id: job for job in await queue.restore()}
        assert queue.waiting == len(waiting) <= limits.waiting
        assert sorted(queue.position(job) for job in waiting.values()) == list(range(1, len(waiting) + 1))
    rest = [job.id for job in await drain(queue)]
    assert sorted(rest) == sorted(waiting)
    assert len(set(served + rest)) == len(served + rest)
    assert await history.unfinished() == []


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 9), min_size=1, max_size=8)), min_size=2, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_while_people_wait_nobody_gets_much_more_than_another(tmp_path: Path, people: list[tuple[bool, list[int]]]) -> None:
    """Some ask for everything at once, some for the next as soon as one is done."""

    async def play() -> None:
        history = await History.open(tmp_path / str(next(folders)))
        try:
            queue = Queue(history, WIDE)
            plans = {user: list(counts) for user, (_, counts) in enumerate(people)}
            for user, (at_once, _) in enumerate(people):
                for _ in range(len(plans[user]) if at_once else 1):
                    await ask(queue, user, plans[user].pop(0))
            left = {user: len(counts) for user, (_, counts) in enumerate(people)}
            got = dict.fromkeys(left, 0.0)
            largest = max(cost(request(count)) for _, counts in people for count in counts)
            while queue.waiting:
                job = await queue.next()
                user = job.origin.user_id
                await queue.painted(job, painting(job))
                await queue.delivered(job, 1)
                got[user] += cost(job.request)
                left[user] -= 1
                if plans[user] and not people[user][0]:
                    await ask(queue, user, plans[user].pop(0))
                backlogged = [got[each] for each in got if left[each]]
                if len(backlogged) > 1:
                    # The bound of start-time fair queueing: one largest job of each of the two.
                    assert max(backlogged) - min(backlogged) <= 2 * largest
            assert not any(left.values())
        finally:
            await history.close()

    asyncio.run(play())
