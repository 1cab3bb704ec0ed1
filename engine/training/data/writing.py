"""Shards as img2dataset names them: how samples are written, whoever makes them."""

import io
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webdataset import TarWriter

SHARD_WIDTH = 5
INDEX_WIDTH = 4
"""Digits of a sample's place at least; larger shards have more."""
QUALITY = 95


def tar_name(number: int) -> str:
    """Name a shard."""
    return f"{number:0{SHARD_WIDTH}}.tar"


def stats_of(shard: Path) -> Path:
    """Return where the file lies that tells what is in a shard."""
    return shard.with_name(f"{shard.stem}_stats.json")


def key_of(shard: int, index: int, index_width: int = INDEX_WIDTH) -> str:
    """Name a sample."""
    return f"{shard:0{SHARD_WIDTH}}{index:0{index_width}}"


def open_tar(file: IO[bytes]) -> TarWriter:
    """Write samples, dicts of bytes with their `__key__`, to a file; equal samples give equal bytes."""
    return TarWriter(file, user="", group="", encoder=False, mtime=0)


def jpeg(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode a picture as samples hold it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:4:4")
    return file.getvalue()


def npy(embed: NDArray[np.floating]) -> bytes:
    """Encode an embedding as samples hold it."""
    file = io.BytesIO()
    np.save(file, embed)
    return file.getvalue()


def write_plain(folder: Path, samples: Iterable[Mapping[str, bytes]], size: int) -> None:
    """Write samples as shards of `size`, with their counts beside; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = iter(samples)
    for number in itertools.count():
        part = list(itertools.islice(samples, size))
        if not part:
            return
        shard = folder / tar_name(number)
        with shard.open("wb") as file, open_tar(file) as tar:
            for index, files in enumerate(part):
                tar.write({"__key__": key_of(number, index), **files})
        stats_of(shard).write_text(json.dumps({"successes": len(part)}))
