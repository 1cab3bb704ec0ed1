"""Everything that a loaded model can do: dream, vary, repaint, enlarge, embed."""

import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from engine import pictures, uploads
from engine.errors import InvalidRequest, Misconfigured
from engine.jobs import STEPS_LIMIT, Drawn, Embedding, Kind, Painting, Picture, Preset, Report, Request, words_of
from engine.options import ALWAYS, EDIT_STRENGTH, EFFORTS, EXPLORE_STEP, Keywords, Options, several
from engine.unclip import operations
from engine.unclip.caches import Cache
from engine.unclip.clip import TextCondition
from engine.unclip.commissions import (
    Commission,
    Counter,
    Embedded,
    Mixture,
    Painted,
    Sample,
    Trace,
    batches,
    checked,
    no_report,
    samples_of,
    scaled,
    to_bytes,
    to_images,
    to_samples,
    told,
)
from engine.unclip.company import Company, Course, Leg, Paces
from engine.unclip.model import Model, Setting
from engine.unclip.sampling import Draw, Walk, ddim, noise_from_seeds, walk_alone
from engine.unclip.schedule import Step, resampled, way_back
from engine.unclip.stages import Prior, UnetStage, usual_solver
from engine.unclip.verifying import verifying
from engine.uploads import Frame, Framing
from engine.verdicts import Verdict

log = logging.getLogger(__name__)

TEXTS_KEPT, DREAMS_KEPT = 64, 4096
"""Prompts that were read, a quarter of a megabyte each with LAION's CLIP, and embeddings that the prior drew, of a few kilobytes."""
FIRST_CANDIDATE_STREAM, FIRST_TRACE_STREAM, DRAFT_STREAMS = 100, 200, 1000
"""Streams of noise below the first belong to the prior's first draw and to the unets; those from the second on to the ways back of the unets; a draft
after the first has streams of its own, so many further on than those of the one before."""
EVERYDAY = (
    "person", "child", "face", "crowd", "dog", "cat", "horse", "bird", "fish", "insect", "flower", "tree", "forest", "mountain", "beach", "sea",
    "river", "desert", "sky", "sunset", "snowy landscape", "city street", "house", "castle", "bridge", "room", "kitchen", "chair", "table", "lamp",
    "book", "car", "train", "ship", "airplane", "bicycle", "robot", "spaceship", "planet", "meal", "cake", "fruit", "drink", "toy", "painting",
    "drawing", "pattern", "logo", "statue", "musical instrument", "ball", "machine", "piece of clothing", "hat", "shoe", "garden", "fantasy creature",
)  # fmt: skip
"""What people ask painters for: pictures of anything else stand out among these."""


