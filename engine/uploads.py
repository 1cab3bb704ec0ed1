"""Pictures that people hand in: opened safely, framed for a model, masked, and put together again. Pillow only, no tensors."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from PIL import (  # noqa: F401  # Pillow opens formats only whose modules have been imported.
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageCms,
    ImageFilter,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from engine.errors import InvalidRequest
from engine.pictures import HASH_DIGITS, encode, hash_of, read_receipt

LIMIT_BYTES = 25 * 2**20
"""Of a file: what Discord takes of members who pay nothing is less."""
LIMIT_MEGAPIXELS = 40
"""Of a picture: 120 MB in memory. Most cameras of phones stay below."""
LONGEST_PX = 1024
"""Side of pictures that are kept for a job that waits: four such results still fit into one message."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What Pillow may try. Others run programs, need fonts or have no use here."""
SHORTEST_ASPECT = 0.97
"""A mask of another size may differ by rounding, not in shape."""
FEATHER_SHARE = 64
"""A seam is as wide as the shorter side divided by this."""
BACKGROUND_TOLERANCE = 48
"""Of 255 in any channel, between a pixel and the colour of the background."""
VEIL = (255, 0, 170, 150)
SRGB = ImageCms.createProfile("sRGB")


def open_picture(data: bytes) -> Image.Image:
    """Open a file of any usual format as RGB or, where something is transparent, RGBA: 8 bits, upright, in sRGB, its first frame.

    Raises:
        InvalidRequest: it is no picture, damaged, or too large; told before any pixel is decoded where the header says so.
    """
    if len(data) > LIMIT_BYTES:
        raise InvalidRequest("picture", "be at most {most} MB large; this one has {have:.0f}", most=LIMIT_BYTES // 2**20, have=len(data) / 2**20)
    if not data:
        raise InvalidRequest("picture", "hold something; this file is empty")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest("picture", "have at most {most} megapixels; this one has far more", most=LIMIT_MEGAPIXELS) from None
    except Exception as error:
        # Pillow's readers of damaged files raise whatever the damage leads them to.
        raise InvalidRequest(
            "picture", "be a PNG, JPEG, WebP, GIF, BMP or TIFF file; this one cannot be read ({reason})", reason=type(error).__name__
        ) from None
    if picture.width * picture.height > LIMIT_MEGAPIXELS * 1e6:
        raise InvalidRequest(
            "picture",
            "have at most {most} megapixels; this one has {width} × {height} pixels",
            most=LIMIT_MEGAPIXELS,
            width=picture.width,
            height=picture.height,
        )
    try:
        picture.load()
        return in_eight_bits(ImageOps.exif_transpose(picture))
    except Exception as error:
        raise InvalidRequest(
            "picture", "be whole; this {format} file is damaged ({reason})", format=picture.format, reason=type(error).__name__
        ) from None


def in_eight_bits(picture: Image.Image) -> Image.Image:
    """Turn any mode of Pillow's into RGB or RGBA, with the colours that its profile means."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = picture.convert("F")
        least, most = (float(str(bound)) for bound in picture.getextrema())
        if not -1e30 < least <= most < 1e30:
            raise ValueError("the picture holds values that are no numbers")
        # Sixteen bits and unit floats are the two ranges in use; neither says which it is.
        full = 1.0 if most <= 1 else 255.0 if most <= 255 else 65535.0 if most <= 65535 else most
        picture = picture.point(lambda value: value * (255 / full) + 0).convert("L")
    transparent = picture.has_transparency_data
    if profile and picture.mode in ("RGB", "CMYK", "L"):
        try:
            return ImageCms.profileToProfile(picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, outputMode="RGB") or picture
        except (ImageCms.PyCMSError, OSError):
            # A broken or foreign profile: the numbers are taken as they are.
            pass
    return picture.convert("RGBA" if transparent else "RGB")


def shrunk(picture: Image.Image) -> Image.Image:
    """Return a picture at the size at most at which those that people hand in are kept and worked on."""
    small = picture.copy()
    small.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return small


def take_in(data: bytes) -> bytes:
    """Return a picture that somebody hands in as PNG, of a size at which it is kept.

    Raises:
        InvalidRequest: as `open_picture`.
    """
    return encode(shrunk(open_picture(data)))


def receipt_of(data: bytes) -> dict[str, str]:
    """Return what a picture that somebody hands in says of itself in text chunks, see `engine.pictures`.

    Raises:
        InvalidRequest: as `open_picture`.
    """
    open_picture(data)
    return read_receipt(data)


FROM_FILES = re.compile(r"sources|picture_\d")
"""What a receipt says of the files that a picture was made from."""
HASH = re.compile(rf"\b[0-9a-f]{{{HASH_DIGITS}}}\b")


def sources_in(receipt: Mapping[str, str]) -> list[str]:
    """Return the hashes of the files that a picture was made from, as its receipt names them."""
    return [name for key, told in receipt.items() if FROM_FILES.fullmatch(key) for name in HASH.findall(told)]


def by_hash(files: Sequence[bytes]) -> dict[str, bytes]:
    """Return files by their hashes, and by those of the pictures that they become where they are taken in: a receipt may name either.

    Raises:
        InvalidRequest: as `open_picture`.
    """
    return {hash_of(one): one for file in files for one in (take_in(file), file)}


class Framing(StrEnum):
    """How a picture becomes a square: its middle, squeezed, or whole between borders."""

    CROP = "crop"
    FIT = "fit"
    PAD = "pad"


@dataclass(frozen=True, slots=True)
class Frame:
    """The way of a picture of one size, in pixels, to a square and back."""

    size: tuple[int, int]
    side: int
    how: Framing

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What of the picture is in the square: left, top, right and bottom; beyond the picture where there are borders."""
        width, height = self.size
        if self.how is Framing.FIT:
            return 0, 0, width, height
        length = min(width, height) if self.how is Framing.CROP else max(width, height)
        left, top = (width - length) // 2, (height - length) // 2
        return left, top, left + length, top + length

    def apply(self, picture: Image.Image) -> Image.Image:
        """Return the square, RGB; what is transparent is white, and borders repeat the picture's edge."""
        flat = picture
        if picture.mode == "RGBA":
            flat = Image.new("RGB", picture.size, "white")
            flat.paste(picture, mask=picture.getchannel("A"))
        flat = flat.convert("RGB")
        if self.how is Framing.PAD:
            flat = bordered(flat)
        else:
            flat = flat.crop(self.box)
        return flat.resize((self.side, self.side), Image.Resampling.LANCZOS)

    def apply_mask(self, mask: Image.Image) -> Image.Image:
        """Return the mask of the square, L: white where any pixel that falls there is to be repainted.

        Raises:
            InvalidRequest: what is to be repainted lies outside of the square.
        """
        boxed = mask.crop(self.box)
        if boxed.getbbox() is None:
            raise InvalidRequest("mask", "reach into the middle square of the picture, which is all that is repainted; or use framing fit or pad")
        return boxed.resize((self.side, self.side), Image.Resampling.BOX).point(lambda value: 255 if value else 0)

    def undo(self, original: Image.Image, painted: Image.Image, mask: Image.Image) -> Image.Image:
        """Put a painted square back into the picture at its full size: where the mask is black, every pixel stays what it was.

        `mask`, L, has the size of the picture; the seam lies inside of what is repainted.
        """
        left, top, right, bottom = self.box
        patch = painted.convert("RGB").resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        layer = Image.new("RGB", self.size)
        layer.paste(patch, (left, top))
        inside = Image.new("L", self.size)
        inside.paste(mask.crop((max(left, 0), max(top, 0), min(right, self.size[0]), min(bottom, self.size[1]))), (max(left, 0), max(top, 0)))
        result = original.convert("RGB")
        result.paste(layer, mask=feathered(inside))
        if original.mode == "RGBA":
            # What was transparent is painted now; what is kept is as transparent as it was.
            alpha = original.getchannel("A")
            alpha.paste(255, mask=inside)
            result.putalpha(alpha)
        return result


def bordered(picture: Image.Image) -> Image.Image:
    """Return a square with the picture in its middle and its edges repeated to both sides."""
    width, height = picture.size
    length = max(width, height)
    left, top = (length - width) // 2, (length - height) // 2
    square = Image.new("RGB", (length, length))
    if left:
        square.paste(picture.crop((0, 0, 1, height)).resize((left, height)), (0, 0))
        square.paste(picture.crop((width - 1, 0, width, height)).resize((length - width - left, height)), (left + width, 0))
    if top:
        square.paste(picture.crop((0, 0, width, 1)).resize((width, top)), (0, 0))
        square.paste(picture.crop((0, height - 1, width, height)).resize((width, length - height - top)), (0, top + height))
    square.paste(picture, (left, top))
    return square


def feathered(mask: Image.Image) -> Image.Image:
    """Let a mask, L, fall to black towards its edges, inside of what is white; thin strokes get a thinner seam."""
    radius = min(mask.size) // FEATHER_SHARE
    area = count_white(mask)
    while radius > 0:
        # The mean around a pixel is a half on an edge, and full as far as the radius inside of it.
        ramp = mask.filter(ImageFilter.BoxBlur(radius)).point(lambda mean: max(0, 2 * mean - 255))
        ramp = Image.composite(ramp, Image.new("L", mask.size), mask)
        if count_white(ramp.point(lambda value: 255 if value > 127 else 0)) * 2 >= area:
            return ramp
        radius //= 2
    return mask


def count_white(mask: Image.Image) -> int:
    """Count the pixels of an L picture that are 255."""
    return mask.histogram()[255]


def read_mask(data: bytes | None, picture: Image.Image) -> Image.Image:
    """Return what is to be repainted, L of the picture's size: 255 = repaint, 0 = keep.

    White or transparent means repaint, in the mask file or, without one, in the picture itself.

    Raises:
        InvalidRequest: there is neither, the shapes differ, or nothing or everything would be repainted.
    """
    if data is None:
        if picture.mode != "RGBA":
            raise InvalidRequest("mask", "be given, white where to repaint; this picture has no transparent part that could stand for one")
        mask = picture.getchannel("A").point(lambda alpha: 0 if alpha > 127 else 255)
    else:
        mask = white_or_transparent(open_picture(data))
        shapes = sorted((mask.width * picture.height, mask.height * picture.width))
        if shapes[0] < SHORTEST_ASPECT * shapes[1]:
            raise InvalidRequest(
                "mask",
                "have the picture's shape, {width} × {height}, not {own_width} × {own_height}",
                width=picture.width,
                height=picture.height,
                own_width=mask.width,
                own_height=mask.height,
            )
        mask = mask.resize(picture.size, Image.Resampling.NEAREST)
    return check_mask(mask)


def check_mask(mask: Image.Image) -> Image.Image:
    """Make sure that a mask, L, keeps something and repaints something.

    Raises:
        InvalidRequest: it does not.
    """
    white = count_white(mask)
    if white == 0:
        raise InvalidRequest("mask", "be white or transparent where to repaint; this one keeps everything")
    if white == mask.width * mask.height:
        raise InvalidRequest("mask", "be black where to keep; this one keeps nothing. Dream instead")
    return mask


def white_or_transparent(picture: Image.Image) -> Image.Image:
    """Return L: 255 where a picture is light or see-through."""
    light = picture.convert("L").point(lambda value: 255 if value > 127 else 0)
    if picture.mode == "RGBA":
        light.paste(255, mask=picture.getchannel("A").point(lambda alpha: 0 if alpha > 127 else 255))
    return light


class Region(StrEnum):
    """A part of a picture that can be named in a word."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    CENTRE = "centre"
    BACKGROUND = "background"


def region_mask(picture: Image.Image, region: Region) -> Image.Image:
    """Return what is to be repainted, L: a half of the picture, its middle quarter, or all that has the colour of its border.

    Raises:
        InvalidRequest: nothing or everything would be repainted.
    """
    width, height = picture.size
    if region is Region.BACKGROUND:
        return check_mask(background_mask(picture.convert("RGB")))
    boxes = {
        Region.LEFT: (0, 0, width // 2, height),
        Region.RIGHT: (width // 2, 0, width, height),
        Region.TOP: (0, 0, width, height // 2),
        Region.BOTTOM: (0, height // 2, width, height),
        Region.CENTRE: (width // 4, height // 4, width - width // 4, height - height // 4),
    }
    mask = Image.new("L", picture.size)
    mask.paste(255, boxes[region])
    return check_mask(mask)


def background_mask(picture: Image.Image) -> Image.Image:
    """Return where a picture, RGB, has nearly the colour that is in the middle of its border's, wherever that is."""
    width, height = picture.size
    edges = [picture.crop(box).convert("RGB").tobytes() for box in ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height))]
    edges.append(picture.crop((width - 1, 0, width, height)).tobytes())
    border = b"".join(edges)
    middle = tuple(sorted(border[channel::3])[len(border) // 6] for channel in range(3))
    differences = ImageChops.difference(picture, Image.new("RGB", picture.size, middle)).split()
    farthest = ImageChops.lighter(ImageChops.lighter(differences[0], differences[1]), differences[2])
    near = farthest.point(lambda difference: 255 if difference <= BACKGROUND_TOLERANCE else 0)
    # Single pixels are noise, of the background or of the object.
    return near.filter(ImageFilter.MedianFilter(3))


def take_in_part(picture: bytes, mask: bytes | None, region: Region | None) -> tuple[bytes, bytes]:
    """Return a picture that somebody hands in, of a size at which it is kept, and what of it is to be repainted, both PNG.

    Raises:
        InvalidRequest: one of them cannot be used, or nothing or everything would be repainted.
    """
    original = open_picture(picture)
    wanted = read_mask(mask, original) if region is None else region_mask(original, region)
    taken = shrunk(original)
    return encode(taken), encode(check_mask(wanted.resize(taken.size, Image.Resampling.NEAREST)))


def overlay(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Show a picture with what is to be repainted, white in `mask`, under a coloured veil."""
    flat = picture.convert("RGBA")
    veiled = Image.alpha_composite(flat, Image.new("RGBA", picture.size, VEIL))
    return Image.composite(veiled, flat, mask)
