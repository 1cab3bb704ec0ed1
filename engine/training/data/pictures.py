"""One picture on its way into a shard: opened safely, shrunk to what the model needs, and framed for its CLIP."""

import json
from dataclasses import dataclass

from PIL import Image

from engine.errors import InvalidRequest
from engine.training.data.sources import Found
from engine.training.data.tally import Reason
from engine.training.data.writing import jpeg
from engine.uploads import Frame, Framing, open_picture


@dataclass(frozen=True, slots=True)
class Ready:
    """A picture that is ready for a shard: its files, and the square of it that CLIP looks at."""

    jpg: bytes
    caption: str
    facts: bytes
    square: Image.Image | None


class Unusable(Exception):
    """A picture is left out; the reason says why."""

    def __init__(self, reason: Reason, why: str = "") -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


def make_ready(found: Found, hashed: str, side: int, quality: int, clip_side: int | None) -> Ready:
    """Turn a picture as it was found into what a shard holds; `hashed` is its hash, `clip_side` None where no CLIP looks at it.

    Raises:
        Unusable: it cannot be read, or is smaller than the model's.
    """
    try:
        picture = open_picture(found.data)
    except InvalidRequest as error:
        raise Unusable(Reason.UNREADABLE, str(error)) from None
    size = picture.size
    if min(size) < side:
        raise Unusable(Reason.SMALL, f"{size[0]} × {size[1]}")
    facts = {"file": found.name, "width": size[0], "height": size[1], "sha256": hashed}
    square = None if clip_side is None else Frame(size, clip_side, Framing.CROP).apply(picture)
    try:
        encoded = jpeg(shrunk_to(on_white(picture), side), quality)
    except (OSError, ValueError) as error:
        # A side may be longer than what JPEG can say.
        raise Unusable(Reason.UNREADABLE, f"it cannot be a JPEG: {error}") from None
    return Ready(encoded, found.caption, json.dumps(facts, ensure_ascii=False).encode(errors="replace"), square)


def on_white(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB; what is transparent is white."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def shrunk_to(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture, which is no smaller, at the size at which its shorter side is `side`."""
    width, height = (round(length * side / min(picture.size)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