ONE_FOR_ALL = (Kind.MORPH, Kind.EXPLORE, Kind.DRAWS, Kind.VERIFY)
"""Kinds whose count says something else than how many pictures are painted of one thing."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Painter:
    """A loaded model, how fast its networks turned out to be, and what it read and dreamt lately. One thread at a time may paint with it."""

    parts: Model
    paces: dict[nn.Module, Paces] = field(default_factory=dict, repr=False, compare=False)
    texts: Cache[TextCondition] = field(default_factory=lambda: Cache(TEXTS_KEPT), repr=False, compare=False)
    dreams: Cache[Tensor] = field(default_factory=lambda: Cache(DREAMS_KEPT), repr=False, compare=False)
    ordinary: list[Tensor] = field(default_factory=list, repr=False, compare=False)
    """The embeddings of the everyday texts, once somebody asked for them."""

    @classmethod
    def from_config(cls, path: Path | str, device: str = "auto", dtype: str = "auto", memory: str = "auto") -> "Painter":
        """Load the model that a config describes, fetching what is not here yet; its name is that of the config file.

        `device` is "auto", "cpu", "cuda" or "cuda:N"; `dtype`, "float32", "bfloat16", "float16" or "auto", is what the networks compute in;
        `memory`, "resident", "offload" or "auto", is whether weights stay on the device between uses.

        Raises:
            Misconfigured: config or weights are missing, damaged or do not fit together, or there is no such device.
        """
        return cls(Model.from_config(Path(path), device, dtype, memory))

    @property
    def model(self) -> str:
        """Name shown to people."""
        return self.parts.name

    @property
    def known_words(self) -> tuple[str, ...]:
        """Every word that the model was trained on, where that is a short list; else empty."""
        return self.parts.known_words

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the model can do."""
        parts, found = self.parts, set()
        if parts.clip is not None and parts.stages:
            # Of prompts alone where CLIP sees nothing, of pictures alone where there is no prior.
            found |= {Kind.BLEND, Kind.MORPH, Kind.VERIFY}
            if parts.prior is not None:
                found |= {Kind.DREAM, Kind.INPAINT}
            if parts.clip.side:
                found |= {Kind.VARIATION, Kind.EDIT, Kind.EXPLORE}
        if parts.clip is not None and parts.prior is not None:
            found |= {Kind.EMBED, Kind.DRAWS}
        if len(parts.stages) > 1:
            found.add(Kind.UPSCALE)
        return frozenset(found)

    @property
    def can_be_seamless(self) -> bool:
        """No: every picture is painted by itself."""
        return False

    def usual_steps(self, preset: Preset) -> int:
        """Return the steps of the base decoder where nothing else is asked; 0 where there is no decoder."""
        return self.settings(Options(preset=preset))[0].steps if self.parts.settings else 0

    @property
    def usual_guidance(self) -> tuple[float, ...]:
        """The guidance of each unet where nothing else is asked."""
        return tuple(setting.guidance for setting in self.settings(Options())) if self.parts.settings else ()

    @property
    def usual_prior_guidance(self) -> float | None:
        """The guidance of the prior where nothing else is asked; None where there is no prior."""
        return self.prior_setting(Options()).guidance if self.parts.prior is not None else None

    @property
    def space(self) -> str:
        """Name of the CLIP that sees what is in pictures; empty where there is none."""
        return self.parts.space if self.parts.clip is not None and self.parts.clip.side else ""

    @property
    def cached(self) -> dict[str, tuple[int, int]]:
        """By the names of the caches, how often each was asked and how often it knew."""
        return {name: (cache.asked, cache.known) for name, cache in (("texts", self.texts), ("dreams", self.dreams))}

    @property
    def everyday(self) -> tuple[str, ...]:
        """Texts of ordinary pictures: what a small model knows, else things that most people draw."""
        return tuple(f"a {word}" for word in self.known_words or EVERYDAY)

    def embed_texts(self, texts: Sequence[str]) -> list[bytes]:
        """Embed texts in the space of the pictures: (D,) float16 of unit length each, little-endian."""
        return to_bytes(self.read(texts).embed)

    def embed_picture(self, picture: bytes) -> bytes:
        """Embed a file of any usual format, the whole of it.

        Raises:
            InvalidRequest: it cannot be read.
        """
        return to_bytes(self.look([uploads.open_picture(picture)], Framing.PAD))[0]

    @property
    def side(self) -> int:
        """Side of finished pictures in pixels."""
        return self.parts.stages[-1].side if self.parts.stages else 0

    def paint(self, request: Request, report: Report) -> Painting:
        """Paint what was asked, calling `report` after every denoising step.

        Raises:
            Cancelled: `report` raised it, between two steps.
            Misconfigured: what comes out is no picture in the number format that was chosen.
        """
        return self.alone(self.course(request, report))

    def company(self) -> Company[[Request, Report], Painting]:
        """Return a new company, in which requests are painted beside each other."""
        return Company(self.parts.lodging, self.course, self.paces)

    def course(self, request: Request, report: Report) -> Course[Painting]:
        """Paint what was asked, walk by walk: whoever takes the course walks them, alone or beside those of others.

        Raises:
            InvalidRequest: see the operations.
            Misconfigured: what comes out is no picture in the number format that was chosen.
        """
        started = time.perf_counter()
        if request.seamless:
            raise InvalidRequest("model", "be one that paints without seams; {model} does not", model=self.model)
        how = Options(
            preset=request.preset,
            count=1 if request.kind in ONE_FOR_ALL else request.count,
            seed=request.seed,
            prior_seed=request.prior_seed,
            steps=request.steps,
            guidance=request.guidance,
            candidates=request.candidates,
            prior_steps=request.prior_steps,
            prior_guidance=request.prior_guidance,
        )
        match request.kind:
            case Kind.EMBED:
                return (yield from self.embedded(request.prompt, how, report, started))
            case Kind.DRAWS:
                return (yield from self.drawn(request.prompt, request.count, how, report, started))
            case Kind.VERIFY:
                return (yield from self.verified(request, report, started))
            case Kind.UPSCALE:
                commission = operations.upscale(self, [request.image or b""], request.prompt, Framing.CROP, how)
            case Kind.VARIATION:
                far = request.strength, request.drift
                commission = operations.variation(self, [request.image or b""], request.prompt, Framing.CROP, how, *far)
            case Kind.INPAINT:
                commission = operations.inpaint(self, request.image or b"", request.mask, request.prompt, Framing.PAD, how)
            case Kind.DREAM:
                commission = operations.dream(self, [request.prompt], how)
            case Kind.BLEND:
                weights = [one.weight for one in request.ingredients]
                commission = operations.blend(self, [one.value for one in request.ingredients], weights, Framing.CROP, how)
            case Kind.MORPH:
                start, end = (one.value for one in request.ingredients)
                commission = operations.morph(self, start, end, request.count, Framing.CROP, how)
            case Kind.EDIT:
                strength = EDIT_STRENGTH if request.strength is None else request.strength
                commission = operations.edit(self, request.image or b"", request.before, request.prompt, strength, Framing.PAD, how)
            case Kind.EXPLORE:
                step = EXPLORE_STEP if request.step is None else request.step
                commission = operations.explore(self, request.image or b"", step, None, Framing.CROP, how)
        painted = yield from self.work(commission, report)
        settings = painted[0].settings
        embeddings = to_bytes(self.look([one.image for one in painted], Framing.PAD)) if self.space else [None] * len(painted)
        return Painting(
            pictures=tuple(replace(one.picture, embedding=embedding) for one, embedding in zip(painted, embeddings, strict=True)),
            model=self.model,
            steps=settings["steps"][0],
            guidance=settings["guidance"][0],
            seconds=time.perf_counter() - started,
            unknown_words=self.unknown_words(request.prompt),
            space=self.space,
        )

    def dream(self, prompts: Sequence[str], report: Report = no_report, **options: Unpack[Keywords]) -> list[Painted]:
        """Paint what each prompt describes: `count` draws of the prior, `repeats` pictures of each; in the order of prompts and seeds.

        Raises:
            InvalidRequest: a prompt or an option is not what it must be, or this model has no prior or no decoder.
        """
        return self.alone(self.work(operations.dream(self, prompts, Options(**options)), report))

    def variation(
        self,
        images: Sequence[bytes],
        report: Report = no_report,
        *,
        prompt: str = "",
        framing: Framing = Framing.CROP,
        strength: float | None = None,
        drift: float = 0.0,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Paint other pictures with the meaning of given ones, `count` of each; `prompt` guides decoders that read text.

        `strength` is how far from the source: nearly the source itself at 0, nothing but its meaning at 1, which None stands for too. `drift` turns
        the meaning itself aside, each picture's another way, at 1 by a right angle.

        Shapes:
            images  files of any usual format and size

        Raises:
            InvalidRequest: a picture, the prompt or an option is not what it must be, or this model has no CLIP or no decoder.
        """
        return self.alone(self.work(operations.variation(self, images, prompt, framing, Options(**options), strength, drift), report))

    def inpaint(
        self,
        image: bytes,
        mask: bytes | None,
        prompt: str,
        report: Report = no_report,
        *,
        framing: Framing = Framing.CROP,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Repaint what is white or transparent in `mask`, or transparent in the picture itself where there is none, as the prompt says.

        The result has the size of the picture; what is kept is kept to the pixel.

        Raises:
            InvalidRequest: picture, mask, prompt or an option is not what it must be, or this model has no prior or no decoder.
        """
        return self.alone(self.work(operations.inpaint(self, image, mask, prompt, framing, Options(**options)), report))

    def upscale(
        self, images: Sequence[bytes], report: Report = no_report, *, prompt: str = "", framing: Framing = Framing.CROP, **options: Unpack[Keywords]
    ) -> list[Painted]:
        """Enlarge pictures with the unets after the first, `count` of each (1 where none is given).

        Raises:
            InvalidRequest: a picture, the prompt or an option is not what it must be, or this model has no upsampler.
        """
        return self.alone(self.work(operations.upscale(self, images, prompt, framing, Options(**{"count": 1} | options)), report))

    def blend(
        self,
        ingredients: Sequence[bytes | str],
        weights: Sequence[float] | None = None,
        report: Report = no_report,
        *,
        framing: Framing = Framing.CROP,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Paint what lies between two to five pictures or prompts: `count` pictures of the spherical mean of their picture embeddings.

        `weights`, positive, say how much each counts; all the same where there are none.

        Raises:
            InvalidRequest: an ingredient, a weight or an option is not what it must be, or this model lacks what it takes.
        """
        return self.alone(self.work(operations.blend(self, ingredients, weights, framing, Options(**options)), report))

    def morph(
        self,
        start: bytes | str,
        end: bytes | str,
        frames: int = 9,
        report: Report = no_report,
        *,
        framing: Framing = Framing.CROP,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Paint the way from one picture or prompt to another in so many frames, equally far from each other, all with the noise of one seed.

        Raises:
            InvalidRequest: an end, the number of frames or an option is not what it must be, or this model lacks what it takes.
        """
        return self.alone(self.work(operations.morph(self, start, end, frames, framing, Options(**{"count": 1} | options)), report))

    def edit(
        self,
        image: bytes,
        before: str,
        after: str,
        report: Report = no_report,
        *,
        strength: float = EDIT_STRENGTH,
        framing: Framing = Framing.CROP,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Change what `before` says of a picture into what `after` says; the rest of it stays, more or less. The result has the picture's size.

        `strength`, from 0 to 1, is how far its meaning goes: 0.5 is as far as the prior says that the two texts are from each other.

        Raises:
            InvalidRequest: the picture, a text or an option is not what it must be, or this model has no CLIP or no decoder.
        """
        return self.alone(self.work(operations.edit(self, image, before, after, strength, framing, Options(**{"count": 1} | options)), report))

    def explore(
        self,
        centre: bytes | np.ndarray,
        step: float = EXPLORE_STEP,
        report: Report = no_report,
        *,
        neighbours: np.ndarray | None = None,
        framing: Framing = Framing.CROP,
        **options: Unpack[Keywords],
    ) -> list[Painted]:
        """Paint a wheel of nine: a picture in the middle, and around it what lies a step away in the directions in which its neighbours differ most.

        In reading order; all have the noise of one seed. The `embed` of each may be the `centre` of another wheel. `step` is a share of a right
        angle; `neighbours` are embeddings, or else the everyday texts that are nearest to the centre.

        Shapes:
            centre      a file of any usual format and size, or (D,) float
            neighbours  (N, D) float, N at least 3

        Raises:
            InvalidRequest: centre, step, neighbours or an option is not what it must be, or this model has no CLIP or no decoder.
        """
        return self.alone(self.work(operations.explore(self, centre, step, neighbours, framing, Options(**{"count": 1} | options)), report))

    def draws(self, prompt: str, number: int = 8, report: Report = no_report, **options: Unpack[Keywords]) -> list[Embedded]:
        """Let the prior draw so many picture embeddings for a prompt, the nearest to it first.

        `dream([prompt], prior_seed=one.seed, candidates=1)` paints from one of them.

        Raises:
            InvalidRequest: the prompt or an option is not what it must be, or this model has no prior.
        """
        return self.alone(self.drawing(prompt, number, Options(**{"count": 1} | options), report))

    def drawing(self, prompt: str, number: int, how: Options, report: Report) -> Course[list[Embedded]]:
        """Draw what `draws` says."""
        wanted = operations.draws(self, prompt, number, how)
        embedded = yield from self.embedding(wanted, replace(how, candidates=1), report)
        return sorted(embedded, key=lambda one: one.score, reverse=True)

    def verify(self, png: bytes, sources: Sequence[bytes] = (), report: Report = no_report) -> Verdict:
        """Paint a picture again from the receipt in its file, and say how far the two are from each other.

        `sources` are the files that it was made from, if any, in the order in which they were given.

        Raises:
            InvalidRequest: the file is no picture, holds no receipt that can be followed, or not all sources are there.
        """
        return self.alone(verifying(self, png, sources, report))

    def embed(self, prompts: Sequence[str], report: Report = no_report, **options: Unpack[Keywords]) -> list[Embedded]:
        """Embed prompts, and let the prior draw the picture embedding of each: the nearest to the prompt of so many `candidates`.

        Source of the contract: LAION-AI/conditioned-prior.

        Raises:
            InvalidRequest: a prompt or an option is not what it must be, or this model has no prior.
        """
        how = Options(**{"count": 1} | options)
        self.needs("embed", clip=True, prior=True)
        return self.alone(self.embedding([sample for prompt in checked(prompts) for sample in samples_of(prompt, how)], how, report))

    def embedded(self, prompt: str, how: Options, report: Report, started: float) -> Course[Painting]:
        """Embed one prompt, as a request for that asks; `started` is when it was taken up."""
        self.needs("embed", clip=True, prior=True)
        [embedded] = yield from self.embedding(samples_of(prompt, how), how, report)
        # As conditioned-prior answered; what decoders are given may be a little longer or shorter.
        image_embed = embedded.image_embed / np.linalg.norm(embedded.image_embed)
        pair = Embedding(embedded.text_embed.astype("<f4").tobytes(), image_embed.astype("<f4").tobytes())
        return replace(self.unpainted(prompt, how, started), embedding=pair)

    def drawn(self, prompt: str, number: int, how: Options, report: Report, started: float) -> Course[Painting]:
        """Draw embeddings of one prompt, as a request for that asks; `started` is when it was taken up."""
        drawn = yield from self.drawing(prompt, number, how, report)
        return replace(self.unpainted(prompt, how, started), draws=tuple(Drawn(one.seed, one.score) for one in drawn))

    def unpainted(self, prompt: str, how: Options, started: float) -> Painting:
        """Say what the prior's work alone was done with."""
        setting, unknown_words = self.prior_setting(how), self.unknown_words(prompt)
        return Painting((), self.model, setting.steps, setting.guidance, time.perf_counter() - started, unknown_words)

    def verified(self, request: Request, report: Report, started: float) -> Course[Painting]:
        """Paint a picture again and compare, as a request for that asks; `started` is when it was taken up."""
        sources = [one.picture for one in request.ingredients if one.picture is not None]
        verdict = yield from verifying(self, request.image or b"", sources, report)
        again: tuple[Picture, ...] = ()
        if verdict.picture is not None:
            width, height = Image.open(io.BytesIO(verdict.picture)).size
            seed = int(pictures.read_receipt(verdict.picture)["seed"])
            again = (Picture(verdict.picture, seed, width, height),)
        return Painting(again, self.model, 0, 0.0, time.perf_counter() - started, verdict=replace(verdict, picture=None))

    def embedding(self, wanted: Sequence[Sample], how: Options, report: Report) -> Course[list[Embedded]]:
        """Embed the prompts of samples, and let the prior draw for each."""
        clip = self.parts.clip
        assert clip is not None
        parts = batches(wanted, how.batch)
        count = Counter(report, sum(self.prior_steps(batch, how) for batch in parts))
        result = []
        for batch in parts:
            text = self.read([sample.prompt for sample in batch])
            embeds = yield from self.imagine(batch, text, how, count)
            for sample, text_embed, image_embed in zip(batch, text.embed.cpu().numpy(), embeds.cpu().numpy(), strict=True):
                tokens = clip.tokenize([sample.prompt])[0]
                kept = tokens[: int(tokens.argmax()) + 1].tolist()
                result.append(Embedded(sample.prompt, sample.prior_seed, kept, text_embed, image_embed))
        return result

    def needs(self, operation: str, *, clip: bool = False, prior: bool = False, decoder: bool = False) -> None:
        """Make sure that the model has the parts that an operation needs.

        Raises:
            InvalidRequest: it has not.
        """
        parts = self.parts
        lacks = [
            name
            for name, needed, there in (
                ("clip", clip, parts.clip is not None),
                ("prior", prior, parts.prior is not None),
                ("decoder", decoder, bool(parts.stages)),
            )
            if needed and not there
        ]
        if lacks:
            raise InvalidRequest(
                "model", "have a {parts} for {operation}; '{model}' has none", parts=" and a ".join(lacks), operation=operation, model=self.model
            )

    @torch.inference_mode()
    def alone(self, course: Course[R]) -> R:
        """Take a course to its end, with nobody beside it."""
        try:
            while True:
                leg = next(course)
                with self.parts.lodging.visit(leg.network):
                    walk_alone(leg.walk, leg.ask)
        except StopIteration as end:
            result: R = end.value
            return result

    def work(self, commission: Commission, report: Report) -> Course[list[Painted]]:
        """Paint samples in batches, walking down the cascade from the commission's first unet."""
        how, settings = commission.how, self.settings(commission.how)[commission.first - 1 :]
        parts = batches(commission.wanted, how.batch)
        count = Counter(report, sum(self.prior_steps(batch, how) + self.unet_steps(batch, commission) for batch in parts))
        result = []
        for batch in parts:
            batch, embeds, rest = yield from self.draft(batch, commission, count)
            samples = yield from self.decode(batch, embeds, rest, count)
            for sample, embed, image in zip(batch, embeds.float().cpu().numpy(), to_images(samples), strict=True):
                facts = commission.facts | sample.facts | self.facts(sample, how, settings)
                result.append(Painted(self.with_receipt(commission.finish(image), sample, facts), embed if len(embed) else None, facts))
        return result

    def draft(self, batch: Sequence[Sample], commission: Commission, count: Counter) -> Course[tuple[Sequence[Sample], Tensor, Commission]]:
        """Choose what samples are to show, (B, D), and where a commission wants drafts, paint them: returns also what is left to be painted of it.

        Only unets that paint no larger than CLIP looks take part, the base at least; the others enlarge what was chosen.
        """
        if commission.drafts == 1:
            return batch, (yield from self.embeds_of(batch, commission.how, count)), commission
        drafts = [replace(sample, draft=number) for number in range(commission.drafts) for sample in batch]
        embeds = yield from self.embeds_of(drafts, commission.how, count)
        assert self.parts.clip is not None
        last = max(1, sum(stage.side <= self.parts.clip.side for stage in self.parts.stages))
        small = yield from self.decode(drafts, embeds, replace(commission, last=last), count)
        chosen = self.nearest(drafts, small, commission.drafts)
        batch = [replace(sample, smaller=small[row]) for sample, row in zip(batch, chosen, strict=True)]
        return batch, embeds[chosen], replace(commission, first=last + 1)

    def nearest(self, drafts: Sequence[Sample], small: Tensor, number: int) -> list[int]:
        """Return the row, of (number × B, C, S, S) in [-1, 1], of the draft of each picture that CLIP finds nearest.

        To the prompt, or where there is none but an embedding to show, to that.
        """
        clip = self.parts.clip
        assert clip is not None
        with self.parts.lodging.visit(clip):
            seen = clip.embed_image((scaled(small, clip.side) + 1) / 2)
        meant = [sample.embed if isinstance(sample.embed, Tensor) else self.read([sample.prompt]).embed[0] for sample in drafts]
        best = F.cosine_similarity(seen.float(), torch.stack(meant).float(), dim=-1).unflatten(0, (number, -1)).argmax(0)
        return (best * len(best) + torch.arange(len(best), device=best.device)).tolist()

    def embeds_of(self, batch: Sequence[Sample], how: Options, count: Counter) -> Course[Tensor]:
        """Return what samples are to show, (B, D): what is given of it, what the prior draws, and what is made of several."""
        dreams = [dream for sample in batch for dream in sample.dreams]
        drawn: list[Tensor] = []
        if dreams:
            drawn += yield from self.imagine(dreams, self.read([dream.prompt for dream in dreams]), how, count)
        embeds = []
        for sample in batch:
            match sample.embed:
                case None:
                    embeds.append(drawn.pop(0))
                case Mixture(parts, join, draws):
                    own = [torch.stack([drawn.pop(0) for _ in range(draws)]).mean(0) if isinstance(part, str) else part for part in parts]
                    embeds.append(join(F.normalize(torch.stack(own).float(), dim=-1)))
                case embed:
                    embeds.append(embed)
        return torch.stack(embeds).to(self.parts.lodging.device)

    def settings(self, how: Options) -> tuple[Setting, ...]:
        """Say how each unet is walked.

        Raises:
            InvalidRequest: more unets are spoken of than there are.
        """
        unets = len(self.parts.stages)
        for name, values in (("steps", several(how.steps)), ("guidance", several(how.guidance))):
            if len(values) > unets:
                raise InvalidRequest(
                    name, "name at most {most} values, one for each unet of {model}, not {have}", most=unets, model=self.model, have=len(values)
                )
        settings = []
        for number, (stage, own) in enumerate(zip(self.parts.stages, self.parts.settings, strict=True), start=1):
            steps, guidance = how.of_unet(number)
            settings.append(replace(walkable(stage, own, steps, guidance, how), interval=how.interval))
        return tuple(settings)

    def drafts(self, how: Options) -> int:
        """Return how many drafts are painted of a picture: one where CLIP does not look at pictures."""
        return how.drafted(self.parts.drafts) if self.space else 1

    def prior_setting(self, how: Options) -> Setting:
        """Say how the prior is walked."""
        own = self.parts.prior_setting
        assert self.parts.prior is not None
        return replace(walkable(self.parts.prior, own, how.prior_steps, how.prior_guidance, how), candidates=how.draws(own.candidates))

    def prior_steps(self, batch: Sequence[Sample], how: Options) -> int:
        """Count the prior's steps for a batch."""
        if self.parts.prior is None or not any(sample.dreams for sample in batch):
            return 0
        setting = self.prior_setting(how)
        return len(self.parts.prior.plan(setting.steps, setting.solver)[0])

    def unet_steps(self, batch: Sequence[Sample], commission: Commission) -> int:
        """Count the unets' steps for a batch, to noise and from there."""
        plans = [stage.plan(setting.steps, setting.solver)[0] for stage, setting in self.walked(commission)]
        back = sum(len(way_back(steps)) for steps in plans) if any(sample.trace for sample in batch) else 0
        return sum(map(len, plans)) * commission.resamples + back

    def walked(self, commission: Commission) -> list[tuple[UnetStage, Setting]]:
        """Return the unets that a commission takes, and how each is walked."""
        return list(zip(self.parts.stages, self.settings(commission.how), strict=True))[commission.first - 1 : commission.last]

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> TextCondition:
        """Embed prompts, (B, D) and (B, L, W)."""
        clip, lodging = self.parts.clip, self.parts.lodging
        assert clip is not None
        known = {prompt: self.texts.get(prompt) for prompt in dict.fromkeys(prompts)}
        for prompt in [prompt for prompt, text in known.items() if text is None]:
            # One at a time: among others it would be rounded otherwise, and a seed gives one picture whatever was asked beside or before.
            with lodging.visit(clip):
                known[prompt] = new = clip.embed_text(clip.tokenize([prompt]).to(lodging.device))
            self.texts.keep(prompt, new)
        texts = [text for prompt in prompts if (text := known[prompt]) is not None]
        return TextCondition(torch.cat([text.embed for text in texts]), torch.cat([text.encodings for text in texts]))

    @torch.inference_mode()
    def read_everyday(self) -> Tensor:
        """Embed the everyday texts, (N, D) float: all at once, so that they are the same to the bit whatever was read before."""
        clip, lodging = self.parts.clip, self.parts.lodging
        assert clip is not None
        if not self.ordinary:
            with lodging.visit(clip):
                self.ordinary.append(clip.embed_text(clip.tokenize(list(self.everyday)).to(lodging.device)).embed.float())
        return self.ordinary[0]

    @torch.inference_mode()
    def look(self, images: Sequence[Image.Image], framing: Framing) -> Tensor:
        """Embed pictures, (B, D), unit length."""
        clip, lodging = self.parts.clip, self.parts.lodging
        assert clip is not None
        framed = [Frame(image.size, clip.side, framing).apply(image) for image in images]
        with lodging.visit(clip):
            return clip.embed_image((to_samples(framed).to(lodging.device) + 1) / 2)

    def imagine(self, batch: Sequence[Sample], text: TextCondition, how: Options, count: Counter) -> Course[Tensor]:
        """Let the prior draw a picture embedding for each sample, (B, D) float of unit length: the nearest to its prompt of all candidates.

        Further drafts of a picture get the next nearest, and after the last the nearest again.
        What it drew before it does not draw again.
        """
        setting = self.prior_setting(how)
        keys = [(sample.prompt, sample.prior_seed, setting) for sample in batch]
        found = {key: self.dreams.get(key) for key in dict.fromkeys(keys)}
        if new := [key for key, embed in found.items() if embed is None]:
            rows = [keys.index(key) for key in new]
            drawn = yield from self.draw_embeds([batch[row] for row in rows], TextCondition(text.embed[rows], text.encodings[rows]), how, count)
            for key, embed in zip(new, drawn, strict=True):
                found[key] = own = embed.clone()
                self.dreams.keep(key, own)
        else:
            count.skip(self.prior_steps(batch, how))
        return torch.stack(
            [embeds[sample.draft % len(embeds)] for sample, key in zip(batch, keys, strict=True) if (embeds := found[key]) is not None]
        )

    def draw_embeds(self, batch: Sequence[Sample], text: TextCondition, how: Options, count: Counter) -> Course[Tensor]:
        """Let the prior draw for samples, (B, candidates, D) float of unit length, the nearest to the prompt first.

        All candidates are drawn beside each other, for a step of many takes little longer.
        """
        prior, setting = self.parts.prior, self.prior_setting(how)
        assert prior is not None
        draws = setting.candidates
        streams = [candidate and FIRST_CANDIDATE_STREAM + candidate for candidate in range(draws) for _ in batch]
        steps, rule = prior.plan(setting.steps, setting.solver)
        with self.parts.lodging.visit(prior.net):
            brief = prior.brief(text, setting.guidance, steps).repeated(draws)
        seeds = [sample.prior_seed for sample in batch] * draws
        draw = noise_from_seeds(seeds, tuple(text.embed.shape[1:]), text.embed.device, streams)
        on_step = partial(count.step, "prior")
        walk = Walk(brief, prior.start(draw()), steps, rule, draw, predicts=prior.predicts, settle=prior.settle, on_step=on_step)
        yield Leg(prior.net, prior.ask, walk)
        embeds = (prior.finish(walk.sample) / prior.scale).unflatten(0, (draws, len(batch)))
        order = F.cosine_similarity(embeds, text.embed.float(), dim=-1).argsort(dim=0, descending=True, stable=True)
        return embeds.gather(0, order[..., None].expand_as(embeds)).transpose(0, 1)

    def decode(self, batch: Sequence[Sample], embeds: Tensor, commission: Commission, count: Counter) -> Course[Tensor]:
        """Walk down the cascade: (B, C, H, W) float, pictures in [-1, 1] but for the last step's overshoot."""
        device = self.parts.lodging.device
        smaller = [sample.smaller for sample in batch if sample.smaller is not None]
        traces = [sample.trace for sample in batch if sample.trace is not None]
        samples = torch.stack(smaller).to(device) if smaller else None
        text = self.text_for([sample.prompt for sample in batch])
        for number, (stage, setting) in enumerate(self.walked(commission), start=commission.first):
            draw = self.noise(batch, stage, number)
            steps, rule = stage.plan(setting.steps, setting.solver, is_traced=bool(traces))
            with self.parts.lodging.visit(stage.unet):
                lowres = {} if samples is None else stage.enlarge(samples, draw)
                brief = stage.brief(embeds, text, setting.guidance, lowres, steps, setting.interval)
            x, on_step = draw(), partial(count.step, "base" if number == 1 else "upsampler", shown=sum(not sample.draft for sample in batch))
            if traces:
                traced = yield from self.trace_back(batch, traces, stage, number, steps, on_step)
                turn = torch.tensor([trace.fresh * math.pi / 2 for trace in traces], device=device).view(-1, 1, 1, 1)
                x = turn.cos() * traced + turn.sin() * x
            walk = Walk(
                brief,
                x,
                resampled(steps, commission.resamples),
                rule,
                draw,
                predicts=stage.predicts,
                settle=stage.settle,
                repaint=None if commission.canvas is None else commission.canvas.at(stage.side, device),
                on_step=on_step,
            )
            yield Leg(stage.unet, stage.ask, walk)
            samples = walk.sample
        assert samples is not None
        if not torch.isfinite(samples).all():
            # Half precision overflows where a network was trained for the full one.
            raise Misconfigured(f"Model {self.model} paints values that are no numbers in this dtype. Set float32, or bfloat16 instead of float16.")
        return samples

    def trace_back(
        self,
        batch: Sequence[Sample],
        traces: Sequence[Trace],
        stage: UnetStage,
        number: int,
        steps: Sequence[Step],
        on_step: Callable[[int, Tensor], None],
    ) -> Course[Tensor]:
        """Find the noise from which an unet would paint pictures along steps, (B, C, H, W): unit Gaussian, as far as the unet knows such pictures.

        Unguided: guidance would lead somewhere else on the way there than on the way back.
        """
        device, back = self.parts.lodging.device, way_back(steps)
        picture = torch.stack([trace.picture for trace in traces]).to(device)
        level = back[0].source if back else steps[0].source
        with self.parts.lodging.visit(stage.unet):
            # The smaller picture gets the same noise as on the way to the new picture.
            lowres = {} if stage.from_side is None else stage.enlarge(scaled(picture, stage.from_side), self.noise(batch, stage, number))
            embeds = torch.stack([trace.embed for trace in traces]).to(device)
            brief = stage.brief(embeds, self.text_for([trace.prompt for trace in traces]), 1.0, lowres, back)
        draw = self.noise(batch, stage, FIRST_TRACE_STREAM + number)
        x = math.sqrt(level) * scaled(picture, stage.side) + math.sqrt(1 - level) * draw()
        walk = Walk(brief, x, back, ddim(0.0), draw, predicts=stage.predicts, settle=stage.settle, on_step=on_step)
        yield Leg(stage.unet, stage.ask, walk)
        return walk.sample

    def noise(self, batch: Sequence[Sample], stage: UnetStage, stream: int) -> Draw:
        """Return the samples' own sources of noise for a stage."""
        shape, streams = (stage.unet.channels, stage.side, stage.side), [stream + DRAFT_STREAMS * sample.draft for sample in batch]
        return noise_from_seeds([sample.seed for sample in batch], shape, self.parts.lodging.device, streams)

    def text_for(self, prompts: Sequence[str]) -> TextCondition | None:
        """Read prompts where any unet looks at them; of no prompt there are no tokens, as where texts were dropped in training."""
        if self.parts.clip is None or not any(stage.unet.cond_on_text_encodings for stage in self.parts.stages):
            return None
        text = self.read(prompts)
        told = torch.tensor([bool(prompt) for prompt in prompts], device=text.encodings.device)
        return replace(text, encodings=text.encodings * told[:, None, None])

    def facts(self, sample: Sample, how: Options, settings: Sequence[Setting]) -> dict[str, Any]:
        """Say how a picture was painted."""
        facts: dict[str, Any] = {"prompt": sample.prompt} if sample.prompt else {}
        facts |= {"seed": sample.seed, "model": self.model, "model_hash": self.parts.fingerprint, "computed": self.parts.computed}
        facts |= {name: [getattr(one, name) for one in settings] for name in ("steps", "guidance", "solver")}
        if how.interval != ALWAYS:
            facts["guidance_interval"] = list(how.interval)
        if sample.dreams:
            prior = self.prior_setting(how)
            facts |= {"prior_seed": sample.prior_seed, "candidates": prior.candidates}
            facts |= {f"prior_{name}": getattr(prior, name) for name in ("steps", "guidance", "solver")}
        return facts

    def with_receipt(self, image: Image.Image, sample: Sample, facts: dict[str, Any]) -> Picture:
        """Encode one picture with its receipt."""
        return Picture(pictures.write_receipt(pictures.encode(image), told(facts)), sample.seed, image.width, image.height)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Return the words of a prompt, in order and once, that a model with a short vocabulary never saw."""
        if not self.known_words:
            return ()
        return tuple(dict.fromkeys(word for word in words_of(prompt) if word not in self.known_words))


def walkable(stage: Prior | UnetStage, own: Setting, steps: int | None, guidance: float | None, how: Options) -> Setting:
    """Say how a stage is walked where some of it is asked for.

    A network that never saw a missing condition is not guided: it has nothing to be guided away from.
    """
    if steps is None:
        steps = EFFORTS[how.preset].steps(own.steps, min(STEPS_LIMIT, len(stage.curve)))
    guidance = own.guidance if guidance is None else guidance
    return Setting(steps, guidance if stage.can_be_guided else 1.0, how.solver or own.solver or usual_solver(stage.curve, steps))
