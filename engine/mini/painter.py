"""Everything that a loaded DALL·E Mini can do: dream, and vary what it painted by keeping the first rows of tokens."""

import base64
import binascii
import logging
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine import pictures, uploads
from engine.errors import InvalidRequest, Misconfigured
from engine.jobs import Kind, Painting, Picture, Preset, Report, Request, check_prompt
from engine.mini.company import Company, Member
from engine.mini.decoding import Batch, Drawing
from engine.mini.model import Model
from engine.mini.settings import MiniSettings
from engine.unclip.caches import Cache
from engine.unclip.commissions import Painted, no_report

log = logging.getLogger(__name__)

TEXTS_KEPT = 64
"""Prompts that were read, up to twelve megabytes each with Mega."""
PREVIEW_SHARE = 0.5
"""Of the time that a request took so far, previews may take. A picture's colours cost a CPU as much as most of its tokens."""


@dataclass(frozen=True, slots=True)
class Commission:
    """What is to be painted: the prompt, how tokens are drawn, and those that are given."""

    prompt: str
    drawing: Drawing
    given: tuple[int, ...]
    settings: MiniSettings


@dataclass(eq=False, slots=True)
class Painter:
    """A loaded model and what it read lately. One thread at a time may paint with it.

    `graphs` has a GPU play back what it is to do; `preview_share` is how much of a request's time its previews may take.
    """

    parts: Model
    graphs: bool = True
    preview_share: float = PREVIEW_SHARE
    texts: Cache[Tensor] = field(default_factory=lambda: Cache(TEXTS_KEPT), repr=False)
    _batch: Batch | None = field(default=None, repr=False)
    _colours_s: float = field(default=0.0, repr=False)
    """Seconds that the colours of a picture took last."""

    @classmethod
    def from_config(cls, path: Path | str, device: str = "auto", dtype: str = "auto", memory: str = "auto") -> "Painter":
        """Load the model that a config describes, fetching what is not here yet; its name is that of the config file.

        `device` is "auto", "cpu", "cuda" or "cuda:N"; `dtype`, "float32", "bfloat16", "float16" or "auto", is what the networks compute in;
        `memory`, "resident", "offload" or "auto", is whether networks stay in memory between uses.

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
        """Nothing: the vocabulary is that of a language."""
        return ()

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the model can do; it varies only pictures whose tokens are known."""
        return frozenset({Kind.DREAM, Kind.VARIATION})

    @property
    def can_be_seamless(self) -> bool:
        """Yes: tokens of several pictures may be turned into colours as one."""
        return True

    def usual_steps(self, preset: Preset) -> int:
        """Return 0: there are no denoising steps."""
        return 0

    @property
    def usual_guidance(self) -> tuple[float, ...]:
        """The guidance of the only decoder where nothing else is asked."""
        return (self.parts.usual.guidance,)

    @property
    def usual_prior_guidance(self) -> None:
        """None: there is no prior."""
        return None

    @property
    def space(self) -> str:
        """Empty: no CLIP looks at the pictures."""
        return ""

    @property
    def everyday(self) -> tuple[str, ...]:
        """Nothing, for nothing is compared."""
        return ()

    @property
    def cached(self) -> Mapping[str, tuple[int, int]]:
        """By the names of the caches, how often each was asked and how often it knew."""
        return {"texts": (self.texts.asked, self.texts.known)}

    @property
    def side(self) -> int:
        """Side of pictures in pixels."""
        return self.parts.side

    def embed_texts(self, texts: Sequence[str]) -> list[bytes]:
        """Refuse: there is no space to embed anything in, which `space` says."""
        raise Misconfigured(f"Model {self.model} has no CLIP and embeds nothing. Name another model.")

    def embed_picture(self, picture: bytes) -> bytes:
        """Refuse, as `embed_texts`."""
        raise Misconfigured(f"Model {self.model} has no CLIP and embeds nothing. Name another model.")

    # Painting.

    def company(self) -> Company:
        """Return a new company, in which requests are painted beside each other."""
        return Company(self)

    def paint(self, request: Request, report: Report = no_report, settings: MiniSettings | None = None) -> Painting:
        """Paint what was asked, calling `report` after every token.

        Raises:
            Cancelled: `report` raised it, between two tokens.
            InvalidRequest: the request is not what this model can paint.
            Misconfigured: what comes out is no picture in the number format that was chosen.
        """
        company = self.company()
        member = company.join(request, report, settings)
        while not member.is_done:
            company.step()
        if member.error is not None:
            raise member.error
        assert member.result is not None
        return member.result

    def dream(self, prompts: Sequence[str], report: Report = no_report, settings: MiniSettings | None = None, **asked: Any) -> list[Painted]:
        """Paint what each prompt describes, beside each other; `asked` are fields of `Request`, which count from the same seed for each prompt.

        Raises:
            InvalidRequest: a prompt or a setting is not what it must be.
        """
        return self._beside([Request(prompt, **{"seed": 0, **asked}) for prompt in prompts], report, settings)

    def _beside(self, requests: Sequence[Request], report: Report, settings: MiniSettings | None) -> list[Painted]:
        """Paint requests beside each other."""
        company = self.company()
        members = [company.join(request, report, settings) for request in requests]
        while len(company):
            company.step()
        for member in members:
            if member.error is not None:
                raise member.error
        painted = [picture for member in members if member.result is not None for picture in member.result.pictures]
        return [Painted(picture, None, dict(pictures.read_receipt(picture.png))) for picture in painted]

    def variation(self, images: Sequence[bytes], report: Report = no_report, settings: MiniSettings | None = None, **asked: Any) -> list[Painted]:
        """Go on from the first rows of tokens of pictures that this model painted; see `dream`.

        Raises:
            InvalidRequest: a picture or a setting is not what it must be.
        """
        return self._beside([Request(**{"prompt": "", "seed": 0, **asked}, kind=Kind.VARIATION, image=image) for image in images], report, settings)

    def commission(self, request: Request, settings: MiniSettings) -> Commission:
        """Say what a request comes to, before the device is touched.

        Raises:
            InvalidRequest: it is not what this model can paint.
        """
        usual, prompt = self.parts.usual, request.prompt
        settings = replace(settings, seamless=settings.seamless or request.seamless)
        given: tuple[int, ...] = ()
        if request.kind is Kind.INPAINT:
            raise InvalidRequest("model", "be one that repaints parts of pictures; {model} does not", model=self.model)
        if request.kind not in self.kinds:
            lacks = "prior" if request.kind in (Kind.EMBED, Kind.DRAWS) else "decoder"
            raise InvalidRequest("model", "have a {parts} for {operation}; '{model}' has none", parts=lacks, operation=request.kind, model=self.model)
        top_k = min(usual.top_k, self.parts.size.codes) if settings.top_k is None else settings.top_k
        if top_k > self.parts.size.codes:
            raise InvalidRequest("top_k", "be at most {most}, the number of tokens of {model}", most=self.parts.size.codes, model=self.model)
        if request.kind is Kind.VARIATION:
            tokens, told = self.tokens_of(request, settings)
            prompt = prompt or told
            given = tokens[: len(tokens) * settings.rows // 16]
        if prompt:
            check_prompt(prompt)
        temperature = usual.temperature if settings.temperature is None else settings.temperature
        guidance = usual.guidance if request.base_guidance is None else request.base_guidance
        return Commission(prompt, Drawing(temperature, top_k, guidance), given, settings)

    def tokens_of(self, request: Request, settings: MiniSettings) -> tuple[tuple[int, ...], str]:
        """Return the tokens of a picture that is to be varied, and its prompt if it says so.

        Raises:
            InvalidRequest: the picture cannot be read, or tells no tokens.
        """
        tokens, told = settings.tokens, {}
        if not tokens:
            told = uploads.receipt_of(request.image or b"")
            tokens = unpack(told.get("tokens", ""))
        size = self.parts.size
        if len(tokens) != size.paints or not all(0 <= token < size.codes for token in tokens):
            raise InvalidRequest("picture", "be one that {model} painted, as the file that it sent", model=self.model)
        return tokens, told.get("prompt", "")

    def read(self, prompt: str) -> Tensor:
        """Return what the decoder remembers of a prompt; what it read before it does not read again."""
        known = self.texts.get(prompt)
        if known is None:
            [known] = self.parts.read([prompt])
            self.texts.keep(prompt, known)
        return known

    def borrow_batch(self) -> Batch:
        """Return a batch: the one that was given back, whose memory is there already, or a new one."""
        batch, self._batch = self._batch, None
        return batch or Batch(self.parts.decoder.take(), self.read(""), self.graphs)

    def give_back_batch(self, batch: Batch) -> None:
        """Keep an empty batch for whoever comes next, if networks are kept."""
        self.parts.decoder.put_back()
        if self.parts.decoder.is_loaded:
            self._batch = batch

    def images(self, codes: Sequence[Tensor], columns: int = 0) -> list[Image.Image]:
        """Turn tokens into pictures, see `Model.paint`.

        Raises:
            Misconfigured: they are no tokens, since the decoder's answers were no numbers.
        """
        started = time.perf_counter()
        stacked = torch.stack(list(codes))
        if (stacked >= self.parts.size.codes).any():
            raise Misconfigured(f"Model {self.model} paints values that are no numbers in this dtype. Set float32, or bfloat16 instead of float16.")
        painted = (self.parts.paint(stacked, columns) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        self.parts.detokenizer.put_back()
        self._colours_s = (time.perf_counter() - started) / len(codes)
        return [Image.fromarray(np.ascontiguousarray(one)) for one in painted]

    def may_preview(self, busy_s: float, previewed_s: float, count: int) -> bool:
        """Tell whether a preview of so many pictures is worth its time; the first one finds out how long that is."""
        return previewed_s + count * self._colours_s <= self.preview_share * busy_s or not self._colours_s

    def painting(self, member: Member) -> Painting:
        """Put together what a request came to."""
        drawing = member.samples[0].drawing
        finished = []
        for sample in member.samples:
            image = member.painted[sample]
            facts: dict[str, object] = {"prompt": member.prompt} if member.prompt else {}
            facts |= {"seed": sample.seed, "model": self.model, "guidance": f"{drawing.guidance:g}"}
            facts |= {"temperature": f"{drawing.temperature:g}", "top_k": drawing.top_k}
            if member.settings.seamless:
                facts["seamless"] = f"{member.samples.index(sample) + 1} of {len(member.samples)}"
            if sample.given:
                facts["kept_tokens"] = len(sample.given)
            assert sample.codes is not None
            facts["tokens"] = pack(sample.codes.tolist())
            finished.append(Picture(pictures.write_receipt(pictures.encode(image), facts), sample.seed, image.width, image.height))
        return Painting(
            pictures=tuple(finished),
            model=self.model,
            steps=self.parts.size.paints,
            guidance=drawing.guidance,
            seconds=time.perf_counter() - member.started,
        )


def pack(tokens: Sequence[int]) -> str:
    """Write tokens as text: 16 bits each, little-endian, in base64."""
    return base64.b64encode(struct.pack(f"<{len(tokens)}H", *tokens)).decode()


def unpack(text: str) -> tuple[int, ...]:
    """Read what `pack` wrote; empty where it is something else."""
    try:
        data = base64.b64decode(text, validate=True)
        return struct.unpack(f"<{len(data) // 2}H", data)
    except (binascii.Error, ValueError, struct.error):
        return ()
