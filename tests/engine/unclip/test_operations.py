"""Every operation with the bundled model's real weights, and with a random model that has what the bundled one lacks."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from engine.errors import Cancelled, InvalidRequest
from engine.jobs import Preset, Progress
from engine.options import EFFORTS, Options, Solver
from engine.pictures import read_receipt
from engine.unclip import Painter, operations
from engine.unclip.commissions import Canvas, Commission, Counter, Painted, Sample, no_report, samples_of
from engine.unclip.company import Company
from engine.unclip.memory import Lodging, choose_lodging
from engine.unclip.stages import UnetStage
from engine.unclip.unet import Unet
from engine.uploads import Framing
from tests.engine.unclip.test_dialects import fixture, state_dict

FOLDER = Path(__file__).parents[3] / "configs" / "picturebook"
CAT = "a cat on a red background"
UNCOUNTED = Counter(no_report, 10**9)


@pytest.fixture(scope="module")
def cat(painter: Painter) -> Painted:
    return painter.dream([CAT], count=1, seed=7, steps=12)[0]


def pixels(painted: Painted) -> np.ndarray:
    return np.asarray(painted.image.convert("RGB")).astype(int)


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def left_half(size: tuple[int, int]) -> bytes:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((0, 0, size[0] // 2 - 1, size[1]), fill=255)
    return encoded(mask)


def test_a_dream_gives_pictures_with_seeds_embeddings_and_settings(painter: Painter) -> None:
    painted = painter.dream([CAT, "a dog on a blue background"], count=2, repeats=2, seed=2**32 - 1, steps=[3, 2])
    assert len(painted) == 8
    assert [one.seed for one in painted] == [2**32 - 1, 0, 1, 2] * 2
    assert [one.settings["prior_seed"] for one in painted] == [2**32 - 1, 2**32 - 1, 1, 1] * 2
    assert painted[0].settings["prompt"] == CAT and painted[-1].settings["prompt"] == "a dog on a blue background"
    assert painted[0].settings["steps"][:2] == [3, 2]
    assert np.array_equal(painted[0].embed, painted[1].embed) and not np.array_equal(painted[0].embed, painted[2].embed)
    assert painted[0].embed.shape == (128,) and painted[0].image.size == (painter.side, painter.side)


def test_a_receipt_paints_its_picture_again(painter: Painter) -> None:
    third = painter.dream([CAT], count=2, repeats=2, seed=5, steps=4, prior_steps=5)[3]
    told = read_receipt(third.picture.png)
    again = painter.dream(
        [told["prompt"]], count=1, seed=int(told["seed"]), prior_seed=int(told["prior_seed"]), steps=4, prior_steps=int(told["prior_steps"])
    )[0]
    assert np.abs(pixels(again) - pixels(third)).max() <= 1


@pytest.mark.parametrize("solver", [Solver.DDIM, Solver.DPM, Solver.DPM_SDE])
def test_every_solver_paints_and_is_on_the_receipt(painter: Painter, solver: Solver, cat: Painted) -> None:
    [one] = painter.dream([CAT], count=1, seed=7, steps=12, prior_steps=12, solver=solver)
    used = [str(solver)] * len(one.settings["steps"])
    assert one.settings["solver"] == used and read_receipt(one.picture.png)["solver"] == ", ".join(used)
    # The corner shows the background, whichever way led there.
    assert np.abs(pixels(one)[:4, :4].mean((0, 1)) - pixels(cat)[:4, :4].mean((0, 1))).max() < 30


def test_a_sample_does_not_depend_on_its_company(painter: Painter) -> None:
    how = Options(count=9, seed=3, steps=10)
    nine = samples_of(CAT, how)
    beside = [nine[4], *samples_of("a big dog on a blue background", Options(count=3, seed=100))]

    def painted(batch: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        text = painter.read([sample.prompt for sample in batch])
        count = Counter(no_report, 1000)
        embeds = painter.alone(painter.imagine(batch, text, how, count))
        return embeds, painter.alone(painter.decode(batch, embeds, Commission(batch, how), count))

    alone, together, mixed = painted([nine[4]]), painted(nine), painted(beside)
    for part in range(2):
        assert (alone[part][0] - together[part][4]).abs().max() < 1e-3
        assert (alone[part][0] - mixed[part][0]).abs().max() < 1e-3
    assert (together[1][0] - together[1][4]).abs().max() > 0.05


def test_batches_do_not_change_pictures(painter: Painter) -> None:
    whole, cut = (painter.dream([CAT], count=4, seed=1, steps=4, batch=batch) for batch in (9, 3))
    assert all(np.abs(pixels(one) - pixels(other)).max() <= 1 for one, other in zip(whole, cut, strict=True))


def test_presets_change_the_steps_of_every_stage_and_the_draws_of_the_prior_but_nothing_that_is_asked_for(painter: Painter) -> None:
    [balanced], [fast], [best], [asked] = (
        [one.settings for one in painter.dream([CAT], count=1, seed=1, **ways)]
        for ways in ({}, {"preset": Preset.FAST}, {"preset": Preset.BEST}, {"preset": Preset.BEST, "steps": 3, "candidates": 1})
    )
    for settings, preset in ((fast, Preset.FAST), (best, Preset.BEST)):
        effort = EFFORTS[preset]
        assert settings["steps"] == [round(steps * effort.share) for steps in balanced["steps"]]
        assert (settings["prior_steps"], settings["candidates"]) == (round(balanced["prior_steps"] * effort.share), effort.candidates)
        assert painter.usual_steps(preset) == settings["steps"][0]
    assert asked["steps"] == [3, *best["steps"][1:]] and asked["candidates"] == 1
    assert painter.usual_steps(Preset.BALANCED) == balanced["steps"][0]
    assert (list(painter.usual_guidance), painter.usual_prior_guidance) == (balanced["guidance"], balanced["prior_guidance"])


def test_guidance_outside_of_its_interval_is_not_even_worked_out(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    answer = Unet.answer
    monkeypatch.setattr(Unet, "answer", lambda unet, x, *more, **others: rows.append(len(x)) or answer(unet, x, *more, **others))

    def dream(**ways: Any) -> np.ndarray:
        rows.clear()
        return pixels(painter.dream([CAT], count=1, seed=1, steps=10, **ways)[0])

    plain = dream(guidance=1)
    unguided = len(rows)
    assert sum(rows) == unguided
    guided = dream(guidance=3)
    assert np.abs(dream(guidance=3, guidance_interval=(0, 1)) - guided).max() <= 1 and sum(rows) == unguided + 10
    assert np.abs(dream(guidance=3, guidance_interval=(0, 0)) - plain).max() <= 1 and sum(rows) == unguided
    partly = dream(guidance=3, guidance_interval=(0.25, 0.75))
    assert sum(rows) == unguided + 6 and np.abs(partly - plain).max() > 1 and np.abs(partly - guided).max() > 1


def test_walks_that_are_guided_at_other_times_share_a_step(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.unclip.company.STRETCH_S", 0.0)
    monkeypatch.setattr("engine.unclip.company.GAIN", 0.0)
    ways = [{"guidance": 3.0, "guidance_interval": interval} for interval in ((0.0, 1.0), (0.3, 0.6), (0.0, 0.2))] + [{"guidance": 1.0}]
    hows = [Options(count=1, seed=number, steps=6, **way) for number, way in enumerate(ways)]
    # What the prior draws is known then, so that all of them begin at the base.
    alone = [painter.alone(painter.work(operations.dream(painter, [CAT], how), no_report))[0] for how in hows]
    company: Company[Any, Any] = Company(painter.parts.lodging, lambda how: painter.work(operations.dream(painter, [CAT], how), no_report), {})
    asked = UnetStage.ask
    shared: list[int] = []
    monkeypatch.setattr(UnetStage, "ask", lambda stage, walks: shared.append(len(walks)) or asked(stage, walks))
    tickets = [company.join(how) for how in hows]
    while any(ticket.result is None and ticket.error is None for ticket in tickets):
        company.step()
    assert max(shared) == len(hows)
    for ticket, expected in zip(tickets, alone, strict=True):
        assert ticket.error is None and np.abs(pixels(ticket.result[0]) - pixels(expected)).max() <= 1


def test_candidates_bring_the_embedding_nearer_to_the_prompt(painter: Painter) -> None:
    def nearness(candidates: int) -> float:
        found = painter.embed([CAT], count=8, seed=0, candidates=candidates)
        return float(np.mean([np.dot(one.text_embed, one.image_embed) / np.linalg.norm(one.image_embed) for one in found]))

    one, many = nearness(1), nearness(8)
    assert many > one


def test_the_first_candidate_is_the_draw_without_candidates(painter: Painter) -> None:
    single = [painter.embed([CAT], seed=seed, candidates=1)[0].image_embed for seed in range(4)]
    best = [painter.embed([CAT], seed=seed, candidates=2)[0].image_embed for seed in range(4)]
    same = [np.allclose(one, two, atol=1e-5) for one, two in zip(single, best, strict=True)]
    assert any(same) and not all(same)


def drafted(painter: Painter, draft: Sample, how: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a draft shows, (1, D), and what the two unets that paint no larger than CLIP looks make of it alone, (1, C, S, S)."""
    embed = painter.alone(painter.embeds_of([draft], how, UNCOUNTED))
    return embed, painter.alone(painter.decode([draft], embed, Commission([draft], how, last=2), UNCOUNTED))


