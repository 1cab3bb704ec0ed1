"""How often the bundled model's CLIP finds a blocked concept in a picture, and how often it is wrong.

    python -m tests.benchmarks.concepts [--backgrounds 4]

Paints every object of the picture book on some backgrounds, then blocks each object in turn, as a server does. A picture of the object should be
found, every other one is a false alarm. What a picture shows is taken to be what was asked for, so that a picture that turned out wrong counts
against the filter. Intervals are Wilson's, of 95 %.
"""

import argparse
import re

import numpy as np

from engine.concepts import STRICTNESS, shown
from engine.jobs import Request
from engine.training.world import BACKGROUNDS, NAMES
from engine.unclip.painter import Painter
from tests.benchmarks.fidelity import MODEL, interval

SEED = 5


def prompts(things: list[str], backgrounds: int) -> list[tuple[str, str]]:
    """Return what is asked for: each object, on so many backgrounds, in words."""
    draw = np.random.default_rng(0)
    chosen = [(thing, background) for thing in things for background in draw.choice(list(BACKGROUNDS), backgrounds, replace=False)]
    return [(thing, re.sub(r"\ba (?=[aeiou])", "an ", f"a {thing} on a {background} background")) for thing, background in chosen]


def painted(painter: Painter, wanted: list[tuple[str, str]]) -> list[tuple[str, bytes]]:
    """Return what each picture was to show, and what CLIP sees in it."""
    pictures = []
    for number, (thing, prompt) in enumerate(wanted):
        [picture] = painter.paint(Request(prompt, SEED + number, count=1), lambda progress: None).pictures
        assert picture.embedding is not None
        pictures.append((thing, picture.embedding))
    return pictures


def main() -> None:
    """Paint, look and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backgrounds", type=int, default=4, help="pictures of each object, up to 10")
    options = parser.parse_args()
    painter = Painter.from_config(MODEL)
    things = [name for name in NAMES if name in painter.known_words]
    pictures = painted(painter, prompts(things, options.backgrounds))
    concepts = dict(zip(things, painter.embed_texts([f"a {thing}" for thing in things]), strict=True))
    everyday = painter.embed_texts(painter.everyday)
    others = len(pictures) * (len(things) - 1)
    print(f"{len(pictures)} pictures, {len(things)} concepts, {len(everyday)} everyday texts")
    print(f"{'strictness':<12}{'found':<26}{'false alarm, per concept':<28}{'pictures with a false alarm'}")
    for name, threshold in STRICTNESS.items():
        found = [(thing, shown(embedding, concepts, everyday, threshold)) for thing, embedding in pictures]
        hits = sum(thing in seen for thing, seen in found)
        wrong = [sum(one != thing for one in seen) for thing, seen in found]
        columns = (
            interval(hits / len(pictures), len(pictures)),
            interval(sum(wrong) / others, others),
            interval(sum(map(bool, wrong)) / len(pictures), len(pictures)),
        )
        print(f"{name:<12}{columns[0]:<26}{columns[1]:<28}{columns[2]}", flush=True)


if __name__ == "__main__":
    main()
