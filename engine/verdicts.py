"""What painting a picture again from its receipt came to."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

ROUNDING = 2
"""Of 255: what batches of other sizes and other processors change of a pixel."""


class Finding(StrEnum):
    """How a picture and the one that was painted again compare."""

    SAME = "same"
    ROUNDED = "rounded"
    DIFFERENT = "different"
    OTHER_SIZE = "other_size"
    OTHER_MODEL = "other_model"


SENTENCES = {
    Finding.SAME: "This is the picture that its receipt describes: painted again, not a pixel differs.",
    Finding.ROUNDED: "This is the picture that its receipt describes: painted again, pixels differ by rounding only.",
    Finding.DIFFERENT: "This is not the picture that its receipt describes: painted again, pixels differ.",
    Finding.OTHER_SIZE: "This is not the picture that its receipt describes: that one has another size.",
    Finding.OTHER_MODEL: "Another model painted this picture than the one that is loaded here: it cannot be painted again.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a picture that was painted again.

    `same_model` is None where the receipt, one of an earlier version, does not say. `largest` and `mean` are differences of channels, of 255, where
    two pictures of one size were compared; `picture` is the new one, as PNG. `differs` names what else is not as it was then, the version or what
    it was computed with: that explains small differences.
    """

    finding: Finding
    same_model: bool | None
    largest: int | None = None
    mean: float | None = None
    differs: tuple[str, ...] = ()
    picture: bytes | None = None

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return SENTENCES[self.finding]


def compare(one: Image.Image, other: Image.Image) -> tuple[Finding, int | None, float | None]:
    """Tell how pictures, RGB or RGBA, compare, and the largest and the mean difference of their channels, of 255."""
    if one.size != other.size:
        return Finding.OTHER_SIZE, None, None
    mode = "RGBA" if "RGBA" in (one.mode, other.mode) else "RGB"
    difference = np.abs(np.asarray(one.convert(mode), np.int16) - np.asarray(other.convert(mode), np.int16))
    largest = int(difference.max())
    finding = Finding.SAME if largest == 0 else Finding.ROUNDED if largest <= ROUNDING else Finding.DIFFERENT
    return finding, largest, float(difference.mean())
