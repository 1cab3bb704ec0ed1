"""Small pictures, and shards as other tools write them."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CONFIG = Path(__file__).parents[3] / "configs" / "picturebook" / "picturebook.json"
SIDE = 64


def scene(seed: int, size: tuple[int, int] = (80, 66)) -> Image.Image:
    """Draw a picture that is like no other: rough squares of colours."""
    colours = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def draw_folder(folder: Path, count: int, name: str = "a_red_fox-{}.png") -> Path:
    """Draw a folder of pictures with captions for names."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene(index).save(folder / name.format(index))
    return folder


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """Write a shard of img2dataset's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for ending, data in files.items():
                facts = tarfile.TarInfo(f"{key}.{ending}")
                facts.size = len(data)
                tar.addfile(facts, io.BytesIO(data))
    return path


def files_of(seed: int, caption: str = "a red fox", **more: bytes) -> dict[str, bytes]:
    """Return the files of a sample as img2dataset has them."""
    return {"jpg": encoded(scene(seed, (64, 64)), "JPEG"), "txt": caption.encode(), "json": json.dumps({"caption": caption}).encode()} | more


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def write_retrieval(folder: Path, parts: list[tuple[list[str], np.ndarray]]) -> Path:
    """Write embeddings in any order, as clip-retrieval does."""
    for inner in ("img_emb", "metadata"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    for number, (keys, rows) in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", rows)
        pq.write_table(pa.table({"image_path": keys, "caption": ["…"] * len(keys)}), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder of shards that is not of one run only."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}
