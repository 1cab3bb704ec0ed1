"""From a source to shards: every complete shard is kept, and an interrupted run goes on after the last one to the same bytes.

    OUT/manifest.json       what the shards are made of; written first
    OUT/00000.tar           000000000.jpg .txt .json .npy, 000000001.jpg …
    OUT/00000_stats.json    written after its shard: what it took of the source
    OUT/report.json         written last: without it, the folder is not finished

A shard's name is given to its file when all of it is on the disk.
"""

import hashlib
import itertools
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from webdataset import TarWriter

from engine.errors import Misconfigured
from engine.training.data.embed import Eye
from engine.training.data.pictures import Ready, Unusable, make_ready
from engine.training.data.sources import Cursor, Source
from engine.training.data.tally import Reason, Tally
from engine.training.data.tars import MANIFEST, REPORT
from engine.training.data.writing import INDEX_WIDTH, SHARD_WIDTH, key_of, npy, open_tar, stats_of, tar_name
from engine.training.saving import FULL, LOCK, alone_in, put_json
from engine.unclip.config import read_json

log = logging.getLogger(__name__)

VERSION = 1
EYEFUL = 64
"""Pictures that CLIP looks at together. Batches begin anew with each shard, so a resumed run makes the same ones."""


@dataclass(frozen=True, slots=True)
class Making:
    """How pictures become samples: `side` and `quality` of the JPEGs, samples in a shard, and the CLIP that looks at them, if any does."""

    side: int
    quality: int
    shard_size: int
    clip: str | None


