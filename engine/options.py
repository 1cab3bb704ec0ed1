"""How something is to be painted: counts, seeds, steps, guidance; every operation takes the same ones."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, SEED_LIMIT, STEPS_LIMIT, check_range

CANDIDATES_LIMIT = 32
"""Draws of the prior that CLIP chooses between."""
PRIOR_STEPS_LIMIT = 1000
RESAMPLES_LIMIT = 20
"""Times that a step is taken when a part of a picture is repainted."""


class Solver(StrEnum):
    """How a walk gets from one time to the next."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPM = "dpm++"
    DPM_SDE = "dpm++sde"


class Keywords(TypedDict, total=False):
    """The fields of `Options`, for the operations that take them as keywords."""

    count: int
    repeats: int
    seed: int
    prior_seed: int | None
    steps: int | Sequence[int] | None
    guidance: float | Sequence[float] | None
    prior_steps: int | None
    prior_guidance: float | None
    candidates: int
    resamples: int
    solver: Solver | None
    batch: int


@dataclass(frozen=True, slots=True)
class Options:
    """How to paint. None leaves a choice to the model.

    `count` draws of the prior per prompt, or pictures per given picture, and `repeats` pictures of each. The seeds of the pictures count on
    from `seed`, which is random where none is given; the prior draws with the seed of the first picture that it serves, or with `prior_seed`
    for all. `steps` and `guidance` are the base decoder's, or lists with one value per unet. `candidates` are drawn per prior sample, and
    CLIP keeps the nearest to the prompt. `resamples` is how often a step is taken when inpainting; `solver` is that of all stages. At most
    `batch` pictures are painted at once.

    Raises:
        InvalidRequest: a value is outside its range.
    """

    count: int = 4
    repeats: int = 1
    seed: int = field(default_factory=lambda: secrets.randbelow(SEED_LIMIT))
    prior_seed: int | None = None
    steps: int | Sequence[int] | None = None
    guidance: float | Sequence[float] | None = None
    prior_steps: int | None = None
    prior_guidance: float | None = None
    candidates: int = 1
    resamples: int = 5
    solver: Solver | None = None
    batch: int = COUNT_LIMIT

    def __post_init__(self) -> None:
        check_range("count", self.count, 1, COUNT_LIMIT)
        check_range("repeats", self.repeats, 1, COUNT_LIMIT)
        check_range("seed", self.seed, 0, SEED_LIMIT - 1)
        check_range("candidates", self.candidates, 1, CANDIDATES_LIMIT)
        check_range("resamples", self.resamples, 1, RESAMPLES_LIMIT)
        check_range("batch", self.batch, 1, 256)
        if self.prior_seed is not None:
            check_range("prior_seed", self.prior_seed, 0, SEED_LIMIT - 1)
        if self.prior_steps is not None:
            check_range("prior_steps", self.prior_steps, 2, PRIOR_STEPS_LIMIT)
        if self.prior_guidance is not None:
            check_range("prior_guidance", self.prior_guidance, 0, GUIDANCE_LIMIT)
        for steps in several(self.steps):
            check_range("steps", steps, 1, STEPS_LIMIT)
        for guidance in several(self.guidance):
            check_range("guidance", guidance, 0, GUIDANCE_LIMIT)

    def of_unet(self, number: int) -> tuple[int | None, float | None]:
        """Return the steps and guidance that are asked for unet `number`, counted from 1: a single value is the base decoder's."""
        steps, guidance = several(self.steps), several(self.guidance)
        return (steps[number - 1] if number <= len(steps) else None), (guidance[number - 1] if number <= len(guidance) else None)


def several(value: float | Sequence[float] | None) -> list:  # type: ignore[type-arg]  # int or float, as it was given
    """Return a list of what is given once, several times or not at all."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
