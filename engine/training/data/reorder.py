"""clip-retrieval's embeddings into the order of the samples.

Source of the formats: clip-retrieval, `img_emb/img_emb_N.npy` with one row for each of `metadata/metadata_N.parquet`, whose column `image_path`
holds the sample's key, in any order; and what embedding-dataset-reordering makes of them: `img_emb_SSSS.npy`, whose row IIII is that of sample
SSSSIIII, zero where there is none.
"""

import contextlib
import errno
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from engine.errors import Misconfigured
from engine.training.data.shards import disk_sentence
from engine.training.data.sources import digest, state_of
from engine.training.data.tars import Widths, find_widths
from engine.training.saving import put_json
from engine.unclip.config import read_json

BATCH_ROWS = 4096
"""Read at once: what the memory holds, however large the set is."""
OPEN_FILES = 64
MARKER = "reordered.json"


@dataclass(frozen=True, slots=True)
class Part:
    """Some embeddings, (N, D), and the table of whose they are."""

    embeds: Path
    metadata: Path

    def rows(self) -> np.ndarray:
        """Return the embeddings, on the disk until they are looked at.

        Raises:
            Misconfigured: they cannot be read.
        """
        return open_rows(self.embeds)

    def keys(self) -> Iterator[list[str]]:
        """Yield the keys of the samples, some at a time.

        Raises:
            Misconfigured: they cannot be read.
        """
        try:
            with pq.ParquetFile(self.metadata) as file:
                if "image_path" not in file.schema_arrow.names:
                    raise Misconfigured(f"{self.metadata} has no column image_path, which tells whose embeddings these are.")
                for batch in file.iter_batches(BATCH_ROWS, columns=["image_path"]):
                    # The sample's key, or the path of its picture.
                    yield [Path(str(path)).name.split(".")[0] for path in batch.column(0).to_pylist()]
        except (OSError, pa.ArrowException) as error:
            raise Misconfigured(f"{self.metadata} cannot be read: {str(error).splitlines()[0]:.120}. Restore it.") from None


