"""Prior and unets as stages of a walk: which times and rule, under which guidance, what a predicted x_0 is clipped to.

Source: dalle2-pytorch 1.15.6, `DiffusionPrior` and `Decoder`.

Dimensions: B batch, C channels, H = W = side of a stage in pixels, D embedding width, L tokens, W text width.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.options import ALWAYS, Solver
from engine.unclip.clip import TextCondition
from engine.unclip.dialects import Release
from engine.unclip.memory import Room, Rows
from engine.unclip.prior import PriorCondition, PriorNetwork
from engine.unclip.recording import Playback
from engine.unclip.sampling import Draw, Prediction, Predicts, Rule, Walk, clip, ddim, ddpm, dpm, dynamic_threshold
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


AT_ONCE = 16
"""Times of a walk that are prepared together: their numbers take less memory than all, and fewer launches than one."""
NULLS_AT_ONCE = 64
"""Times at which a prior that is told nothing is asked together: reading its weights takes longer than what is worked out with them."""
T = TypeVar("T")


class Ahead(Generic[T]):
    """What can be said of the times of a walk before it gets there, worked out for the next few when the first of them comes."""

    def __init__(self, steps: Sequence[Step], device: torch.device, prepare: Callable[[Tensor], Iterable[T]]) -> None:
        self._times = list(dict.fromkeys(step.time for step in steps))
        self._there = torch.tensor(self._times, device=device)
        self._prepare = prepare
        self._ready: dict[int, T] = {}

    def __getitem__(self, time: int) -> T:
        if time not in self._ready:
            first = self._times.index(time)
            part = slice(first, first + AT_ONCE)
            self._ready = dict(zip(self._times[part], self._prepare(self._there[part]), strict=True))
        return self._ready[time]


class Joined(Generic[T]):
    """Several conditions as one. A batch is mostly the same as at the step before, and then so is its condition."""

    def __init__(self, join: Callable[[Sequence[T]], T]) -> None:
        self._join = join
        self._parts: list[T] = []
        self._whole: T | None = None

    def of(self, parts: Sequence[T]) -> T:
        """Join conditions, or return what the same ones were joined to the last time."""
        if self._whole is None or len(parts) != len(self._parts) or any(one is not other for one, other in zip(parts, self._parts, strict=True)):
            self._parts, self._whole = list(parts), self._join(parts)
        return self._whole


def some(rows: Tensor | None, part: Rows) -> Tensor | None:
    """Return some rows of what there may be none of."""
    return None if rows is None else rows[part]


def known_before(walk: Walk[Any]) -> Tensor:
    """Return the x_0 that a walk's latest step predicted, zeros before the first: what self-conditioning tells a network."""
    return torch.zeros_like(walk.x) if walk.x_0 is None else walk.x_0


