"""What people ask for and get: pictures, receipts, previews, grids without seams, variations, and company."""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import Cancelled, InvalidRequest, Misconfigured
from engine.jobs import Kind, Painting, Preset, Progress, Request
from engine.mini import MiniSettings, Painter, company
from engine.mini.company import Member
from engine.mini.painter import pack, unpack
from engine.pictures import read_receipt
from tests.conftest import png
from tests.engine.mini.conftest import SIZE, files_of


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    """A model whose pictures have 16 tokens."""
    return Painter.from_config(files_of(tmp_path_factory.mktemp("short"), replace(SIZE, paints=16)), device="cpu", dtype="float32")


BLACK = png((0, 0, 0))


def ignore(progress: Progress) -> None:
    """Not be interested."""


def pixels(data: bytes) -> np.ndarray:
    """Decode a picture."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def tokens_in(data: bytes) -> tuple[int, ...]:
    """The tokens in a picture's receipt."""
    return unpack(read_receipt(data)["tokens"])


def test_a_dream_is_pictures_with_receipts(painter: Painter) -> None:
    told: list[Progress] = []
    painting = painter.paint(Request("the cat", seed=2**32 - 1, count=2), told.append)
    assert [picture.seed for picture in painting.pictures] == [2**32 - 1, 0]
    assert {(picture.width, picture.height) for picture in painting.pictures} == {(256, 256)}
    receipt = read_receipt(painting.pictures[1].png)
    assert {key: receipt[key] for key in ("prompt", "seed", "model", "guidance", "temperature", "top_k")} == {
        "prompt": "the cat", "seed": "0", "model": "tiny", "guidance": "16", "temperature": "1", "top_k": "256",
    }  # fmt: skip
    assert len(tokens_in(painting.pictures[1].png)) == 256
    assert (painting.model, painting.steps, painting.guidance, painting.space) == ("tiny", 256, 16.0, "")
    assert [progress.done for progress in told] == list(range(1, 257)) and {progress.total for progress in told} == {256}
    assert painting.pictures[0].png != painting.pictures[1].png


def test_a_seed_is_a_receipt(short: Painter) -> None:
    grid = short.paint(Request("the cat", seed=5, count=9, guidance=4.0), settings=MiniSettings(top_k=40, temperature=0.7))
    again = short.paint(Request("the cat", seed=8, count=1, guidance=4.0), settings=MiniSettings(top_k=40, temperature=0.7))
    assert again.pictures[0].png == grid.pictures[3].png


def test_previews_show_every_second_row_of_tokens(painter: Painter) -> None:
    patient = Painter(painter.parts, preview_share=float("inf"))
    shown: dict[int, bytes] = {}

    def look(progress: Progress) -> None:
        if progress.preview is not None:
            shown[progress.done] = progress.preview()

    painting = patient.paint(Request("the cat", seed=1, count=1), look)
    assert list(shown) == [32, 64, 96, 128, 160, 192, 224]
    tokens = tokens_in(painting.pictures[0].png)
    half = [*tokens[:128], *[SIZE.codes - 1] * 128]
    [expected] = patient.images([torch.tensor(half)])
    assert np.array_equal(pixels(shown[128]), np.asarray(expected))


def test_previews_take_a_share_of_the_time_only(painter: Painter) -> None:
    hasty = Painter(painter.parts, preview_share=0.0)
    shown = []
    hasty.paint(Request("the cat", seed=1, count=1), lambda progress: shown.append(progress.preview and progress.preview()))
    # How long one takes is not known before the first.
    assert [index for index, preview in enumerate(shown, start=1) if preview] == [32]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 9])
def test_a_grid_without_seams_is_painted_as_one(short: Painter, count: int) -> None:
    request = Request("the cat", seed=3, count=count)
    plain, seamless = short.paint(request), short.paint(request, settings=MiniSettings(seamless=True))
    assert [tokens_in(picture.png) for picture in plain.pictures] == [tokens_in(picture.png) for picture in seamless.pictures]
    differ = [
        one.png != other.png and not np.array_equal(pixels(one.png), pixels(other.png))
        for one, other in zip(plain.pictures, seamless.pictures, strict=True)
    ]
    assert all(differ) == (count > 1)
    assert {(picture.width, picture.height) for picture in seamless.pictures} == {(64, 64)}


