"""The library's networks as denoisers: built from its configs, guided, made fit for half precision.

Source: dalle2-pytorch 1.15.6, `DiffusionPrior` and `Decoder`. Only their networks are used; what to clip, which curve and what the output
means is read off the built modules once, here.

Dimensions: B batch, C = 3 channels, H = W = side of a stage in pixels, D embedding width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from dalle2_pytorch import Decoder, DiffusionPrior
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from torch import Tensor, nn

from engine.unclip.clip import TextCondition
from engine.unclip.sampling import Denoiser, Draw, Prediction, Predicts, Rule, clip, ddim, ddpm, dynamic_threshold
from engine.unclip.schedule import Step, alpha_bars, every_time, spaced_times, spaced_times_of_prior


def keep_times_exact(unet: nn.Module) -> None:
    """Let a unet embed its times in float32 under autocast.

    The library casts the times to the type of its first convolution's output; bfloat16 cannot tell 998 from 1000, and the fast
    sinusoids of such times are noise.
    """

    def to_float(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.float()

    unet.get_submodule("init_conv").register_forward_hook(to_float)


def build_prior(config: dict[str, Any]) -> DiffusionPrior:
    """Build the untrained prior that the `prior` part of a train config describes."""
    return DiffusionPriorConfig(**{**config, "clip": None}).create()


def build_decoder(config: dict[str, Any]) -> Decoder:
    """Build the untrained cascade that the `decoder` part of a train config describes."""
    decoder = DecoderConfig(**{**config, "clip": None}).create()
    for unet in decoder.unets:
        keep_times_exact(unet)
    return decoder


def meaning(predict_x_start: bool, predict_v: bool) -> Predicts:
    """Tell what a network predicts from the library's two flags; v wins."""
    return Predicts.V if predict_v else Predicts.X_0 if predict_x_start else Predicts.EPS


def guided(net: Callable[..., Tensor], scale: float, **drop_all: float) -> Callable[..., Tensor]:
    """Return `net` under classifier-free guidance; `drop_all` are the arguments that make it unconditional.

    Source: Ho & Salimans 2022, arXiv:2207.12598, in the form null + scale × (conditional - null).
    """
    if scale == 1:
        return net

    def forward(*args: Tensor, **kwargs: Tensor) -> Tensor:
        null = net(*args, **kwargs, **drop_all)
        return null + (net(*args, **kwargs) - null) * scale

    return forward


@dataclass(frozen=True, slots=True)
class PriorStage:
    """The prior, ready to walk. `scale` is what unit embeddings are multiplied by to suit the diffusion."""

    net: nn.Module
    curve: Tensor
    predicts: Predicts
    scale: float
    settle: Callable[[Tensor], Tensor]
    start: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]
    with_encodings: bool
    can_be_guided: bool

    @classmethod
    def of(cls, prior: DiffusionPrior) -> "PriorStage":
        """Read off a prior how it is to be sampled."""
        scale = float(prior.image_embed_scale)

        def on_sphere(x: Tensor) -> Tensor:
            return F.normalize(x, dim=-1) * scale

        def as_is(x: Tensor) -> Tensor:
            return x

        into_range = on_sphere if prior.sampling_clamp_l2norm else as_is
        return cls(
            net=prior.net,
            curve=prior.noise_scheduler.alphas_cumprod.double().cpu(),
            predicts=meaning(prior.predict_x_start, prior.predict_v),
            scale=scale,
            settle=into_range if prior.predict_x_start else clip,
            start=on_sphere if prior.init_image_embed_l2norm else as_is,
            finish=on_sphere if prior.sampling_final_clamp_l2norm and prior.predict_x_start else as_is,
            with_encodings=prior.condition_on_text_encodings,
            can_be_guided=prior.can_classifier_guidance,
        )

    def plan(self, steps: int) -> tuple[list[Step], Rule]:
        """Choose times and update rule for a number of steps: DDPM when all times are asked for, else the library's DDIM (eta = 1)."""
        return (every_time(self.curve), ddpm) if steps >= len(self.curve) else (spaced_times_of_prior(self.curve, steps), ddim(1.0))

    def denoiser(self, text: TextCondition, guidance: float) -> Denoiser:
        """Condition the network on a text, (B, D) and (B, L, W)."""
        net = guided(self.net, guidance, text_cond_drop_prob=1.0, image_cond_drop_prob=1.0)
        condition = {"text_embed": text.embed}
        if self.with_encodings:
            condition["text_encodings"] = text.encodings

        def denoise(x_t: Tensor, time: int, x_0: Tensor | None) -> Prediction:
            times = torch.full((len(x_t),), time, device=x_t.device, dtype=torch.long)
            return Prediction(net(x_t, times, self_cond=x_0 if self.net.self_cond else None, **condition).float())

        return denoise


