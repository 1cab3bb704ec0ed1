"""Checkpoints of old releases give the answers of the releases that they were trained with.

The fixtures were made by those releases (`make_dialects.py`): tiny networks with random weights. Tolerance 1e-4, absolute, in float32.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resize_right
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.unclip import load_decoder, load_prior
from engine.unclip.dialects import Dialect, Release
from engine.unclip.loading import schedule_of
from engine.unclip.schedule import alpha_bars
from engine.unclip.stages import UnetStage
from engine.unclip.train_config import DecoderConfig
from engine.unclip.unet import Unet
from tests.engine.unclip.make_dialects import BATCH, RELEASES, TIMES, encodings, inputs, text_mask, weights_of

FOLDER = Path(__file__).parent / "dialects"
TOLERANCE = 1e-4
GUESSED = {
    "prior": {"1.0.1", "1.0.3", "1.1.0", "1.2.2", "1.15.6", "1.14.2", "0.15.4", "0.20.1"},
    "decoder": {"1.1.0", "1.0.3", "1.15.6", "1.14.2", "0.12.4"},
}
"""Releases whose arithmetic is found without being told: those that the published files come from, and the latest."""


@cache
def fixture(release: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(FOLDER / f"{release}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("facts")))["models"], arrays


def state_dict(release: str, name: str) -> dict[str, Tensor]:
    """Make the state dict that the release would have saved."""
    models, arrays = fixture(release)
    buffers = {key.split("/buffer/")[1]: value for key, value in arrays.items() if key.startswith(f"{name}/buffer/")}
    buffers |= {key: np.zeros(models[name]["tensors"][key], np.float32) for key in models[name]["unread"]}
    return {key: torch.from_numpy(buffers.get(key, weights_of(key, tuple(shape)))) for key, shape in models[name]["tensors"].items()}


def models(kind: str) -> list[tuple[str, str]]:
    return [(release, name) for release in RELEASES for name in fixture(release)[0] if name.startswith(kind)]


def tensors(**arrays: np.ndarray) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def prior_question(call: str, release: str) -> dict[str, Tensor]:
    question = tensors(text_embed=inputs("text", BATCH, 32))
    if call != "no encodings":
        question |= tensors(text_encodings=encodings(32, release))
    if call == "mask":
        question |= tensors(mask=text_mask())
    if call == "self":
        question |= tensors(self_cond=inputs("before", BATCH, 32))
    return question


def unet_question(number: int, call: str, release: str) -> dict[str, Tensor]:
    question = tensors(image_embed=inputs("embed", BATCH, 32))
    if number == 2:
        question |= tensors(lowres_cond_img=inputs("lowres", BATCH, 3, 16, 16))
    if call.endswith(("text", "mask")):
        question |= tensors(text_encodings=encodings(12, release))
    if call.endswith("mask"):
        question |= tensors(text_mask=text_mask())
    return question


def check_answers(net: nn.Module, x: Tensor, answers: list[tuple[str, str, float]], arrays: dict[str, np.ndarray], question: Any) -> None:
    assert answers
    for key, call, scale in answers:
        with torch.no_grad():
            answer = net.forward_with_cond_scale(x, torch.tensor([3, TIMES - 2]), cond_scale=scale, **question(call))
        expected = torch.from_numpy(arrays[key])
        assert expected.std() > 0.01
        assert (answer - expected).abs().max() < TOLERANCE, key


def check_prior(release: str, name: str, net: nn.Module) -> None:
    found, arrays = fixture(release)
    check_answers(net, torch.from_numpy(inputs("embed", BATCH, 32)), found[name]["answers"], arrays, lambda call: prior_question(call, release))


def check_decoder(release: str, name: str, unets: list[Any]) -> None:
    found, arrays = fixture(release)
    for number, unet in enumerate(unets, start=1):
        x = torch.from_numpy(inputs(f"picture {number}", BATCH, 3, 8 * number, 8 * number))
        answers = [answer for answer in found[name]["answers"] if answer[1].startswith(f"unet {number}")]
        check_answers(unet, x, answers, arrays, lambda call, number=number: unet_question(number, call, release))


@pytest.mark.parametrize(("release", "name"), models("prior"))
def test_a_prior_answers_as_its_release_did(release: str, name: str, tmp_path: Path) -> None:
    torch.save({"model": state_dict(release, name), "version": release, "config": fixture(release)[0][name]["config"]}, tmp_path / "prior.pth")
    prior = load_prior(tmp_path / "prior.pth")
    assert str(prior.release) == release
    check_prior(release, name, prior.net)


@pytest.mark.parametrize(("release", "name"), models("decoder"))
def test_a_decoder_answers_as_its_release_did(release: str, name: str, tmp_path: Path) -> None:
    torch.save({"model": state_dict(release, name), "version": release, "config": fixture(release)[0][name]["config"]}, tmp_path / "decoder.pth")
    decoder = load_decoder(tmp_path / "decoder.pth")
    assert {str(stage.release) for stage in decoder.stages} == {release}
    check_decoder(release, name, decoder.unets)


@pytest.mark.parametrize(("release", "name"), [*models("prior"), *models("decoder")])
def test_a_release_that_is_not_recorded_is_told_by_its_tensors(release: str, name: str, tmp_path: Path) -> None:
    kind, _, variant = name.partition("/")
    torch.save(state_dict(release, name), tmp_path / "bare.pth")
    (tmp_path / "config.json").write_text(json.dumps(fixture(release)[0][name]["config"]))
    load = load_prior if kind == "prior" else load_decoder
    loaded = load(tmp_path / "bare.pth", tmp_path / "config.json")
    if release in GUESSED[kind] and variant not in ("self", "other"):
        if kind == "prior":
            check_prior(release, name, loaded.net)
        else:
            check_decoder(release, name, loaded.unets)


@pytest.mark.parametrize(
    ("release", "eta", "percentile", "smooth"),
    [
        ("0.23.9", 1.0, 0.9, True),
        ("0.23.10", 1.0, 0.9, False),
        ("0.26.0", 1.0, 0.9, False),
        ("0.26.1", 1.0, 0.95, False),
        ("1.11.4", 1.0, 0.95, False),
        ("1.12.0", 0.0, 0.95, False),
    ],
)
def test_what_a_config_leaves_open_is_what_its_release_took(release: str, eta: float, percentile: float, smooth: bool) -> None:
    """Read from the defaults of the releases' `Decoder`, which the fixtures' networks are not part of."""
    dialect = Dialect(Release.parse(release))
    sizes: dict[str, Any] = {"dim": 8, "dim_mults": [1, 2], "image_embed_dim": 8, "resnet_groups": 4}
    config = DecoderConfig(unets=[sizes, sizes], image_sizes=[8, 16], use_dynamic_thres=True)
    unet = Unet(**sizes, cond_on_image_embeds=True, lowres_cond=True, dialect=dialect)
    stage = UnetStage.of(unet, dialect.release, config, 1, alpha_bars("cosine", 10))
    assert stage.eta == eta
    x_0 = torch.linspace(0, 3, 1001)[None]
    assert float(stage.settle(x_0)[0, 500]) == pytest.approx(1.5 / (3 * percentile))
    smaller = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cubic = resize_right.resize((smaller + 1) / 2, scale_factors=2).clamp(0, 1) * 2 - 1
    expected = cubic if smooth else F.interpolate(smaller, 16, mode="nearest")
    assert torch.allclose(stage.enlarge(smaller, lambda: torch.zeros(1))["lowres_cond_img"], expected, atol=1e-6)


@pytest.mark.parametrize(("release", "names"), [("1.0.2", ["cosine"] * 3), ("1.0.3", ["cosine", "cosine", "linear"])])
def test_the_last_of_several_unets_has_a_schedule_of_its_own_since_1_0_3(release: str, names: list[str]) -> None:
    config = DecoderConfig(unets=[{"dim": 8, "dim_mults": [1]}] * 3, image_sizes=[8, 16, 32])
    assert [schedule_of(config, index, Release.parse(release)) for index in range(3)] == names
    assert schedule_of(DecoderConfig(unets=[{"dim": 8, "dim_mults": [1]}], image_sizes=[8]), 0, Release.parse(release)) == "cosine"