def smaller_known_to(walk: Walk["UnetBrief"]) -> Tensor:
    """Return the smaller pictures that a walk enlarges."""
    assert walk.told.lowres is not None
    return walk.told.lowres


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
    joined: Joined[PriorCondition] = field(default_factory=lambda: Joined(PriorCondition.join))
    room: Room = field(default_factory=Room)

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

    def brief(self, text: TextCondition, guidance: float, steps: Sequence[Step]) -> "PriorBrief":
        """Tell the network of a text, (B, D) and (B, L, W), for a walk along steps."""
        net, dtype = self.net, self.net.learned_query.dtype
        encodings, mask = None, None
        if self.with_encodings:
            encodings, mask = text.encodings.to(dtype), (text.encodings != 0).any(dim=-1)
        embed = text.embed.to(dtype)
        null = None
        if guidance != 1 and net.null_is_constant:
            self.learn_nulls(list(dict.fromkeys(step.time for step in steps)), embed)
        elif guidance != 1:
            null = net.condition(embed, encodings, mask, drop_text=True, drop_image=True)
        moments = Ahead(steps, embed.device, lambda times: net.moments(times).split(1))
        return PriorBrief(len(embed), net.condition(embed, encodings, mask), null, guidance, moments)

    def ask(self, walks: Sequence[Walk["PriorBrief"]]) -> list[Prediction]:
        """Return what the network says to each of several walks, under classifier-free guidance where it is not 1.

        Source: Ho & Salimans 2022, arXiv:2207.12598, in the form null + scale × (conditional - null).
        """
        answers = self.answers(walks, [walk.told.condition for walk in walks])
        guided = [walk for walk in walks if walk.told.null is not None]
        nulls = iter(self.answers(guided, [walk.told.null for walk in guided if walk.told.null is not None]))
        predictions = []
        for walk, answer in zip(walks, answers, strict=True):
            brief, value = walk.told, answer
            if brief.guidance != 1:
                null = self.nulls.answers[walk.step.time] if brief.null is None else next(nulls)
                value = null + (answer - null) * brief.guidance
            predictions.append(Prediction(value))
        return predictions

    def answers(self, walks: Sequence[Walk["PriorBrief"]], conditions: Sequence[PriorCondition]) -> Sequence[Tensor]:
        """Return what the network says to each of several walks under one condition each, (B, D) float."""
        if not walks:
            return ()
        dtype, counts = self.net.learned_query.dtype, [walk.told.count for walk in walks]
        x = torch.cat([walk.x.to(dtype) for walk in walks])
        moments = torch.cat([walk.told.moments[walk.step.time].expand(walk.told.count, -1, -1) for walk in walks])
        before = torch.cat([known_before(walk).to(dtype) for walk in walks]) if self.net.self_cond else None
        condition = self.joined.of(conditions)

        def answer(part: Rows) -> Tensor:
            return self.net.answer(x[part], moments[part], condition.of(part), some(before, part))

        return self.room.fill(len(x), answer, x.device).float().split(counts)

    def learn_nulls(self, times: list[int], embed: Tensor) -> None:
        """Find out what a network that is told nothing answers at times: asked once, whoever dreams; `embed` says where and in what numbers."""
        nulls = self.nulls
        if nulls.condition is None:
            nulls.condition = self.net.condition(embed.new_zeros(1, self.net.dim), None, drop_text=True, drop_image=True)
        unknown = [time for time in times if time not in nulls.answers]
        for first in range(0, len(unknown), NULLS_AT_ONCE):
            part = unknown[first : first + NULLS_AT_ONCE]
            moments = self.net.moments(torch.tensor(part, device=embed.device))
            answers = self.net.answer(embed.new_zeros(len(part), self.net.dim), moments, nulls.condition).float()
            nulls.answers.update(zip(part, answers.split(1), strict=True))


@dataclass(frozen=True, slots=True)
class PriorBrief:
    """What the prior is told of `count` samples: their text, perhaps none, and the tokens of all times, (1, N, D)."""

    count: int
    condition: PriorCondition
    null: PriorCondition | None
    guidance: float
    moments: "Ahead[Tensor]"

    @property
    def rows(self) -> int:
        """How many the network works on."""
        return self.count * (1 if self.null is None else 2)

    def repeated(self, times: int) -> "PriorBrief":
        """Tell others as many times over the same: all samples, and all of them again behind."""
        if times == 1:
            return self
        rows = torch.arange(self.count, device=self.condition.mask.device).repeat(times)
        null = None if self.null is None else self.null.of(rows)
        return replace(self, count=self.count * times, condition=self.condition.of(rows), null=null)


