"""Walk from noise to a sample: one loop for prior, base decoder and upsamplers; solvers differ in their update rule only.

Symbols follow Ho et al. 2020 and Song et al. 2021:

    x_t        sample on its way; x_0 is clean
    eps        unit Gaussian noise inside x_t
    v          sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0
    alpha_bar  share of signal variance left in x_t, 1 = clean, 0 = pure noise

Dimensions: B batch; "..." is any of (C, H, W) or (D,).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.unclip.schedule import Step


class Predicts(StrEnum):
    """What a network was trained to predict."""

    EPS = "eps"
    X_0 = "x_0"
    V = "v"


Draw = Callable[[], Tensor]
"""Draw fresh unit Gaussian noise, (B, ...)."""


def noise_from_seeds(seeds: Sequence[int], shape: tuple[int, ...], device: torch.device, stream: int | Sequence[int] = 0) -> Draw:
    """Give every sample its own source of noise, so that a picture does not depend on what shares its batch.

    Drawn on the CPU, so that the kind of GPU does not matter. Equal seeds of different streams are independent.

    Shapes:
        seeds   B whole numbers below 2**32
        shape   of one sample, without B
        stream  one whole number for all, or B
    """
    streams = [stream] * len(seeds) if isinstance(stream, int) else stream
    # torch's CPU generator heeds the lower 32 bits of its seed only, so seed and stream are mixed into 32.
    mixed = [int(np.random.SeedSequence([seed, own]).generate_state(1)[0]) for seed, own in zip(seeds, streams, strict=True)]
    generators = [torch.Generator().manual_seed(seed) for seed in mixed]

    def draw() -> Tensor:
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        # From pinned memory the copy runs beside what the device is at; else everything would wait for it at every step.
        return noise.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else noise

    return draw


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of x_t. `variance_fraction`, in [0, 1], lies between the two bounds of the DDPM posterior's log variance."""

    value: Tensor
    variance_fraction: Tensor | None = None


def split(prediction: Prediction, x_t: Tensor, alpha_bar: float, predicts: Predicts) -> Tensor:
    """Return the x_0 inside x_t that a prediction means.

    Shapes:
        x_t      (B, ...) float
        returns  (B, ...) float, not clipped

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 15; Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """
    match predicts:
        case Predicts.X_0:
            return prediction.value
        case Predicts.EPS:
            return (x_t - math.sqrt(1 - alpha_bar) * prediction.value) / math.sqrt(alpha_bar)
        case Predicts.V:
            return math.sqrt(alpha_bar) * x_t - math.sqrt(1 - alpha_bar) * prediction.value


@dataclass(frozen=True, slots=True)
class Update:
    """One step of a solver: x at the target is this sum of x_t, x_0, the x_0 of the step before and fresh noise.

    `draws` says whether noise is drawn; where a network learned its variance, `log_variances` are the bounds of that of the noise.
    """

    of_x: float
    of_x_0: float
    of_earlier: float = 0.0
    of_noise: float = 0.0
    draws: bool = False
    log_variances: tuple[float, float] | None = None

    def apply(self, x: Tensor, x_0: Tensor, earlier: Tensor | None, variance_fraction: Tensor | None, draw: Draw) -> Tensor:
        """Return x at the target."""
        noise = draw() if self.draws else None
        x = self.of_x * x + self.of_x_0 * x_0
        if self.of_earlier:
            assert earlier is not None
            x = x + self.of_earlier * earlier
        if noise is None or not self.of_noise:
            return x
        if variance_fraction is None or self.log_variances is None:
            return x + self.of_noise * noise
        lower, upper = self.log_variances
        return x + (0.5 * (variance_fraction * upper + (1 - variance_fraction) * lower)).exp() * noise


Rule = Callable[[Step, Step | None], Update]
"""(step, the one before it where its x_0 still counts) -> update."""