def test_a_picture_of_this_model_can_be_varied(short: Painter) -> None:
    original = short.paint(Request("the cat", seed=3, count=1)).pictures[0].png
    tokens = tokens_in(original)
    varied = short.paint(Request("", seed=9, count=2, kind=Kind.VARIATION, image=original), settings=MiniSettings(rows=4))
    for picture in varied.pictures:
        assert tokens_in(picture.png)[:4] == tokens[:4] and tokens_in(picture.png) != tokens
        assert read_receipt(picture.png)["prompt"] == "the cat"
        assert read_receipt(picture.png)["kept_tokens"] == "4"
    # The tokens may come from elsewhere, and the prompt be another one.
    given = Request("a dog", seed=9, count=2, kind=Kind.VARIATION, image=png((1, 2, 3)))
    other = short.paint(given, settings=MiniSettings(rows=4, tokens=tokens))
    assert tokens_in(other.pictures[0].png)[:4] == tokens[:4]
    assert read_receipt(other.pictures[0].png)["prompt"] == "a dog"


@given(st.lists(st.integers(0, 2**16 - 1), max_size=300))
def test_tokens_survive_being_written(tokens: list[int]) -> None:
    assert unpack(pack(tokens)) == tuple(tokens)


@given(st.text(max_size=20))
def test_what_is_no_list_of_tokens_is_none(text: str) -> None:
    assert all(isinstance(token, int) for token in unpack(text))


# --- bad input ---


