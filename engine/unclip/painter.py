"""Everything that a loaded model can do: dream, vary, repaint, enlarge, embed."""

import io
import itertools
import logging
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
from engine.jobs import SEED_LIMIT, STEPS_LIMIT, Embedding, Kind, Painting, Picture, Preset, Progress, Report, Request, check_prompt, words_of
from engine.options import ALWAYS, EFFORTS, Keywords, Options, several
from engine.unclip.caches import Cache
from engine.unclip.clip import TextCondition
from engine.unclip.company import Company, Course, Leg, Paces
from engine.unclip.model import Model, Setting
from engine.unclip.sampling import Repaint, Walk, noise_from_seeds, walk_alone
from engine.unclip.schedule import resampled
from engine.unclip.stages import Prior, UnetStage, usual_solver
from engine.uploads import Frame, Framing

log = logging.getLogger(__name__)

TEXTS_KEPT, DREAMS_KEPT = 64, 4096
"""Prompts that were read, a quarter of a megabyte each with LAION's CLIP, and embeddings that the prior drew, of a few kilobytes."""
FIRST_CANDIDATE_STREAM = 100
"""Streams of noise below belong to the prior's first draw and to the unets."""
EVERYDAY = (
    "person", "child", "face", "crowd", "dog", "cat", "horse", "bird", "fish", "insect", "flower", "tree", "forest", "mountain", "beach", "sea",
    "river", "desert", "sky", "sunset", "snowy landscape", "city street", "house", "castle", "bridge", "room", "kitchen", "chair", "table", "lamp",
    "book", "car", "train", "ship", "airplane", "bicycle", "robot", "spaceship", "planet", "meal", "cake", "fruit", "drink", "toy", "painting",
    "drawing", "pattern", "logo", "statue", "musical instrument", "ball", "machine", "piece of clothing", "hat", "shoe", "garden", "fantasy creature",
)  # fmt: skip
"""What people ask painters for: pictures of anything else stand out among these."""


def no_report(progress: Progress) -> None:
    """Ignore how far the work is."""


@dataclass(frozen=True, slots=True)
class Painted:
    """One finished picture and where it comes from.

    `embed`, (D,) float32 of unit length, is the picture embedding that it was painted from; None where it was only enlarged. `settings` are
    what its receipt says.
    """

    picture: Picture
    embed: np.ndarray | None
    settings: dict[str, Any]

    @property
    def seed(self) -> int:
        """What paints it again."""
        return self.picture.seed

    @property
    def image(self) -> Image.Image:
        """The picture, decoded."""
        return Image.open(io.BytesIO(self.picture.png))

    def save(self, path: Path | str) -> None:
        """Write the picture as PNG, with its receipt."""
        Path(path).write_bytes(self.picture.png)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A prompt in CLIP's space, and where the prior expects its picture.

    `text_embed` and `image_embed` are (D,) float32 of unit length; `tokens` what CLIP reads of the prompt, with its first and last one.
    """

    prompt: str
    seed: int
    tokens: list[int]
    text_embed: np.ndarray
    image_embed: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to paint. `embed` is (D,) where it is given already, `smaller` (C, h, w) in [-1, 1] where there is one to enlarge."""

    prompt: str
    seed: int
    prior_seed: int
    embed: Tensor | None = None
    smaller: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a picture looks like before a part of it is repainted: everything as (1, C, S, S) in [-1, 1] and (1, 1, S, S), True = kept."""

    picture: Tensor
    keep: Tensor

    def at(self, side: int, device: torch.device) -> Repaint:
        """Scale to a stage's side: a pixel of its is repainted where any of those that it stands for is."""
        picture = F.interpolate(self.picture, side, mode="bicubic", antialias=True).clamp(-1, 1)
        keep = F.interpolate(self.keep.float(), side, mode="area") > 1 - 1e-3
        return Repaint(picture.to(device), keep.to(device))


