"""What is to be painted and what was: samples, the commission that they belong to, and how they become pictures.

Dimensions: B batch, N several, C = 3 channels, D embedding width, H = W = S side of a picture in pixels.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine import pictures, uploads
from engine.errors import InvalidRequest
from engine.jobs import SEED_LIMIT, Picture, Progress, Report, check_prompt
from engine.options import Options
from engine.unclip.sampling import Repaint


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

    `seed` is the prior's: a dream with it as `prior_seed` and as many candidates paints from this embedding. `text_embed` and `image_embed` are
    (D,) float32, the first of unit length, the second nearly; `tokens` is what CLIP reads of the prompt, with its first and last one.
    """

    prompt: str
    seed: int
    tokens: list[int]
    text_embed: np.ndarray
    image_embed: np.ndarray

    @property
    def score(self) -> float:
        """How near the picture is to the prompt: the cosine between the two."""
        return float(self.text_embed @ self.image_embed / np.linalg.norm(self.image_embed))


@dataclass(frozen=True, slots=True)
class Mixture:
    """An embedding that is made of several: `parts` are embeddings, (D,) of unit length, and prompts, whose embeddings the prior draws.

    `join` makes one, (D,), of all of them, (N, D). Where a prompt is drawn several times, with the seeds that follow, it is the mean of its draws.
    """

    parts: tuple[Tensor | str, ...]
    join: Callable[[Tensor], Tensor]
    draws: int = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A picture to set out from: the noise from which the model would paint it, found by walking from it back, stands in for fresh noise.

    `embed`, (D,), is what the model is told of the picture on the way back, `prompt` what it is where it reads text; `fresh` is the share of
    fresh noise, from 0, which leads to the picture again, to 1.

    Shapes:
        picture  (C, S, S) float in [-1, 1], S at least the side of every stage

    Source: Ramesh et al. 2022, arXiv:2204.06125, section 3.
    """

    picture: Tensor
    embed: Tensor
    prompt: str = ""
    fresh: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to paint.

    `embed` is what it is to show: an embedding, (D,), or what makes one; None has the prior draw that of the prompt. `smaller`, (C, h, w) in
    [-1, 1], is there where it is to be enlarged, `trace` where another picture is set out from. `draft` counts those of one picture, from 0.
    `facts` are its own ones for the receipt.
    """

    prompt: str
    seed: int
    prior_seed: int
    embed: Tensor | Mixture | None = None
    smaller: Tensor | None = None
    trace: Trace | None = None
    draft: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def dreams(self) -> list["Sample"]:
        """What the prior is to draw for it: of each prompt the embedding, or several one after the other."""
        if not isinstance(self.embed, Mixture):
            return [self] if self.embed is None else []
        prompts, seeds = [part for part in self.embed.parts if isinstance(part, str)], [self.prior_seed + draw for draw in range(self.embed.draws)]
        return [replace(self, prompt=prompt, prior_seed=seed % SEED_LIMIT, embed=None) for prompt in prompts for seed in seeds]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a picture looks like before a part of it is repainted: everything as (1, C, S, S) in [-1, 1] and (1, 1, S, S), True = kept."""

    picture: Tensor
    keep: Tensor

    def at(self, side: int, device: torch.device) -> Repaint:
        """Scale to a stage's side: a pixel of its is repainted where any of those that it stands for is."""
        picture = scaled(self.picture, side)
        keep = F.interpolate(self.keep.float(), side, mode="area") > 1 - 1e-3
        return Repaint(picture.to(device), keep.to(device))


@dataclass(frozen=True, slots=True)
class Commission:
    """Samples to paint, with the unets from `first` to `last`, which None has be the last there is; of each, CLIP chooses among `drafts`.

    `canvas` is what they are repainted on, `finish` makes the pictures what was asked for.
    `facts` are those for the receipt that all samples share.
    """

    wanted: Sequence[Sample]
    how: Options
    first: int = 1
    last: int | None = None
    drafts: int = 1
    canvas: Canvas | None = None
    finish: Callable[[Image.Image], Image.Image] = lambda image: image
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def resamples(self) -> int:
        """How often each step is taken."""
        return self.how.resamples if self.canvas is not None else 1


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

    def step(self, stage: str, done: int, x_0: Tensor, shown: int | None = None) -> None:
        """Report one step of a stage, and the pictures that it predicts, where it predicts any: the first `shown` of them, which None has be all."""
        self._report(Progress(stage, next(self._done), self._total, None if stage == "prior" else lambda: preview(x_0[:shown])))


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


def brief(value: float | str) -> str:
    """Write a number or a name without zeros that say nothing."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def told(facts: dict[str, Any]) -> dict[str, str]:
    """Write facts as a receipt does."""
    return {key: ", ".join(map(brief, value)) if isinstance(value, list) else brief(value) for key, value in facts.items()}


def scaled(picture: Tensor, side: int) -> Tensor:
    """Return pictures, (B, C, S, S) in [-1, 1], at another side."""
    return F.interpolate(picture, side, mode="bicubic", antialias=True).clamp(-1, 1)


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
    # Nobody keeps it, and the device waits meanwhile.
    return pictures.grid([pictures.encode(sample, quickly=True) for sample in to_images(x_0)], quickly=True)
