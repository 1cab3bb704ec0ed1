"""The library's own `sample` loops are the oracle: equal weights and equal noise must give equal samples.

Tiny random networks from dalle2-pytorch 1.15.6, float32; tolerance 1e-4 absolute.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dalle2_pytorch.dalle2_pytorch as library
import pytest
import torch
from dalle2_pytorch import Decoder, DiffusionPrior
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engine.options import Solver
from engine.unclip import load_decoder, load_prior
from engine.unclip.clip import TextCondition
from engine.unclip.sampling import Repaint, Walk, walk_alone
from engine.unclip.schedule import resampled
from engine.unclip.stages import PriorBrief

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


def random_prior(config: dict[str, Any], path: Path) -> DiffusionPrior:
    """Make a prior of the library and write it as its trainer does."""
    prior = DiffusionPriorConfig(**config).create()
    randomise(prior)
    torch.save({"model": prior.state_dict(), "version": "1.15.6", "config": {"prior": config}}, path)
    return prior


def random_decoder(config: dict[str, Any], path: Path) -> Decoder:
    """Make a decoder of the library and write it as its trainer does."""
    decoder = DecoderConfig(**config).create()
    randomise(decoder)
    torch.save({"model": decoder.state_dict(), "version": "1.15.6", "config": {"decoder": config}}, path)
    return decoder


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
def test_the_prior_draws_what_the_library_draws(
    changes: dict[str, Any], steps: int, guidance: float, feed: Callable[[Noise], None], tmp_path: Path
) -> None:
    prior = random_prior({**PRIOR, **changes}, tmp_path / "prior.pth")
    encodings = torch.randn(BATCH, 8, 32)
    encodings[:, 5:] = 0
    text = TextCondition(torch.nn.functional.normalize(torch.randn(BATCH, 32), dim=-1), encodings)
    condition = {"text_embed": text.embed} | ({"text_encodings": text.encodings} if prior.condition_on_text_encodings else {})
    feed(Noise((BATCH, 32)))
    expected = prior.p_sample_loop((BATCH, 32), text_cond=condition, cond_scale=guidance, timesteps=steps)

    stage, draw = load_prior(tmp_path / "prior.pth"), Noise((BATCH, 32))
    plan, rule = stage.plan(steps, Solver.DDPM if steps == TIMES else Solver.DDIM)
    with torch.no_grad():
        walk = Walk(stage.brief(text, guidance, plan), stage.start(draw()), plan, rule, draw, predicts=stage.predicts, settle=stage.settle)
        sample = walk_alone(walk, stage.ask)
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
    changes: dict[str, Any], steps: int, guidance: float, number: int, feed: Callable[[Noise], None], tmp_path: Path
) -> None:
    decoder = random_decoder({**DECODER, **changes, "sample_timesteps": [steps, steps]}, tmp_path / "decoder.pth")
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

    [stage], draw = load_decoder(tmp_path / "decoder.pth", unet_numbers=[number]).stages, Noise(shape)
    lowres = stage.enlarge(small * 2 - 1, draw) if number == 2 else {}
    plan, rule = stage.plan(steps, Solver.DDPM if steps == TIMES else Solver.DDIM)
    with torch.no_grad():
        brief = stage.brief(embed, text, guidance, lowres, plan)
        sample = walk_alone(Walk(brief, draw(), plan, rule, draw, predicts=stage.predicts, settle=stage.settle), stage.ask)
    assert ((sample + 1) / 2 - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.05


@pytest.mark.parametrize("changes", [{}, {"predict_v": True}, {"learned_variance": [True, True]}], ids=str)
@pytest.mark.parametrize(("steps", "guidance"), [(TIMES, 1.0), (6, 2.5)])
@pytest.mark.parametrize("number", [1, 2], ids=["base", "upsampler"])
def test_the_unets_repaint_what_the_library_repaints(
    changes: dict[str, Any], steps: int, guidance: float, number: int, feed: Callable[[Noise], None], tmp_path: Path
) -> None:
    # With eta = 0 the library draws noise that it multiplies by zero, and all later draws would differ.
    decoder = random_decoder({**DECODER, **changes, "sample_timesteps": [steps, steps], "ddim_sampling_eta": 0.7}, tmp_path / "decoder.pth")
    embed = torch.nn.functional.normalize(torch.randn(BATCH, 32), dim=-1)
    small, picture = torch.rand(BATCH, 3, 8, 8), torch.rand(BATCH, 3, 16, 16)
    side = 8 * number
    keep = torch.rand(BATCH, 16, 16) > 0.5
    feed(Noise((BATCH, 3, side, side)))
    expected = decoder.sample(
        image=small if number == 2 else None,
        image_embed=embed,
        cond_scale=guidance,
        start_at_unet_number=number,
        stop_at_unet_number=number,
        inpaint_image=picture,
        inpaint_mask=keep,
        inpaint_resample_times=3,
    )

    [stage], draw = load_decoder(tmp_path / "decoder.pth", unet_numbers=[number]).stages, Noise((BATCH, 3, side, side))
    lowres = stage.enlarge(small * 2 - 1, draw) if number == 2 else {}
    plan, rule = stage.plan(steps, Solver.DDPM if steps == TIMES else Solver.DDIM)
    step = 16 // side
    repaint = Repaint(picture[..., ::step, ::step] * 2 - 1, keep[:, None, ::step, ::step])
    with torch.no_grad():
        brief = stage.brief(embed, None, guidance, lowres, plan)
        walk = Walk(brief, draw(), resampled(plan, 3), rule, draw, predicts=stage.predicts, settle=stage.settle, repaint=repaint)
        sample = walk_alone(walk, stage.ask)
    assert ((sample + 1) / 2 - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.05


def flops_of(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def test_a_step_of_the_prior_works_on_the_last_tokens_only_and_guidance_is_free(tmp_path: Path) -> None:
    random_prior({**PRIOR, "net": {**PRIOR["net"], "max_text_len": 60}}, tmp_path / "prior.pth")
    stage, x = load_prior(tmp_path / "prior.pth"), torch.randn(BATCH, 32)
    text = TextCondition(torch.nn.functional.normalize(torch.randn(BATCH, 32), dim=-1), torch.randn(BATCH, 60, 32))
    steps, rule = stage.plan(8, Solver.DDIM)

    def asking(text: TextCondition, guidance: float) -> Walk[PriorBrief]:
        walk = Walk(stage.brief(text, guidance, steps), x, steps, rule, Noise((BATCH, 32)), predicts=stage.predicts)
        # The tokens of all times are worked out at once.
        walk.told.moments[walk.step.time]
        return walk

    read = flops_of(lambda: asking(text, 1.0))
    assert flops_of(lambda: asking(text, 2.0)) > read == flops_of(lambda: asking(text, 3.0)), "what nothing is answered with is asked once"
    plain, guided = asking(text, 1.0), asking(text, 2.0)
    step = flops_of(lambda: stage.ask([plain]))
    net = stage.net
    whole = flops_of(lambda: net(x, torch.full((BATCH,), 3), text_embed=text.embed, text_encodings=text.encodings))
    # Three tokens of 64, and their attention to all.
    assert step < whole / 10
    assert flops_of(lambda: stage.ask([guided])) == step
    assert flops_of(lambda: stage.ask([plain, guided])) == 2 * step