@dataclass(frozen=True, slots=True)
class UnetStage:
    """One unet of the cascade, ready to walk. `lowres_level` is the time up to which the smaller picture is noised, None for none; `playback` is
    what plays the unet's work back on a GPU, None where each step is asked for anew.

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
    joined: Joined[UnetCondition] = field(default_factory=lambda: Joined(UnetCondition.join))
    room: Room = field(default_factory=Room)
    playback: Playback | None = None

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

    def plan(self, steps: int, solver: Solver | None = None, *, is_traced: bool = False) -> tuple[list[Step], Rule]:
        """Choose times and update rule for a number of steps; DDIM is the library's, but without noise where a picture is traced."""
        return way(self.curve, steps, solver, spaced_times, 0.0 if is_traced else self.eta)

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

    def brief(
        self,
        image_embed: Tensor,
        text: TextCondition | None,
        guidance: float,
        lowres: dict[str, Tensor],
        steps: Sequence[Step],
        interval: tuple[float, float] = ALWAYS,
    ) -> "UnetBrief":
        """Tell the unet of picture embeddings, of the text where it wants it, and of what `enlarge` returned, for a walk along steps.

        It is guided at the times that lie in `interval`, as shares of all: 0 is clean, 1 is noise.

        Shapes:
            image_embed  (B, D) float, unit length
        """
        unet, batch = self.unet, len(image_embed)
        encodings, mask = None, None
        if text is not None and unet.cond_on_text_encodings:
            encodings, mask = text.encodings, (text.encodings != 0).any(dim=-1)
        conditions = tuple(
            unet.condition(
                image_embed, encodings, mask, lowres_noise_level=lowres.get("lowres_noise_level"), batch=batch, drop_image=drop, drop_text=drop
            )
            for drop in ((False,) if guidance == 1 else (False, True))
        )
        hiddens = torch.cat([condition.hiddens for condition in conditions])

        def prepare(times: Tensor) -> Iterator[UnetMoment]:
            moments = unet.moments(times)
            scales = unet.scales(moments.hiddens[:, None] + hiddens)
            return map(UnetMoment, scales, moments.outer.split(1), moments.inner.split(1))

        guided = range(math.ceil(interval[0] * len(self.curve)), math.floor(interval[1] * len(self.curve)) + 1)
        return UnetBrief(batch, conditions, guidance, guided, lowres.get("lowres_cond_img"), Ahead(steps, image_embed.device, prepare))

    def ask(self, walks: Sequence[Walk["UnetBrief"]]) -> list[Prediction]:
        """Return what the unet says to each of several walks; guidance asks for both answers in one batch."""
        unet, briefs = self.unet, [walk.told for walk in walks]
        moments = [walk.told.moments[walk.step.time] for walk in walks]
        conditions = [walk.told.conditions_at(walk.step.time) for walk in walks]
        condition = self.joined.of([condition for own in conditions for condition in own])

        def rows(one: Callable[[Walk[UnetBrief]], Tensor]) -> Tensor:
            return torch.cat([one(walk) for walk, own in zip(walks, conditions, strict=True) for _ in own])

        x = rows(lambda walk: walk.x)
        counts = [brief.count * len(own) for brief, own in zip(briefs, conditions, strict=True)]
        scales = torch.cat([moment.scales[:count] for moment, count in zip(moments, counts, strict=True)])
        outer, inner = (
            torch.cat(
                [known, torch.cat([getattr(moment, name).expand(count, *[-1] * 5) for moment, count in zip(moments, counts, strict=True)])], dim=4
            )
            for name, known in (("outer", condition.outer), ("inner", condition.inner))
        )
        lowres = rows(smaller_known_to) if unet.lowres_cond else None
        before = rows(known_before) if unet.self_cond else None

        ask = self.playback or unet.answer

        def answer(part: Rows) -> Tensor:
            return ask(x[part], scales[part], outer[part], inner[part], some(lowres, part), some(before, part))

        output = self.room.fill(len(x), answer, x.device).float()
        return [self.guided(part, brief) for part, brief in zip(output.split(counts), briefs, strict=True)]

    def guided(self, output: Tensor, brief: "UnetBrief") -> Prediction:
        """Lead the answer to a condition away from the one to none.

        Source: Ho & Salimans 2022, arXiv:2207.12598, in the form null + scale × (conditional - null).
        """
        if len(output) > brief.count:
            answer, null = output.chunk(2)
            output = null + (answer - null) * brief.guidance
        if not self.learned_variance:
            return Prediction(output)
        value, raw = output.chunk(2, dim=1)
        fraction = (raw + 1) / 2
        return Prediction(value, fraction.sigmoid() if self.constrain_fraction else fraction)


class UnetMoment(NamedTuple):
    """What a unet is told at one time: (B, F) float with and then without conditions, and (1, J, 2, E, N, Q) of outer and inner attentions."""

    scales: Tensor
    outer: Tensor
    inner: Tensor


@dataclass(frozen=True, slots=True)
class UnetBrief:
    """What a unet is told of `count` samples: their conditions, where they are guided those without any, at which times, and the smaller pictures."""

    count: int
    conditions: tuple[UnetCondition, ...]
    guidance: float
    guided: range
    lowres: Tensor | None
    moments: "Ahead[UnetMoment]"

    def conditions_at(self, time: int) -> tuple[UnetCondition, ...]:
        """Return the conditions that the unet is asked under at a time."""
        return self.conditions if time in self.guided else self.conditions[:1]

    @property
    def rows(self) -> int:
        """How many the network works on at most."""
        return self.count * len(self.conditions)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A cascade, or the part of one that a checkpoint was asked for, from small to large."""

    stages: tuple[UnetStage, ...]

    @property
    def unets(self) -> list[Unet]:
        """The networks alone."""
        return [stage.unet for stage in self.stages]
