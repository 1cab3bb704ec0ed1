"""The bundled model, with its real weights, and what happens to models that are damaged."""

import gzip
import json
import pickle
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine import pictures
from engine.errors import Cancelled, Misconfigured
from engine.jobs import Embedding, Kind, Painting, Progress, Request
from engine.pictures import read_receipt
from engine.unclip.painter import Painter
from tests.engine.unclip.test_dialects import fixture, state_dict

FOLDER = Path(__file__).parents[3] / "configs" / "picturebook"


def silent(progress: Progress) -> None:
    """Hear nothing."""


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def foxes(painter: Painter) -> Painting:
    return painter.paint(Request("a fox on a blue background", seed=7, count=3, steps=8), silent)


def test_a_request_is_painted_in_full_with_a_seed_for_every_picture(foxes: Painting) -> None:
    assert [picture.seed for picture in foxes.pictures] == [7, 8, 9]
    assert {(picture.width, picture.height) for picture in foxes.pictures} == {(128, 128)}
    assert foxes.model == "picturebook" and foxes.steps == 8 and foxes.seconds > 0
    assert len({picture.png for picture in foxes.pictures}) == 3


def test_what_is_painted_has_the_background_that_was_asked_for(foxes: Painting) -> None:
    for picture in foxes.pictures:
        red, green, blue = np.median(pixels(picture.png).reshape(-1, 3), axis=0)
        assert blue > red + 60 and blue > green + 60


def test_every_picture_carries_what_paints_it_again(painter: Painter, foxes: Painting) -> None:
    receipt = read_receipt(foxes.pictures[2].png)
    assert receipt["prompt"] == "a fox on a blue background"
    assert (receipt["seed"], receipt["model"]) == ("9", "picturebook")
    assert receipt["steps"].startswith("8, ") and receipt["guidance"].startswith(f"{foxes.guidance:g}, ")


