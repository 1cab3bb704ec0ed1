"""Grids, strips, films, file sizes and receipts: Pillow and PyAV, no tensors."""

import functools
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import (  # noqa: F401  # Pillow saves formats only whose modules have been imported.
    GifImagePlugin,
    Image,
    ImageChops,
    ImageDraw,
    ImageFont,
    ImageOps,
    PngImagePlugin,
    WebPImagePlugin,
)

TILE_PX = 256
"""Side of a picture in a grid at least: the bundled model's 128 pixels would be a stamp on anybody's screen."""
FASTEST, USUAL_EFFORT = 1, 6
"""How hard PNG files are compressed, of 1 to 9."""
VERSION = "0.1.0"
"""Of Reverie, which receipts name."""
STRIP_PX = 4096
"""Width of a strip at most, which everybody can look at."""
FRAMES_A_SECOND = 8
FILM_QUALITY = "18"
"""Constant rate factor of H.264: what is lost cannot be seen."""
WEBP_EFFORT = 50
"""Of 100: more takes several times as long and saves little."""
JPEG_QUALITIES = (92, 85, 75, 60)
"""Tried from the best down; below 60 a smaller picture looks better than a worse one."""
SMALLEST_PX = 16
SHEET_TILE_PX, SHEET_COLUMNS, TREE_TILE_PX, TREE_LABEL_PX, LABEL_PX, GAP_PX = 192, 5, 72, 200, 24, 8
SEAM_PX, LINE_PX, FRAME_PX = 2, 2, 3
GROUND, INK, LINE, ACCENT = (43, 45, 49), (219, 222, 225), (128, 132, 142), (124, 92, 252)
"""Colours of sheets: those of Discord's dark theme, on which they look like a part of it, and that of cards."""
VEIL_COLOURS = 3
"""Colours in a row, and in a column, that a veil lets through: of nine nobody guesses what is behind."""
VEIL_DARKNESS = 0.5
BARS_PX = 512
DIFFERENCE_TIMES = 16
"""What differs by rounding only is seen all the same."""
HASH_DIGITS = 16
"""Of a file or a model on a receipt: enough to tell whether it is the same."""


def encode(picture: Image.Image, *, quickly: bool = False) -> bytes:
    """Return a picture as PNG; a fifth larger in a third of the time where it is to be done quickly."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=FASTEST if quickly else USUAL_EFFORT)
    return file.getvalue()


def shape(count: int) -> tuple[int, int]:
    """Return columns and rows of a grid: 1×1, 2×1, 2×2, 3×2 or 3×3."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    return columns, -(-count // columns)


