"""Grids, file sizes and receipts: Pillow only, no tensors."""

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps, PngImagePlugin, WebPImagePlugin  # noqa: F401  # Pillow saves formats only whose modules have been imported.

TILE_PX = 256
"""Side of a picture in a grid at least: the bundled model's 64 pixels would be a stamp on anybody's screen."""
WEBP_EFFORT = 50
"""Of 100: more takes several times as long and saves little."""
JPEG_QUALITIES = (92, 85, 75, 60)
"""Tried from the best down; below 60 a smaller picture looks better than a worse one."""
SMALLEST_PX = 16
SHEET_TILE_PX, SHEET_COLUMNS, TREE_TILE_PX, TREE_LABEL_PX, LABEL_PX, GAP_PX = 192, 5, 72, 240, 24, 8
GROUND, INK, LINE = (43, 45, 49), (219, 222, 225), (128, 132, 142)
"""Colours of sheets: those of Discord's dark theme, on which they look like a part of it."""


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


def thumbnail(pictures: Sequence[bytes], side_px: int, veiled: bool = False) -> Image.Image:
    """Return pictures as a grid of `side_px` at most, a blank where there are none; `veiled` ones are blurred beyond recognition."""
    if not pictures:
        return Image.new("RGB", (side_px, side_px), GROUND)
    columns, rows = shape(len(pictures))
    tile_px = side_px // max(columns, rows)
    sheet = Image.new("RGB", (columns * tile_px, rows * tile_px), GROUND)
    for index, data in enumerate(pictures):
        with Image.open(io.BytesIO(data)) as picture:
            # JPEGs are decoded no larger than they are needed.
            picture.draft("RGB", (tile_px, tile_px))
            tile = ImageOps.contain(picture.convert("RGB"), (tile_px, tile_px), Image.Resampling.BICUBIC)
        left, top = (tile_px - tile.width) // 2, (tile_px - tile.height) // 2
        sheet.paste(tile, (index % columns * tile_px + left, index // columns * tile_px + top))
    return sheet.filter(ImageFilter.GaussianBlur(side_px / 6)) if veiled else sheet


@dataclass(frozen=True, slots=True)
class Tile:
    """One of several pictures on a sheet: an earlier result, a short text, and how deep it is indented."""

    pictures: Sequence[bytes]
    label: str
    depth: int = 0
    veiled: bool = False


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """Lay results out side by side, each above its label, as PNG."""
    columns = min(len(tiles), SHEET_COLUMNS)
    width, height = SHEET_TILE_PX + GAP_PX, SHEET_TILE_PX + LABEL_PX + GAP_PX
    sheet = Image.new("RGB", (columns * width + GAP_PX, -(-len(tiles) // columns) * height + GAP_PX), GROUND)
    for index, tile in enumerate(tiles):
        place(sheet, tile, GAP_PX + index % columns * width, GAP_PX + index // columns * height, SHEET_TILE_PX)
    return encode(sheet)


def tree(tiles: Sequence[Tile]) -> bytes:
    """Lay results out below each other, each indented below what it goes back to and joined to it by a line, as PNG."""
    row, indent = TREE_TILE_PX + GAP_PX, TREE_TILE_PX // 2 + GAP_PX
    deepest = max(tile.depth for tile in tiles)
    sheet = Image.new("RGB", (deepest * indent + TREE_TILE_PX + TREE_LABEL_PX, len(tiles) * row + GAP_PX), GROUND)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        left, top = GAP_PX + tile.depth * indent, GAP_PX + index * row
        above = next((other for other in range(index - 1, -1, -1) if tiles[other].depth < tile.depth), None)
        if above is not None:
            trunk = GAP_PX + tiles[above].depth * indent + TREE_TILE_PX // 4
            middle = top + TREE_TILE_PX // 2
            draw.line([(trunk, GAP_PX + above * row + TREE_TILE_PX), (trunk, middle), (left, middle)], LINE, 2)
        sheet.paste(thumbnail(tile.pictures, TREE_TILE_PX, tile.veiled), (left, top))
        draw.text((left + TREE_TILE_PX + GAP_PX, top + TREE_TILE_PX // 2), tile.label, INK, font(), anchor="lm")
    return encode(sheet)


def place(sheet: Image.Image, tile: Tile, left: int, top: int, side_px: int) -> None:
    """Put a result and its label onto a sheet."""
    small = thumbnail(tile.pictures, side_px, tile.veiled)
    sheet.paste(small, (left + (side_px - small.width) // 2, top + (side_px - small.height) // 2))
    ImageDraw.Draw(sheet).text((left + side_px // 2, top + side_px + LABEL_PX // 2), tile.label, INK, font(), anchor="mm")


@functools.cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of labels, which Pillow brings along. It knows Latin letters only: labels are numbers and stars are words."""
    return ImageFont.load_default(LABEL_PX - 8)


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
