"""The picture book: the small world that the bundled model is trained on.

A scene is one object of the sprite sheet, in one of three sizes, somewhere on a plain background. Everything about a scene is known, so its
caption is exact and a painted scene can be marked right or wrong.

Dimensions: N scenes, C = 3 channels, H = W = SIDE pixels.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIDE = 64
SPRITE_SIDE = 64
SPRITES = Path(__file__).with_name("sprites.png")
"""One row per eight objects, RGBA; drawn by `engine.training.sprites` from Noto Color Emoji."""

OBJECTS = (
    "apple", "banana", "bird", "boat", "butterfly", "cactus", "car", "carrot",
    "cat", "crab", "dog", "fish", "flower", "fox", "frog", "ghost",
    "grapes", "heart", "house", "moon", "mushroom", "owl", "panda", "penguin",
    "pig", "rocket", "star", "strawberry", "tree", "turtle", "umbrella", "watermelon",
)  # fmt: skip

BACKGROUNDS = {
    "red": (200, 40, 40),
    "orange": (240, 150, 50),
    "yellow": (245, 225, 90),
    "green": (60, 150, 70),
    "blue": (50, 90, 200),
    "purple": (120, 60, 160),
    "pink": (250, 170, 200),
    "white": (245, 245, 245),
    "gray": (130, 130, 130),
    "black": (25, 25, 25),
}

SIZES = {"small": 24, "": 38, "big": 54}
"""Side of the object in pixels of a SIDE × SIDE picture. A caption without a size word means the middle one."""

TEMPLATES = (
    ("a {size} {object} on a {background} background", 8),
    ("a {background} background with a {size} {object}", 2),
    ("{size} {object}, {background} background", 2),
    ("a picture of a {size} {object} on {background}", 2),
    ("{size} {object} on {background}", 2),
    ("a {size} {object}", 4),
)
"""Captions and how often each is used, of 20."""

FILLERS = ("a", "an", "the", "of", "on", "in", "with", "and", "picture", "photo", "drawing", "painting", "image", "background")
"""Words that a prompt may hold without meaning anything to the model."""

HELD_OUT_SHARE = 0.15


def words() -> list[str]:
    """Every word with a meaning or a place in this world, in the order in which they are told to people."""
    return [*OBJECTS, *BACKGROUNDS, *filter(None, SIZES), *FILLERS]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture: indices into OBJECTS, BACKGROUNDS and SIZES, and the top left pixel of the object."""

    object: int
    background: int
    size: int
    left: int
    top: int


def held_out(object_index: int, background: int) -> bool:
    """Tell whether this pair is never shown in training: fidelity is measured on such pairs."""
    return zlib.crc32(f"{object_index}/{background}".encode()) % 100 < 100 * HELD_OUT_SHARE


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene that is not held out, every object, background and size being equally likely."""
    while True:
        object_index, background = int(rng.integers(len(OBJECTS))), int(rng.integers(len(BACKGROUNDS)))
        if not held_out(object_index, background):
            break
    size = int(rng.integers(len(SIZES)))
    left, top = (int(v) for v in rng.integers(SIDE - list(SIZES.values())[size] + 1, size=2))
    return Scene(object_index, background, size, left, top)


def caption(scene: Scene, rng: np.random.Generator) -> tuple[str, bool]:
    """Describe a scene in one of the templates; the flag says whether the background was named."""
    weights = np.array([weight for _, weight in TEMPLATES], float)
    template = TEMPLATES[rng.choice(len(TEMPLATES), p=weights / weights.sum())][0]
    text = template.format(object=OBJECTS[scene.object], background=list(BACKGROUNDS)[scene.background], size=list(SIZES)[scene.size])
    text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
    return text, "{background}" in template


class Sprites:
    """The objects in every size, ready to be pasted.

    Shapes:
        stamps[size][object]  (side, side, 4) float32, straight alpha in the last channel, values in [0, 1]
    """

    def __init__(self, sheet: Path = SPRITES) -> None:
        image = Image.open(sheet).convert("RGBA")
        tiles = [
            image.crop((column, row, column + SPRITE_SIDE, row + SPRITE_SIDE))
            for row in range(0, image.height, SPRITE_SIDE)
            for column in range(0, image.width, SPRITE_SIDE)
        ]
        self.stamps = [
            [np.asarray(tile.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255 for tile in tiles] for side in SIZES.values()
        ]

    def draw(self, scene: Scene) -> NDArray[np.uint8]:
        """Paint a scene: (H, W, C) uint8."""
        picture = np.empty((SIDE, SIDE, 3), np.float32)
        picture[:] = np.array(list(BACKGROUNDS.values())[scene.background], np.float32) / 255
        stamp = self.stamps[scene.size][scene.object]
        side = len(stamp)
        window = picture[scene.top : scene.top + side, scene.left : scene.left + side]
        alpha = stamp[..., 3:]
        window[:] = alpha * stamp[..., :3] + (1 - alpha) * window
        return np.rint(picture * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Pages:
    """Scenes drawn once: drawing costs as much as training on them.

    Shapes:
        pictures  (N, C, H, W) uint8
        facts     (N, 3) int64: object, background, size
    """

    scenes: list[Scene]
    pictures: Tensor
    facts: Tensor

    @classmethod
    def draw(cls, count: int, seed: int) -> "Pages":
        """Draw `count` random scenes; equal seeds give equal pages."""
        rng, sprites = np.random.default_rng(seed), Sprites()
        scenes = [random_scene(rng) for _ in range(count)]
        pictures = torch.from_numpy(np.stack([sprites.draw(scene) for scene in scenes])).permute(0, 3, 1, 2).contiguous()
        return cls(scenes, pictures, torch.tensor([(s.object, s.background, s.size) for s in scenes]))