@dataclass(frozen=True, slots=True)
class Commission:
    """Samples to paint, from unet `first` on; `canvas` is what they are repainted on, `finish` makes the pictures what was asked for."""

    wanted: Sequence[Sample]
    how: Options
    first: int = 1
    canvas: Canvas | None = None
    finish: Callable[[Image.Image], Image.Image] = lambda image: image


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Painter:
    """A loaded model, how fast its networks turned out to be, and what it read and dreamt lately. One thread at a time may paint with it."""

    parts: Model
    paces: dict[nn.Module, Paces] = field(default_factory=dict, repr=False, compare=False)
    texts: Cache[TextCondition] = field(default_factory=lambda: Cache(TEXTS_KEPT), repr=False, compare=False)
    dreams: Cache[Tensor] = field(default_factory=lambda: Cache(DREAMS_KEPT), repr=False, compare=False)

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
            if parts.prior is not None:
                found |= {Kind.DREAM, Kind.INPAINT}
            if parts.clip.side:
                found.add(Kind.VARIATION)
        if parts.clip is not None and parts.prior is not None:
            found.add(Kind.EMBED)
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
            count=request.count,
            seed=request.seed,
            steps=request.steps,
            guidance=request.guidance,
            candidates=request.candidates,
            prior_steps=request.prior_steps,
            prior_guidance=request.prior_guidance,
        )
        match request.kind:
            case Kind.EMBED:
                return (yield from self.embedding(request.prompt, how, report, started))
            case Kind.UPSCALE:
                commission = self.to_enlarge([request.image or b""], request.prompt, Framing.CROP, how)
            case Kind.VARIATION:
                commission = self.to_vary([request.image or b""], request.prompt, Framing.CROP, how)
            case Kind.INPAINT:
                commission = self.to_repaint(request.image or b"", request.mask, request.prompt, Framing.PAD, how)
            case Kind.DREAM:
                commission = self.to_dream([request.prompt], how)
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
        return self.alone(self.work(self.to_dream(prompts, Options(**options)), report))

    def to_dream(self, prompts: Sequence[str], how: Options) -> Commission:
        """Say what a dream comes to; see `dream`."""
        self.needs("dream", clip=True, prior=True, decoder=True)
        return Commission([sample for prompt in checked(prompts) for sample in samples_of(prompt, how)], how)

    def variation(
        self, images: Sequence[bytes], report: Report = no_report, *, prompt: str = "", framing: Framing = Framing.CROP, **options: Unpack[Keywords]
    ) -> list[Painted]:
        """Paint other pictures with the meaning of given ones, `count` of each; `prompt` guides decoders that read text.

        Shapes:
            images  files of any usual format and size

        Raises:
            InvalidRequest: a picture, the prompt or an option is not what it must be, or this model has no CLIP or no decoder.
        """
        return self.alone(self.work(self.to_vary(images, prompt, framing, Options(**options)), report))

    def to_vary(self, images: Sequence[bytes], prompt: str, framing: Framing, how: Options) -> Commission:
        """Say what variations come to; see `variation`."""
        self.needs("variation", clip=True, decoder=True)
        if prompt:
            check_prompt(prompt)
        wanted = []
        for image in several_pictures(images):
            embed = self.look([image], framing)[0]
            wanted += [replace(sample, embed=embed) for sample in samples_of(prompt, how)]
        return Commission(wanted, how)

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
        return self.alone(self.work(self.to_repaint(image, mask, prompt, framing, Options(**options)), report))

    def to_repaint(self, image: bytes, mask: bytes | None, prompt: str, framing: Framing, how: Options) -> Commission:
        """Say what repainting comes to; see `inpaint`."""
        self.needs("inpaint", clip=True, prior=True, decoder=True)
        check_prompt(prompt)
        original = uploads.open_picture(image)
        repaint = uploads.read_mask(mask, original)
        frame = Frame(original.size, self.side, framing)
        framed_mask = frame.apply_mask(repaint)
        canvas = Canvas(to_samples([frame.apply(original)]), to_mask(framed_mask).logical_not())

        def finish(painted: Image.Image) -> Image.Image:
            return frame.undo(original, painted, repaint)

        return Commission(samples_of(prompt, how), how, canvas=canvas, finish=finish)

    def upscale(
        self, images: Sequence[bytes], report: Report = no_report, *, prompt: str = "", framing: Framing = Framing.CROP, **options: Unpack[Keywords]
    ) -> list[Painted]:
        """Enlarge pictures with the unets after the first, `count` of each (1 where none is given).

        Raises:
            InvalidRequest: a picture, the prompt or an option is not what it must be, or this model has no upsampler.
        """
        return self.alone(self.work(self.to_enlarge(images, prompt, framing, Options(**{"count": 1} | options)), report))

    def to_enlarge(self, images: Sequence[bytes], prompt: str, framing: Framing, how: Options) -> Commission:
        """Say what enlarging comes to; see `upscale`."""
        self.needs("upscale", decoder=True)
        if len(self.parts.stages) < 2:
            raise InvalidRequest("model", "have an unet that enlarges pictures; this one has none")
        if prompt:
            check_prompt(prompt)
        base = self.parts.stages[0].side
        wanted = []
        for image in several_pictures(images):
            smaller = to_samples([Frame(image.size, base, framing).apply(image)])[0]
            # No upsampler is told the embedding of what it enlarges.
            wanted += [replace(sample, smaller=smaller, embed=torch.zeros(0)) for sample in samples_of(prompt, how)]
        return Commission(wanted, how, first=2)

    def embed(self, prompts: Sequence[str], report: Report = no_report, **options: Unpack[Keywords]) -> list[Embedded]:
        """Embed prompts, and let the prior draw the picture embedding of each: the nearest to the prompt of so many `candidates`.

        Source of the contract: LAION-AI/conditioned-prior.

        Raises:
            InvalidRequest: a prompt or an option is not what it must be, or this model has no prior.
        """
        return self.alone(self.to_embed(prompts, Options(**{"count": 1} | options), report))

    def embedding(self, prompt: str, how: Options, report: Report, started: float) -> Course[Painting]:
        """Embed one prompt, as a request for that asks; `started` is when it was taken up."""
        [embedded] = yield from self.to_embed([prompt], how, report)
        setting = self.prior_setting(how)
        # As conditioned-prior answered; what decoders are given may be a little longer or shorter.
        image_embed = embedded.image_embed / np.linalg.norm(embedded.image_embed)
        return Painting(
            pictures=(),
            model=self.model,
            steps=setting.steps,
            guidance=setting.guidance,
            seconds=time.perf_counter() - started,
            unknown_words=self.unknown_words(prompt),
            embedding=Embedding(embedded.text_embed.astype("<f4").tobytes(), image_embed.astype("<f4").tobytes()),
        )

    def to_embed(self, prompts: Sequence[str], how: Options, report: Report) -> Course[list[Embedded]]:
        """Embed prompts, walk by walk; see `embed`."""
        self.needs("embed", clip=True, prior=True)
        clip = self.parts.clip
        assert clip is not None
        wanted = [sample for prompt in checked(prompts) for sample in samples_of(prompt, how)]
        count = Counter(report, self.prior_steps(wanted, how))
        result = []
        for batch in batches(wanted, how.batch):
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
        wanted, how, first, canvas = commission.wanted, commission.how, commission.first, commission.canvas
        settings = self.settings(how)
        dreamt = [sample for sample in wanted if sample.embed is None]
        resamples = how.resamples if canvas is not None else 1
        walked = list(zip(self.parts.stages, settings, strict=True))[first - 1 :]
        per_batch = sum(len(stage.plan(setting.steps, setting.solver)[0]) * resamples for stage, setting in walked)
        parts = batches(wanted, how.batch)
        count = Counter(report, self.prior_steps(dreamt, how) + per_batch * len(parts))
        result = []
        for batch in parts:
            text = self.read([sample.prompt for sample in batch]) if self.reads_text(batch) else None
            given = [sample.embed for sample in batch if sample.embed is not None]
            if given:
                embeds = torch.stack(given).to(self.parts.lodging.device)
            else:
                assert text is not None
                embeds = yield from self.imagine(batch, text, how, count)
            smaller = [sample.smaller for sample in batch if sample.smaller is not None]
            samples = yield from self.decode(
                batch, embeds, text, settings, count, torch.stack(smaller) if smaller else None, first=first, canvas=canvas, resamples=resamples
            )
            for sample, embed, image in zip(batch, embeds.float().cpu().numpy(), to_images(samples), strict=True):
                facts = self.facts(sample, how, settings[first - 1 :])
                result.append(Painted(self.with_receipt(commission.finish(image), sample, facts), embed if len(embed) else None, facts))
        return result

    def reads_text(self, batch: Sequence[Sample]) -> bool:
        """Tell whether anything that works on a batch looks at its prompts."""
        return self.parts.clip is not None and (
            any(sample.embed is None for sample in batch) or any(stage.unet.cond_on_text_encodings for stage in self.parts.stages)
        )

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

    def prior_setting(self, how: Options) -> Setting:
        """Say how the prior is walked."""
        own = self.parts.prior_setting
        assert self.parts.prior is not None
        return walkable(self.parts.prior, own, how.prior_steps, how.prior_guidance, how)

    def prior_steps(self, dreamt: Sequence[Sample], how: Options) -> int:
        """Count the prior's steps for samples, over all batches and candidates."""
        if not dreamt or self.parts.prior is None:
            return 0
        setting = self.prior_setting(how)
        return len(self.parts.prior.plan(setting.steps, setting.solver)[0]) * how.draws * len(batches(dreamt, how.batch))

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> TextCondition:
        """Embed prompts, (B, D) and (B, L, W)."""
        clip, lodging = self.parts.clip, self.parts.lodging
        assert clip is not None
        known = {prompt: self.texts.get(prompt) for prompt in dict.fromkeys(prompts)}
        if unknown := [prompt for prompt, text in known.items() if text is None]:
            with lodging.visit(clip):
                read = clip.embed_text(clip.tokenize(unknown).to(lodging.device))
            for row, prompt in enumerate(unknown):
                known[prompt] = new = TextCondition(read.embed[row : row + 1].clone(), read.encodings[row : row + 1].clone())
                self.texts.keep(prompt, new)
        texts = [text for prompt in prompts if (text := known[prompt]) is not None]
        return TextCondition(torch.cat([text.embed for text in texts]), torch.cat([text.encodings for text in texts]))

    @torch.inference_mode()
    def look(self, images: Sequence[Image.Image], framing: Framing) -> Tensor:
        """Embed pictures, (B, D), unit length."""
        clip, lodging = self.parts.clip, self.parts.lodging
        assert clip is not None
        framed = [Frame(image.size, clip.side, framing).apply(image) for image in images]
        with lodging.visit(clip):
            return clip.embed_image((to_samples(framed).to(lodging.device) + 1) / 2)

    def imagine(self, batch: Sequence[Sample], text: TextCondition, how: Options, count: "Counter") -> Course[Tensor]:
        """Let the prior draw a picture embedding for each sample, (B, D) float of unit length, the nearest to its prompt of all candidates.

        What it drew before it does not draw again.
        """
        setting = self.prior_setting(how)
        keys = [(sample.prompt, sample.prior_seed, setting, how.draws) for sample in batch]
        found = {key: self.dreams.get(key) for key in dict.fromkeys(keys)}
        if new := [key for key, embed in found.items() if embed is None]:
            rows = [keys.index(key) for key in new]
            drawn = yield from self.draw_embeds([batch[row] for row in rows], TextCondition(text.embed[rows], text.encodings[rows]), how, count)
            for key, embed in zip(new, drawn, strict=True):
                found[key] = own = embed.clone()
                self.dreams.keep(key, own)
        else:
            count.skip(self.prior_steps(batch, how))
        return torch.stack([embed for key in keys if (embed := found[key]) is not None])

    def draw_embeds(self, batch: Sequence[Sample], text: TextCondition, how: Options, count: "Counter") -> Course[Tensor]:
        """Let the prior draw for samples, (B, D) float of unit length."""
        prior, setting = self.parts.prior, self.prior_setting(how)
        assert prior is not None
        seeds = [sample.prior_seed for sample in batch]
        steps, rule = prior.plan(setting.steps, setting.solver)
        best: Tensor | None = None
        nearest = torch.full((len(batch),), -torch.inf, device=text.embed.device)
        with self.parts.lodging.visit(prior.net):
            brief = prior.brief(text, setting.guidance, steps)
        for candidate in range(how.draws):
            stream = candidate and FIRST_CANDIDATE_STREAM + candidate
            draw = noise_from_seeds(seeds, tuple(text.embed.shape[1:]), text.embed.device, stream)
            on_step = partial(count.step, "prior")
            walk = Walk(brief, prior.start(draw()), steps, rule, draw, predicts=prior.predicts, settle=prior.settle, on_step=on_step)
            yield Leg(prior.net, prior.ask, walk)
            embed = prior.finish(walk.sample) / prior.scale
            near = F.cosine_similarity(embed, text.embed.float())
            best = embed if best is None else torch.where((near > nearest)[:, None], embed, best)
            nearest = torch.maximum(near, nearest)
        assert best is not None
        return best

    def decode(
        self,
        batch: Sequence[Sample],
        embeds: Tensor,
        text: TextCondition | None,
        settings: Sequence[Setting],
        count: "Counter",
        samples: Tensor | None,
        *,
        first: int,
        canvas: Canvas | None,
        resamples: int,
    ) -> Course[Tensor]:
        """Walk down the cascade: (B, C, H, W) float, pictures in [-1, 1] but for the last step's overshoot."""
        lodging = self.parts.lodging
        seeds = [sample.seed for sample in batch]
        samples = None if samples is None else samples.to(lodging.device)
        for number, stage in enumerate(self.parts.stages, start=1):
            if number < first:
                continue
            setting = settings[number - 1]
            draw = noise_from_seeds(seeds, (stage.unet.channels, stage.side, stage.side), lodging.device, stream=number)
            steps, rule = stage.plan(setting.steps, setting.solver)
            with lodging.visit(stage.unet):
                lowres = {} if samples is None else stage.enlarge(samples, draw)
                brief = stage.brief(embeds, text, setting.guidance, lowres, steps, setting.interval)
            walk = Walk(
                brief,
                draw(),
                resampled(steps, resamples),
                rule,
                draw,
                predicts=stage.predicts,
                settle=stage.settle,
                repaint=None if canvas is None else canvas.at(stage.side, lodging.device),
                on_step=partial(count.step, "base" if number == 1 else "upsampler"),
            )
            yield Leg(stage.unet, stage.ask, walk)
            samples = walk.sample
        assert samples is not None
        if not torch.isfinite(samples).all():
            # Half precision overflows where a network was trained for the full one.
            raise Misconfigured(f"Model {self.model} paints values that are no numbers in this dtype. Set float32, or bfloat16 instead of float16.")
        return samples

    def facts(self, sample: Sample, how: Options, settings: Sequence[Setting]) -> dict[str, Any]:
        """Say how a picture was painted."""
        facts: dict[str, Any] = {"prompt": sample.prompt} if sample.prompt else {}
        facts |= {"seed": sample.seed, "model": self.model}
        facts |= {name: [getattr(one, name) for one in settings] for name in ("steps", "guidance", "solver")}
        if how.interval != ALWAYS:
            facts["guidance_interval"] = list(how.interval)
        if sample.embed is None:
            prior = self.prior_setting(how)
            facts |= {"prior_seed": sample.prior_seed, "candidates": how.draws}
            facts |= {f"prior_{name}": getattr(prior, name) for name in ("steps", "guidance", "solver")}
        return facts

    def with_receipt(self, image: Image.Image, sample: Sample, facts: dict[str, Any]) -> Picture:
        """Encode one picture with its receipt."""
        told = {key: ", ".join(map(brief, value)) if isinstance(value, list) else value for key, value in facts.items()}
        return Picture(pictures.write_receipt(pictures.encode(image), told), sample.seed, image.width, image.height)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Return the words of a prompt, in order and once, that a model with a short vocabulary never saw."""
        if not self.known_words:
            return ()
        return tuple(dict.fromkeys(word for word in words_of(prompt) if word not in self.known_words))


class Counter:
    """Counts the steps of all stages and batches, and reports each."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = itertools.count(1)

    def skip(self, steps: int) -> None:
        """Count steps that need not be taken."""
        for _ in range(steps):
            next(self._done)

    def step(self, stage: str, done: int, x_0: Tensor) -> None:
        """Report one step of a stage, and the pictures that it predicts, where it predicts any."""
        self._report(Progress(stage, next(self._done), self._total, None if stage == "prior" else lambda: preview(x_0)))


