"""What the frames of a morph are shown as."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine import pictures


@dataclass(frozen=True, slots=True)
class Film:
    """A way to show frames: how the file is made of them, of which kind it is, and what is said of it."""

    made: Callable[[Sequence[bytes]], bytes]
    media: str
    summary: str


FILMS: Mapping[str, Film] = {
    "strip.png": Film(pictures.strip, "image/png", "Fetch the frames of a morph side by side."),
    "morph.gif": Film(pictures.gif, "image/gif", "Fetch a morph as an animation that goes forth and back."),
    "morph.mp4": Film(pictures.film, "video/mp4", "Fetch a morph as a film."),
}
"""By the names of the files."""
