"""The bundled model's world: what is said of a scene is true, and what is held out is never shown."""

import json
import math
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engine.errors import Misconfigured
from engine.training import picturebook
from engine.training.data import Samples
from engine.training.saving import write_networks
from engine.training.world import (
    BACKGROUNDS,
    COLOURS,
    GRID,
    NAMES,
    OBJECTS,
    PLACE_WORDS,
    SIDE,
    SIZE_NAMES,
    SIZE_WORDS,
    SIZES,
    Place,
    Scene,
    Sprites,
    caption,
    draw_world,
    held_out,
    held_out_pair,
    plural,
    random_scene,
    words,
)
from engine.unclip.dialects import LATEST
from tests.benchmarks.cmmd import cmmd
from tests.benchmarks.fidelity import Classifier, held_out_pairs, held_out_singles, marks, pair_marks, place_of, prompt_of

SIDES = list(SIZES.values())
seeds = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> tuple[Scene, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return random_scene(rng), rng


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_scenes_fit_into_the_picture_and_stand_where_they_are_said_to(seed: int) -> None:
    scene, _ = scene_of(seed)
    for thing in scene.things:
        assert thing.left % GRID == thing.top % GRID == 0
        assert 0 <= thing.left <= SIDE - SIDES[thing.size] and 0 <= thing.top <= SIDE - SIDES[thing.size]
        near = [math.dist(scene.colour, named) < 64 for named in BACKGROUNDS.values()]
        assert not any(held_out(thing.object, background) and is_near for background, is_near in enumerate(near))
    if len(scene.things) == 1:
        assert place_of(scene.things[0]) is scene.place
    else:
        left, right = scene.things
        assert left.left + SIDES[left.size] <= right.left and left.size == right.size == SIZE_NAMES.index("")
        assert left.object != right.object and not held_out_pair(left.object, right.object)


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_captions_say_what_is_true_in_known_words(seed: int) -> None:
    scene, rng = scene_of(seed)
    text = caption(scene, rng)
    said = set(re.findall(r"[a-z]+", text))
    assert said <= set(words()) and "  " not in text and " ," not in text and not re.search(r"\ba [aeiou]", text)
    first = []
    for thing in scene.things:
        name = NAMES[thing.object]
        first.append(min(match.start() for other in (name, plural(name), *OBJECTS[name]) for match in re.finditer(rf"\b{other}\b", text)))
    assert first == sorted(first)
    size = SIZE_NAMES[scene.things[0].size]
    assert not said & {word for other, more in SIZE_WORDS.items() for word in (other, *more) if other != size and word}
    for place, told in PLACE_WORDS.items():
        if place is not scene.place:
            assert not any(phrase in text for phrase in told)
    background = list(BACKGROUNDS)[scene.background] if scene.tint is None else None
    others = {colour for name in BACKGROUNDS if name != background for colour in (name, *COLOURS.get(name, ()))}
    assert not said & others


def test_half_of_the_backgrounds_have_no_name() -> None:
    named = list(BACKGROUNDS.values())
    scenes = [scene_of(seed)[0] for seed in range(1000)]
    tinted = [scene for scene in scenes if scene.tint is not None]
    assert 400 < len(tinted) < 600
    for scene in tinted:
        distances = [sum((one - other) ** 2 for one, other in zip(scene.colour, colour, strict=True)) for colour in named]
        assert distances[scene.background] == min(distances)
    assert all(scene.colour == named[scene.background] for scene in scenes if scene.tint is None)
    sprites = Sprites()
    assert all((sprites.draw(scene)[:, 0] == scene.colour).all() for scene in tinted[:20] if min(thing.left for thing in scene.things) > 0)


def test_equal_seeds_draw_equal_worlds() -> None:
    one, other, another = ([(caption, picture.tobytes()) for picture, caption, _ in draw_world(20, seed)] for seed in (4, 4, 5))
    assert one == other != another


def test_everything_is_drawn_and_a_share_is_held_out() -> None:
    scenes = [scene_of(seed)[0] for seed in range(3000)]
    assert {thing.object for scene in scenes for thing in scene.things} == set(range(len(NAMES)))
    assert {scene.place for scene in scenes} == set(Place) and len(NAMES) >= 48 and len(BACKGROUNDS) == 10
    held = [held_out(thing, background) for thing in range(len(NAMES)) for background in range(len(BACKGROUNDS))]
    assert 0.05 < sum(held) / len(held) < 0.15
    assert all(any(not held_out(thing, background) for background in range(len(BACKGROUNDS))) for thing in range(len(NAMES)))


def test_the_classifier_is_right_on_true_scenes_and_asks_for_them_in_words() -> None:
    torch.set_num_threads(1)
    classify, sprites = Classifier(), Sprites()

    def seen(scenes: list[Scene]) -> list:
        return [classify(torch.from_numpy(sprites.draw(scene)).permute(2, 0, 1) / 255) for scene in scenes]

    singles, pairs = held_out_singles(20), held_out_pairs(6)
    for right in (marks(singles, seen(singles)) | pair_marks(pairs, seen(pairs))).values():
        assert all(right)
    assert all(held_out(scene.things[0].object, scene.background) for scene in singles)
    assert all(held_out_pair(*(thing.object for thing in scene.things)) for scene in pairs)
    assert all(NAMES[thing.object] in prompt_of(scene) for scene in singles + pairs for thing in scene.things)


def test_the_distance_of_two_sets_is_that_of_its_closed_form() -> None:
    """Of sets of equal rows a and b, the kernel within each is 1 and between them exp(-|a - b|² / 200)."""
    one, other = torch.zeros(5, 3), torch.tensor([[3.0, 4.0, 0.0]]).expand(4, 3)
    assert cmmd(one, other) == pytest.approx(1000 * (2 - 2 * np.exp(-25 / 200)), rel=1e-9)
    assert cmmd(one, one) == pytest.approx(0, abs=1e-9)


def test_the_world_is_written_as_shards(tmp_path: Path) -> None:
    picturebook.write_world(tmp_path / "world", 7, seed=3)
    samples = list(Samples(tmp_path / "world"))
    for sample, (picture, text, _) in zip(samples, draw_world(7, 3), strict=True):
        assert sample.caption == text and sample.picture is not None
        assert np.abs(sample.picture.permute(1, 2, 0).numpy().astype(int) - picture).mean() < 6
    assert len(list(islice(Samples(tmp_path / "world", side=64), 3))) == 3


def test_trained_networks_are_put_into_the_model_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = tmp_path / "model", tmp_path / "clip"
    monkeypatch.setattr(picturebook, "MODEL", model)
    clip.mkdir()
    save_file({"a": torch.ones(2)}, clip / "open_clip_model.safetensors")
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"bpe_path": "../merges.txt.gz"}}}}))
    picturebook.export_clip(clip)
    assert load_file(model / "clip" / "open_clip_model.safetensors")["a"].dtype == torch.float16
    assert (
        "merges.txt.gz" in (model / "clip" / "open_clip_config.json").read_text()
        and "../" not in (model / "clip" / "open_clip_config.json").read_text()
    )
    assert (model / "words.txt").read_text().split() == words()
    for index, (name, mask) in enumerate((("base", [True]), ("enlarger", [False, True]), ("upsampler", [False, True]), ("both", [True, True]))):
        unets, sides = [{"dim": index * 10 + place} for place in range(len(mask))], [2 ** (4 + index + place) for place in range(len(mask))]
        config = {"unets": unets, "image_sizes": sides, "predict_v": index == 0, "beta_schedule": [name] * len(mask), "timesteps": 9, "clip": None}
        weights = {f"unets.{place}.w": torch.full((1,), index * 10.0 + place) for place in range(len(mask))} | {
            "noise_schedulers.0.betas": torch.ones(1)
        }
        write_networks(tmp_path, name, weights, {"decoder": config, "train": {"unet_training_mask": mask}}, LATEST)
    picturebook.export_decoder([tmp_path / f"{name}.safetensors" for name in ("base", "enlarger", "upsampler")])
    parts = load_file(model / "decoder.safetensors")
    assert {key: value.item() for key, value in parts.items()} == {"unets.0.w": 0.0, "unets.1.w": 11.0, "unets.2.w": 21.0}
    assert json.loads((model / "decoder.json").read_text())["decoder"] == {
        "unets": [{"dim": 0}, {"dim": 11}, {"dim": 21}],
        "image_sizes": [16, 64, 128],
        "predict_v": False,
        "beta_schedule": ["base", "enlarger", "upsampler"],
        "timesteps": 9,
    }
    write_networks(tmp_path, "prior", {"net.w": torch.ones(1)}, {"prior": {"net": {}, "clip": {"make": "x"}}}, LATEST)
    picturebook.export_prior(tmp_path / "prior.safetensors")
    assert json.loads((model / "prior.json").read_text()) == {"prior": {"net": {}}}
    for name in ("both", "prior"):
        with pytest.raises(Misconfigured, match=f"{name}.safetensors is no run that trained one unet"):
            picturebook.export_decoder([tmp_path / f"{name}.safetensors"])