def untouchable(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every use of the networks fail."""

    def touched(*args: object) -> None:
        raise AssertionError("the device was touched")

    monkeypatch.setattr(type(short.parts), "read", touched)
    monkeypatch.setattr(type(short.parts), "paint", touched)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: MiniSettings(temperature=0), "temperature must be above 0 and at most 100, not 0"),
        (lambda: MiniSettings(temperature=-1), "temperature must be above 0 and at most 100, not -1"),
        (lambda: MiniSettings(temperature=float("nan")), "temperature must be above 0 and at most 100, not nan"),
        (lambda: MiniSettings(top_k=0), "top_k must be at least 1, not 0"),
        (lambda: MiniSettings(rows=0), "rows must be 1 to 15, not 0"),
        (lambda: MiniSettings(rows=16), "rows must be 1 to 15, not 16"),
    ],
)
def test_settings_out_of_range_are_refused(ask: Callable[[], MiniSettings], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask()
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("request_", "asked", "sentence"),
    [
        (Request("a", 1), MiniSettings(top_k=301), "top_k must be at most 300, the number of tokens of tiny"),
        (Request("a", 1, kind=Kind.INPAINT, image=BLACK, mask=BLACK), MiniSettings(), "model must be one that repaints parts"),
        (Request("", 1, kind=Kind.UPSCALE, image=BLACK), MiniSettings(), "model must have a decoder for upscale; 'tiny' has none"),
        (Request("a", 1, 1, kind=Kind.EMBED), MiniSettings(), "model must have a prior for embed; 'tiny' has none"),
        (Request("a", 1, kind=Kind.VARIATION, image=BLACK), MiniSettings(), "picture must be one that tiny painted, as the file that it sent"),
        (Request("a", 1, kind=Kind.VARIATION, image=b"GIF"), MiniSettings(), "picture must be a PNG"),
        (Request("a", 1, kind=Kind.VARIATION, image=BLACK), MiniSettings(tokens=(1,) * 15), "picture must be one that tiny painted"),
        (Request("a", 1, kind=Kind.VARIATION, image=BLACK), MiniSettings(tokens=(300,) * 16), "picture must be one that tiny painted"),
    ],
)  # fmt: skip
def test_what_this_model_cannot_paint_is_refused_before_the_device_is_touched(
    short: Painter, monkeypatch: pytest.MonkeyPatch, request_: Request, asked: MiniSettings, sentence: str
) -> None:
    untouchable(short, monkeypatch)
    with pytest.raises(InvalidRequest) as refused:
        short.company().join(request_, ignore, asked)
    assert str(refused.value).startswith(sentence)


def test_a_small_vocabulary_takes_the_usual_settings(tmp_path: Path) -> None:
    # 256 is min-dalle's value, and not that of somebody who asks.
    painter = Painter.from_config(files_of(tmp_path, replace(SIZE, paints=16, codes=300)), device="cpu")
    assert painter.commission(Request("a", 1), MiniSettings()).drawing.top_k == 256
    assert painter.commission(Request("a", 1, guidance=2.0), MiniSettings()).drawing.guidance == 2.0


@settings(deadline=None, max_examples=25)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400).filter(lambda text: text.strip()))
def test_any_prompt_is_painted(short: Painter, prompt: str) -> None:
    assert len(short.paint(Request(prompt, seed=1, count=1)).pictures) == 1


def test_numbers_that_overflow_are_told(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = short.parts.decoder.take()
    monkeypatch.setattr(type(decoder), "answer", lambda self, hidden, guidance: torch.full((len(guidance), SIZE.codes), torch.nan))
    with pytest.raises(Misconfigured, match="no numbers in this dtype"):
        short.paint(Request("a", seed=1, count=1))


def test_what_a_painter_says_of_itself(short: Painter) -> None:
    assert short.model == "tiny" and short.side == 64
    assert short.kinds == {Kind.DREAM, Kind.VARIATION}
    assert (short.space, short.known_words, short.everyday, short.usual_steps(Preset.BEST)) == ("", (), (), 0)
    assert (short.usual_guidance, short.usual_prior_guidance) == ((short.parts.usual.guidance,), None)
    for embed in (lambda: short.embed_texts(["a"]), lambda: short.embed_picture(b"")):
        with pytest.raises(Misconfigured, match="no CLIP"):
            embed()
    short.paint(Request("once more", seed=1, count=1))
    short.paint(Request("once more", seed=2, count=1))
    asked, known = short.cached["texts"]
    assert known >= 1 and asked > known


def test_several_prompts_are_painted_beside_each_other(short: Painter) -> None:
    painted = short.dream(["the cat", "a dog"], count=2, seed=4)
    assert [one.settings["prompt"] for one in painted] == ["the cat", "the cat", "a dog", "a dog"]
    assert painted[2].picture.png == short.paint(Request("a dog", seed=4, count=1)).pictures[0].png


# --- company ---


def finish(together: company.Company, members: list[Member]) -> Iterator[Member]:
    """Paint until nobody is left; yield whoever is done."""
    while len(together):
        yield from together.step()
    assert all(member.is_done for member in members)


def test_company_gets_what_it_would_get_alone(short: Painter) -> None:
    requests = [Request(prompt, seed=seed, count=count) for prompt, seed, count in (("the cat", 1, 4), ("a dog", 2, 1), ("x", 3, 9))]
    asked = [MiniSettings(), MiniSettings(top_k=3, temperature=2.0), MiniSettings(seamless=True)]
    together = short.company()
    members = [together.join(request, ignore, settings) for request, settings in zip(requests, asked, strict=True)]
    assert {id(member) for member in finish(together, members)} == {id(member) for member in members}
    for member, request, settings_ in zip(members, requests, asked, strict=True):
        assert member.result is not None and member.error is None and member.busy_s > 0
        assert member.result.pictures == short.paint(request, settings=settings_).pictures


def test_there_are_seats_and_places(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    together = short.company()
    assert together.has_room
    together.join(Request("the cat", seed=1, count=9), ignore)
    assert together.has_room
    together.join(Request("the cat", seed=1, count=9), ignore)
    assert not together.has_room
    assert all(member.result for member in finish(together, []))
    for _ in range(company.SEATS):
        assert together.has_room
        together.join(Request("the cat", seed=1, count=1), ignore)
    assert not together.has_room
    for member in list(together._members):
        together.drop(member)
    assert together.has_room and len(together) == 0


def test_more_pictures_than_places_are_painted_one_after_the_other(short: Painter) -> None:
    together = short.company()
    together.most = 2
    told: list[Progress] = []
    member = together.join(Request("the cat", seed=1, count=5), told.append, MiniSettings(seamless=True))
    list(finish(together, [member]))
    assert member.result is not None
    assert member.result.pictures == short.paint(Request("the cat", seed=1, count=5), settings=MiniSettings(seamless=True)).pictures
    assert [progress.done for progress in told] == sorted({progress.done for progress in told}) and told[-1].done == told[-1].total


def test_a_batch_that_memory_does_not_suffice_for_becomes_smaller(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    real = company.Batch.join

    def narrow(self: company.Batch, sample: company.Sample) -> None:
        if len(self.samples) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, sample)

    monkeypatch.setattr(company.Batch, "join", narrow)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    together = short.company()
    member = together.join(Request("the cat", seed=1, count=5), ignore)
    list(finish(together, [member]))
    assert together.most == 3 and member.result is not None and len(member.result.pictures) == 5


def test_whoever_stops_stops_alone(short: Painter) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 5:
            raise Cancelled

    together = short.company()
    staying, leaving = together.join(Request("the cat", seed=1, count=2), ignore), together.join(Request("a dog", seed=1, count=4), stop)
    list(finish(together, [staying, leaving]))
    assert isinstance(leaving.error, Cancelled) and leaving.result is None
    assert staying.result is not None and staying.result.pictures == short.paint(Request("the cat", seed=1, count=2)).pictures
    with pytest.raises(Cancelled):
        short.paint(Request("a dog", seed=1, count=4), stop)


def test_whoever_is_dropped_between_two_steps_leaves_the_others_as_they_are(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the worker does it, outside of any step; one token each, so that all are in the midst of it.
    monkeypatch.setattr(company, "STRETCH_S", 1e-9)
    together = short.company()
    first, second, third = (together.join(Request("the cat", seed=seed, count=2), ignore) for seed in range(3))
    together.step()
    together.drop(first)
    together.step()
    together.drop(third)
    assert list(finish(together, [second])) == [second]
    assert second.result is not None and second.result.pictures == short.paint(Request("the cat", seed=1, count=2)).pictures


def test_a_fault_in_the_colours_is_that_of_the_requests_concerned(short: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    together = short.company()
    member = together.join(Request("the cat", seed=1, count=2), ignore)

    def fail(self: Painter, codes: object, columns: int = 0) -> None:
        raise RuntimeError("cudnn")

    with monkeypatch.context() as patched:
        patched.setattr(Painter, "images", fail)
        assert list(finish(together, [member])) == [member]
    assert str(member.error) == "cudnn"
    assert short.paint(Request("the cat", seed=1, count=2)).pictures


@settings(deadline=None, max_examples=15, phases=[Phase.explicit, Phase.generate])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 5]), st.booleans(), st.sampled_from([None, 1, 9])),
            st.integers(0, 9),
            st.none(),
        ),
        max_size=14,
    )
)
def test_whatever_people_do_everybody_left_gets_their_picture(short: Painter, events: list[tuple[int, int, bool, int | None] | int | None]) -> None:
    # A tuple joins, and may be cancelled at a token; a number is dropped, as far as somebody is there; None is a step.
    def report_of(stop_at: int | None) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            if progress.done == stop_at:
                raise Cancelled

        return report

    together, members, known = short.company(), [], {}
    together.most = 6
    dropped: list[Member] = []
    for event in events:
        if isinstance(event, tuple):
            seed, count, seamless, stop_at = event
            members.append(together.join(Request("the cat", seed=seed, count=count), report_of(stop_at), MiniSettings(seamless=seamless)))
        elif isinstance(event, int):
            if len(together):
                dropped.append(together._members[event % len(together)])
                together.drop(dropped[-1])
        elif len(together):
            together.step()
    list(finish(together, [member for member in members if member not in dropped]))
    for member in members:
        if member in dropped or member.error is not None:
            assert member.result is None and (member in dropped or isinstance(member.error, Cancelled))
            continue
        assert isinstance(member.result, Painting)
        key = (member.request, member.settings)
        if key not in known:
            known[key] = short.paint(*(member.request, ignore, member.settings)).pictures
        assert member.result.pictures == known[key]
    assert short._batch is None or not short._batch.samples


def test_tokens_are_sixteen_bits_each() -> None:
    assert len(pack([0, 16383])) == 8
    with pytest.raises(struct.error):
        pack([2**16])