def grid(pictures: Sequence[bytes], tile_px: int = TILE_PX, *, quickly: bool = False) -> bytes:
    """Lay pictures out in rows, as PNG; see `encode`.

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
    return encode(sheet, quickly=quickly)


def strip(pictures: Sequence[bytes], tile_px: int = TILE_PX) -> bytes:
    """Lay pictures of one size out in a row, as PNG; enlarged to `tile_px`, and made smaller where there are too many."""
    side = max(1, min(STRIP_PX // len(pictures), max(tile_px, *(max(opened(picture).size) for picture in pictures))))
    tiles = [ImageOps.contain(opened(picture), (side, side), Image.Resampling.BICUBIC) for picture in pictures]
    row = Image.new("RGB", (sum(tile.width for tile in tiles), max(tile.height for tile in tiles)))
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width
    return encode(row)


def gif(pictures: Sequence[bytes], side_px: int = TILE_PX) -> bytes:
    """Return pictures of one size as an animation that goes forth and back for ever."""
    frames = [ImageOps.contain(opened(picture), (side_px, side_px), Image.Resampling.BICUBIC) for picture in pictures]
    frames += frames[-2:0:-1]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=1000 // FRAMES_A_SECOND, loop=0)
    return file.getvalue()


def film(pictures: Sequence[bytes], tile_px: int = TILE_PX) -> bytes:
    """Return pictures of one size as MP4 (H.264), each for a moment; enlarged to `tile_px` where they are smaller."""
    # FFmpeg's libraries are large, and films are rare.
    import av

    first = opened(pictures[0])
    larger = max(1, tile_px / max(first.size))
    # Its colours are stored for two by two pixels.
    size = (round(first.width * larger / 2) * 2, round(first.height * larger / 2) * 2)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND, options={"crf": FILM_QUALITY})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            pixels = np.asarray(opened(picture).resize(size, Image.Resampling.BICUBIC))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def bars(values: Sequence[tuple[str, float]]) -> bytes:
    """Draw values from 0 on as bars, each between its name and its number, the longest across the sheet, as PNG."""
    height, most = LABEL_PX + GAP_PX, max(max(value for _, value in values), 1e-6)
    sheet = Image.new("RGB", (BARS_PX, len(values) * height + GAP_PX), GROUND)
    draw = ImageDraw.Draw(sheet)
    left, right = 2 * LABEL_PX, BARS_PX - 4 * LABEL_PX
    for row, (name, value) in enumerate(values):
        top = GAP_PX + row * height
        draw.text((left - GAP_PX, top + LABEL_PX // 2), name, INK, font(), anchor="rm")
        draw.rectangle((left, top, left + round((right - left) * max(value, 0.0) / most), top + LABEL_PX), ACCENT)
        draw.text((right + GAP_PX, top + LABEL_PX // 2), f"{value:.3f}", INK, font(), anchor="lm")
    return encode(sheet)


def comparison(picture: bytes, again: bytes | None = None, tile_px: int = TILE_PX) -> bytes:
    """Lay a picture and another of its kind side by side, and how far they differ as what is light, as PNG; the picture alone where there is none."""
    shown = [opened(picture)]
    if again is not None:
        shown.append(opened(again))
        if shown[0].size == shown[1].size:
            shown.append(ImageChops.difference(*shown).point(lambda value: min(value * DIFFERENCE_TIMES, 255)))
    return strip([encode(one) for one in shown], tile_px)


def opened(picture: bytes) -> Image.Image:
    """Return a picture without what is transparent."""
    return Image.open(io.BytesIO(picture)).convert("RGB")


def thumbnail(pictures: Sequence[bytes], side_px: int, veiled: bool = False) -> Image.Image:
    """Return pictures as a grid of `side_px` at most, an empty frame where there are none; `veiled` ones are beyond recognition."""
    if not pictures:
        empty = Image.new("RGB", (side_px, side_px), GROUND)
        ImageDraw.Draw(empty).rectangle((0, 0, side_px - 1, side_px - 1), outline=LINE, width=LINE_PX)
        return empty
    columns, rows = shape(len(pictures))
    step_px = side_px // max(columns, rows)
    # Without a seam, pictures with the same background would run into each other.
    tile_px = step_px - (SEAM_PX if len(pictures) > 1 else 0)
    sheet = Image.new("RGB", (columns * step_px, rows * step_px), GROUND)
    for index, data in enumerate(pictures):
        with Image.open(io.BytesIO(data)) as picture:
            # JPEGs are decoded no larger than they are needed.
            picture.draft("RGB", (tile_px, tile_px))
            tile = ImageOps.contain(picture.convert("RGB"), (tile_px, tile_px), Image.Resampling.BICUBIC)
        left, top = (step_px - tile.width) // 2, (step_px - tile.height) // 2
        sheet.paste(tile, (index % columns * step_px + left, index // columns * step_px + top))
    return veil(sheet) if veiled else sheet


def veil(picture: Image.Image) -> Image.Image:
    """Return nothing but the rough colours of a picture, darkened, under an eye that is crossed out."""
    few = picture.resize((VEIL_COLOURS, VEIL_COLOURS), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)
    veiled = Image.blend(few, Image.new("RGB", picture.size, GROUND), VEIL_DARKNESS)
    draw = ImageDraw.Draw(veiled)
    (x, y), unit = (veiled.width / 2, veiled.height / 2), min(max(veiled.size) / 16, min(veiled.size) / 7)
    width = max(round(unit / 2), 1)
    draw.arc((x - 3 * unit, y - 1.5 * unit, x + 3 * unit, y + 3 * unit), 195, 345, INK, width)
    draw.arc((x - 3 * unit, y - 3 * unit, x + 3 * unit, y + 1.5 * unit), 15, 165, INK, width)
    draw.circle((x, y), unit * 0.8, INK)
    draw.line((x - 2.5 * unit, y + 2.5 * unit, x + 2.5 * unit, y - 2.5 * unit), INK, width)
    return veiled


@dataclass(frozen=True, slots=True)
class Tile:
    """One of several pictures on a sheet: an earlier result, a short text, how deep it is indented, and whether it is framed."""

    pictures: Sequence[bytes]
    label: str
    depth: int = 0
    veiled: bool = False
    framed: bool = False


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
    sheet = Image.new("RGB", (GAP_PX + deepest * indent + TREE_TILE_PX + TREE_LABEL_PX, len(tiles) * row + GAP_PX), GROUND)
    draw = ImageDraw.Draw(sheet)
    # All lines first: what goes across a picture is behind it.
    for index, tile in enumerate(tiles):
        above = next((other for other in range(index - 1, -1, -1) if tiles[other].depth < tile.depth), None)
        if above is not None:
            trunk = GAP_PX + tiles[above].depth * indent + TREE_TILE_PX // 4
            middle = GAP_PX + index * row + TREE_TILE_PX // 2
            draw.line([(trunk, GAP_PX + above * row + TREE_TILE_PX // 2), (trunk, middle), (GAP_PX + tile.depth * indent, middle)], LINE, LINE_PX)
    for index, tile in enumerate(tiles):
        left, top = GAP_PX + tile.depth * indent, GAP_PX + index * row
        put(sheet, tile, left, top, TREE_TILE_PX)
        draw.text((left + TREE_TILE_PX + GAP_PX, top + TREE_TILE_PX // 2), tile.label, INK, font(), anchor="lm")
    return encode(sheet)


def place(sheet: Image.Image, tile: Tile, left: int, top: int, side_px: int) -> None:
    """Put a result and its label below it onto a sheet."""
    put(sheet, tile, left, top, side_px)
    ImageDraw.Draw(sheet).text((left + side_px // 2, top + side_px + LABEL_PX // 2), tile.label, INK, font(), anchor="mm")


def put(sheet: Image.Image, tile: Tile, left: int, top: int, side_px: int) -> None:
    """Put a result into the middle of its place on a sheet."""
    small = thumbnail(tile.pictures, side_px, tile.veiled)
    x, y = left + (side_px - small.width) // 2, top + (side_px - small.height) // 2
    sheet.paste(small, (x, y))
    if tile.framed:
        draw = ImageDraw.Draw(sheet)
        draw.rectangle((x - FRAME_PX, y - FRAME_PX, x + small.width + FRAME_PX - 1, y + small.height + FRAME_PX - 1), outline=ACCENT, width=FRAME_PX)


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


def hash_of(data: bytes) -> str:
    """Tell a file from others."""
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def write_receipt(png: bytes, facts: Mapping[str, object]) -> bytes:
    """Return the same picture with facts in its text chunks (PNG specification, iTXt: any Unicode).

    The prompt is stored as `Description` too, the keyword that picture viewers show.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("Software", "Reverie")
    chunks.add_itxt("version", VERSION)
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
