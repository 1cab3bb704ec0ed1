"""Where a run's samples come from: shards, divided into those to train on and those to validate with, as batches."""

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import Misconfigured
from engine.training.data import Sample, Samples
from engine.training.data.pairs import Pairs

EXAMPLES = 16
"""Samples that are looked at in every sheet."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples beside each other.

    Shapes:
        pictures  (B, 3, S, S) float in [0, 1], or None
        captions  B texts
        embeds    (B, D) float32 of unit length, or None
    """

    pictures: Tensor | None
    captions: list[str]
    embeds: Tensor | None

    def __len__(self) -> int:
        """B."""
        return len(self.captions)

    def first(self, count: int) -> "Batch":
        """Return the first few."""
        pictures, embeds = (None if rows is None else rows[:count] for rows in (self.pictures, self.embeds))
        return Batch(pictures, self.captions[:count], embeds)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a sample is wanted. `prepare` makes (3, H, W) uint8 into (3, S, S) float in [0, 1]; `side` cuts pictures to squares before."""

    pictures: bool = True
    captions: bool = True
    embeds: bool = False
    width: int | None = None
    side: int | None = None
    prepare: Callable[[Tensor], Tensor] = lambda picture: picture / 255


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What clip-retrieval wrote, `img_emb` and `metadata`, in the place of shards."""

    embeds: Path
    metadata: Path


class Source:
    """The shards of one config."""

    def __init__(
        self, path: Path | str | Retrieval, embeddings: Path | None, wanted: Wanted, splits: tuple[float, float], most: int | None = None
    ) -> None:
        """Find the shards.

        `splits` are the shares of samples to train on and to validate with, chosen by their keys; `most` is how many at most to validate with.

        Raises:
            Misconfigured: a shard is missing, or has not what is wanted.
        """
        self.path, self.embeddings, self.wanted, self.splits, self.most = path, embeddings, wanted, splits, most
        self.validates = splits[1] > 0 and next(iter(self.samples(self.is_validation)), None) is not None
        self._examples: list[Sample] | None = None

    def reader(self, seed: int, process: int, processes: int) -> Samples | Pairs:
        """Return the endless samples of one process to train on, in the order of a seed."""
        return self.samples(self.is_training, seed=seed, epochs=None, share=(process, processes))

    def validation(self, batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Yield the samples that are kept apart, always the same ones."""
        stream = itertools.islice(self.samples(self.is_validation), self.most)
        while samples := list(itertools.islice(stream, batch_size)):
            yield self.collate(samples, device)

    def examples(self, device: torch.device) -> Batch | None:
        """Return a few samples to look at, of those kept apart where there are some."""
        if self._examples is None:
            self._examples = list(itertools.islice(self.samples(self.is_validation if self.validates else self.is_training), EXAMPLES))
        return self.collate(self._examples, device) if self._examples else None

    def samples(self, keep: Callable[[str], bool], **options: Any) -> Samples | Pairs:
        """Read samples of one part."""
        wanted = self.wanted
        if isinstance(self.path, Retrieval):
            return Pairs(self.path.embeds, self.path.metadata, width=wanted.width, keep=keep, **options)
        return Samples(
            self.path,
            self.embeddings,
            pictures=wanted.pictures,
            captions=wanted.captions,
            embeds=wanted.embeds,
            width=wanted.width,
            side=wanted.side,
            keep=keep,
            **options,
        )

    def embeds(self, most: int) -> Tensor:
        """Return the embeddings of the first samples to train on, (N, D), at most so many.

        Raises:
            Misconfigured: there are none.
        """
        found = [sample.embed for sample in itertools.islice(self.samples(self.is_training), most) if sample.embed is not None]
        if not found:
            raise Misconfigured(f"{self.path} holds no embeddings to train on.")
        return torch.stack(found)

    def count(self) -> int:
        """Return how many samples there are to train on, about."""
        whole = self.samples(self.is_training)
        total = whole.count()
        if total is None:
            return sum(1 for _ in whole)
        return max(round(total * self.splits[0]), 1)

    def is_training(self, key: str) -> bool:
        """Tell whether a sample is to be trained on."""
        return lot(key) < self.splits[0]

    def is_validation(self, key: str) -> bool:
        """Tell whether a sample is to be validated with."""
        return self.splits[0] <= lot(key) < sum(self.splits)

    def collate(self, samples: Sequence[Sample], device: torch.device) -> Batch:
        """Put samples beside each other.

        Raises:
            Misconfigured: their pictures have different sizes.
        """
        pictures = [self.wanted.prepare(sample.picture) for sample in samples if sample.picture is not None]
        if len({picture.shape for picture in pictures}) > 1:
            raise Misconfigured("The pictures have different sizes. Add RandomResizedCrop to preprocessing, or make the shards with one --side.")
        embeds = [sample.embed for sample in samples if sample.embed is not None]
        return Batch(
            torch.stack(pictures).to(device) if pictures else None,
            [sample.caption for sample in samples],
            torch.stack(embeds).to(device) if embeds else None,
        )


def lot(key: str) -> float:
    """Draw a number in [0, 1) for a sample, always the same."""
    return zlib.crc32(key.encode()) / 2**32