def ddpm(step: Step, before: Step | None) -> Update:
    """Draw from the posterior q(x_target | x_t, x_0).

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 7; learned variance: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15.
    """
    beta = 1 - step.source / step.target
    of_x_0 = beta * math.sqrt(step.target) / (1 - step.source)
    of_x = (1 - step.target) * math.sqrt(1 - beta) / (1 - step.source)
    # Drawn even where it is not used, as the library does: equal noise must give equal pictures.
    if not step.noisy:
        return Update(of_x, of_x_0, draws=True)
    log_variance = math.log(max(beta * (1 - step.target) / (1 - step.source), 1e-20))
    return Update(of_x, of_x_0, of_noise=math.exp(log_variance / 2), draws=True, log_variances=(log_variance, math.log(beta)))


def ddim(eta: float) -> Rule:
    """Return the update that is deterministic for eta = 0, in both directions, and as noisy as DDPM for eta = 1.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.
    """

    def rule(step: Step, before: Step | None) -> Update:
        if step.target == 1:
            return Update(0.0, 1.0)
        # On a way back, which only eta = 0 goes, there is no posterior to draw from.
        sigma = eta * math.sqrt(max(1 - step.source / step.target, 0) * (1 - step.target) / (1 - step.source))
        # For eta = 1 and the last steps the difference is zero but for rounding, which must not make it negative.
        of_eps = math.sqrt(max(1 - step.target - sigma**2, 0)) / math.sqrt(1 - step.alpha_bar)
        draws = step.noisy and sigma > 0
        return Update(of_eps, math.sqrt(step.target) - of_eps * math.sqrt(step.alpha_bar), of_noise=sigma if draws else 0.0, draws=draws)

    return rule


def dpm(eta: float) -> Rule:
    """Return the update of DPM-Solver++(2M), deterministic for eta = 0, of its SDE for eta = 1.

    It goes along the straight line through the latest two x_0, as functions of the log-SNR; where there is no x_0 before, it is DDIM.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and section 6.
    """

    def rule(step: Step, before: Step | None) -> Update:
        if step.target == 1:
            return Update(0.0, 1.0)
        now, after = half_log_snr(step.source), half_log_snr(step.target)
        h = after - now
        of_x = math.sqrt((1 - step.target) / (1 - step.source)) * math.exp(-eta * h)
        gain = -math.sqrt(step.target) * math.expm1(-(1 + eta) * h)
        slope = 0.0 if before is None else gain * h / (2 * (now - half_log_snr(before.source)))
        sigma = math.sqrt(-(1 - step.target) * math.expm1(-2 * eta * h)) if step.noisy else 0.0
        return Update(of_x, gain + slope, -slope, sigma, draws=sigma > 0)

    return rule


def half_log_snr(alpha_bar: float) -> float:
    """Return the logarithm of signal over noise, lambda, below 1."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


@dataclass(frozen=True, slots=True)
class Repaint:
    """What a walk is to leave as it is.

    Shapes:
        picture  (B, C, H, W) float in [-1, 1]
        keep     (B, 1, H, W) bool, True = kept

    Source: Lugmayr et al. 2022, arXiv:2201.09865; the way back is that of dalle2-pytorch 1.15.6, `NoiseScheduler.q_sample_from_to`.
    """

    picture: Tensor
    keep: Tensor

    def noised(self, x_t: Tensor, step: Step, draw: Draw) -> Tensor:
        """Put the picture, as noisy as x_t is, where it is kept."""
        known = math.sqrt(step.alpha_bar) * self.picture + math.sqrt(1 - step.alpha_bar) * draw()
        return torch.where(self.keep, known, x_t)

    def back(self, x: Tensor, step: Step, draw: Draw) -> Tensor:
        """Noise x from a step's target to its source again."""
        alpha, sigma = math.sqrt(step.target), math.sqrt(1 - step.target)
        alpha_before, sigma_before = math.sqrt(step.source), math.sqrt(1 - step.source)
        return x * (alpha_before / alpha) + draw() * ((sigma_before * alpha - sigma * alpha_before) / alpha)

    def clean(self, x: Tensor) -> Tensor:
        """Put the picture itself where it is kept."""
        return torch.where(self.keep, self.picture, x)


