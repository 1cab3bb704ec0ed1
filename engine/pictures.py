"""Grids, file sizes and receipts: Pillow only, no tensors."""

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageOps, PngImagePlugin, WebPImagePlugin  # noqa: F401  # Pillow saves formats only whose modules have been imported.

TILE_PX = 256
"""Side of a picture in a grid at least: the bundled model's 64 pixels would be a stamp on anybody's screen."""
WEBP_EFFORT = 50
"""Of 100: more takes several times as long and saves little."""
JPEG_QUALITIES = (92, 85, 75, 60)
"""Tried from the best down; below 60 a smaller picture looks better than a worse one."""
SMALLEST_PX = 16


def encode(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def shape(count: int) -> tuple[int, int]:
    """Return columns and rows of a grid: 1×1, 2×1, 2×2, 3×2 or 3×3."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    return columns, -(-count // columns)


def grid(pictures: Sequence[bytes], tile_px: int = TILE_PX) -> bytes:
    """Lay pictures out in rows, as PNG.

    Every tile is as large as the largest picture, at least `tile_px`; smaller pictures are enlarged to it. What no picture covers stays
    transparent.
    """
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    side = max(tile_px, *(max(picture.size) for picture in opened))
    columns, rows = shape(len(opened))
    full = len(opened) == columns * rows and all(picture.width == picture.height for picture in opened)
    sheet = Image.new("RGB" if full else "RGBA", (columns * side, rows * side))
    for index, picture in enumerate(opened):
        tile = ImageOps.contain(picture, (side, side), Image.Resampling.BICUBIC)
        left, top = (side - tile.width) // 2, (side - tile.height) // 2
        sheet.paste(tile, (index % columns * side + left, index // columns * side + top))
    return encode(sheet)


def fit(png: bytes, limit_bytes: int) -> tuple[bytes, str]:
    """Return a picture that is at most `limit_bytes` long, and the ending of its file name.

    It stays as it is where it fits; else it becomes a WebP without loss, else a JPEG, first of lower quality, then smaller and smaller.

    Raises:
        ValueError: not even a stamp of it would fit.
    """
    if len(png) <= limit_bytes:
        return png, "png"
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, quality=WEBP_EFFORT)
    if file.tell() <= limit_bytes:
        return file.getvalue(), "webp"
    while min(picture.size) >= SMALLEST_PX:
        for quality in JPEG_QUALITIES:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            if file.tell() <= limit_bytes:
                return file.getvalue(), "jpg"
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
    raise ValueError(f"no picture fits into {limit_bytes} bytes")


def write_receipt(png: bytes, facts: Mapping[str, object]) -> bytes:
    """Return the same picture with facts in its text chunks (PNG specification, iTXt: any Unicode).

    The prompt is stored as `Description` too, the keyword that picture viewers show.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("Software", "Reverie")
    if "prompt" in facts:
        chunks.add_itxt("Description", str(facts["prompt"]))
    for key, value in facts.items():
        chunks.add_itxt(key, str(value))
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def read_receipt(png: bytes) -> dict[str, str]:
    """Return the text chunks of a PNG; empty where it has none."""
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return {key: str(value) for key, value in getattr(picture, "text", {}).items()}