def test_a_request_says_what_is_to_be_done(painter: Painter, foxes: Painting) -> None:
    assert painter.kinds == frozenset(Kind)
    fox = foxes.pictures[0].png
    side = painter.side
    mask = pictures.encode(Image.new("L", (side, side), 255).crop((0, -side // 2, side, side // 2)))
    variation = painter.paint(Request("", seed=7, count=2, steps=2, kind=Kind.VARIATION, image=fox), silent)
    assert [picture.png for picture in variation.pictures] == [one.picture.png for one in painter.variation([fox], count=2, seed=7, steps=2)]
    inpaint = painter.paint(Request("a dog on a blue background", seed=7, count=1, steps=2, kind=Kind.INPAINT, image=fox, mask=mask), silent)
    assert np.array_equal(pixels(inpaint.pictures[0].png)[: side // 2 - 1], pixels(fox)[: side // 2 - 1])
    assert not np.array_equal(pixels(inpaint.pictures[0].png), pixels(fox))
    upscale = painter.paint(Request("", seed=7, count=2, steps=2, kind=Kind.UPSCALE, image=fox), silent)
    assert [picture.png for picture in upscale.pictures] == [one.picture.png for one in painter.upscale([fox], count=2, seed=7, steps=2)]
    asked = Request("a fox on a blue mars", seed=7, count=1, kind=Kind.EMBED, candidates=2, prior_steps=4, prior_guidance=1.5)
    embedded = painter.paint(asked, silent)
    [expected] = painter.embed([asked.prompt], seed=7, candidates=2, prior_steps=4, prior_guidance=1.5)
    image_embed = expected.image_embed / np.linalg.norm(expected.image_embed)
    assert embedded.embedding == Embedding(expected.text_embed.tobytes(), image_embed.astype("<f4").tobytes())
    assert (embedded.pictures, embedded.steps, embedded.guidance, embedded.unknown_words) == ((), 4, 1.5, ("mars",))
    drawn = painter.paint(Request("a fox", seed=7, count=1, steps=2, candidates=2, prior_steps=4, prior_guidance=1.5), silent).pictures[0]
    [expected] = painter.dream(["a fox"], seed=7, count=1, steps=2, candidates=2, prior_steps=4, prior_guidance=1.5)
    assert drawn.png == expected.picture.png


def test_a_model_does_what_its_parts_allow(painter: Painter) -> None:
    without_prior = Painter(replace(painter.parts, prior=None))
    assert without_prior.kinds == frozenset(Kind) - {Kind.DREAM, Kind.INPAINT, Kind.EMBED, Kind.DRAWS}
    assert Painter(replace(painter.parts, clip=None)).kinds == {Kind.UPSCALE}
    assert Painter(replace(painter.parts, stages=(), settings=())).kinds == {Kind.EMBED, Kind.DRAWS}
    assert Painter(replace(painter.parts, stages=painter.parts.stages[:1])).kinds == frozenset(Kind) - {Kind.UPSCALE}


def test_a_seed_paints_the_same_picture_alone_and_in_company(painter: Painter, foxes: Painting) -> None:
    alone = painter.paint(Request("a fox on a blue background", seed=9, count=1, steps=8), silent).pictures[0]
    assert np.abs(pixels(alone.png) - pixels(foxes.pictures[2].png)).max() <= 1


def test_the_same_request_twice_is_equal_to_the_bit(painter: Painter, foxes: Painting) -> None:
    again = painter.paint(Request("a fox on a blue background", seed=7, count=3, steps=8), silent)
    assert [picture.png for picture in again.pictures] == [picture.png for picture in foxes.pictures]


def test_progress_counts_every_step_of_every_stage_once(painter: Painter) -> None:
    heard: list[Progress] = []
    painter.paint(Request("a cat", seed=1, count=1, steps=5), heard.append)
    assert [progress.done for progress in heard] == list(range(1, heard[0].total + 1))
    assert list(dict.fromkeys(progress.stage for progress in heard)) == ["prior", "base", "upsampler"]


def test_a_preview_shows_the_grid_so_far(painter: Painter) -> None:
    previews = []

    def look(progress: Progress) -> None:
        if progress.preview is not None and progress.done % 5 == 0:
            previews.append(progress.preview())

    painter.paint(Request("a cat", seed=1, count=4, steps=5), look)
    assert {Image.open(BytesIO(png)).size for png in previews} == {(512, 512)}


def test_raising_cancelled_in_a_report_stops_at_that_step(painter: Painter) -> None:
    heard = []

    def stop(progress: Progress) -> None:
        heard.append(progress.done)
        if progress.done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        Painter(painter.parts).paint(Request("a cat", seed=1, count=1), stop)
    assert heard == [1, 2, 3, 4]


def test_a_prompt_with_words_never_seen_is_painted_and_the_words_are_named(painter: Painter) -> None:
    painting = painter.paint(Request("A dragon, a CAT and the dragon's castle on red!", seed=1, count=1, steps=3), silent)
    assert painting.unknown_words == ("dragon", "s", "castle")


@pytest.mark.parametrize("prompt", ["🦊" * 300, "\x00", "a\x00fox", "x" * 1000, "ﷺ" * 200, "<start_of_text><end_of_text>", "&lt;b&gt;"])
def test_no_prompt_breaks_the_painter(painter: Painter, prompt: str) -> None:
    assert len(painter.paint(Request(prompt, seed=1, count=1, steps=1), silent).pictures) == 1


def test_bfloat16_paints_nearly_the_same(painter: Painter) -> None:
    # Most CPUs take ten times as long in it.
    request = Request("a fox on a blue background", seed=7, count=1, steps=8, candidates=1, prior_steps=12)
    half = Painter.from_config(FOLDER / "picturebook.json", device="cpu", dtype="bfloat16")
    [mine], [exact] = (one.paint(request, silent).pictures for one in (half, painter))
    assert np.abs(pixels(mine.png) - pixels(exact.png)).mean() < 12


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Copy the bundled model to where it may be damaged; the files to keep are linked."""
    shutil.copytree(FOLDER, tmp_path / "picturebook")
    return tmp_path / "picturebook" / "picturebook.json"


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(model: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        Painter.from_config(model, device="cpu")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 800
    return str(refused.value)


def test_an_unknown_key_is_named(model: Path) -> None:
    change(model, decodre={})
    assert "decodre" in refusal(model)


def test_a_missing_part_is_named(model: Path) -> None:
    config = json.loads(model.read_text())
    model.write_text(json.dumps({key: value for key, value in config.items() if key not in ("prior", "decoder")}))
    assert "needs a decoder or a prior" in refusal(model)
    model.write_text(json.dumps({key: value for key, value in config.items() if key != "clip"}))
    assert "needs the clip" in refusal(model)
    del config["prior"]["load_model_from"]
    model.write_text(json.dumps(config))
    assert "prior.load_model_from: this key is missing" in refusal(model)


def test_unet_numbers_must_cover_the_cascade(model: Path) -> None:
    config = json.loads(model.read_text())
    config["decoder"]["unet_sources"][0]["unet_numbers"] = [1, 3]
    change(model, decoder=config["decoder"])
    assert "unet_numbers" in refusal(model)


def test_a_config_that_is_no_json_is_named(model: Path) -> None:
    model.write_text("{'decoder'}")
    assert str(model) in refusal(model) and "JSON" in refusal(model)


@pytest.mark.parametrize("name", ["decoder.safetensors", "prior.json", "clip/open_clip_model.safetensors", "words.txt"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model.parent / name).unlink()
    assert Path(name).name.split(".")[0] in refusal(model)


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"#version\na b", mtime=0)[:-9]])
def test_a_damaged_vocabulary_of_clip_is_named(model: Path, content: bytes | None) -> None:
    path = model.parent / "clip" / "merges.txt.gz"
    path.unlink() if content is None else path.write_bytes(content)
    assert "open_clip_config.json" in refusal(model)


@pytest.mark.parametrize("name", ["decoder.safetensors", "prior.safetensors", "clip/open_clip_model.safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_truncated_weight_file_is_named(model: Path, name: str, keep: int) -> None:
    path = model.parent / name
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in refusal(model)


def test_weights_of_another_network_are_refused(model: Path) -> None:
    shutil.copy(model.parent / "prior.safetensors", model.parent / "decoder.safetensors")
    assert "fits no release" in refusal(model) and "learned_query" not in refusal(model) and "tensors are missing (downs." in refusal(model)


def test_weights_that_are_no_numbers_are_refused(model: Path) -> None:
    path = model.parent / "prior.safetensors"
    weights = load_file(path)
    weights["net.learned_query"] = weights["net.learned_query"] * torch.nan
    save_file(weights, path)
    assert "learned_query holds values that are no numbers" in refusal(model)


def test_values_that_outgrow_a_number_format_are_told_not_shown(model: Path) -> None:
    path = model.parent / "decoder.safetensors"
    weights = load_file(path)
    weights["unets.1.to_out.weight"] = weights["unets.1.to_out.weight"].float() * 1e7
    save_file(weights, path)
    assert Painter.from_config(model, dtype="bfloat16").dream(["a cat"], count=1, seed=1, steps=[1, 1], prior_steps=2)
    with pytest.raises(Misconfigured, match="no numbers in this dtype. Set float32, or bfloat16 instead of float16"):
        Painter.from_config(model, dtype="float16").dream(["a cat"], count=1, seed=1, steps=[1, 1], prior_steps=2)


def test_a_pickle_in_place_of_weights_runs_no_code(model: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = model.parent / "prior.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    assert str(path) in refusal(model)
    assert not (tmp_path / "sprung").exists()


def test_a_prior_of_another_width_than_clip_is_refused(model: Path) -> None:
    config = fixture("1.15.6")[0]["prior/plain"]["config"]
    torch.save({"model": state_dict("1.15.6", "prior/plain"), "version": "1.15.6", "config": config}, model.parent / "other.pth")
    change(model, prior={"load_model_from": {"load_type": "local", "path": "other.pth"}})
    assert "the prior is 32 wide, CLIP 128" in refusal(model)


def test_a_decoder_of_another_width_than_clip_is_refused(model: Path) -> None:
    config = fixture("1.15.6")[0]["decoder/laion"]["config"]
    torch.save({"model": state_dict("1.15.6", "decoder/laion"), "version": "1.15.6", "config": config}, model.parent / "other.pth")
    change(model, decoder={"unet_sources": [{"unet_numbers": [1, 2], "load_model_from": {"load_type": "local", "path": "other.pth"}}]})
    assert "unet 1 is told pictures in 32 numbers, CLIP gives 128" in refusal(model)


def test_an_upsampler_must_start_where_the_base_ends(model: Path) -> None:
    settings = json.loads((model.parent / "decoder.json").read_text())["decoder"]
    change(model.parent / "decoder.json", decoder=settings | {"image_sizes": [20, *settings["image_sizes"][1:]]})
    (model.parent / "base.json").write_text(json.dumps({"decoder": settings}))
    [source] = json.loads(model.read_text())["decoder"]["unet_sources"]
    of = {"load_model_from": source["load_model_from"]}
    base = of | {"unet_numbers": [1], "load_config_from": {"load_type": "local", "path": "base.json"}}
    change(model, decoder={"unet_sources": [of | {"unet_numbers": [2, 3], "load_config_from": source["load_config_from"]}, base]})
    assert "unet 2 enlarges from 20 pixels, but unet 1 paints 16" in refusal(model)


@pytest.mark.parametrize("part", [{}, {"net": 5}, {"net": {"dim": 128, "depth": -1}, "image_embed_dim": 128, "image_size": 64}])
def test_a_train_config_that_describes_nothing_is_named(model: Path, part: dict[str, object]) -> None:
    change(model.parent / "prior.json", prior=part)
    assert "prior" in refusal(model)