@dataclass(frozen=True, slots=True)
class UnetStage:
    """One unet of the cascade, ready to walk. `lowres_level` is the time up to which the smaller picture is noised, None for none."""

    unet: nn.Module
    side: int
    curve: Tensor
    predicts: Predicts
    settle: Callable[[Tensor], Tensor]
    eta: float
    learned_variance: bool
    constrain_fraction: bool
    lowres_level: int | None
    can_be_guided: bool

    @classmethod
    def of(cls, decoder: Decoder, index: int) -> "UnetStage":
        """Read off a decoder how its unet `index`, from 0, is to be sampled."""
        conditioner = decoder.lowres_conds[index]
        noised = conditioner is not None and conditioner.use_noise
        return cls(
            unet=decoder.unets[index],
            side=decoder.image_sizes[index],
            curve=decoder.noise_schedulers[index].alphas_cumprod.double().cpu(),
            predicts=meaning(decoder.predict_x_start[index], decoder.predict_v[index]),
            settle=dynamic_threshold(decoder.dynamic_thres_percentile) if decoder.use_dynamic_thres else clip,
            eta=decoder.ddim_sampling_eta,
            learned_variance=decoder.learned_variance[index],
            constrain_fraction=decoder.learned_variance_constrain_frac,
            lowres_level=int(decoder.lowres_noise_sample_level * 1000) if noised else None,
            can_be_guided=decoder.can_classifier_guidance,
        )

    def plan(self, steps: int) -> tuple[list[Step], Rule]:
        """Choose times and update rule for a number of steps: DDPM when all times are asked for, else the library's DDIM."""
        return (every_time(self.curve), ddpm) if steps >= len(self.curve) else (spaced_times(self.curve, steps), ddim(self.eta))

    def enlarge(self, smaller: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Make the picture of the stage before into this stage's low-resolution condition.

        Shapes:
            smaller  (B, C, h, w) float in [-1, 1], h ≤ H

        Source: Saharia et al. 2022, arXiv:2205.11487, section 2.4 (noise conditioning).
        """
        lowres = F.interpolate(smaller.clamp(-1, 1), self.side, mode="nearest")
        if self.lowres_level is None:
            return {"lowres_cond_img": lowres}
        alpha_bar = float(alpha_bars("linear", 1000)[self.lowres_level])
        levels = torch.full((len(lowres),), self.lowres_level, device=lowres.device, dtype=torch.long)
        noised = alpha_bar**0.5 * lowres + (1 - alpha_bar) ** 0.5 * draw()
        return {"lowres_cond_img": noised, "lowres_noise_level": levels}

    def denoiser(self, image_embed: Tensor, text: TextCondition, guidance: float, lowres: dict[str, Tensor]) -> Denoiser:
        """Condition the unet on picture embeddings, (B, D) of unit length, on the text where it wants it, and on what `enlarge` returned."""
        condition = {"image_embed": image_embed, **lowres}
        if self.unet.cond_on_text_encodings:
            condition["text_encodings"] = text.encodings
        net = guided(self.unet, guidance, text_cond_drop_prob=1.0, image_cond_drop_prob=1.0)

        def denoise(x_t: Tensor, time: int, x_0: Tensor | None) -> Prediction:
            times = torch.full((len(x_t),), time, device=x_t.device, dtype=torch.long)
            self_cond = x_0 if self.unet.self_cond else None
            output = net(x_t, times, self_cond=self_cond, **condition).float()
            if not self.learned_variance:
                return Prediction(output)
            value, raw = output.chunk(2, dim=1)
            fraction = (raw + 1) / 2
            return Prediction(value, fraction.sigmoid() if self.constrain_fraction else fraction)

        return denoise
