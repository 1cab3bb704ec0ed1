"""The picture book: the small world that the bundled model is trained on.

A scene is one object in one of three sizes and five places, or two objects beside each other, on a plain background: of a colour with a name, or of
any other. Everything about a scene is known, so its caption is exact and a painted scene can be marked right or wrong.

Dimensions: H = W = SIDE pixels, C = 3 channels.
"""

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
SPRITE_SIDE = 96
SPRITES = Path(__file__).with_name("sprites.png")
"""One row per eight objects, RGBA; drawn by `engine.training.sprites` from Noto Color Emoji."""

OBJECTS: dict[str, tuple[str, ...]] = {
    "apple": (), "balloon": (), "banana": (), "bee": ("honeybee",), "bird": ("birdie",), "boat": ("sailboat", "ship"), "butterfly": (),
    "cactus": (), "cake": ("birthday cake",), "car": ("automobile",), "carrot": (), "cat": ("kitty", "kitten"), "cherries": ("cherry",),
    "crab": (), "crown": (), "dog": ("puppy", "doggy"), "donut": ("doughnut",), "elephant": (), "fish": (), "flower": ("sunflower",),
    "fox": (), "frog": ("toad",), "ghost": (), "grapes": ("grape",), "guitar": (), "hamburger": ("burger", "cheeseburger"),
    "heart": ("love heart",), "house": ("home",), "lemon": (), "lion": (), "moon": ("crescent",), "mushroom": ("toadstool",),
    "octopus": (), "owl": (), "panda": ("panda bear",), "penguin": (), "pig": ("piglet", "piggy"), "pizza": ("slice of pizza",),
    "rabbit": ("bunny", "hare"), "rocket": ("spaceship",), "star": (), "strawberry": (), "train": ("locomotive",), "tree": (),
    "turtle": ("tortoise",), "umbrella": ("parasol",), "watermelon": ("melon",), "whale": (),
}  # fmt: skip
"""What can be in a picture, in the order of the sprites, and other words for it."""
NAMES = tuple(OBJECTS)
PLURALS = {"butterfly": "butterflies", "cactus": "cactuses", "fish": "fishes", "fox": "foxes", "octopus": "octopuses", "strawberry": "strawberries"}
"""Of names that do not only take an s. A plural in a caption still means one."""

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
COLOURS: dict[str, tuple[str, ...]] = {"gray": ("grey",), "purple": ("violet",)}
"""Other words for backgrounds."""


class Place(StrEnum):
    """Where in the picture an object is."""

    MIDDLE = "middle"
    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"


PLACES = tuple(Place)
SIZES = {"small": 40, "": 56, "big": 96}
"""Side of the object in pixels of a SIDE × SIDE picture. A caption without a size word means the middle one, which the objects of a pair have."""
SIZE_NAMES = tuple(SIZES)
SIZE_SHARES = (6 / 11, 4 / 11, 1 / 11)
"""Of the scenes with one object. Small ones are so often because few of their pixels, and so little of a decoder's loss, say which object they are;
big ones stand in one place only, of the eleven that size and place make together."""
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("little", "tiny"), "": (), "big": ("large", "huge")}
PLACE_WORDS: dict[Place, tuple[str, ...]] = {
    Place.MIDDLE: ("in the middle", "in the center"),
    Place.LEFT: ("on the left", "on the left side", "to the left"),
    Place.RIGHT: ("on the right", "on the right side", "to the right"),
    Place.TOP: ("at the top", "on top"),
    Place.BOTTOM: ("at the bottom",),
}
GRID = 8
"""Objects stand at multiples of so many pixels: the same object looks the same wherever it stands, at every scale of the cascade."""
MARGIN = 8
"""Pixels at most between an object and the border that it is said to be at."""
WANDER = 16
"""Pixels at most by which an object is off the middle that its caption puts it in."""

