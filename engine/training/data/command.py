"""The command `data`: what it is told, and what it tells."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import Misconfigured
from engine.training.data.embed import Eye, side_of
from engine.training.data.reorder import is_unordered, reorder
from engine.training.data.shards import Making, Shards
from engine.training.data.sources import open_source
from engine.training.data.tally import Tally
from engine.training.data.tars import find_shards

USUAL_CONFIG = Path(__file__).parents[3] / "configs" / "picturebook" / "picturebook.json"
FEW = 20
"""Samples, below which a model learns the pictures by heart."""
LARGEST_SIDE = 8192
LARGEST_SHARD = 100_000
HELP = """Turn pictures with captions into shards to train on.

SOURCE is
  a folder of pictures, with folders in it or not. A caption is what a .txt file of
  the same name says, else what the table of --captions says. Where there is neither,
  the names of the files are the captions: a_red_fox-3.png is "a red fox";
or what img2dataset wrote: a folder with 00000.tar (.jpg, .txt, .json) …;
or what clip-retrieval wrote: a folder with img_emb/ and metadata/. Its embeddings
  are brought into the order of the samples of --shards: OUT/img_emb_00000.npy ….

OUT gets 00000.tar …, each sample as .jpg, .txt, .json (where it comes from) and .npy
(what the config's CLIP sees: float32, unit length), and report.json: what was left
out, and why. An interrupted run goes on where it was when it is started again.
"""


def number_in(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of a whole number in a range."""

    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most:,}")
        return value

    read.__name__ = "number"
    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes."""
    parser.description, parser.formatter_class = HELP, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, metavar="SOURCE", help="where the pictures are")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards")
    parser.add_argument(
        "--config", type=Path, default=USUAL_CONFIG, metavar="MODEL.json", help="model whose CLIP looks at the pictures (default: picturebook)"
    )
    parser.add_argument("--captions", type=Path, metavar="TABLE", help="CSV, TSV or Parquet file with the captions of a folder")
    parser.add_argument("--file-column", metavar="NAME", help="column of TABLE with the file (default: file, path, file_name, image, url …)")
    parser.add_argument("--caption-column", metavar="NAME", help="column of TABLE with the caption (default: caption, text or prompt)")
    parser.add_argument(
        "--side", type=number_in(1, LARGEST_SIDE), metavar="PX", help="shorter side of pictures; smaller ones are left out (default: the model's)"
    )
    parser.add_argument("--shard-size", type=number_in(1, LARGEST_SHARD), default=1000, metavar="N", help="samples in a shard (default 1000)")
    parser.add_argument("--quality", type=number_in(1, 100), default=95, metavar="Q", help="of the JPEGs, 1 to 100 (default 95)")
    parser.add_argument("--no-embed", action="store_true", help="make no embeddings")
    parser.add_argument("--device", default="auto", help="where CLIP computes: auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--shards", type=Path, metavar="DIR", help="the .tar files that clip-retrieval's embeddings were made of")


def run(options: argparse.Namespace) -> str:
    """Do what is asked and say what was done.

    Raises:
        Misconfigured: it cannot be done; the message says what to do.
    """
    source, out = options.source, options.out
    if os.path.realpath(source) == os.path.realpath(out):
        raise Misconfigured("SOURCE and OUT are the same folder. Name another one for the shards.")
    if is_unordered(source):
        if options.shards is None:
            raise Misconfigured(f"{source} holds embeddings in any order. Name the folder of the .tar files that they were made of with --shards.")
        return f"Embeddings in the order of the samples: {reorder(source, out, find_shards(options.shards))}"
    found = open_source(source, options.captions, (options.file_column, options.caption_column), out)
    eye = None if options.no_embed else Eye.from_config(options.config, options.device)
    side = options.side or side_of(options.config) or (eye.clip.side if eye else None)
    if side is None:
        raise Misconfigured(f"Model config {options.config} has no decoder that says how large pictures are. Name the size with --side.")
    making = Making(side, options.quality, options.shard_size, eye.fingerprint() if eye else None)
    return told(Shards(out, found, making, eye).write(), out)


def told(report: dict[str, Any], out: Path) -> str:
    """Tell a report to people."""
    tally = Tally.from_json(report)
    embeds = f"embeddings {report['embedding_width']} wide" if report["embedding_width"] else "no embeddings"
    made = f"{several(tally.samples, 'sample')} of {several(tally.read, 'picture')}, {several(report['shards'], 'shard')} in {out}"
    lines = [f"{made}, {report['side']} px, {embeds}", *tally.lines()]
    if tally.samples < FEW:
        lines.append(f"A model learns so few pictures by heart. {FEW} or more of a thing are better.")
    return "\n".join(lines)


def several(count: int, thing: str) -> str:
    """Count things in words."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
