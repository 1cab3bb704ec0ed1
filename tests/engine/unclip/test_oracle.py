"""The library's own `sample` loops are the oracle: equal weights and equal noise must give equal samples.

Tiny random networks from dalle2-pytorch 1.15.6, float32; tolerance 1e-4 absolute.
"""

from collections.abc import Callable, Iterator
from typing import Any

import dalle2_pytorch.dalle2_pytorch as library
import pytest
import torch
from torch import Tensor

from engine.unclip.clip import TextCondition
from engine.unclip.networks import PriorStage, UnetStage, build_decoder, build_prior
from engine.unclip.sampling import walk

TOLERANCE = 1e-4
BATCH, TIMES = 2, 25
WALKS = [(TIMES, 2.5), (6, 2.5), (7, 1.0)]
"""DDPM, and DDIM with times that do and do not divide evenly."""
PRIOR = {
    "net": {"dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "max_text_len": 8, "num_timesteps": TIMES},
    "image_embed_dim": 32,
    "image_size": 64,
    "timesteps": TIMES,
    "cond_drop_prob": 0.1,
}
DECODER = {
    "unets": [
        {"dim": 16, "dim_mults": [1, 2], "image_embed_dim": 32, "cond_dim": 24, "cond_on_image_embeds": True, "attn_heads": 2},
        {"dim": 16, "dim_mults": [1, 2], "cond_dim": 24, "cond_on_image_embeds": False, "attn_heads": 2, "lowres_cond": True},
    ],
    "image_sizes": [8, 16],
    "timesteps": TIMES,
    "image_cond_drop_prob": 0.1,
    "use_noise_for_lowres_cond": False,
    "learned_variance": False,
}


class Noise:
    """The same noise for both sides: call number n gives the n-th draw, whoever asks."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *ignored: Any, **also_ignored: Any) -> Tensor:
        return torch.randn(self.shape, generator=self.generator)


class LibraryNoise:
    """torch as the library sees it, but for its two sources of noise and its progress bar's."""

    def __init__(self, noise: Noise) -> None:
        self.randn = self.randn_like = noise

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Noise], None]]:
    monkeypatch.setattr(library, "tqdm", lambda steps, **ignored: steps)
    yield lambda noise: monkeypatch.setattr(library, "torch", LibraryNoise(noise))


def randomise(module: torch.nn.Module) -> None:
    """Give every weight a value: the library starts its last convolution at zero, which would hide everything before it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predict_v": True},
        {"predict_x_start": False},
        {"sampling_clamp_l2norm": True},
        {"init_image_embed_l2norm": True, "sampling_final_clamp_l2norm": True},
        {"condition_on_text_encodings": False},
        {"beta_schedule": "linear"},
        {"net": {**PRIOR["net"], "self_cond": True}},
    ],
    ids=str,
)
@pytest.mark.parametrize(("steps", "guidance"), WALKS)
def test_the_prior_draws_what_the_library_draws(changes: dict[str, Any], steps: int, guidance: float, feed: Callable[[Noise], None]) -> None:
    prior = build_prior({**PRIOR, **changes})
    randomise(prior)
    encodings = torch.randn(BATCH, 8, 32)
    encodings[:, 5:] = 0
    text = TextCondition(torch.nn.functional.normalize(torch.randn(BATCH, 32), dim=-1), encodings)
    condition = {"text_embed": text.embed} | ({"text_encodings": text.encodings} if prior.condition_on_text_encodings else {})
    feed(Noise((BATCH, 32)))
    expected = prior.p_sample_loop((BATCH, 32), text_cond=condition, cond_scale=guidance, timesteps=steps)

    stage, draw = PriorStage.of(prior), Noise((BATCH, 32))
    plan, rule = stage.plan(steps)
    with torch.no_grad():
        sample = walk(stage.denoiser(text, guidance), stage.start(draw()), plan, rule, draw, predicts=stage.predicts, settle=stage.settle)
    assert (stage.finish(sample) / stage.scale - expected).abs().max() < TOLERANCE
    assert expected.abs().max() > 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predict_v": True},
        {"predict_x_start": True},
        {"learned_variance": [True, True]},
        {"learned_variance": [True, True], "learned_variance_constrain_frac": True},
        {"use_dynamic_thres": True},
        {"ddim_sampling_eta": 0.7},
        {"use_noise_for_lowres_cond": True, "use_blur_for_lowres_cond": False},
        {"beta_schedule": ["sigmoid", "quadratic"]},
        {"unets": [{**unet, "self_cond": True} for unet in DECODER["unets"]]},
        {"unets": [{**unet, "cond_on_text_encodings": True, "text_embed_dim": 32, "max_text_len": 8} for unet in DECODER["unets"]]},
    ],
    ids=str,
)
@pytest.mark.parametrize(("steps", "guidance"), WALKS)
@pytest.mark.parametrize("number", [1, 2], ids=["base", "upsampler"])
def test_the_unets_paint_what_the_library_paints(
    changes: dict[str, Any], steps: int, guidance: float, number: int, feed: Callable[[Noise], None]
) -> None:
    decoder = build_decoder({**DECODER, **changes, "sample_timesteps": [steps, steps]})
    randomise(decoder)
    embed = torch.nn.functional.normalize(torch.randn(BATCH, 32), dim=-1)
    small = torch.rand(BATCH, 3, 8, 8)
    shape = (BATCH, 3, 8 * number, 8 * number)
    feed(Noise(shape))
    text = TextCondition(embed, torch.randn(BATCH, 8, 32))
    expected = decoder.sample(
        image=small if number == 2 else None,
        image_embed=embed,
        text_encodings=text.encodings if decoder.condition_on_text_encodings else None,
        cond_scale=guidance,
        start_at_unet_number=number,
        stop_at_unet_number=number,
    )

    stage, draw = UnetStage.of(decoder, number - 1), Noise(shape)
    lowres = stage.enlarge(small * 2 - 1, draw) if number == 2 else {}
    plan, rule = stage.plan(steps)
    with torch.no_grad():
        sample = walk(stage.denoiser(embed, text, guidance, lowres), draw(), plan, rule, draw, predicts=stage.predicts, settle=stage.settle)
    assert ((sample + 1) / 2 - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.05