def open_rows(path: Path) -> np.ndarray:
    """Open a file of embeddings, (N, D), which stay on the disk until they are looked at.

    Raises:
        Misconfigured: it is missing, damaged or of another shape.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Misconfigured(f"{path} cannot be read as embeddings: {str(error).splitlines()[0]:.120}. Restore it.") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise Misconfigured(f"{path} holds no table of embeddings, one row of numbers for each sample.")
    return rows


def is_unordered(folder: Path) -> bool:
    """Tell whether a folder is what clip-retrieval wrote."""
    return (folder / "img_emb").is_dir() and any((folder / "metadata").glob("*.parquet"))


def find_parts(embeds_folder: Path, metadata_folder: Path) -> list[Part]:
    """Find the embeddings of clip-retrieval's `img_emb`, and of each the table in its `metadata`.

    Raises:
        Misconfigured: one of a pair is missing, or they are not of one length or width.
    """
    sides = []
    for folder, ending in ((embeds_folder, "npy"), (metadata_folder, "parquet")):
        found = {}
        for path in folder.glob(f"*.{ending}"):
            if named := re.search(r"_(\d+)$", path.stem):
                found[int(named[1])] = path
        sides.append(found)
    embeds, tables = sides
    for number in sorted(embeds.keys() ^ tables.keys()):
        there, missing = (embeds[number], metadata_folder) if number in embeds else (tables[number], embeds_folder)
        raise Misconfigured(f"{there} has no counterpart in {missing}. Restore it, or remove the one.")
    parts = [Part(embeds[number], tables[number]) for number in sorted(embeds)]
    width: int | None = None
    for part in parts:
        rows = part.rows()
        try:
            count = pq.read_metadata(part.metadata).num_rows
        except (OSError, pa.ArrowException) as error:
            raise Misconfigured(f"{part.metadata} cannot be read: {str(error).splitlines()[0]:.120}. Restore it.") from None
        if len(rows) != count:
            raise Misconfigured(f"{part.embeds} holds {len(rows)} embeddings, {part.metadata} names {count} samples. They must be of one run.")
        width = width or rows.shape[1]
        if rows.shape[1] != width:
            raise Misconfigured(f"{part.embeds} is {rows.shape[1]} wide, {parts[0].embeds} {width}. They must be of one CLIP.")
    return parts


def reorder(folder: Path, out: Path, shards: Sequence[Path]) -> Path:
    """Write clip-retrieval's embeddings as one file for each shard, in the order of the samples, and return where; what is there already is kept.

    `shards` are the .tar files whose samples these are: their names tell which digits of a key name the shard.

    Raises:
        Misconfigured: the parts do not fit together, a key is none of such shards, or there is no room.
    """
    parts = find_parts(folder / "img_emb", folder / "metadata")
    if not parts:
        raise Misconfigured(f"{folder / 'img_emb'} holds no embeddings that are named like img_emb_0.npy. Restore them.")
    widths = find_widths(shards)
    wanted = {"made of": digest([[state_of(part.embeds), state_of(part.metadata)] for part in parts]), "shard": widths.shard, "index": widths.index}
    if is_made_of(out, wanted):
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_name(f".{out.name}.lock")):
            if is_made_of(out, wanted):
                # Another run was at work on it until now.
                return out
            if out.exists() and not (out / MARKER).exists() and any(out.iterdir()):
                raise Misconfigured(f"{out} holds other files. Name an empty folder, or one that does not exist.")
            half = out.with_name(f"{out.name}.part")
            shutil.rmtree(half, ignore_errors=True)
            try:
                half.mkdir()
                write_rows(parts, half, widths)
                put_json(half / MARKER, wanted)
                shutil.rmtree(out, ignore_errors=True)
                half.replace(out)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    except OSError as error:
        raise Misconfigured(disk_sentence(out, error)) from None
    return out


def is_made_of(out: Path, wanted: dict[str, Any]) -> bool:
    """Tell whether a folder holds what is wanted."""
    return (out / MARKER).exists() and read_json(out / MARKER) == wanted


def write_rows(parts: Sequence[Part], out: Path, widths: Widths) -> None:
    """Read all embeddings once, from the first to the last, and put each where it belongs."""
    lengths: dict[int, int] = {}
    for part in parts:
        for keys in part.keys():
            for key in keys:
                shard, index = place_of(key, widths, part)
                lengths[shard] = max(lengths.get(shard, 0), index + 1)
    first = parts[0].rows()
    total = sum(len(part.rows()) for part in parts)
    with Tables(out, lengths, first.shape[1], first.dtype, widths.shard) as tables, tqdm(total=total, unit=" embeddings", disable=None) as bar:
        for part in parts:
            rows, done = part.rows(), 0
            for keys in part.keys():
                some = np.asarray(rows[done : done + len(keys)], dtype=first.dtype)
                places = [place_of(key, widths, part) for key in keys]
                # Shard by shard, so that few files are opened anew.
                for at in sorted(range(len(keys)), key=places.__getitem__):
                    tables.put(*places[at], some[at])
                done += len(keys)
                bar.update(len(keys))


def place_of(key: str, widths: Widths, part: Part) -> tuple[int, int]:
    """Return the shard and the row of a sample.

    Raises:
        Misconfigured: its key is made otherwise than those of the shards.
    """
    try:
        return widths.split(key)
    except ValueError as error:
        raise Misconfigured(f"{part.metadata}: {error}. Name the shards that these embeddings were made of.") from None


class Tables:
    """One file of embeddings for each shard, all zero at first, of which a few are open at once."""

    def __init__(self, folder: Path, lengths: dict[int, int], width: int, dtype: np.dtype, shard_width: int) -> None:
        self.folder, self.shard_width = folder, shard_width
        self.row_bytes = width * dtype.itemsize
        self.starts: dict[int, int] = {}
        self.open: OrderedDict[int, int] = OrderedDict()
        for shard, length in lengths.items():
            with self.path_of(shard).open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length, width)}
                np.lib.format.write_array_header_1_0(file, header)
                self.starts[shard] = file.tell()
                file.truncate(file.tell() + length * self.row_bytes)

    def path_of(self, shard: int) -> Path:
        """Return where the embeddings of a shard lie."""
        return self.folder / f"img_emb_{shard:0{self.shard_width}}.npy"

    def put(self, shard: int, index: int, row: np.ndarray) -> None:
        """Write one row."""
        if shard not in self.open:
            if len(self.open) == OPEN_FILES:
                os.close(self.open.popitem(last=False)[1])
            self.open[shard] = os.open(self.path_of(shard), os.O_WRONLY)
        self.open.move_to_end(shard)
        data = row.tobytes()
        if os.pwrite(self.open[shard], data, self.starts[shard] + index * self.row_bytes) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self) -> "Tables":
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self.open.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