def test_of_drafts_the_one_that_clip_finds_nearest_is_finished(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Options(count=2, seed=3, steps=[4, 2, 1], prior_steps=6, candidates=2, drafts=3)
    enlarged: list[torch.Tensor] = []
    enlarge = UnetStage.enlarge
    monkeypatch.setattr(UnetStage, "enlarge", lambda stage, samples, draw: enlarged.append(samples) or enlarge(stage, samples, draw))
    painted = painter.alone(painter.work(operations.dream(painter, [CAT], how), no_report))
    assert [len(samples) for samples in enlarged] == [6, 2] and [one.settings["drafts"] for one in painted] == [3, 3]
    text, clip, chosen = painter.read([CAT]).embed, painter.parts.clip, set()
    assert clip is not None
    for sample, one, finished in zip(samples_of(CAT, how), painted, enlarged[1], strict=True):
        embeds, alone = map(torch.cat, zip(*(drafted(painter, replace(sample, draft=number), how) for number in range(3)), strict=True))
        seen = clip.embed_image((F.interpolate(alone, clip.side, mode="bicubic", antialias=True).clamp(-1, 1) + 1) / 2)
        best = int(F.cosine_similarity(seen, text).argmax())
        assert (finished - alone[best]).abs().max() < 1e-3 and np.allclose(one.embed, embeds[best], atol=1e-5)
        chosen.add(best)
        # Drafts show the candidates in turn, the nearest to the prompt first.
        near, far, again = F.cosine_similarity(embeds, text).tolist()
        assert near == again > far
    assert chosen != {0}


def test_of_drafts_of_a_variation_the_one_nearest_to_the_picture_is_finished(painter: Painter, cat: Painted) -> None:
    quick: dict[str, Any] = {"count": 4, "seed": 1, "steps": [4, 2, 1]}
    meant = painter.look([cat.image.convert("RGB")], Framing.CROP)

    def likeness(drafts: int, **ways: Any) -> float:
        varied = painter.variation([cat.picture.png], drafts=drafts, **quick, **ways)
        assert ("drafts" in varied[0].settings) == (drafts > 1 and not ways)
        return float(F.cosine_similarity(painter.look([one.image.convert("RGB") for one in varied], Framing.CROP), meant).mean())

    assert likeness(4) > likeness(1)
    assert likeness(4, strength=0.5) == likeness(1, strength=0.5)


def test_one_draft_is_the_picture_itself_and_previews_show_as_many_as_are_asked_for(painter: Painter) -> None:
    sizes = set()

    def look(progress: Progress) -> None:
        if progress.preview is not None:
            sizes.add(Image.open(io.BytesIO(progress.preview())).size)

    quick: dict[str, Any] = {"count": 2, "seed": 3, "steps": [2, 1, 1], "prior_steps": 4}
    plain = painter.dream([CAT], **quick)
    assert "drafts" not in plain[0].settings
    painter.dream([CAT], look, drafts=4, **quick)
    wide = {size[0] / size[1] for size in sizes}
    assert wide == {2.0}
    drawn = [painter.dream([CAT], **quick, drafts=number) for number in (1, 4)]
    assert all(np.array_equal(pixels(one), pixels(other)) for one, other in zip(plain, drawn[0], strict=True))


def test_drafts_may_be_all_that_a_cascade_paints(painter: Painter) -> None:
    small = Painter(replace(painter.parts, stages=painter.parts.stages[:2], settings=painter.parts.settings[:2]))
    [picked] = small.dream([CAT], count=1, seed=3, steps=[2, 1], prior_steps=4, drafts=3)
    assert picked.image.size == (32, 32) and picked.settings["drafts"] == 3


def test_where_clip_does_not_look_at_pictures_there_are_no_drafts(painter: Painter) -> None:
    blind = Painter(replace(painter.parts, clip=None, drafts=4))
    assert Painter(replace(painter.parts, drafts=4)).drafts(Options()) == 4 and blind.drafts(Options(drafts=4)) == 1


def test_embeddings_follow_the_contract_of_conditioned_prior(painter: Painter) -> None:
    [found] = painter.embed([CAT], seed=1, prior_steps=8, prior_guidance=1.5)
    assert found.text_embed.shape == found.image_embed.shape == (128,)
    assert found.text_embed.dtype == found.image_embed.dtype == np.float32
    assert np.linalg.norm(found.text_embed) == pytest.approx(1, abs=1e-4)
    clip = painter.parts.clip
    assert clip is not None and found.tokens == [token for token in clip.tokenize([CAT])[0].tolist() if token]


def test_a_variation_means_the_same_and_is_another_picture(painter: Painter, cat: Painted) -> None:
    varied = painter.variation([cat.picture.png], count=3, seed=1, steps=12)
    assert [one.seed for one in varied] == [1, 2, 3] and "prior_seed" not in varied[0].settings
    embeds = torch.stack([painter.look([one.image.convert("RGB")], Framing.CROP)[0] for one in (cat, *varied)])
    assert F.cosine_similarity(embeds[:1], embeds[1:]).min() > 0.7
    assert all(np.abs(pixels(one) - pixels(cat)).mean() > 2 for one in varied)


@pytest.mark.parametrize("framing", Framing)
def test_inpainting_keeps_what_is_kept_to_the_pixel(painter: Painter, cat: Painted, framing: Framing) -> None:
    size = (150, 100)
    source = cat.image.convert("RGB").resize(size)
    [painted] = painter.inpaint(encoded(source), left_half(size), "a dog on a red background", count=1, seed=2, steps=3, resamples=2, framing=framing)
    before, after = np.asarray(source).astype(int), pixels(painted)
    assert after.shape == before.shape
    assert np.array_equal(after[:, size[0] // 2 :], before[:, size[0] // 2 :])
    assert np.abs(after[:, 30 : size[0] // 2 - 5] - before[:, 30 : size[0] // 2 - 5]).mean() > 1


def test_inpainting_paints_what_fits_to_what_is_kept(painter: Painter) -> None:
    side = painter.side
    red = Image.new("RGB", (side, side), (200, 40, 45))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rectangle((side // 4, side // 4, side * 3 // 4 - 1, side * 3 // 4 - 1), fill=255)
    [painted] = painter.inpaint(encoded(red), encoded(mask), CAT, count=1, seed=3)
    inside = pixels(painted)[side // 4 + 1 : side * 3 // 4 - 1, side // 4 + 1 : side * 3 // 4 - 1].reshape(-1, 3)
    yellow = (inside[:, 0] > 180) & (inside[:, 1] > 120) & (inside[:, 2] < 110)
    assert yellow.mean() > 0.05


def test_a_transparent_part_of_the_picture_is_its_mask(painter: Painter, cat: Painted) -> None:
    see_through = cat.image.convert("RGBA")
    see_through.paste((0, 0, 0, 0), (0, 0, painter.side // 2, painter.side))
    [painted] = painter.inpaint(encoded(see_through), None, CAT, count=1, seed=2, steps=2, resamples=1)
    alpha = np.asarray(painted.image.getchannel("A"))
    assert alpha.min() == 255
    assert np.array_equal(pixels(painted)[:, painter.side // 2 + 1 :], pixels(cat)[:, painter.side // 2 + 1 :])


def test_upscaling_keeps_the_picture(painter: Painter, cat: Painted) -> None:
    small = cat.image.convert("RGB").resize((16, 16), Image.Resampling.BOX)
    [large] = painter.upscale([encoded(small)], seed=4)
    assert large.image.size == (painter.side, painter.side) and large.embed is None
    back = np.asarray(large.image.convert("RGB").resize((16, 16), Image.Resampling.BOX)).astype(int)
    assert np.abs(back - np.asarray(small).astype(int)).mean() < 12


def test_every_step_is_counted_and_can_be_the_last(painter: Painter, cat: Painted) -> None:
    for work in (
        lambda one, report: one.dream([CAT], report, count=3, seed=1, steps=3, prior_steps=5, candidates=2, batch=2),
        lambda one, report: one.dream([CAT], report, count=3, seed=1, steps=3, prior_steps=5, drafts=2, batch=2),
        lambda one, report: one.inpaint(cat.picture.png, left_half(cat.image.size), CAT, report, count=1, seed=1, steps=3, resamples=3),
        lambda one, report: one.variation([cat.picture.png] * 2, report, count=1, seed=1, steps=3),
        lambda one, report: one.upscale([cat.picture.png], report),
        lambda one, report: one.embed([CAT], report, candidates=3),
    ):
        told: list[Progress] = []
        # Painters that remember nothing: what is known already is skipped.
        work(Painter(painter.parts), told.append)
        assert [one.done for one in told] == list(range(1, len(told) + 1))
        assert {one.total for one in told} == {len(told)}

        def stop(progress: Progress) -> None:
            if progress.done == 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            work(Painter(painter.parts), stop)


REFUSED: dict[str, Callable[[Painter, bytes], object]] = {
    "count must be": lambda painter, png: painter.dream([CAT], count=10),
    "repeats must be": lambda painter, png: painter.dream([CAT], repeats=0),
    "candidates must be 1 to 32": lambda painter, png: painter.dream([CAT], candidates=33),
    "steps must be": lambda painter, png: painter.dream([CAT], steps=[3, 0]),
    "steps must name at most": lambda painter, png: painter.dream([CAT], steps=[3] * (len(painter.parts.stages) + 1)),
    "guidance must be": lambda painter, png: painter.dream([CAT], guidance=float("nan")),
    "prior_steps must be": lambda painter, png: painter.dream([CAT], prior_steps=1),
    "seed must be": lambda painter, png: painter.dream([CAT], seed=2**32),
    "prompts must be a list": lambda painter, png: painter.dream("a cat"),  # type: ignore[arg-type]  # what people write by mistake
    "prompt must be at most": lambda painter, png: painter.dream(["x" * 10_000]),
    "prompt must hold at least": lambda painter, png: painter.embed([""]),
    "images must be a list": lambda painter, png: painter.variation(png),  # type: ignore[arg-type]  # what people write by mistake
    "cannot be read": lambda painter, png: painter.variation([b"no picture"]),
    "is damaged": lambda painter, png: painter.upscale([png[: len(png) // 2]]),
    "keeps everything": lambda painter, png: painter.inpaint(png, encoded(Image.new("L", (64, 64))), CAT),
    "keeps nothing": lambda painter, png: painter.inpaint(png, encoded(Image.new("L", (64, 64), 255)), CAT),
    "no transparent part": lambda painter, png: painter.inpaint(png, None, CAT),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_done_is_refused(painter: Painter, cat: Painted, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        REFUSED[says](painter, cat.picture.png)


@pytest.mark.parametrize("prompt", ["🦊" * 900, "a\0fox", "\0", "\u202e fox", "ﷺ" * 1000, "!!!", "a" * 1000])
def test_strange_prompts_are_painted(painter: Painter, prompt: str) -> None:
    [painted] = painter.dream([prompt], count=1, seed=1, steps=1)
    assert painted.image.size == (painter.side, painter.side)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_strange_pictures_are_varied(painter: Painter, mode: str) -> None:
    picture = Image.new("L", (3, 500), 90).convert("I").convert("I;16") if mode == "I;16" else Image.new("RGB", (3, 500), "red").convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF" if mode == "CMYK" else "PNG")
    assert painter.variation([file.getvalue()], count=1, seed=1, steps=1)[0].image.size == (painter.side, painter.side)


# --- a model with what the bundled one lacks: text in the decoder, learned variance, another release in each part ---


@pytest.fixture
def patchwork(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a model of random weights whose decoder comes from one release and whose prior from another."""

    def write(release: str, prior: str = "1.15.6", **changes: Any) -> Path:
        for name, part, kind in ((release, "decoder/laion", "decoder"), (prior, "prior/plain", "prior")):
            content = {"model": state_dict(name, part), "version": name, "config": fixture(name)[0][part]["config"]}
            torch.save(content, tmp_path / f"{kind}.pth")
        config = {
            "decoder": {"unet_sources": [{"unet_numbers": [1, 2], "load_model_from": {"load_type": "local", "path": "decoder.pth"}}]},
            "prior": {"load_model_from": {"load_type": "local", "path": "prior.pth"}},
            "strict_loading": False,
        }
        (tmp_path / "patchwork.json").write_text(json.dumps(config | changes))
        return tmp_path / "patchwork.json"

    return write


@pytest.mark.parametrize("release", ["0.11.0", "0.15.4", "1.1.0", "1.15.6"])
def test_models_of_any_release_enlarge_pictures(patchwork: Callable[..., Path], cat: Painted, release: str) -> None:
    path = patchwork(release)
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"decoder": config["decoder"]}))
    painter = Painter.from_config(path)
    [painted] = painter.upscale([cat.picture.png], seed=1, steps=[3, 3])
    assert painted.image.size == (16, 16)
    with pytest.raises(InvalidRequest, match="have a clip and a prior for dream"):
        painter.dream([CAT])


def test_an_unet_that_reads_text_is_told_no_token_of_no_prompt(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where captions were dropped in training: CLIP has tokens of the empty prompt too, which no caption was."""
    assert painter.text_for([CAT, ""]) is None
    monkeypatch.setattr(painter.parts.stages[0].unet, "cond_on_text_encodings", True)
    text = painter.text_for([CAT, ""])
    assert text is not None and text.encodings[0].any() and not text.encodings[1].any()


# --- where weights live ---


def test_weights_that_only_visit_paint_the_same_and_go_home(painter: Painter) -> None:
    offloaded = Painter.from_config(FOLDER / "picturebook.json", device="cpu", memory="offload")
    assert not offloaded.parts.lodging.is_resident
    home = {key: value.data_ptr() for key, value in offloaded.parts.stages[0].unet.state_dict().items()}
    # A painter that remembers nothing: what was drawn in a larger batch differs by rounding.
    quick: dict[str, Any] = {"count": 1, "seed": 7, "steps": 3, "candidates": 1, "prior_steps": 12, "drafts": 2}
    one, other = (each.dream([CAT], **quick)[0] for each in (Painter(painter.parts), offloaded))
    assert np.array_equal(pixels(one), pixels(other))
    assert {key: value.data_ptr() for key, value in offloaded.parts.stages[0].unet.state_dict().items()} == home


def test_a_visit_is_a_copy_and_ends_with_an_error_too() -> None:
    module = torch.nn.Linear(3, 3)
    before = module.weight.data_ptr()
    with pytest.raises(KeyError), Lodging(torch.device("cpu"), is_resident=False).visit(module):
        assert module.weight.data_ptr() != before
        raise KeyError
    assert module.weight.data_ptr() == before


def test_weights_stay_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 2**30, 8 * 2**30))
    gpu = torch.device("cuda:0")
    assert choose_lodging(gpu, 4 * 2**30, "auto").is_resident
    assert not choose_lodging(gpu, 7 * 2**30, "auto").is_resident
    assert not choose_lodging(gpu, 1, "offload").is_resident and choose_lodging(gpu, 2**40, "resident").is_resident
    assert choose_lodging(torch.device("cpu"), 2**50, "auto").is_resident


def test_a_pixel_of_a_stage_is_repainted_where_any_that_it_stands_for_is() -> None:
    keep = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    keep[0, 0, 5, 9] = False
    small = Canvas(torch.zeros(1, 3, 64, 64), keep).at(16, torch.device("cpu")).keep
    assert [tuple(place) for place in (~small[0, 0]).nonzero().tolist()] == [(1, 2)]