class Shards:
    """The folder that shards are written to."""

    def __init__(self, folder: Path, source: Source, making: Making, eye: Eye | None) -> None:
        self.folder, self.source, self.making, self.eye = folder, source, making, eye
        self.index_width = max(INDEX_WIDTH, len(str(making.shard_size - 1)))
        self.cursor: Cursor = (0, 0)
        self.tally = Tally()
        self.hashes: set[str] = set()

    def write(self) -> dict[str, Any]:
        """Write every shard that is not there yet, and return the report.

        Raises:
            Misconfigured: the source has no sample, or has changed since the first shard; or the folder cannot be written to.
        """
        try:
            with alone_in(self.folder):
                self.claim()
                return self.finished() or self.work()
        except OSError as error:
            raise Misconfigured(disk_sentence(self.folder, error)) from None

    def claim(self) -> None:
        """Note what the shards are made of, or make sure that those which are there are made of the same.

        Raises:
            Misconfigured: they are not, or the folder holds something else.
        """
        manifest = {"version": VERSION, **asdict(self.making), "source": self.source.fingerprint()}
        path = self.folder / MANIFEST
        if not path.exists():
            if others := sorted(entry.name for entry in self.folder.iterdir() if entry.name not in (LOCK, f"{MANIFEST}.part")):
                raise Misconfigured(f"{self.folder} holds other files ({others[0]}). Name an empty folder, or one that does not exist.")
        elif any(self.complete()) or (self.folder / REPORT).exists():
            if changed := differing(path, manifest):
                raise Misconfigured(f"{self.folder} holds shards that were made otherwise: {changed}. Name another folder, or delete this one.")
        put_json(path, manifest)

    def complete(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the shards that are there as a whole, from the first on, with what each took."""
        for number in itertools.count():
            shard = self.path_of(number)
            try:
                yield shard, json.loads(stats_of(shard).read_bytes())
            except FileNotFoundError:
                return
            except ValueError:
                raise Misconfigured(f"{stats_of(shard)} is damaged. Delete {self.folder} and start again.") from None

    def path_of(self, number: int) -> Path:
        """Return where a shard lies."""
        return self.folder / tar_name(number)

    def finished(self) -> dict[str, Any] | None:
        """Return the report of a run that has ended."""
        path = self.folder / REPORT
        return read_json(path) if path.exists() else None

    def work(self) -> dict[str, Any]:
        """Write the shards that are missing.

        Raises:
            Misconfigured: there is no sample at all.
        """
        total, shards = Tally(), 0
        for shard, stats in self.complete():
            total.join(Tally.from_json(stats))
            self.cursor = stats["next"][0], stats["next"][1]
            self.hashes.update(hashes_in(shard))
            shards += 1
        if shards:
            log.info("%d shards are here already; going on after picture %d", shards, total.read)
        with tqdm(total=self.source.count(), initial=total.read, unit=" pictures", disable=None) as bar:
            stream = self.usable(bar)
            while self.write_shard(shards, stream):
                total.join(self.tally)
                shards += 1
        total.join(self.tally)
        if not total.samples:
            raise Misconfigured(nothing_sentence(total, self.making.side))
        width = self.eye.clip.width if self.eye else None
        report = {"shards": shards, "side": self.making.side, "embedding_width": width, **total.to_json()}
        put_json(self.folder / REPORT, report)
        return report

    def usable(self, bar: "tqdm[Any]") -> Iterator[Ready]:
        """Yield every picture of the source that a sample can be made of, and count the others."""
        clip_side = self.eye.clip.side if self.eye else None
        for found in self.source.read(self.cursor):
            bar.update()
            self.tally.read += 1
            self.cursor = found.after
            if found.problem:
                self.tally.skip(found.problem, found.name, found.why)
                continue
            hashed = hashlib.sha256(found.data).hexdigest()
            if hashed in self.hashes:
                self.tally.skip(Reason.DUPLICATE, found.name)
                continue
            try:
                ready = make_ready(found, hashed, self.making.side, self.making.quality, clip_side)
            except Unusable as unusable:
                self.tally.skip(unusable.reason, found.name, unusable.why)
                continue
            self.hashes.add(hashed)
            if self.eye and self.eye.cuts(found.caption):
                self.tally.cut.add(found.name)
            yield ready

    def write_shard(self, number: int, stream: Iterator[Ready]) -> bool:
        """Write one shard; return whether there was a sample for it.

        Raises:
            Misconfigured: there are too many shards.
        """
        self.tally = Tally()
        shard = self.path_of(number)
        part = shard.with_name(f"{shard.name}.part")
        own = itertools.islice(stream, self.making.shard_size)
        try:
            with part.open("wb") as file:
                with open_tar(file) as tar:
                    while eyeful := list(itertools.islice(own, EYEFUL)):
                        self.write_samples(tar, number, eyeful)
                file.flush()
                os.fsync(file.fileno())
            if not self.tally.samples:
                return False
            if len(str(number)) > SHARD_WIDTH:
                raise Misconfigured(f"There are more than {10**SHARD_WIDTH:,} shards. Use a larger --shard-size.")
            part.replace(shard)
        finally:
            part.unlink(missing_ok=True)
        put_json(stats_of(shard), {**self.tally.to_json(), "next": self.cursor})
        log.info("%s: %d samples", shard.name, self.tally.samples)
        return True

    def write_samples(self, tar: TarWriter, number: int, ready: list[Ready]) -> None:
        """Write some samples, with what CLIP sees in them."""
        squares = [one.square for one in ready if one.square is not None]
        embeds = self.eye.embed(squares) if self.eye else [None] * len(ready)
        for one, embed in zip(ready, embeds, strict=True):
            key = key_of(number, self.tally.samples, self.index_width)
            files = {"__key__": key, "jpg": one.jpg, "txt": one.caption.encode(), "json": one.facts}
            tar.write(files if embed is None else files | {"npy": npy(embed)})
            self.tally.samples += 1


def hashes_in(shard: Path) -> Iterator[str]:
    """Yield what the files were that a shard's samples were made of, without reading its pictures.

    Raises:
        Misconfigured: the shard is gone or damaged.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json") and (file := tar.extractfile(member)):
                    yield json.loads(file.read())["sha256"]
    except (tarfile.TarError, OSError, ValueError, KeyError) as error:
        raise Misconfigured(f"Shard {shard} was complete and cannot be read now ({error}). Delete {stats_of(shard)} to make it again.") from None


def differing(path: Path, manifest: dict[str, Any]) -> str:
    """Say in which of its facts a manifest is not that of an earlier run; empty where it is the same.

    Raises:
        Misconfigured: the earlier one cannot be read.
    """
    try:
        earlier = json.loads(path.read_bytes())
        different = [key for key in manifest if earlier.get(key) != manifest[key]]
    except (ValueError, AttributeError):
        raise Misconfigured(f"{path} is damaged. Delete the folder and start again.") from None
    words = {"source": "the pictures or captions have changed", "clip": "the config's CLIP is another one"}
    return "; ".join(words.get(key) or f"{key.replace('_', ' ')} was {earlier.get(key)}, now {manifest[key]}" for key in different)


def nothing_sentence(tally: Tally, side: int) -> str:
    """Say why there is no sample, and what can be done about it."""
    counts = {reason: count.count for reason, count in tally.skipped.items()}
    if tally.read == 0:
        return "The source holds no picture. Check the path."
    if counts[Reason.CAPTION] == tally.read:
        return (
            f"None of the {tally.read} pictures has a caption. Put a .txt file beside each, name a table with --captions, or name the files by what "
            "they show."
        )
    if counts[Reason.SMALL] == tally.read:
        [example, *_] = tally.skipped[Reason.SMALL].examples
        return f"All {tally.read} pictures are smaller than the {side} pixels of the model ({example}). Use larger ones, or a smaller --side."
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    example = next(count.examples[0] for count in tally.skipped.values() if count.examples)
    return f"None of the {tally.read} pictures can be used: {told} (first: {example})."


def disk_sentence(folder: Path, error: OSError) -> str:
    """Say why a folder cannot be written to."""
    if error.errno in FULL:
        return f"The disk of {folder} is full. Make room and run the same command again: complete shards are kept."
    return f"{folder} cannot be written to: {error.strerror or error}."
