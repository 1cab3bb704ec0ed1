"""Prior and unets as stages of a walk: which times and rule, under which guidance, what a predicted x_0 is clipped to.

Source: dalle2-pytorch 1.15.6, `DiffusionPrior` and `Decoder`.

Dimensions: B batch, C channels, H = W = side of a stage in pixels, D embedding width, L tokens, W text width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.options import Solver
from engine.unclip.clip import TextCondition
from engine.unclip.dialects import Release
from engine.unclip.prior import PriorCondition, PriorNetwork
from engine.unclip.sampling import Denoiser, Draw, Prediction, Predicts, Rule, clip, ddim, ddpm, dpm, dynamic_threshold
from engine.unclip.schedule import Step, alpha_bars, even_log_snr, every_time, spaced_times, spaced_times_of_prior
from engine.unclip.train_config import DecoderConfig, PriorConfig
from engine.unclip.unet import Unet, UnetCondition, resize

USUAL = Solver.DDIM
"""The library's, where not all times are visited."""
LOWRES_CURVE = alpha_bars("linear", 1000)
"""How noised smaller pictures are noised, whatever the unet's own schedule."""


def meaning(predict_x_start: bool, predict_v: bool) -> Predicts:
    """Tell what a network predicts from the library's two flags; v wins."""
    return Predicts.V if predict_v else Predicts.X_0 if predict_x_start else Predicts.EPS


def usual_solver(curve: Tensor, steps: int) -> Solver:
    """Name the solver where nobody does: DDPM when all times of a curve are asked for."""
    return Solver.DDPM if steps >= len(curve) else USUAL


def way(curve: Tensor, steps: int, solver: Solver | None, spaced: Callable[[Tensor, int], list[Step]], eta: float) -> tuple[list[Step], Rule]:
    """Choose times and update rule. `curve` is (T,) as `alpha_bars` gives it; `spaced` and `eta` are of DDIM."""
    match solver or usual_solver(curve, steps):
        case Solver.DDPM:
            return every_time(curve), ddpm
        case Solver.DDIM:
            return spaced(curve, min(steps, len(curve) - 1)), ddim(eta)
        case Solver.DPM:
            return even_log_snr(curve, steps), dpm(0.0)
        case Solver.DPM_SDE:
            return even_log_snr(curve, steps), dpm(1.0)


@dataclass(slots=True)
class Nulls:
    """What a prior answers that is told nothing, (1, D) float by time, as far as it was needed."""

    condition: PriorCondition | None = None
    answers: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior, ready to walk. `scale` is what unit embeddings are multiplied by to suit the diffusion; `steps` the config's, if it says; `nulls`
    what it answers to nothing.

    `curve` is (T,) float64, the signal variance left at each training time.
    """

    net: PriorNetwork
    release: Release
    curve: Tensor
    predicts: Predicts
    scale: float
    settle: Callable[[Tensor], Tensor]
    start: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]
    with_encodings: bool
    can_be_guided: bool
    steps: int | None
    nulls: Nulls = field(default_factory=Nulls)

    @classmethod
    def of(cls, net: PriorNetwork, release: Release, config: PriorConfig, curve: Tensor) -> "Prior":
        """Put a network and what its train config says of sampling together."""
        scale = net.dim**0.5 if config.image_embed_scale is None else config.image_embed_scale

        def on_sphere(x: Tensor) -> Tensor:
            return F.normalize(x, dim=-1) * scale

        def as_is(x: Tensor) -> Tensor:
            return x

        into_range = on_sphere if config.sampling_clamp_l2norm else as_is
        return cls(
            net=net,
            release=release,
            curve=curve,
            predicts=meaning(config.predict_x_start, config.predict_v),
            scale=scale,
            settle=into_range if config.predict_x_start else clip,
            start=on_sphere if config.init_image_embed_l2norm else as_is,
            finish=on_sphere if config.sampling_final_clamp_l2norm and config.predict_x_start else as_is,
            with_encodings=config.condition_on_text_encodings,
            can_be_guided=config.can_be_guided,
            steps=config.sample_timesteps,
        )

    def plan(self, steps: int, solver: Solver | None = None) -> tuple[list[Step], Rule]:
        """Choose times and update rule for a number of steps; DDIM is the library's, as noisy as DDPM."""
        return way(self.curve, steps, solver, spaced_times_of_prior, 1.0)

    def denoiser(self, text: TextCondition, guidance: float) -> Denoiser:
        """Condition the network on a text, (B, D) and (B, L, W), under classifier-free guidance where `guidance` is not 1.

        Source: Ho & Salimans 2022, arXiv:2207.12598, in the form null + scale × (conditional - null).
        """
        dtype = self.net.learned_query.dtype
        encodings, mask = None, None
        if self.with_encodings:
            encodings, mask = text.encodings.to(dtype), (text.encodings != 0).any(dim=-1)
        embed = text.embed.to(dtype)
        drops = (False,) if guidance == 1 or self.net.null_is_constant else (False, True)
        conditions = [self.net.condition(embed, encodings, mask, drop_text=drop, drop_image=drop) for drop in drops]

        def denoise(x_t: Tensor, time: int, x_0: Tensor | None) -> Prediction:
            times = torch.full((len(x_t),), time, device=x_t.device)
            self_cond = x_0.to(dtype) if self.net.self_cond and x_0 is not None else None
            answer, *null = (self.net.predict(x_t.to(dtype), times, condition, self_cond).float() for condition in conditions)
            if guidance == 1:
                return Prediction(answer)
            nothing = null[0] if null else self.null_answer(time, embed)
            return Prediction(nothing + (answer - nothing) * guidance)

        return denoise

    def null_answer(self, time: int, embed: Tensor) -> Tensor:
        """Return what a network answers at a time that is told nothing, (1, D) float: asked once, whoever dreams; `embed` says where and in what."""
        nulls = self.nulls
        if nulls.condition is None:
            nulls.condition = self.net.condition(embed[:1], None, drop_text=True, drop_image=True)
        if time not in nulls.answers:
            times = torch.full((1,), time, device=embed.device)
            nulls.answers[time] = self.net.predict(torch.zeros_like(embed[:1]), times, nulls.condition).float()
        return nulls.answers[time]