def samples_of(prompt: str, how: Options) -> list[Sample]:
    """Return the samples of one prompt or picture, with their seeds."""
    samples = []
    for index in range(how.count * how.repeats):
        seed = (how.seed + index) % SEED_LIMIT
        prior_seed = (how.seed + index // how.repeats * how.repeats) % SEED_LIMIT
        samples.append(Sample(prompt, seed, prior_seed if how.prior_seed is None else how.prior_seed))
    return samples


def checked(prompts: Sequence[str]) -> Sequence[str]:
    """Make sure that there are prompts, and that each can be read.

    Raises:
        InvalidRequest: there is none, or one cannot.
    """
    if isinstance(prompts, str) or not prompts:
        raise InvalidRequest("prompts", "be a list of at least one prompt")
    for prompt in prompts:
        check_prompt(prompt)
    return prompts


def several_pictures(images: Sequence[bytes]) -> list[Image.Image]:
    """Open pictures.

    Raises:
        InvalidRequest: there is none, or one cannot be read.
    """
    if isinstance(images, (bytes, bytearray)) or not images:
        raise InvalidRequest("images", "be a list of at least one picture")
    return [uploads.open_picture(image) for image in images]


def batches(samples: Sequence[Sample], most: int) -> list[Sequence[Sample]]:
    """Cut samples into parts of at most `most`."""
    return [samples[start : start + most] for start in range(0, len(samples), most)]


def walkable(stage: Prior | UnetStage, own: Setting, steps: int | None, guidance: float | None, how: Options) -> Setting:
    """Say how a stage is walked where some of it is asked for.

    A network that never saw a missing condition is not guided: it has nothing to be guided away from.
    """
    if steps is None:
        steps = EFFORTS[how.preset].steps(own.steps, min(STEPS_LIMIT, len(stage.curve)))
    guidance = own.guidance if guidance is None else guidance
    return Setting(steps, guidance if stage.can_be_guided else 1.0, how.solver or own.solver or usual_solver(stage.curve, steps))


def brief(value: float | str) -> str:
    """Write a number or a name without zeros that say nothing."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_samples(images: Sequence[Image.Image]) -> Tensor:
    """Turn pictures of one size into (B, 3, H, W) float in [-1, 1]."""
    values = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(values).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(embeds: Tensor) -> list[bytes]:
    """Return embeddings, (B, D), as they are kept: float16, little-endian."""
    return [embed.astype("<f2").tobytes() for embed in embeds.float().cpu().numpy()]


def to_mask(mask: Image.Image) -> Tensor:
    """Turn a mask into (1, 1, H, W) bool, True where it is white."""
    return torch.from_numpy(np.array(mask) > 127)[None, None]


def to_images(samples: Tensor) -> list[Image.Image]:
    """Turn (B, C, H, W) float in [-1, 1], or a little outside, into pictures of 8 bits."""
    values = ((samples.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(value)) for value in values]


def preview(x_0: Tensor) -> bytes:
    """Show a predicted x_0 as a grid."""
    return pictures.grid([pictures.encode(sample) for sample in to_images(x_0)])
