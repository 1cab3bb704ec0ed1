"""Requests that are painted beside others come out as if they were alone, whoever joins, stops or fails."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from engine.errors import Cancelled
from engine.jobs import Kind, Painting, Request
from engine.pictures import encode
from engine.unclip.company import Company, Course, Leg, Member, Paces
from engine.unclip.memory import BUCKETS, Lodging, Room, Rows, bucket
from engine.unclip.painter import Painter
from engine.unclip.sampling import Prediction, Predicts, Walk, ddim, noise_from_seeds, walk_alone
from engine.unclip.schedule import alpha_bars, spaced_times
from tests.engine.unclip.test_painter import pixels, silent

CPU = torch.device("cpu")
CURVE = alpha_bars("cosine", 1000)


def painted_together(painter: Painter, requests: Sequence[Request], stretches_between: int) -> list[Painting]:
    """Paint requests, each of which joins some stretches after the one before."""
    company = painter.company()
    waiting, members = list(requests), []
    while waiting or company:
        if waiting:
            members.append(company.join(waiting.pop(0), silent))
        for _ in range(stretches_between):
            if company:
                company.step()
    assert [member.error for member in members] == [None] * len(members)
    return [member.result for member in members if member.result is not None]


def test_requests_of_all_kinds_share_steps_and_come_out_as_if_alone(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.unclip.company.STRETCH_S", 0.0)
    monkeypatch.setattr("engine.unclip.company.GAIN", 0.0)
    stage, sizes = type(painter.parts.stages[0]), []
    ask = stage.ask
    monkeypatch.setattr(stage, "ask", lambda self, walks: sizes.append(len(walks)) or ask(self, walks))
    side = painter.side
    picture = painter.paint(Request("a cat on a red background", seed=1, count=1, steps=4), silent).pictures[0].png
    mask = encode(Image.new("L", (side, side), 255).crop((0, -side // 2, side, side // 2)))
    requests = [
        Request("a cat on a red background", seed=7, count=2, steps=6),
        Request("a big dog on a blue background", seed=3, count=1, steps=9, guidance=1.0),
        Request("", seed=5, count=2, steps=5, kind=Kind.VARIATION, image=picture),
        Request("a dog on a blue background", seed=2, count=1, steps=3, kind=Kind.INPAINT, image=picture, mask=mask),
    ]
    alone = [painter.paint(request, silent) for request in requests]
    sizes.clear()
    together = painted_together(painter, requests, stretches_between=3)
    assert max(sizes) > 1, "nothing was shared"
    for one, other in zip(alone, together, strict=True):
        assert (one.steps, one.guidance) == (other.steps, other.guidance)
        for mine, theirs in zip(one.pictures, other.pictures, strict=True):
            assert mine.seed == theirs.seed and np.abs(pixels(mine.png) - pixels(theirs.png)).max() <= 1


@dataclass
class Sketch:
    """What the toy network is told."""

    rows: int
    mean: float


def toy(walks: Sequence[Walk[Sketch]]) -> list[Prediction]:
    """The best prediction for data around a mean; it breaks where that is no number and nobody else must notice."""
    if any(walk.told.mean == 13 for walk in walks):
        raise ArithmeticError("thirteen")
    x = torch.cat([walk.x for walk in walks])
    means = torch.cat([torch.full((walk.told.rows, 1), walk.told.mean) for walk in walks])
    return [Prediction(part) for part in (0.5 * x + 0.5 * means).split([walk.told.rows for walk in walks])]


NETWORKS = (nn.Identity(), nn.Identity())


def toy_walk(seed: int, rows: int, steps: int, mean: float, stop_after: int | None = None) -> Walk[Sketch]:
    def on_step(done: int, x_0: Tensor) -> None:
        if done == stop_after:
            raise Cancelled

    draw = noise_from_seeds(range(seed, seed + rows), (8,), CPU)
    return Walk(Sketch(rows, mean), draw(), spaced_times(CURVE, steps), ddim(0.7), draw, predicts=Predicts.X_0, on_step=on_step)


def toy_course(first: Walk[Sketch], second: Walk[Sketch]) -> Course[Tensor]:
    for network, walk in zip(NETWORKS, (first, second), strict=True):
        yield Leg(network, toy, walk)
    return torch.stack([first.sample, second.sample])


JOBS = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.0, 1.0, 13.0]), st.none() | st.integers(1, 12))


@given(st.lists(JOBS, min_size=1, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_whoever_joins_stops_or_fails_nobody_else_notices(jobs: list[tuple[int, int, int, float, int | None]], data: st.DataObject) -> None:
    def walks(index: int) -> Iterator[Walk[Sketch]]:
        rows, first, second, mean, stop_after = jobs[index]
        yield toy_walk(100 * index, rows, first, mean, stop_after)
        yield toy_walk(100 * index + 50, rows, second, mean)

    company = Company(Lodging(CPU, is_resident=True), toy_course, {})
    members: list[Member[Tensor]] = []
    done: list[Member[Tensor]] = []
    while len(done) < len(jobs):
        if len(members) < len(jobs) and (not company or data.draw(st.booleans())):
            members.append(company.join(*walks(len(members))))
        done += company.step()
    assert not company and len(set(map(id, done))) == len(jobs)
    for index, (member, (_, first, _, mean, stop_after)) in enumerate(zip(members, jobs, strict=True)):
        if mean == 13:
            assert isinstance(member.error, ArithmeticError)
        elif stop_after is not None and stop_after <= first:
            assert isinstance(member.error, Cancelled)
        else:
            assert member.error is None and member.result is not None
            assert torch.equal(member.result, torch.stack([walk_alone(walk, toy) for walk in walks(index)]))


def test_weights_that_visit_the_device_stay_for_a_whole_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = []

    @contextlib.contextmanager
    def visit(self: Lodging, *modules: nn.Module) -> Iterator[None]:
        visits.append(modules)
        yield

    monkeypatch.setattr(Lodging, "visit", visit)
    monkeypatch.setattr("engine.unclip.company.STRETCH_S", 0.0)
    company = Company(Lodging(CPU, is_resident=False), toy_course, {})
    company.join(toy_walk(1, 2, 9, 0.0), toy_walk(2, 2, 7, 0.0))
    while company:
        company.step()
    assert visits == [(network,) for network in NETWORKS]


def test_too_large_a_batch_is_cut_until_memory_suffices() -> None:
    room, tried = Room(), []

    def answer(x: Tensor, most: int, part: Rows) -> Tensor:
        tried.append(len(x[part]))
        if len(x[part]) > most:
            raise torch.OutOfMemoryError
        return x[part] * 2

    x = torch.arange(11.0)
    assert torch.equal(room.fill(11, partial(answer, x, 3), CPU), x * 2)
    assert tried == [12, 6, 3, 3, 3, 2]
    tried.clear()
    assert torch.equal(room.fill(4, partial(answer, x[:4], 3), CPU), x[:4] * 2) and tried == [3, 1]
    with pytest.raises(torch.OutOfMemoryError):
        room.fill(2, partial(answer, x[:2], 0), CPU)


@given(rows=st.integers(1, 300))
def test_batches_come_in_few_sizes_and_grids_fill_theirs(rows: int) -> None:
    assert rows <= bucket(rows) <= rows * 4 / 3 + 1 and bucket(bucket(rows)) == bucket(rows)
    if rows in (1, 2, 3, 4, 9, 6, 8, 18):
        assert bucket(rows) == rows


def test_who_else_is_in_a_batch_of_one_size_changes_no_bit(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    networks = [leg.network for leg in legs_of(Painter(painter.parts), 1)]
    for network in networks:
        answer = network.answer
        monkeypatch.setattr(network, "answer", lambda x, *args, ask=answer, **kwargs: sizes.append(len(x)) or ask(x, *args, **kwargs))
    five = list(answers(legs_of(Painter(painter.parts), seed) for seed in (7, 1, 2, 3, 4)))
    six = list(answers(legs_of(Painter(painter.parts), seed) for seed in (7, 11, 12, 13, 14, 15)))
    two = list(answers(legs_of(Painter(painter.parts), seed) for seed in (7, 21)))
    for one, other, smaller in zip(five, six, two, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(smaller, one, atol=1e-3, rtol=0)
    assert len(five) == len(networks) and {6, 12} <= set(sizes) <= set(BUCKETS)


def legs_of(painter: Painter, seed: int) -> Iterator[Leg]:
    """Walk the stages of a picture of one step each, guided."""
    course = painter.course(Request("a cat on a red background", seed=seed, count=1, steps=2, guidance=1.5), silent)
    with torch.inference_mode(), contextlib.closing(course):
        for leg in course:
            yield leg
            walk_alone(leg.walk, leg.ask)


def answers(courses: Iterable[Iterator[Leg]]) -> Iterator[Tensor]:
    """Ask for several pictures at once, stage by stage; yield what each network says to the first."""
    for legs in zip(*courses, strict=True):
        with torch.inference_mode():
            yield legs[0].ask([leg.walk for leg in legs])[0].value


def test_others_come_along_where_that_makes_more_rows_a_second() -> None:
    full, idle = Paces(), Paces()
    for now, rows in enumerate((4, 8, 12)):
        assert full.best([4, 8, 12], now) == now == idle.best([4, 8, 12], now), "what is not known is tried"
        full.note(rows, 0.1 * rows, now)
        idle.note(rows, 0.1 + 0.01 * rows, now)
    assert full.best([4, 8, 12], 3) == 0 and idle.best([4, 8, 12], 3) == 2
    assert not full.may_share(4) and idle.may_share(4)
    assert full.best([4], 5) == 0 and not full.may_share(6)
    assert full.may_share(100) and full.best([4, 8, 12], 100) == 0, "that was measured long ago"


def test_a_company_has_room_while_newcomers_would_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network that one walk fills, whoever is second waits in the queue, where it is fair."""

    clock = [0.0]

    def slow(walks: Sequence[Walk[Sketch]]) -> list[Prediction]:
        clock[0] += 0.1 * sum(walk.told.rows for walk in walks)
        return toy(walks)

    def course(seed: int) -> Course[Tensor]:
        walk = toy_walk(seed, 4, 30, 0.0)
        yield Leg(NETWORKS[0], slow, walk)
        return walk.sample

    monkeypatch.setattr("engine.unclip.company.time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=lambda: clock[0]))
    company = Company(Lodging(CPU, is_resident=True), course, {})
    assert company.has_room
    for seed in range(2):
        company.join(seed)
        assert company.has_room
        company.step()
    for _ in range(3):
        company.step()
    assert not company.has_room
    while company:
        company.step()
    assert company.has_room and clock[0] < 60
