"""How much signal is left at each time, and which times a sampler visits.

Symbols follow Ho et al. 2020 and Song et al. 2021:

    alpha_bar  share of signal variance left in x_t, 1 = clean, 0 = pure noise
    beta       share of variance that one training step replaces by noise
    T          number of training times; time 0 is the cleanest that a network ever saw

Everything here is float64: the products of a thousand factors are not to be rounded twice.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def cosine_betas(times: int) -> Tensor:
    """Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17, with s = 0.008 and betas cut at 0.999."""
    s = 0.008
    grid = torch.linspace(0, times, times + 1, dtype=torch.float64)
    alpha_bars = torch.cos((grid / times + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(0, 0.999)


def linear_betas(times: int) -> Tensor:
    """Source: Ho et al. 2020, arXiv:2006.11239, section 4, its range scaled to other numbers of times."""
    return torch.linspace(0.1 / times, 20 / times, times, dtype=torch.float64)


def quadratic_betas(times: int) -> Tensor:
    """Linear in the square root. Source: dalle2-pytorch 1.15.6."""
    return torch.linspace(math.sqrt(0.1 / times), math.sqrt(20 / times), times, dtype=torch.float64) ** 2


def jsd_betas(times: int) -> Tensor:
    """1/T, 1/(T-1) … 1. Source: Sohl-Dickstein et al. 2015, arXiv:1503.03585, section 2.4.1."""
    return 1 / torch.linspace(times, 1, times, dtype=torch.float64)


def sigmoid_betas(times: int) -> Tensor:
    """An S between the ends of the linear schedule. Source: dalle2-pytorch 1.15.6."""
    return torch.sigmoid(torch.linspace(-6, 6, times, dtype=torch.float64)) * (20 - 0.1) / times + 0.1 / times


BETAS: dict[str, Callable[[int], Tensor]] = {
    "cosine": cosine_betas,
    "linear": linear_betas,
    "quadratic": quadratic_betas,
    "jsd": jsd_betas,
    "sigmoid": sigmoid_betas,
}
"""The names that the library's configs use."""


def alpha_bars(name: str, times: int) -> Tensor:
    """Return the signal variance left at each training time.

    Shapes:
        returns  (T,) float64, falling, in (0, 1)

    Raises:
        KeyError: no schedule has this name.
    """
    return torch.cumprod(1 - BETAS[name](times), dim=0)


NOISIEST = -5.1
"""Half log-SNR at which a walk begins at the earliest. Source: Lu et al. 2022, arXiv:2206.00927, appendix D.4, for the cosine schedule."""
LEAST_NOISE = 0.03
"""Share of a picture's spread at which a way back begins at least: what a network says of fainter noise is mostly its own error."""


@dataclass(frozen=True, slots=True)
class Step:
    """One update of the sampler: the network is asked at `time`; the update goes from `source` to `target`.

    `alpha_bar`, `source` and `target` are signal variances. `source` equals `alpha_bar` but for the prior's DDIM, which the
    library counts one time cleaner. `noisy` is false where the library adds no noise; after a step that is to be taken `again`, the sample
    goes back to where it came from.
    """

    time: int
    alpha_bar: float
    source: float
    target: float
    noisy: bool
    again: bool = False


def every_time(curve: Tensor) -> list[Step]:
    """Visit all T training times, from the noisiest: what DDPM does. `curve` is (T,) as `alpha_bars` gives it."""
    values = curve.tolist()
    return [Step(time, values[time], values[time], values[time - 1] if time else 1.0, noisy=time > 0) for time in reversed(range(len(values)))]


def spaced_times(curve: Tensor, count: int) -> list[Step]:
    """Visit `count` times (a few less where neighbours fall together), spaced evenly, and end at time 0, still a trace of noise.

    Source: dalle2-pytorch 1.15.6, `Decoder.p_sample_loop_ddim`.
    """
    values = curve.tolist()
    times = torch.linspace(0.0, len(values), count + 2)[:-1].int().tolist()[::-1]
    pairs = [(now, after) for now, after in zip(times[:-1], times[1:], strict=True) if now > after]
    return [Step(now, values[now], values[now], values[after], noisy=after > 0) for now, after in pairs]


def spaced_times_of_prior(curve: Tensor, count: int) -> list[Step]:
    """Visit `count` - 1 times, spaced evenly, and end clean.

    Source: dalle2-pytorch 1.15.6, `DiffusionPrior.p_sample_loop_ddim`, which reads the curve shifted by one time.
    """
    values = curve.tolist()
    shifted = [1.0, *values[:-1]]
    times = torch.linspace(-1.0, len(values), count + 1)[:-1].int().tolist()[::-1]
    return [
        Step(now, values[now], shifted[now], shifted[after] if after >= 0 else 1.0, noisy=after > 0)
        for now, after in zip(times[:-1], times[1:], strict=True)
    ]


def even_log_snr(curve: Tensor, count: int) -> list[Step]:
    """Visit `count` times (a few less where neighbours fall together), spaced evenly in log-SNR, and end at time 0, still a trace of noise.

    Noisier times than `NOISIEST` are left out: nothing can be told there.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.4 and appendix D.4.
    """
    values = curve.tolist()
    log_snr = 0.5 * (curve / (1 - curve)).log()
    wanted = torch.linspace(max(float(log_snr[-1]), NOISIEST), float(log_snr[0]), count + 1, dtype=torch.float64)
    times = (wanted[:, None] - log_snr).abs().argmin(dim=1).unique().flip(0).tolist()
    return [Step(now, values[now], values[now], values[after], noisy=after > 0) for now, after in zip(times[:-1], times[1:], strict=True)]


def resampled(steps: list[Step], times: int) -> list[Step]:
    """Take every step so many times, so that what is repainted and what is kept can agree; the last noiseless one does not go back.

    Source: Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1.
    """
    return [replace(step, again=step.noisy and turn < times) for step in steps for turn in range(1, times + 1)]


def way_back(steps: Sequence[Step]) -> list[Step]:
    """Turn a plan around: from the cleanest level that it visits with no less than `LEAST_NOISE` to the one that it begins at.

    The network is asked at the cleaner end of each step, where the sample is.

    Source: Song et al. 2021, arXiv:2010.02502, section 4.3; Dhariwal & Nichol 2021, arXiv:2105.05233, appendix F.
    """
    pairs = [(noisier, cleaner) for noisier, cleaner in zip(steps, steps[1:], strict=False) if math.sqrt(1 - cleaner.source) >= LEAST_NOISE]
    return [Step(cleaner.time, cleaner.alpha_bar, cleaner.source, noisier.source, noisy=True) for noisier, cleaner in reversed(pairs)]
