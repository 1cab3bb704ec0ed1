"""Shards of webdataset: how they are named, what is in them, and how many samples there should be.

Source of the names: img2dataset, `writer.py`. Sample `SSSSIIII` is number IIII of shard SSSS, whose file is `SSSS.tar`; `SSSS_stats.json` beside it
says as `successes` how many samples are in it.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braceexpand import braceexpand
from webdataset.tariterators import group_by_keys, tar_file_expander

from engine.errors import Misconfigured
from engine.unclip.config import read_json

PICTURES = ("jpg", "jpeg", "png", "webp")
"""Endings of pictures in shards, the usual one first."""
MANIFEST, REPORT = "manifest.json", "report.json"
"""What our own shards are made of, written before the first, and what became of all, written after the last."""
TWICE = "__twice__"
UNREADABLE = (tarfile.TarError, OSError, EOFError)
"""What a damaged archive raises."""


@dataclass(frozen=True, slots=True)
class Widths:
    """How many digits of a sample's key name its shard, and how many its place in it."""

    shard: int
    index: int

    def split(self, key: str) -> tuple[int, int]:
        """Return the shard and the place that a key names.

        Raises:
            ValueError: it is not made of so many digits.
        """
        if not is_number(key) or len(key) != self.shard + self.index:
            raise ValueError(f"sample '{key:.40}' is not named by {self.shard} + {self.index} digits, the shard and the place in it")
        return int(key[: self.shard]), int(key[self.shard :])


def is_number(text: str) -> bool:
    """Tell whether a text is made of the digits 0 to 9 only."""
    return text.isascii() and text.isdigit()


def number_of(shard: Path) -> int | None:
    """Return the number that a shard's file is named by, after a prefix with an underscore or without."""
    digits = shard.stem.rsplit("_", 1)[-1]
    return int(digits) if is_number(digits) else None


def widths_of(shard: Path, key: str) -> Widths | None:
    """Find out which digits of a key name its shard; None where they do not name this one.

    Of a shard after the first, no two splits name the same number. In shard 0, where every digit before the place is a zero, the file's name says
    how many there are.
    """
    number = number_of(shard)
    if number is None or not is_number(key) or len(key) < 2:
        return None
    if number == 0:
        stem = len(shard.stem.rsplit("_", 1)[-1])
        split = stem if stem < len(key) else 1
        return Widths(split, len(key) - split) if int(key[:split]) == 0 else None
    found = [width for width in range(1, len(key)) if int(key[:width]) == number]
    return Widths(found[0], len(key) - found[0]) if found else None


def find_shards(path: Path | str) -> list[Path]:
    """Find the shards that a folder, a file or a pattern names, in their order.

    Raises:
        Misconfigured: there is none, one is missing, or the folder is not finished.
    """
    if not Path(path).is_dir():
        shards = [Path(name) for name in braceexpand(str(path))]
        for shard in shards:
            if not shard.is_file():
                raise Misconfigured(f"Shard {shard} is missing. Restore it, or leave it out of the pattern.")
        return shards
    folder = Path(path)
    shards = sorted(folder.glob("*.tar"), key=lambda shard: (number_of(shard) or 0, shard.name))
    if (folder / MANIFEST).exists():
        if not (folder / REPORT).exists():
            raise Misconfigured(f"{folder} is not finished. Run the same `python -m engine.training data` again: it goes on where it was.")
        wanted = set(range(read_json(folder / REPORT)["shards"]))
    else:
        numbers = [number for shard in shards if (number := number_of(shard)) is not None]
        wanted = set(range(min(numbers, default=0), max(numbers, default=-1) + 1))
    if missing := sorted(wanted - {number_of(shard) for shard in shards}):
        raise Misconfigured(
            f"Shard {missing[0]} of {folder} is missing: {len(shards)} are there, {len(wanted)} should be. Restore it, or name those to read as "
            "FOLDER/{00000..00002}.tar."
        )
    if not shards:
        raise Misconfigured(f"{folder} holds no shards (.tar). Make them with `python -m engine.training data`.")
    return shards


def find_widths(shards: Iterable[Path]) -> Widths:
    """Detect the widths of a set of shards from their names and first samples.

    Raises:
        Misconfigured: the samples are named otherwise, or there are none.
    """
    first: tuple[Path, str] | None = None
    for shard in shards:
        key = next((key for key, _ in read_tar(shard)), None)
        if key is not None:
            first = first or (shard, key)
            if number_of(shard):
                first = shard, key
                break
    if first is None:
        raise Misconfigured("No shard holds a sample. Check that the archives are whole.")
    if (widths := widths_of(*first)) is None:
        raise Misconfigured(
            f"Shard {first[0]}: sample '{first[1]:.40}' is not named by the number of its shard and its place in it, so no embedding can be told "
            "to be its own. Make the shards with img2dataset, or with `python -m engine.training data`."
        )
    return widths


def read_tar(shard: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every sample of a shard: its key, and its files by their endings. One with two files of a name has the first, and TWICE among its files.

    Raises:
        Misconfigured: the archive is missing or damaged.
    """
    doubtful = False

    def keep_first(error: Exception) -> bool:
        nonlocal doubtful
        doubtful = True
        return True

    try:
        with shard.open("rb") as stream:
            files = tar_file_expander([{"url": str(shard), "stream": stream}])
            for sample in group_by_keys(files, handler=keep_first):
                if doubtful:
                    sample[TWICE], doubtful = True, False
                yield sample["__key__"].rsplit("/", 1)[-1], sample
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error.args[0] if error.args else error)
        raise Misconfigured(f"Shard {shard} cannot be read: {reason.split(' @ ')[0]:.120}. Restore it, or leave it out.") from None


def expected_count(shard: Path) -> int | None:
    """Return how many samples a shard should hold, where a file beside it says so."""
    try:
        count = json.loads(shard.with_name(f"{shard.stem}_stats.json").read_bytes())["successes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) else None


def picture_of(files: dict[str, Any]) -> bytes | None:
    """Return the picture of a sample, where there is one."""
    return next((bytes(files[ending]) for ending in PICTURES if ending in files), None)


def caption_of(files: dict[str, Any]) -> str:
    """Return the caption of a sample, from its text or else from its facts; empty where there is none."""
    if "txt" in files:
        return clean(bytes(files["txt"]).decode("utf-8", "replace"))
    try:
        caption = json.loads(files["json"])["caption"]
    except (ValueError, KeyError, TypeError):
        return ""
    return clean(caption) if isinstance(caption, str) else ""


def clean(caption: str) -> str:
    """Put a caption into one line of whole, visible characters."""
    return " ".join("".join(letter if letter.isprintable() else " " if letter.isspace() else "" for letter in caption).split())
