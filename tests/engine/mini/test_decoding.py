"""Samples in one batch: what they come to does not depend on who else is there, on when they came, or on who left."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.mini import Painter, decoding
from engine.mini.decoding import BUCKETS, Batch, Drawing, Recorder, Sample, bucket, chances, choose
from tests.engine.mini.conftest import SIZE, files_of

PROMPTS = ("the cat", "", "a red dog in a garden of the queen, who sleeps", "x")
DRAWINGS = (Drawing(1.0, 50, 16.0), Drawing(0.5, 300, 3.0), Drawing(2.0, 1, 1.0), Drawing(1.0, 20, 0.0))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    """A model whose pictures have 16 tokens."""
    return Painter.from_config(files_of(tmp_path_factory.mktemp("short"), replace(SIZE, paints=16)), device="cpu", dtype="float32")


def batch_of(painter: Painter) -> Batch:
    """An empty batch."""
    return Batch(painter.parts.decoder.take(), painter.read(""))


def sample_of(painter: Painter, seed: int, prompt: int = 0, drawing: int = 0, given: Sequence[int] = ()) -> Sample:
    """A picture that somebody wants."""
    return Sample(painter.read(PROMPTS[prompt]), seed, DRAWINGS[drawing], tuple(given))


def tokens_of(sample: Sample) -> list[int]:
    """What a sample came to."""
    assert sample.codes is not None
    return sample.codes.tolist()


def alone(painter: Painter, sample: Sample) -> list[int]:
    """What a sample like this comes to where nobody else is."""
    twin, batch = replace(sample, position=0, codes=None), batch_of(painter)
    batch.join(twin)
    while batch.samples:
        batch.step()
    return tokens_of(twin)


WISHES = st.tuples(st.integers(0, 9), st.integers(0, len(PROMPTS) - 1), st.integers(0, len(DRAWINGS) - 1), st.lists(st.integers(0, 299), max_size=15))
EVENTS = st.lists(st.one_of(WISHES, st.integers(0, 20), st.just(None)), max_size=40)


@settings(deadline=None, max_examples=40)
@given(events=EVENTS)
def test_whoever_joins_and_leaves_everybody_gets_their_own_picture(
    short: Painter, events: list[tuple[int, int, int, list[int]] | int | None]
) -> None:
    # A wish joins, a number leaves as far as somebody is there, None is a step.
    with torch.inference_mode():
        batch, wanted, finished = batch_of(short), [], []
        for event in [*events, *[None] * 16]:
            if isinstance(event, tuple) and len(batch.samples) < 12:
                wanted.append(sample_of(short, *event))
                batch.join(wanted[-1])
            elif isinstance(event, int) and batch.samples:
                batch.leave(batch.samples[event % len(batch.samples)])
            elif event is None and batch.samples:
                finished += batch.step()
        assert not batch.samples
        assert all(sample.codes is None for sample in wanted if sample not in finished)
        for sample in finished:
            assert tokens_of(sample) == alone(short, sample)
            assert tokens_of(sample)[: len(sample.given)] == list(sample.given)


@torch.inference_mode()
def test_in_a_batch_of_one_size_pictures_are_equal_to_the_bit(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    def heard(others: Sequence[tuple[int, int, int]], slot: int) -> Tensor:
        """All logits of one sample, in a slot among others."""
        batch, mine, found = batch_of(short), sample_of(short, 7), []
        for index, other in enumerate([*others[:slot], None, *others[slot:]]):
            batch.join(mine if other is None else sample_of(short, *other))
            assert index < 4

        def listen(logits: Tensor, *args: Tensor) -> Tensor:
            found.append(logits[slot].clone())
            return choose(logits, *args)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(decoding, "choose", listen)
            while batch.samples:
                batch.step()
        return torch.stack(found)

    first = heard([(1, 2, 1), (2, 2, 3), (3, 1, 2)], 0)
    assert torch.equal(first, heard([(4, 2, 2), (5, 2, 0), (6, 2, 0)], 0))
    assert torch.equal(first, heard([(1, 2, 1), (2, 0, 3), (3, 0, 2)], 2))
    # Other kernels may work for another number of rows: the same within float tolerance.
    assert torch.allclose(first, heard([], 0), atol=1e-3)


@torch.inference_mode()
def test_going_on_from_the_first_tokens_ends_with_the_same_picture(short: Painter) -> None:
    whole = alone(short, sample_of(short, 3))
    for rows in (1, 7, 15):
        assert alone(short, sample_of(short, 3, given=whole[:rows])) == whole
    other = alone(short, sample_of(short, 4, given=whole[:8]))
    assert other[:8] == whole[:8] and other != whole


@torch.inference_mode()
def test_what_is_asked_changes_the_picture(short: Painter) -> None:
    pictures = [
        alone(short, sample_of(short, seed, prompt, drawing)) for seed, prompt, drawing in [(1, 0, 0), (2, 0, 0), (1, 2, 0), (1, 0, 1), (1, 0, 2)]
    ]
    assert len({tuple(picture) for picture in pictures}) == len(pictures)


def test_codes_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0, 2.0, 2.5]]).expand(20_000, -1)
    noise = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = choose(logits, noise, torch.full((20_000,), 2.0), torch.full((20_000,), 3), 4)
    chances = torch.tensor([0.0, math.exp(1.5), 0.0, math.exp(1.0), math.exp(1.25)])
    assert torch.allclose(drawn.bincount(minlength=5) / 20_000, chances / chances.sum(), atol=1e-4)


def test_each_sample_is_drawn_for_with_its_own_settings() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(3, -1)
    noise = torch.full((3,), 1e-9, dtype=torch.float64)
    assert choose(logits, noise, torch.tensor([1.0, 1.0, 1e-3]), torch.tensor([1, 3, 4]), 4).tolist() == [3, 1, 3]
    # As likely as the last of them is likely enough, as in the package.
    assert choose(torch.zeros(3, 4), noise, torch.ones(3), torch.tensor([1, 2, 3]), 4).tolist() == [0, 0, 0]
    assert choose(torch.zeros(1, 4), 1 - noise[:1], torch.ones(1), torch.ones(1, dtype=torch.long), 1).tolist() == [3]


def test_what_is_no_number_is_no_code() -> None:
    assert choose(torch.full((1, 4), torch.nan), torch.tensor([0.5]).double(), torch.ones(1), torch.tensor([2]), 2).tolist() == [4]


@given(st.integers(0, 2**32 - 1))
def test_a_seed_has_its_own_chances(seed: int) -> None:
    noise = chances(seed, 256)
    assert torch.equal(noise, chances(seed, 256))
    assert not torch.equal(noise, chances((seed + 1) % 2**32, 256))
    assert 0 < noise.min() and noise.max() < 1 and 0.3 < noise.mean() < 0.7


def test_there_is_a_bucket_for_every_number_of_samples() -> None:
    for count in range(1, 200):
        assert bucket(count) >= count
        assert bucket(count) in BUCKETS or bucket(count) % BUCKETS[-1] == 0


def test_a_recorder_without_a_gpu_does_the_work_each_time() -> None:
    recorder, done = Recorder(is_on=True), []
    for _ in range(4):
        recorder.do((1,), lambda: done.append(1))
    assert len(done) == 4 and recorder.is_on == torch.cuda.is_available()


def test_a_recorder_that_fails_does_the_work_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = Recorder(is_on=False), []
    recorder.is_on = True

    monkeypatch.setattr(decoding, "record", lambda work, pool: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    for _ in range(3):
        recorder.do((1,), lambda: done.append(1))
    assert len(done) == 3 and not recorder.is_on


def test_a_recorder_plays_back_what_it_knows_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, played, recorded = Recorder(is_on=False), [], []
    recorder.is_on = True

    class Played:
        """Stands for a graph of CUDA's."""

        def replay(self) -> None:
            played.append(1)

    def record(work: object, pool: object) -> Played:
        recorded.append(1)
        return Played()

    monkeypatch.setattr(decoding, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(decoding, "RECORDINGS", 2)
    usual: list[int] = []
    for key in (1, 1, 1, 2, 2, 3, 3, 1):
        recorder.do((key,), lambda: usual.append(1))
    assert (len(usual), len(recorded), len(played)) == (3, 4, 5)


@torch.inference_mode()
def test_a_slot_that_somebody_left_holds_nothing_of_theirs(short: Painter, tmp_path: Path) -> None:
    batch = batch_of(short)
    first, second = sample_of(short, 1, 2), sample_of(short, 2, 0)
    batch.join(first)
    batch.join(second)
    for _ in range(5):
        batch.step()
    batch._state.painted[:, 0] = torch.nan
    batch.leave(first)
    third = sample_of(short, 3)
    batch.join(third)
    while batch.samples:
        batch.step()
    assert tokens_of(second) == alone(short, sample_of(short, 2, 0))
    assert tokens_of(third) == alone(short, sample_of(short, 3))


@torch.inference_mode()
def test_every_token_is_drawn_with_its_own_chance(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []

    def listen(logits: Tensor, noise: Tensor, *args: Tensor) -> Tensor:
        heard.append(float(noise[0]))
        return choose(logits, noise, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "choose", listen)
    alone(short, sample_of(short, 5))
    alone(short, sample_of(short, 5, given=range(10)))
    own = chances(5, 16).tolist()
    assert heard == [*own, *own[10:]]