def no_report(done: int, x_0: Tensor) -> None:
    """Ignore how far the walk is."""


Told = TypeVar("Told")


class Walk(Generic[Told]):
    """Samples on their way from noise along the same steps: after `enter` the network is asked about x, and `take` goes one step further.

    `told` is what the network is to know of the samples; guidance, conditions and dtype are its business.
    `settle` brings each predicted x_0 back to where data can be (clipping, thresholding, a norm); `repaint` holds a part of the picture
    fixed; `on_step` is told the number of steps done and the x_0 predicted by the latest, and stops the walk by raising.

    Shapes:
        x    (B, ...) float, unit Gaussian at first
        x_0  (B, ...) float, what the latest step predicted
    """

    def __init__(
        self,
        told: Told,
        x: Tensor,
        steps: Sequence[Step],
        rule: Rule,
        draw: Draw,
        *,
        predicts: Predicts,
        settle: Callable[[Tensor], Tensor] = lambda x_0: x_0,
        repaint: Repaint | None = None,
        on_step: Callable[[int, Tensor], None] = no_report,
    ) -> None:
        self.told, self.x, self.steps, self.rule, self.draw = told, x, steps, rule, draw
        self.predicts, self.settle, self.repaint, self.on_step = predicts, settle, repaint, on_step
        self.done = 0
        self.x_0: Tensor | None = None
        self._before: Step | None = None
        self._earlier: Tensor | None = None

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.done == len(self.steps)

    @property
    def step(self) -> Step:
        """The one to be taken next."""
        return self.steps[self.done]

    def enter(self) -> None:
        """Make x what the network is to see at the next step."""
        if self.repaint is not None:
            self.x = self.repaint.noised(self.x, self.step, self.draw)

    def take(self, prediction: Prediction) -> None:
        """Take a step, with what the network said of x."""
        step, x = self.step, self.x
        self.x_0 = x_0 = self.settle(split(prediction, x, step.alpha_bar, self.predicts))
        x = self.rule(step, self._before).apply(x, x_0, self._earlier, prediction.variance_fraction, self.draw)
        if self.repaint is not None and step.again:
            x = self.repaint.back(x, step, self.draw)
        else:
            self._before, self._earlier = step, x_0
        self.x = x
        self.done += 1
        self.on_step(self.done, x_0)

    @property
    def sample(self) -> Tensor:
        """What the walk came to, (B, ...) float on the scale of the training data."""
        return self.x if self.repaint is None else self.repaint.clean(self.x)


Network = Callable[[Sequence[Walk[Told]]], list[Prediction]]
"""Asked about several walks at once, each at its own time, it answers each."""


def advance(walks: Sequence[Walk[Told]], network: Network[Told]) -> None:
    """Take one step of each of several walks through the same network."""
    for walk in walks:
        walk.enter()
    for walk, prediction in zip(walks, network(walks), strict=True):
        walk.take(prediction)


def walk_alone(walk: Walk[Told], network: Network[Told]) -> Tensor:
    """Take all steps that a walk has left and return the sample."""
    while not walk.is_done:
        advance([walk], network)
    return walk.sample


def clip(x_0: Tensor) -> Tensor:
    """Keep pictures in [-1, 1]."""
    return x_0.clamp(-1, 1)


def dynamic_threshold(percentile: float) -> Callable[[Tensor], Tensor]:
    """Return a clip that rescales a sample by its own percentile where that exceeds 1.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    def settle(x_0: Tensor) -> Tensor:
        bound = torch.quantile(x_0.abs().flatten(1).float(), percentile, dim=-1).clamp(min=1.0)
        bound = bound.view(-1, *(1,) * (x_0.ndim - 1)).to(x_0.dtype)
        return x_0.clamp(-bound, bound) / bound

    return settle
