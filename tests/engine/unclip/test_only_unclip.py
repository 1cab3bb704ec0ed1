"""What only a model with a space of picture embeddings can do, with the bundled model's real weights."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from engine.errors import Cancelled, InvalidRequest
from engine.jobs import FRAMES_LIMIT, Ingredient, Kind, Preset, Progress, Request
from engine.options import Options, Solver
from engine.pictures import VERSION, encode, hash_of, read_receipt, write_receipt
from engine.unclip import Painter, operations, sphere
from engine.unclip.commissions import Painted, no_report, told
from engine.unclip.company import Company
from engine.unclip.config import read_model_config
from engine.unclip.model import fingerprint_of
from engine.unclip.stages import UnetStage
from engine.unclip.verifying import followed
from engine.uploads import Framing
from engine.verdicts import Finding
from tests.engine.unclip.conftest import FOLDER
from tests.engine.unclip.test_operations import CAT, left_half, pixels

DOG = "a dog on a blue background"


@pytest.fixture(scope="module")
def cat(painter: Painter) -> Painted:
    return painter.dream([CAT], count=1, seed=7, steps=12)[0]


@pytest.fixture(scope="module")
def dog(painter: Painter) -> Painted:
    return painter.dream([DOG], count=1, seed=8, steps=12)[0]


def seen(painter: Painter, *painted: Painted) -> Tensor:
    return painter.look([one.image for one in painted], Framing.CROP)


def embeds(painted: Sequence[Painted]) -> Tensor:
    return torch.stack([torch.from_numpy(one.embed) for one in painted])


def mean_difference(one: Painted, other: Painted) -> float:
    return float(np.abs(pixels(one) - pixels(other)).mean())


# Strength.


def test_no_strength_gives_the_picture_back_and_more_leads_further_away(painter: Painter, cat: Painted) -> None:
    distances = [mean_difference(painter.variation([cat.picture.png], count=1, seed=5, strength=strength)[0], cat) for strength in (0.0, 0.4, 1.0)]
    assert distances[0] < 5 and distances[0] < 0.7 * distances[2]
    assert distances[0] < distances[1] < distances[2]


def test_full_strength_is_what_a_variation_is_without_any(painter: Painter, cat: Painted) -> None:
    plain, full = (painter.variation([cat.picture.png], count=2, seed=5, steps=3, **ways) for ways in ({}, {"strength": 1.0}))
    assert [one.picture.png for one in plain] == [one.picture.png for one in full]


def test_a_drift_turns_the_meaning_by_its_share_of_a_right_angle_each_time_another_way(painter: Painter, cat: Painted) -> None:
    one, other = painter.variation([cat.picture.png], count=2, seed=5, steps=1, drift=0.3)
    source = seen(painter, cat)[0]
    found = embeds([one, other])
    assert sphere.angle(found, source.expand_as(found)).numpy() == pytest.approx(0.3 * np.pi / 2, abs=1e-4)
    assert float(found[0] @ found[1]) < 0.99


def test_a_trace_takes_no_noise_and_as_much_guidance_as_it_leads_away(painter: Painter, cat: Painted) -> None:
    [plain] = painter.variation([cat.picture.png], count=1, seed=5, steps=2, strength=0.5)
    assert plain.settings["solver"] == [Solver.DDIM] * len(painter.parts.stages)
    assert plain.settings["guidance"] == [1 + (own.guidance - 1) / 2 for own in painter.parts.settings]
    [guided] = painter.variation([cat.picture.png], count=1, seed=5, steps=2, strength=0.5, guidance=2.0)
    assert guided.settings["guidance"][0] == 2.0
    noisy = replace(painter.parts, stages=tuple(replace(stage, eta=1.0) for stage in painter.parts.stages))
    [other] = Painter(noisy).variation([cat.picture.png], count=1, seed=5, steps=2, strength=0.5)
    assert np.array_equal(pixels(other), pixels(plain))


def test_one_step_is_enough_to_set_out_from_a_picture(painter: Painter, cat: Painted) -> None:
    assert painter.variation([cat.picture.png], count=1, seed=5, steps=[1] * len(painter.parts.stages), strength=0.0)[0].image.size == cat.image.size


# Blends and morphs.


def test_a_blend_is_painted_from_the_mean_on_the_sphere(painter: Painter, cat: Painted, dog: Painted) -> None:
    first, second = seen(painter, cat, dog)
    [blended] = painter.blend([cat.picture.png, dog.picture.png], [3, 1], count=1, seed=1, steps=1)
    assert torch.allclose(torch.from_numpy(blended.embed), sphere.slerp(first, second, 0.25), atol=1e-5)
    [dreamt] = painter.embed([DOG], seed=1, candidates=1)
    drawn = F.normalize(torch.from_numpy(dreamt.image_embed), dim=0)
    [mixed] = painter.blend([cat.picture.png, DOG], count=1, seed=1, steps=1, candidates=1)
    assert torch.allclose(torch.from_numpy(mixed.embed), sphere.slerp(first, drawn, 0.5), atol=1e-4)
    assert mixed.settings["picture_1"] == hash_of(cat.picture.png) and mixed.settings["text_2"] == DOG


def test_every_picture_of_a_blend_has_its_own_draws_of_its_prompts(painter: Painter) -> None:
    one, other = painter.blend([CAT, DOG, "a tree"], count=2, seed=1, steps=1, prior_steps=3)
    assert one.settings["prior_seed"] == 1 and other.settings["prior_seed"] == 2
    assert not np.allclose(one.embed, other.embed, atol=1e-3)


def test_a_morph_goes_at_constant_speed_with_the_noise_of_one_seed(painter: Painter, cat: Painted) -> None:
    frames = painter.morph(cat.picture.png, DOG, 5, seed=3, steps=2, batch=2)
    assert [one.seed for one in frames] == [3] * 5 and [one.settings["frame"] for one in frames] == [1, 2, 3, 4, 5]
    found = embeds(frames)
    angles = sphere.angle(found[:-1], found[1:])
    assert angles.max() - angles.min() < 1e-4 and angles.min() > 0.01
    assert torch.allclose(found[0], seen(painter, cat)[0], atol=1e-5)
    # What shares its embedding shares all its pixels.
    [start] = painter.variation([cat.picture.png], count=1, seed=3, steps=2)
    assert np.abs(pixels(frames[0]) - pixels(start)).max() <= 1


# Edits.


def test_an_edit_keeps_size_and_background_and_turns_the_meaning_to_the_difference(painter: Painter, cat: Painted) -> None:
    large = encode(cat.image.convert("RGB").resize((150, 100)))
    [edited] = painter.edit(large, "a cat", "a pizza", seed=1, steps=10, strength=0.25)
    assert edited.image.size == (150, 100)
    after = np.asarray(edited.image.convert("RGB")).astype(int)
    before = np.asarray(Image.open(io.BytesIO(large))).astype(int)
    assert np.array_equal(after[:, :20], before[:, :20]), "outside of the middle square nothing is painted"
    # The background is what most of the square shows.
    assert np.abs(np.median(after[:, 25:125], (0, 1)) - np.median(before[:, 25:125], (0, 1))).max() < 12
    cat_drawn, pizza_drawn = (
        F.normalize(torch.stack([torch.from_numpy(painter.embed([text], seed=1 + draw)[0].image_embed) for draw in range(6)]).mean(0), dim=0)
        for text in ("a cat", "a pizza")
    )
    source = painter.look([Image.open(io.BytesIO(large))], Framing.CROP)[0]
    expected = F.normalize(source + 0.5 * (pizza_drawn - cat_drawn), dim=0)
    assert torch.allclose(torch.from_numpy(edited.embed), expected, atol=1e-4)


def test_an_edit_of_no_strength_is_the_picture(painter: Painter, cat: Painted) -> None:
    [edited] = painter.edit(cat.picture.png, "a cat", "a tree", seed=1, strength=0.0)
    assert mean_difference(edited, cat) < 5


# Draws.


def test_draws_come_with_their_scores_and_the_picked_one_can_be_painted(painter: Painter) -> None:
    drawn = painter.draws(CAT, 10, seed=20, prior_steps=4, preset=Preset.BEST)
    assert sorted(one.seed for one in drawn) == list(range(20, 30))
    scores = [one.score for one in drawn]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1] and -1 <= scores[-1] <= scores[0] <= 1
    picked = drawn[3]
    [painted] = painter.dream([CAT], count=1, seed=1, steps=1, prior_seed=picked.seed, candidates=1, prior_steps=4, preset=Preset.BEST)
    assert np.array_equal(painted.embed, picked.image_embed)
    anew = Painter(painter.parts).dream([CAT], count=1, seed=1, steps=1, prior_seed=picked.seed, candidates=1, prior_steps=4, preset=Preset.BEST)[0]
    assert np.allclose(anew.embed, picked.image_embed, atol=1e-4)


# Wheels.


def test_a_wheel_lies_around_its_centre_at_equal_distance(painter: Painter, cat: Painted) -> None:
    wheel = painter.explore(cat.picture.png, 0.3, seed=4, steps=1)
    found, centre = embeds(wheel), seen(painter, cat)[0]
    assert len(wheel) == 9 and {one.seed for one in wheel} == {4}
    assert torch.allclose(found[4], centre, atol=1e-5)
    edges = found[[0, 1, 2, 3, 5, 6, 7, 8]]
    assert sphere.angle(edges, centre.expand_as(edges)).numpy() == pytest.approx(0.3 * np.pi / 2, abs=1e-4)
    # Opposite edges lie on one way through the centre; the two first directions are at right angles.
    for one, other in ((0, 8), (1, 7), (2, 6), (3, 5)):
        assert torch.allclose(sphere.slerp(found[one], found[other], 0.5), centre, atol=1e-4)
    right, down = sphere.log(centre, found[[5, 7]])
    assert abs(float(F.cosine_similarity(right, down, dim=0))) < 1e-4


def test_an_edge_of_a_wheel_can_be_the_centre_of_the_next(painter: Painter, cat: Painted) -> None:
    edge = painter.explore(cat.picture.png, seed=4, steps=1)[5]
    assert edge.embed is not None
    again = painter.explore(edge.embed, seed=4, steps=1)
    assert np.allclose(again[4].embed, edge.embed, atol=1e-5) and np.abs(pixels(again[4]) - pixels(edge)).max() <= 1


def test_the_directions_of_a_wheel_are_those_of_the_neighbours_that_are_handed_in(painter: Painter, cat: Painted) -> None:
    centre = seen(painter, cat)[0]
    first, second = sphere.aside(centre), sphere.aside(centre, sphere.aside(centre))
    ways = torch.stack([0.3 * first, -0.3 * first, 0.1 * second, -0.1 * second])
    wheel = painter.explore(cat.picture.png, 0.2, seed=1, steps=1, neighbours=sphere.exp(centre, ways).numpy())
    right, down = F.normalize(sphere.log(centre, embeds([wheel[5], wheel[7]])), dim=1)
    assert abs(float(right @ first)) == pytest.approx(1, abs=1e-3) and abs(float(down @ second)) == pytest.approx(1, abs=1e-3)
    assert wheel[0].settings["neighbours"] == 4


# What all share.


def test_every_step_is_counted_and_can_be_the_last(painter: Painter, cat: Painted) -> None:
    png = cat.picture.png
    for work in (
        lambda one, report: one.variation([png], report, count=3, seed=1, steps=3, strength=0.5, batch=2),
        lambda one, report: one.blend([png, CAT, DOG], None, report, count=3, seed=1, steps=2, prior_steps=3, batch=2),
        lambda one, report: one.morph(CAT, png, 3, report, seed=1, steps=2, prior_steps=3),
        lambda one, report: one.edit(png, "a cat", "a dog", report, seed=1, steps=3),
        lambda one, report: one.explore(png, 0.3, report, seed=1, steps=2),
        lambda one, report: one.draws(CAT, 5, report, seed=1, batch=2),
    ):
        heard: list[Progress] = []
        # Painters that remember nothing: what is known already is skipped.
        work(Painter(painter.parts), heard.append)
        assert [one.done for one in heard] == list(range(1, heard[0].total + 1))

        def stop(progress: Progress) -> None:
            if progress.done == 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            work(Painter(painter.parts), stop)


def test_all_of_it_is_painted_beside_each_other(painter: Painter, cat: Painted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.unclip.company.STRETCH_S", 0.0)
    monkeypatch.setattr("engine.unclip.company.GAIN", 0.0)
    png, how = cat.picture.png, Options(count=1, seed=2, steps=3, prior_steps=3)
    commissions = [
        operations.variation(painter, [png], "", Framing.CROP, how, 0.4, 0.1),
        operations.blend(painter, [png, DOG], None, Framing.CROP, how),
        operations.morph(painter, CAT, png, 2, Framing.CROP, how),
        operations.edit(painter, png, "a cat", "a dog", 0.5, Framing.CROP, how),
    ]
    asked, shared = UnetStage.ask, []
    monkeypatch.setattr(UnetStage, "ask", lambda stage, walks: shared.append(len(walks)) or asked(stage, walks))
    company = Company(painter.parts.lodging, lambda commission: painter.work(commission, no_report), {})
    tickets = [company.join(commission) for commission in commissions]
    while len(company):
        company.step()
    assert max(shared) > 1
    for commission, ticket in zip(commissions, tickets, strict=True):
        assert ticket.error is None and ticket.result is not None
        for one, other in zip(ticket.result, painter.alone(painter.work(commission, no_report)), strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_a_request_comes_to_what_the_operation_paints(painter: Painter, cat: Painted, dog: Painted) -> None:
    file, other = cat.picture.png, dog.picture.png
    ways = {"steps": 2, "preset": Preset.FAST}
    mixed = (Ingredient(file, weight=3.0), Ingredient(prompt=DOG))
    asked = [
        (
            Request("", 5, 2, kind=Kind.BLEND, ingredients=mixed, prior_steps=3, **ways),
            painter.blend([file, DOG], [3, 1], count=2, seed=5, prior_steps=3, **ways),
        ),
        (Request("", 5, 3, kind=Kind.MORPH, ingredients=(mixed[0], Ingredient(other)), **ways), painter.morph(file, other, 3, seed=5, **ways)),
        (
            Request(DOG, 5, 1, kind=Kind.EDIT, image=file, before=CAT, strength=0.4, **ways),
            painter.edit(file, CAT, DOG, strength=0.4, framing=Framing.PAD, seed=5, **ways),
        ),
        (Request("", 5, 9, kind=Kind.EXPLORE, image=file, step=0.2, **ways), painter.explore(file, 0.2, seed=5, **ways)),
        (
            Request("", 5, 1, kind=Kind.VARIATION, image=file, strength=0.5, drift=0.2, **ways),
            painter.variation([file], count=1, seed=5, strength=0.5, drift=0.2, **ways),
        ),
        (Request(CAT, 5, 2, prior_seed=9, prior_steps=3, **ways), painter.dream([CAT], count=2, seed=5, prior_seed=9, prior_steps=3, **ways)),
    ]
    for request, painted in asked:
        assert [one.png for one in painter.paint(request, no_report).pictures] == [one.picture.png for one in painted], request.kind
        assert request.kind in painter.kinds and request.seeds == tuple(one.seed for one in painted)
    drawn = painter.paint(Request(CAT, 5, 3, kind=Kind.DRAWS, prior_steps=3), no_report)
    expected = painter.draws(CAT, 3, seed=5, prior_steps=3)
    assert [one.seed for one in drawn.draws] == [one.seed for one in expected] and drawn.pictures == ()
    assert [one.score for one in drawn.draws] == pytest.approx([one.score for one in expected], abs=1e-6)


def test_a_request_to_verify_comes_to_a_verdict_and_the_picture_that_was_painted_again(painter: Painter, cat: Painted) -> None:
    [varied] = painter.variation([cat.picture.png], count=1, seed=5, steps=2)
    request = Request("", 0, 1, kind=Kind.VERIFY, image=varied.picture.png, ingredients=(Ingredient(cat.picture.png),))
    painting = painter.paint(request, no_report)
    assert painting.verdict is not None and painting.verdict.finding is Finding.SAME and painting.verdict.picture is None
    assert [one.png for one in painting.pictures] == [varied.picture.png] and painting.pictures[0].seed == 5
    with pytest.raises(InvalidRequest, match="sources"):
        painter.paint(replace(request, ingredients=()), no_report)
    foreign = painter.paint(replace(request, image=changed(varied.picture.png, model_hash="0" * 16)), no_report)
    assert foreign.verdict is not None and foreign.verdict.finding is Finding.OTHER_MODEL and foreign.pictures == ()


def test_a_course_that_has_nothing_to_walk_ends_all_the_same(painter: Painter) -> None:
    company = Company(painter.parts.lodging, lambda: painter.drawing(CAT, 2, Options(count=1, seed=1), no_report), {})
    first = company.join()
    while len(company):
        company.step()
    known = company.join()
    assert company.step() == [known] and not len(company)
    assert [one.seed for one in known.result or []] == [one.seed for one in first.result or []]


REFUSED: dict[str, Callable[[Painter, bytes], object]] = {
    "strength must be 0 to 1, not nan": lambda painter, png: painter.variation([png], strength=float("nan")),
    "strength must be 0 to 1, not 1.1": lambda painter, png: painter.variation([png], strength=1.1),
    "drift must be 0 to 1, not -1": lambda painter, png: painter.variation([png], drift=-1),
    "solver must be ddim": lambda painter, png: painter.variation([png], strength=0.5, solver=Solver.DPM_SDE),
    "ingredients must be two to 5": lambda painter, png: painter.blend([png]),
    "ingredients must be two to": lambda painter, png: painter.blend(["a"] * 6),
    "ingredients must be": lambda painter, png: painter.blend("a cat"),  # type: ignore[arg-type]  # what people write by mistake
    "weights must be as many as there are ingredients: 2, not 1": lambda painter, png: painter.blend([png, CAT], [1]),
    "weights must be above 0 and at most 100, not 0": lambda painter, png: painter.blend([png, CAT], [1, 0]),
    "weights must be above 0 and at most 100, not nan": lambda painter, png: painter.blend([png, CAT], [float("nan"), 1]),
    "weights must be above 0 and at most 100, not inf": lambda painter, png: painter.blend([png, CAT], [float("inf"), 1]),
    "prompt must hold": lambda painter, png: painter.blend([png, " "]),
    "cannot be read": lambda painter, png: painter.blend([b"no picture", CAT]),
    "frames must be 2 to 32, not 33": lambda painter, png: painter.morph(CAT, DOG, FRAMES_LIMIT + 1),
    "frames must be 2 to 32, not 1": lambda painter, png: painter.morph(CAT, DOG, 1),
    "is damaged": lambda painter, png: painter.morph(png[: len(png) // 2], DOG),
    "after must say something else": lambda painter, png: painter.edit(png, "a cat", "A  CAT"),
    "strength must be 0 to 1, not 2": lambda painter, png: painter.edit(png, "a cat", "a dog", strength=2),
    "prompt must be at most": lambda painter, png: painter.edit(png, "a cat", "x" * 10_000),
    "step must be 0 to 1, not inf": lambda painter, png: painter.explore(png, float("inf")),
    "centre must hold at least 1 embeddings, each of 128": lambda painter, png: painter.explore(np.zeros(128)),
    "centre must hold": lambda painter, png: painter.explore(np.ones((2, 64))),
    "neighbours must hold at least 3": lambda painter, png: painter.explore(png, neighbours=np.ones((2, 128))),
    "neighbours must hold": lambda painter, png: painter.explore(png, neighbours=np.full((3, 128), np.nan)),
    "number must be 1 to 32, not 33": lambda painter, png: painter.draws(CAT, 33),
    "picture must carry a receipt": lambda painter, png: painter.verify(encode(Image.new("RGB", (8, 8)))),
    "picture must be a PNG": lambda painter, png: painter.verify(b"no picture"),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_walked(painter: Painter, cat: Painted, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    monkeypatch.setattr(Painter, "work", lambda *others: pytest.fail("painted"))
    with pytest.raises(InvalidRequest, match=says):
        REFUSED[says](painter, cat.picture.png)


def test_models_that_lack_a_part_say_so(painter: Painter, cat: Painted) -> None:
    without_prior = Painter(replace(painter.parts, prior=None))
    assert len(without_prior.blend([cat.picture.png] * 2, count=1, steps=1)) == 1
    [edited] = without_prior.edit(cat.picture.png, "a cat", "a dog", steps=1)
    text = painter.read(["a cat", "a dog"]).embed
    turned = sphere.slerp(painter.look([cat.image], Framing.CROP)[0], F.normalize(text[1] - text[0], dim=0), 0.3)
    assert torch.allclose(torch.from_numpy(edited.embed), turned, atol=1e-4)
    for work in (lambda: without_prior.blend([CAT, cat.picture.png]), lambda: without_prior.draws(CAT), lambda: without_prior.morph(CAT, DOG)):
        with pytest.raises(InvalidRequest, match="have a prior for"):
            work()


# Receipts.


def changed(png: bytes, **facts: object) -> bytes:
    """Write a receipt anew; None takes a fact out."""
    kept = {
        key: value for key, value in (read_receipt(png) | facts).items() if value is not None and key not in ("Software", "Description", "version")
    }
    return write_receipt(encode(Image.open(io.BytesIO(png))), kept)


@pytest.mark.parametrize(
    "ways",
    [
        {"steps": 4, "prior_steps": 5},
        {"solver": Solver.DPM_SDE, "steps": 3, "prior_steps": 4, "guidance": 1.7, "prior_seed": 99, "candidates": 2},
        {"steps": [2, 1], "guidance_interval": (0.1, 0.8), "preset": "best"},
        {"steps": [2, 2, 1], "prior_steps": 4, "candidates": 2, "drafts": 3},
    ],
)
def test_a_dream_is_verified_from_its_receipt_alone(painter: Painter, ways: dict) -> None:
    [painted] = painter.dream([CAT], count=1, seed=2**32 - 1, **ways)
    verdict = Painter(painter.parts).verify(painted.picture.png)
    assert (verdict.finding, verdict.same_model, verdict.largest, verdict.mean, verdict.differs) == (Finding.SAME, True, 0, 0.0, ())
    assert verdict.sentence.endswith("not a pixel differs.") and verdict.picture == painted.picture.png


def test_every_operation_is_verified_with_what_it_was_made_from(painter: Painter, cat: Painted, dog: Painted) -> None:
    png, other, mask = cat.picture.png, dog.picture.png, left_half(cat.image.size)
    quick = {"count": 1, "seed": 3, "steps": 2, "prior_steps": 3}
    made: list[tuple[list[Painted], list[bytes]]] = [
        (painter.variation([png], **quick), [png]),
        (painter.variation([png], drafts=2, drift=0.1, **quick), [png]),
        (painter.variation([png], strength=0.3, drift=0.25, framing=Framing.FIT, **quick), [png]),
        (painter.inpaint(png, mask, DOG, resamples=2, **quick), [png, mask]),
        (painter.upscale([png], seed=3, steps=[1, 3]), [png]),
        (painter.blend([png, DOG, other], [1, 0.1, 1 / 3], **quick), [png, other]),
        (painter.blend([CAT, DOG], **quick), []),
        (painter.morph(CAT, other, 3, seed=3, steps=2)[1:2], [other]),
        (painter.edit(other, "a dog", "a cat, tired", strength=0.45, **quick), [other]),
        (painter.explore(png, 0.3, seed=3, steps=2)[2:3], [png]),
    ]
    for [painted], sources in made:
        verdict = painter.verify(painted.picture.png, sources)
        assert verdict.same_model and verdict.largest is not None and verdict.largest <= 1, painted.settings["operation"]
        for wrong in ([], [*sources, png], [b"", *sources[1:]]) if sources else ([png],):
            with pytest.raises(
                InvalidRequest, match=f"sources must be the files that the picture was made from, in their order; they are {len(sources)}"
            ):
                painter.verify(painted.picture.png, wrong)


def test_what_was_changed_is_found(painter: Painter) -> None:
    [painted] = painter.dream([CAT], count=1, seed=5, steps=2)
    png, facts = painted.picture.png, read_receipt(painted.picture.png)
    picture = painted.image.convert("RGB")
    red, green, blue = picture.getpixel((3, 3))  # type: ignore[misc]  # of RGB pictures, three numbers
    for change, finding in ((1, Finding.ROUNDED), (9, Finding.DIFFERENT)):
        picture.putpixel((3, 3), (red, green + (change if green < 128 else -change), blue))
        verdict = painter.verify(write_receipt(encode(picture), {key: facts[key] for key in painted.settings if key in facts}))
        assert (verdict.finding, verdict.largest, verdict.same_model) == (finding, change, True)
        assert verdict.mean == pytest.approx(change / (3 * picture.width * picture.height))
    larger = write_receipt(encode(picture.resize((80, 80))), {key: facts[key] for key in painted.settings if key in facts})
    assert painter.verify(larger).finding is Finding.OTHER_SIZE
    assert painter.verify(changed(png, seed=6)).finding is Finding.DIFFERENT
    assert painter.verify(changed(png, computed="bfloat16 on cuda")).differs == ("computed",)


def test_another_model_is_told_at_once(painter: Painter, cat: Painted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Painter, "work", lambda *others: pytest.fail("painted"))
    png = cat.picture.png
    for other, same in ((changed(png, model_hash="0" * 16), False), (changed(png, model_hash=None, model="another"), None)):
        verdict = painter.verify(other)
        assert (verdict.finding, verdict.same_model, verdict.largest, verdict.picture) == (Finding.OTHER_MODEL, same, None, None)


def test_receipts_of_earlier_versions_are_read(painter: Painter, cat: Painted) -> None:
    [painted] = painter.dream([CAT], count=1, seed=5, steps=2)
    old = changed(painted.picture.png, operation=None, model_hash=None, computed=None)
    verdict = painter.verify(old)
    assert (verdict.finding, verdict.same_model, verdict.differs) == (Finding.SAME, None, ())
    [varied] = painter.variation([cat.picture.png], count=1, seed=5, steps=2)
    with pytest.raises(InvalidRequest, match="does not say all that it takes"):
        painter.verify(changed(varied.picture.png, operation=None, framing=None, sources=None, model_hash=None))


def test_receipts_that_cannot_be_followed_are_refused(painter: Painter, cat: Painted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Painter, "work", lambda *others: pytest.fail("painted"))
    for facts, says in (
        ({"steps": "9" * 400}, "be whole"),
        ({"steps": "9" * 5000}, "be whole"),
        ({"steps": "251, 1, 1"}, "steps must be 1 to 250"),
        ({"steps": "1, 1, 1, 1, 1, 1, 1"}, "be whole"),
        ({"steps": ""}, "be whole|does not say"),
        ({"steps": None}, "be whole"),
        ({"guidance": "nan, 1, 1"}, "guidance must be"),
        ({"solver": "euler"}, "be whole"),
        ({"prior_seed": "-1"}, "prior_seed must be"),
        ({"candidates": "1000000"}, "candidates must be"),
        ({"drafts": "1000000"}, "drafts must be"),
        ({"prior_steps": "1e9"}, "be whole"),
        ({"prompt": "x" * 5000}, "prompt must be at most"),
        ({"operation": "explode"}, "does not say"),
        ({"operation": "blend"}, "be whole"),
        ({"operation": "morph", "text_1": "a", "text_2": "b", "frames": "10000"}, "frames must be"),
        ({"operation": "variation", "sources": ", ".join(["0" * 16] * 5000)}, "they are 5000"),
        ({"seed": "7.0"}, "be whole"),
        ({"seed": " 7"}, "does not say"),
        ({"guidance_interval": "0.9, 0.1"}, "guidance_interval must be"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            painter.verify(changed(cat.picture.png, **facts))


@given(
    facts=st.dictionaries(
        st.sampled_from(
            (
                "operation",
                "steps",
                "guidance",
                "solver",
                "seed",
                "prior_seed",
                "prior_steps",
                "prior_solver",
                "candidates",
                "drafts",
                "framing",
                "sources",
            )
            + ("strength", "weights", "text_1", "text_2", "picture_1", "frames", "step", "before", "prompt", "guidance_interval", "resamples")
        ),
        st.none()
        | st.text(max_size=20)
        | st.sampled_from(("0", "1", "1, 2", "0.5", "1e400", "blend", "morph", "edit", "explore", "upscale", "inpaint", "ddpm", "fit", ", ", "٣")),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_receipt_says_it_is_followed_or_refused(painter: Painter, cat: Painted, facts: dict[str, str | None]) -> None:
    receipt = {key: value for key, value in (read_receipt(cat.picture.png) | facts).items() if value is not None}
    try:
        commission = followed(painter, receipt, [])
    except InvalidRequest:
        return
    assert len(commission.wanted) == 1


def test_a_receipt_says_what_paints_a_picture_again_and_stays_small(painter: Painter, cat: Painted) -> None:
    receipt = read_receipt(cat.picture.png)
    assert receipt["operation"] == "dream" and receipt["model_hash"] == painter.parts.fingerprint and receipt["version"] == VERSION
    assert receipt["computed"] == "float32 on cpu" and len(painter.parts.fingerprint) == 16
    assert len(cat.picture.png) - len(encode(cat.image)) < 1000


def test_the_version_on_receipts_is_that_of_the_project() -> None:
    assert f'version = "{VERSION}"' in (FOLDER.parents[1] / "pyproject.toml").read_text()


def test_a_fingerprint_tells_weights_apart(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            (folder / path.relative_to(FOLDER)).parent.mkdir(exist_ok=True, parents=True)
            (folder / path.relative_to(FOLDER)).write_bytes(path.read_bytes())
    config = read_model_config(folder / "picturebook.json")
    whole = fingerprint_of(config, folder)
    assert whole == fingerprint_of(read_model_config(FOLDER / "picturebook.json"), FOLDER)
    found = {whole}
    for name in ("decoder.safetensors", "prior.safetensors", "prior.json", "clip/open_clip_model.safetensors"):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
        found.add(fingerprint_of(config, folder))
    assert len(found) == 5
    (folder / "words.txt").write_text("other words")
    assert fingerprint_of(config, folder) in found


def test_settings_of_a_model_may_be_beyond_what_anybody_may_ask_for(painter: Painter) -> None:
    """LAION's own config walks a thousand steps."""
    usual = tuple(replace(setting, steps=1000 if not index else 2, guidance=30.0) for index, setting in enumerate(painter.parts.settings))
    strict = Painter(replace(painter.parts, settings=usual))
    how = Options(count=1, seed=1)
    commission = operations.dream(strict, [CAT], how)
    facts = commission.facts | strict.facts(commission.wanted[0], how, strict.settings(how))
    assert strict.settings(followed(strict, told(facts), []).how) == strict.settings(how)