SINGLES = (
    ("a {size} {object} {place} on a {background} background", 6),
    ("a {size} {object} on a {background} background {place}", 3),
    ("a {background} background with a {size} {object} {place}", 3),
    ("{size} {object} {place}, {background} background", 2),
    ("a picture of a {size} {object} {place} on {background}", 2),
    ("{size} {object} on {background} {place}", 2),
    ("a {size} {object} {place}", 2),
)
PAIRS = (
    ("a {object} next to a {other} on a {background} background", 6),
    ("a {object} and a {other} on a {background} background", 4),
    ("a {background} background with a {object} and a {other}", 2),
    ("a {object} beside a {other}, {background} background", 2),
    ("{object} and {other} on {background}", 2),
    ("a picture of a {object} next to a {other} on {background}", 2),
    ("a {object} next to a {other}", 2),
)
"""Captions and how often each is used, of 20. What is named first stands on the left, so that a prior need not guess the order."""
SYNONYM_SHARE, PLURAL_SHARE, PLACE_SHARE = 0.25, 0.05, 0.85
"""Shares of captions with another word, with a plural, and that say where an object is which is not in the middle."""
MIDDLE_SHARE = 0.15
"""Share of captions that say so of an object in the middle."""
PAIR_SHARE = 0.4
"""Of the scenes, those with two objects."""
TINT_SHARE = 0.5
"""Of the scenes, those on a background of any colour, of which captions say nothing: without them CLIP takes an object on one background for another
thing than the same object on another, and does not know it on a background that it never saw it on."""
FILLERS = (
    "a", "an", "the", "of", "on", "in", "at", "to", "with", "and", "next", "beside", "side", "picture", "photo", "drawing", "painting", "image",
    "background",
)  # fmt: skip
"""Words that a prompt may hold without meaning anything to the model."""
HELD_OUT_SHARE = 0.1
HELD_OUT_DISTANCE = 64.0
"""In RGB of 8 bits: no object is shown on a background nearer than this to one that it is held out on."""


def words() -> list[str]:
    """Every word with a meaning or a place in this world, in the order in which they are told to people."""
    others = (*OBJECTS.values(), *COLOURS.values(), *SIZE_WORDS.values(), *PLACE_WORDS.values())
    plurals = [plural(name) for name in NAMES]
    heads = [*NAMES, *BACKGROUNDS, *filter(None, SIZES), *(str(place) for place in PLACES)]
    rest = [word for texts in others for text in texts for word in text.split()]
    return list(dict.fromkeys([*heads, *rest, *plurals, *FILLERS]))


def plural(name: str) -> str:
    """Return the plural of an object's name."""
    return PLURALS.get(name) or (name if name.endswith("s") else f"{name}s")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object in a picture: indices into NAMES and SIZE_NAMES, and its top left pixel."""

    object: int
    size: int
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture: one thing and the place that its caption puts it in, or two, the left one first; and an index into BACKGROUNDS.

    `tint`, 8 bits each, is the colour of a background without a name; `background` is then the nearest with one.
    """

    things: tuple[Thing, ...]
    background: int
    place: Place = Place.MIDDLE
    tint: tuple[int, int, int] | None = None

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background's, 8 bits each."""
        return list(BACKGROUNDS.values())[self.background] if self.tint is None else self.tint


def held_out(object_index: int, background: int) -> bool:
    """Tell whether an object is never shown on a background in training: fidelity is measured on such."""
    return zlib.crc32(f"{object_index}/{background}".encode()) % 100 < 100 * HELD_OUT_SHARE


def is_near_held_out(object_index: int, colour: tuple[int, int, int]) -> bool:
    """Tell whether a colour, 8 bits each, is one that an object is not shown on in training, or much like it."""
    return any(
        held_out(object_index, background) and math.dist(colour, named) < HELD_OUT_DISTANCE for background, named in enumerate(BACKGROUNDS.values())
    )


def held_out_pair(one: int, other: int) -> bool:
    """Tell whether two objects are never shown together in training."""
    return zlib.crc32(f"{min(one, other)}+{max(one, other)}".encode()) % 100 < 100 * HELD_OUT_SHARE


def on_grid(rng: np.random.Generator, low: float, high: float) -> int:
    """Draw a multiple of GRID between two numbers of pixels."""
    return GRID * int(rng.integers(math.ceil(low / GRID), math.floor(high / GRID) + 1))


def place_thing(rng: np.random.Generator, object_index: int, size: int, place: Place) -> Thing:
    """Put an object where a word says."""
    free = SIDE - list(SIZES.values())[size]
    middle = (max(free / 2 - WANDER, 0), min(free / 2 + WANDER, free))
    near, far = (0, MARGIN), (free - MARGIN, free)
    across = {Place.LEFT: near, Place.RIGHT: far}.get(place, middle)
    down = {Place.TOP: near, Place.BOTTOM: far}.get(place, middle)
    return Thing(object_index, size, on_grid(rng, *across), on_grid(rng, *down))


