"""The command `drawn`: shards with what a prior draws beside what CLIP sees.

A prior's embeddings differ from those of true pictures in a way of their own, so a decoder that has learnt from the latter alone does not know what
it will be told. Here it meets both.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.errors import Misconfigured
from engine.jobs import SEED_LIMIT
from engine.options import Options
from engine.training.data.command import number_in
from engine.training.data.layouts import PassedOver, Raw, Samples
from engine.training.data.writing import npy, write_plain
from engine.unclip.commissions import Sample, no_report
from engine.unclip.painter import Painter

SHARD_SIZE = 2000
AT_ONCE = 256
"""Captions that the prior draws for together."""
HOW = Options(count=1, candidates=1, batch=AT_ONCE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes."""
    parser.add_argument("source", type=Path, metavar="SHARDS", help="what `data` made, with the embeddings of the model's CLIP")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards: every sample, and its copies with drawn embeddings")
    parser.add_argument("--config", type=Path, required=True, metavar="MODEL.json", help="model whose prior draws")
    parser.add_argument("--copies", type=number_in(1, 100), default=2, metavar="N", help="of each sample at most (default 2)")
    parser.add_argument(
        "--alike",
        type=float,
        default=0.9,
        metavar="COSINE",
        help="likeness of a copy to what CLIP sees, at least: a caption that says little does not lead there (default 0.9)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="where the prior computes: auto, cpu, cuda or cuda:N (default auto)")


def run(options: argparse.Namespace) -> str:
    """Write the shards and say what is in them.

    Raises:
        Misconfigured: the model has no prior, the shards hold no embeddings or another CLIP's, or the folder holds something already or
            cannot be written to.
    """
    if options.out.exists() and any(options.out.iterdir()):
        raise Misconfigured(f"{options.out} holds something already. Name an empty folder, or one that does not exist.")
    painter = Painter.from_config(options.config, device=options.device)
    if painter.parts.prior is None or painter.parts.clip is None:
        raise Misconfigured(f"Model config {options.config} has no prior that could draw. Name one that has.")
    samples = Samples(options.source, embeds=True, width=painter.parts.clip.width)
    drawn = Drawn(painter, samples, options.copies, options.alike, options.seed)
    try:
        write_plain(options.out, drawn.files(), SHARD_SIZE)
    except OSError as error:
        raise Misconfigured(
            f"{options.out} cannot be written to: {error.strerror or error}. Mend that and start again with an empty folder."
        ) from None
    return f"{drawn.read:,} samples and {drawn.copied:,} copies with drawn embeddings in {options.out}"


class Drawn:
    """Samples and their copies; counts both."""

    def __init__(self, painter: Painter, samples: Samples, copies: int, alike: float, seed: int) -> None:
        self.painter, self.samples, self.copies, self.alike, self.seed = painter, samples, copies, alike, seed
        self.read = self.copied = 0

    def files(self) -> Iterator[dict[str, bytes]]:
        """Yield what the shards are to hold, the copies after the samples that they are of."""
        raws = (raw for shard in self.samples.shards for raw in self.samples.read_shard(shard))
        with tqdm(total=self.samples.count(), unit=" samples", disable=None) as bar:
            while part := list(itertools.islice(raws, AT_ONCE)):
                yield from self.of(part)
                bar.update(len(part))

    def of(self, raws: list[Raw]) -> Iterator[dict[str, bytes]]:
        """Yield some samples, those that can be used, each with its copies."""
        usable = [(raw, embed) for raw in raws if raw.picture and raw.caption and (embed := self.seen(raw)) is not None]
        draws = [self.draw([raw.caption for raw, _ in usable], self.read * self.copies + copy * len(usable)) for copy in range(self.copies)]
        for index, (raw, embed) in enumerate(usable):
            files = {"jpg": raw.picture or b"", "txt": raw.caption.encode()}
            yield files | {"npy": npy(embed)}
            self.read += 1
            for draw in draws:
                if draw[index] @ embed >= self.alike * np.linalg.norm(draw[index]) * np.linalg.norm(embed):
                    yield files | {"npy": npy(draw[index])}
                    self.copied += 1

    def seen(self, raw: Raw) -> NDArray[np.float32] | None:
        """Return what CLIP sees in a sample, (D,); None where that cannot be read."""
        try:
            return self.samples.decode_embed(raw).numpy()
        except PassedOver:
            return None

    def draw(self, captions: list[str], first: int) -> list[NDArray[np.float32]]:
        """Return what the prior draws for captions, (D,) each, with seeds that count on from the first."""
        seeds = [(self.seed + number) % SEED_LIMIT for number in range(first, first + len(captions))]
        wanted = [Sample(caption, seed, seed) for caption, seed in zip(captions, seeds, strict=True)]
        return [one.image_embed for one in self.painter.alone(self.painter.embedding(wanted, HOW, no_report))] if wanted else []