@dataclass(frozen=True, slots=True)
class UnetStage:
    """One unet of the cascade, ready to walk. `lowres_level` is the time up to which the smaller picture is noised, None for none.

    `curve` is (T,) float64, the signal variance left at each training time; `side` in pixels, `from_side` that of the stage before.
    """

    unet: Unet
    release: Release
    side: int
    from_side: int | None
    curve: Tensor
    predicts: Predicts
    settle: Callable[[Tensor], Tensor]
    eta: float
    learned_variance: bool
    constrain_fraction: bool
    lowres_level: int | None
    can_be_guided: bool
    steps: int | None

    @classmethod
    def of(cls, unet: Unet, release: Release, config: DecoderConfig, index: int, curve: Tensor) -> "UnetStage":
        """Put unet `index`, from 0, and what its train config says of sampling together."""
        dialect = unet.dialect
        percentile = config.dynamic_thres_percentile or dialect.dynamic_percentile
        return cls(
            unet=unet,
            release=release,
            side=config.sides[index],
            from_side=config.sides[index - 1] if index else None,
            curve=curve,
            predicts=meaning(config.one_per_unet(config.predict_x_start)[index], config.one_per_unet(config.predict_v)[index]),
            settle=dynamic_threshold(percentile) if config.use_dynamic_thres else clip,
            eta=dialect.ddim_eta if config.ddim_sampling_eta is None else config.ddim_sampling_eta,
            learned_variance=config.learns_variance[index],
            constrain_fraction=config.learned_variance_constrain_frac,
            lowres_level=int(config.lowres_noise_sample_level * 1000) if config.noises_lowres[index] else None,
            can_be_guided=config.can_be_guided,
            steps=config.one_per_unet(config.sample_timesteps)[index],
        )

    def plan(self, steps: int, solver: Solver | None = None) -> tuple[list[Step], Rule]:
        """Choose times and update rule for a number of steps; DDIM is the library's."""
        return way(self.curve, steps, solver, spaced_times, self.eta)

    def enlarge(self, smaller: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Make the picture of the stage before into this stage's low-resolution condition.

        Shapes:
            smaller  (B, C, h, w) float in [-1, 1], h ≤ H

        Source: Saharia et al. 2022, arXiv:2205.11487, section 2.4 (noise conditioning).
        """
        smaller = smaller.clamp(-1, 1)
        if self.unet.dialect.smooth_lowres:
            # Cubic interpolation counts what lies outside as zero, and the library enlarges pictures in [0, 1].
            lowres = resize((smaller + 1) / 2, self.side).clamp(0, 1) * 2 - 1
        else:
            lowres = F.interpolate(smaller, self.side, mode="nearest")
        if self.lowres_level is None:
            return {"lowres_cond_img": lowres}
        alpha_bar = float(LOWRES_CURVE[self.lowres_level])
        levels = torch.full((len(lowres),), self.lowres_level, device=lowres.device)
        noised = alpha_bar**0.5 * lowres + (1 - alpha_bar) ** 0.5 * draw()
        return {"lowres_cond_img": noised, "lowres_noise_level": levels}

    def denoiser(self, image_embed: Tensor, text: TextCondition | None, guidance: float, lowres: dict[str, Tensor]) -> Denoiser:
        """Condition the unet on picture embeddings, on the text where it wants it, and on what `enlarge` returned.

        Guidance asks for both answers in one batch.

        Shapes:
            image_embed  (B, D) float, unit length
        """
        unet, batch = self.unet, len(image_embed)
        encodings, mask = None, None
        if text is not None and unet.cond_on_text_encodings:
            encodings, mask = text.encodings, (text.encodings != 0).any(dim=-1)
        drops = (False,) if guidance == 1 else (False, True)
        parts = [unet.condition(image_embed, encodings, mask, batch=batch, drop_image=drop, drop_text=drop) for drop in drops]
        condition = UnetCondition.join(parts)
        copies = len(parts)
        repeated = {key: torch.cat([value] * copies) for key, value in lowres.items()}

        def denoise(x_t: Tensor, time: int, x_0: Tensor | None) -> Prediction:
            times = torch.full((batch * copies,), time, device=x_t.device)
            self_cond = torch.cat([x_0] * copies) if unet.self_cond and x_0 is not None else None
            output = unet.predict(torch.cat([x_t] * copies), times, condition, self_cond=self_cond, **repeated).float()
            if copies == 2:
                answer, null = output.chunk(2)
                output = null + (answer - null) * guidance
            if not self.learned_variance:
                return Prediction(output)
            value, raw = output.chunk(2, dim=1)
            fraction = (raw + 1) / 2
            return Prediction(value, fraction.sigmoid() if self.constrain_fraction else fraction)

        return denoise


@dataclass(frozen=True, slots=True)
class Decoder:
    """A cascade, or the part of one that a checkpoint was asked for, from small to large."""

    stages: tuple[UnetStage, ...]

    @property
    def unets(self) -> list[Unet]:
        """The networks alone."""
        return [stage.unet for stage in self.stages]