def place_pair(rng: np.random.Generator, left: int, right: int) -> tuple[Thing, Thing]:
    """Put two objects beside each other."""
    size = SIZE_NAMES.index("")
    side = SIZES[""]
    free = SIDE - 2 * side
    top = (SIDE - side) / 2
    between = on_grid(rng, 0, free)
    edge = on_grid(rng, 0, free - between)
    tops = [on_grid(rng, top - MARGIN, top + MARGIN) for _ in range(2)]
    return Thing(left, size, edge, tops[0]), Thing(right, size, edge + side + between, tops[1])


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of which nothing is held out; objects, backgrounds and places are equally likely, but big objects fill the middle."""
    while True:
        one, other = (int(v) for v in rng.choice(len(NAMES), size=2, replace=False))
        empty = random_background(rng)
        if is_near_held_out(one, empty.colour):
            continue
        if rng.random() >= PAIR_SHARE:
            size = int(rng.choice(len(SIZES), p=SIZE_SHARES))
            place = Place.MIDDLE if SIZE_NAMES[size] == "big" else PLACES[rng.integers(len(PLACES))]
            return replace(empty, things=(place_thing(rng, one, size, place),), place=place)
        if not is_near_held_out(other, empty.colour) and not held_out_pair(one, other):
            return replace(empty, things=place_pair(rng, one, other))


def random_background(rng: np.random.Generator) -> Scene:
    """Draw a scene with nothing in it yet."""
    if rng.random() >= TINT_SHARE:
        return Scene((), int(rng.integers(len(BACKGROUNDS))))
    red, green, blue = (int(value) for value in rng.integers(256, size=3))
    distances = np.square(np.array(list(BACKGROUNDS.values())) - (red, green, blue)).sum(1)
    return Scene((), int(distances.argmin()), tint=(red, green, blue))


def said(rng: np.random.Generator, word: str, others: tuple[str, ...], share: float = SYNONYM_SHARE) -> str:
    """Say a word, or sometimes another one for it."""
    return others[rng.integers(len(others))] if others and rng.random() < share else word


def called(rng: np.random.Generator, object_index: int) -> str:
    """Name an object in one of the ways that people do."""
    name = NAMES[object_index]
    return plural(name) if rng.random() < PLURAL_SHARE else said(rng, name, OBJECTS[name])


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in one of the templates. What is said is true; not everything is said."""
    templates = [template for template in (SINGLES if len(scene.things) == 1 else PAIRS) if scene.tint is None or "{background}" not in template[0]]
    weights = np.array([weight for _, weight in templates], float)
    template = templates[rng.choice(len(templates), p=weights / weights.sum())][0]
    background = list(BACKGROUNDS)[scene.background]
    size = SIZE_NAMES[scene.things[0].size]
    names = [called(rng, thing.object) for thing in scene.things]
    told = rng.random() < (MIDDLE_SHARE if scene.place is Place.MIDDLE else PLACE_SHARE)
    text = template.format(
        object=names[0],
        other=names[-1],
        background=said(rng, background, COLOURS.get(background, ())),
        size=said(rng, size, SIZE_WORDS[size]),
        place=said(rng, PLACE_WORDS[scene.place][0], PLACE_WORDS[scene.place]) if told and size != "big" else "",
    )
    return with_articles(text)


def with_articles(text: str) -> str:
    """Mend the spaces, commas and articles of a filled template."""
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()).replace(" ,", ","))


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
        picture[:] = np.array(scene.colour, np.float32) / 255
        for thing in scene.things:
            stamp = self.stamps[thing.size][thing.object]
            window = picture[thing.top : thing.top + len(stamp), thing.left : thing.left + len(stamp)]
            alpha = stamp[..., 3:]
            window[:] = alpha * stamp[..., :3] + (1 - alpha) * window
        return np.rint(picture * 255).astype(np.uint8)


def draw_world(count: int, seed: int) -> Iterator[tuple[NDArray[np.uint8], str, Scene]]:
    """Yield `count` random scenes: picture (H, W, C) uint8, caption, and what it shows. Equal seeds give equal ones."""
    rng, sprites = np.random.default_rng(seed), Sprites()
    for _ in range(count):
        scene = random_scene(rng)
        yield sprites.draw(scene), caption(scene, rng), scene
