"""How something is to be painted: counts, seeds, steps, guidance; every operation takes the same ones."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from engine.errors import InvalidRequest
from engine.jobs import (
    CANDIDATES_LIMIT,
    COUNT_LIMIT,
    GUIDANCE_LIMIT,
    INGREDIENTS_LIMIT,
    LEAST_STEPS,
    PRIOR_STEPS_LIMIT,
    SEED_LIMIT,
    STEPS_LIMIT,
    Preset,
    check_range,
    check_weight,
)

ALWAYS = (0.0, 1.0)
"""The interval of guidance that leaves no time out."""
DRAFTS_LIMIT = 16
"""Small pictures that are painted for one that is finished."""
RESAMPLES_LIMIT = 20
"""Times that a step is taken when a part of a picture is repainted."""
EDIT_STRENGTH = 0.5
EXPLORE_STEP = 0.4


class Solver(StrEnum):
    """How a walk gets from one time to the next."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPM = "dpm++"
    DPM_SDE = "dpm++sde"


@dataclass(frozen=True, slots=True)
class Effort:
    """What a preset comes to where nothing else is asked: steps of every stage, as a share of the model's usual ones, and draws of the prior.

    Of these there are `candidates` at least, and the model's usual ones unless `is_hasty`, with which there is one draft of a picture only.
    """

    share: float
    candidates: int
    is_hasty: bool = False

    def draws(self, usual: int) -> int:
        """Return the draws of a prior of which usually so many are made."""
        return self.candidates if self.is_hasty else max(self.candidates, usual)

    def steps(self, usual: int, most: int) -> int:
        """Return the steps of a stage that usually takes so many; more than `most` only where that is usual."""
        return max(min(round(usual * self.share), max(usual, most)), min(usual, LEAST_STEPS))


EFFORTS = {Preset.FAST: Effort(0.5, 1, is_hasty=True), Preset.BALANCED: Effort(1, 1), Preset.BEST: Effort(2.5, 4)}


class Keywords(TypedDict, total=False):
    """The fields of `Options`, for the operations that take them as keywords."""

    preset: Preset
    count: int
    repeats: int
    seed: int
    prior_seed: int | None
    steps: int | Sequence[int | None] | None
    guidance: float | Sequence[float | None] | None
    guidance_interval: Sequence[float]
    prior_steps: int | None
    prior_guidance: float | None
    candidates: int | None
    drafts: int | None
    resamples: int
    solver: Solver | None
    batch: int


@dataclass(frozen=True, slots=True)
class Options:
    """How to paint. None leaves a choice to `preset` and model.

    `count` draws of the prior per prompt, or pictures per given picture, and `repeats` pictures of each. The seeds of the pictures count on
    from `seed`, which is random where none is given; the prior draws with the seed of the first picture that it serves, or with `prior_seed`
    for all. `steps` and `guidance` are the base decoder's, or lists with one value, or None, per unet; unets are guided only at the noise times
    between the two shares of `guidance_interval`, 0 clean and 1 noise (Kynkäänniemi et al. 2024, arXiv:2404.07724). `candidates` are drawn per
    prior sample, and CLIP keeps the nearest to the prompt; of each picture of a dream or variation, `drafts` are painted no
    larger than CLIP looks, those of dreams from the candidates in turn, the nearest first, and CLIP keeps the nearest (Ramesh et al. 2021,
    arXiv:2102.12092, section 2.6). `resamples` is how often a step is taken when inpainting; `solver` is that of all stages. At most `batch`
    pictures are painted at once.

    Raises:
        InvalidRequest: a value is outside its range.
    """

    preset: Preset = Preset.BALANCED
    count: int = 4
    repeats: int = 1
    seed: int = field(default_factory=lambda: secrets.randbelow(SEED_LIMIT))
    prior_seed: int | None = None
    steps: int | Sequence[int | None] | None = None
    guidance: float | Sequence[float | None] | None = None
    guidance_interval: Sequence[float] = ALWAYS
    prior_steps: int | None = None
    prior_guidance: float | None = None
    candidates: int | None = None
    drafts: int | None = None
    resamples: int = 5
    solver: Solver | None = None
    batch: int = COUNT_LIMIT

    def __post_init__(self) -> None:
        check_range("count", self.count, 1, COUNT_LIMIT)
        check_range("repeats", self.repeats, 1, COUNT_LIMIT)
        check_range("seed", self.seed, 0, SEED_LIMIT - 1)
        if self.candidates is not None:
            check_range("candidates", self.candidates, 1, CANDIDATES_LIMIT)
        if self.drafts is not None:
            check_range("drafts", self.drafts, 1, DRAFTS_LIMIT)
        check_range("resamples", self.resamples, 1, RESAMPLES_LIMIT)
        check_range("batch", self.batch, 1, 256)
        if self.prior_seed is not None:
            check_range("prior_seed", self.prior_seed, 0, SEED_LIMIT - 1)
        if self.prior_steps is not None:
            check_range("prior_steps", self.prior_steps, LEAST_STEPS, PRIOR_STEPS_LIMIT)
        if self.prior_guidance is not None:
            check_range("prior_guidance", self.prior_guidance, 0, GUIDANCE_LIMIT)
        low, high = self.interval
        check_range("guidance_interval", low, 0, 1)
        check_range("guidance_interval", high, low, 1)
        for steps in several(self.steps):
            if steps is not None:
                check_range("steps", steps, 1, STEPS_LIMIT)
        for guidance in several(self.guidance):
            if guidance is not None:
                check_range("guidance", guidance, 0, GUIDANCE_LIMIT)

    @property
    def interval(self) -> tuple[float, float]:
        """The shares of the noise times between which unets are guided.

        Raises:
            InvalidRequest: they are not two.
        """
        if len(self.guidance_interval) != 2:
            raise InvalidRequest("guidance_interval", "be two numbers")
        low, high = self.guidance_interval
        return low, high

    def draws(self, usual: int) -> int:
        """Return how many candidates the prior draws of a model that usually draws so many."""
        return EFFORTS[self.preset].draws(usual) if self.candidates is None else self.candidates

    def drafted(self, usual: int) -> int:
        """Return how many drafts are painted of a picture by a model that usually paints so many."""
        if self.drafts is not None:
            return self.drafts
        return 1 if EFFORTS[self.preset].is_hasty else usual

    def of_unet(self, number: int) -> tuple[int | None, float | None]:
        """Return the steps and guidance that are asked for unet `number`, counted from 1: a single value is the base decoder's."""
        steps, guidance = several(self.steps), several(self.guidance)
        return (steps[number - 1] if number <= len(steps) else None), (guidance[number - 1] if number <= len(guidance) else None)


def several(value: float | Sequence[float | None] | None) -> list:  # type: ignore[type-arg]  # int or float, as it was given
    """Return a list of what is given once, several times or not at all."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def check_ingredients(ingredients: Sequence[object], weights: Sequence[float] | None) -> list[float]:
    """Make sure that things can be blended, and return the weight of each.

    Raises:
        InvalidRequest: there are too few or too many, or weights do not fit to them.
    """
    if isinstance(ingredients, (bytes, bytearray, str)) or not 2 <= len(ingredients) <= INGREDIENTS_LIMIT:
        raise InvalidRequest("ingredients", "be two to {most} pictures or prompts", most=INGREDIENTS_LIMIT)
    weights = [1.0] * len(ingredients) if weights is None else list(weights)
    if len(weights) != len(ingredients):
        raise InvalidRequest("weights", "be as many as there are ingredients: {wanted}, not {have}", wanted=len(ingredients), have=len(weights))
    for weight in weights:
        check_weight(weight)
    return weights
