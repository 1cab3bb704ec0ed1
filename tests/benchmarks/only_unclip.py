"""Whether what only unCLIP can do does what it says, with the bundled model.

    python -m tests.benchmarks.only_unclip [blend morph edit strength draws verify] [--count 48] [--config MODEL.json] [--sheet FILE]

Pictures are marked by the classifier of `tests.benchmarks.fidelity`, which here looks for the objects that the model knows. What is varied and edited
are true scenes, on which it is right.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from engine.options import EDIT_STRENGTH, Options
from engine.pictures import encode
from engine.training import world
from engine.training.sheets import contact_sheet
from engine.training.world import BACKGROUNDS, NAMES, SIDE, SIZE_NAMES, Place, Scene, Sprites
from engine.unclip import operations, sphere
from engine.unclip.commissions import Commission, Painted, no_report
from engine.unclip.painter import Painter
from engine.uploads import Framing
from tests.benchmarks.fidelity import MODEL, Classifier, Seen, as_tensor, tell

AT_ONCE = 8
FRAMES = 9
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEED = 100
COLOURS = list(BACKGROUNDS)


@dataclass(frozen=True, slots=True)
class Case:
    """Two objects on two backgrounds, and the first of them as a true picture of the model's size."""

    objects: tuple[int, int]
    backgrounds: tuple[int, int]
    picture: Image.Image

    def prompt(self, which: int) -> str:
        """Ask for the first or the second object on its background."""
        return world.with_articles(f"a {NAMES[self.objects[which]]} on a {COLOURS[self.backgrounds[which]]} background")

    def name(self, which: int) -> str:
        """Name the first or the second object."""
        return world.with_articles(f"a {NAMES[self.objects[which]]}")


class Benchmark:
    """The sections, one method each."""

    def __init__(self, painter: Painter, count: int) -> None:
        self.painter = painter
        self.known = [index for index, name in enumerate(NAMES) if name in painter.known_words]
        self.classify = Classifier()
        self.classify.stamps = [stamps[self.known] for stamps in self.classify.stamps]
        self.rows: list[Image.Image] = []
        self.cases = self.draw_cases(count)

    def draw_cases(self, count: int) -> list[Case]:
        """Draw cases whose picture the classifier marks right."""
        rng, sprites, cases = np.random.default_rng(0), Sprites(), []
        while len(cases) < count:
            first, second = (int(one) for one in rng.choice(self.known, 2, replace=False))
            here, there = (int(one) for one in rng.choice(len(COLOURS), 2, replace=False))
            size = int(rng.integers(SIZE_NAMES.index(""), len(SIZE_NAMES)))
            drawn = Image.fromarray(sprites.draw(Scene((world.place_thing(rng, first, size, Place.MIDDLE),), here)))
            picture = drawn.resize((self.painter.side, self.painter.side), Image.Resampling.LANCZOS)
            seen = self.look(picture)
            if (seen.object, seen.background) == (first, here):
                cases.append(Case((first, second), (here, there), picture))
        return cases

    def look(self, image: Image.Image) -> Seen:
        """Mark a picture of any size."""
        seen = self.classify(as_tensor(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        return replace(seen, object=self.known[seen.object], second=self.known[seen.second])

    def paint(self, commissions: Sequence[Commission]) -> list[Painted]:
        """Paint what several commissions of one kind want, in batches of all."""
        painted: list[Painted] = []
        wanted = [sample for commission in commissions for sample in commission.wanted]
        for start in tqdm(range(0, len(wanted), AT_ONCE), disable=None, leave=False):
            part = replace(commissions[0], wanted=wanted[start : start + AT_ONCE])
            painted += self.painter.alone(self.painter.work(part, no_report))
        self.rows += [one.image for one in painted]
        return painted

    def how(self, index: int) -> Options:
        """Return the options of a case: one picture, with a seed of its own."""
        return Options(count=1, seed=SEED + index)

    def blend(self) -> None:
        """Half of one picture and half of another."""

        def blended(ingredients: list[bytes | str], how: Options) -> Commission:
            return operations.blend(self.painter, ingredients, None, Framing.CROP, how)

        ways: dict[str, Callable[[Case, Options], Commission]] = {
            "the first prompt alone": lambda case, how: operations.dream(self.painter, [case.prompt(0)], how),
            "the second prompt alone": lambda case, how: operations.dream(self.painter, [case.prompt(1)], how),
            "two prompts": lambda case, how: blended([case.prompt(0), case.prompt(1)], how),
            "a picture and a prompt": lambda case, how: blended([encode(case.picture), case.prompt(1)], how),
        }
        for name, way in ways.items():
            seen = [self.look(one.image) for one in self.paint([way(case, self.how(index)) for index, case in enumerate(self.cases)])]
            figures: dict[str, list[bool]] = {"traits of both": [], "one of the objects": [], "one of the backgrounds": []}
            for case, one in zip(self.cases, seen, strict=True):
                (first, second), (here, there) = case.objects, case.backgrounds
                crossed = (one.object, one.background) in ((first, there), (second, here))
                figures["traits of both"].append(crossed or {one.object, one.second} == {first, second})
                figures["one of the objects"].append(one.object in case.objects)
                figures["one of the backgrounds"].append(one.background in case.backgrounds)
            tell(f"blend of {name}", figures)

    def morph(self) -> None:
        """From one prompt to another."""
        commissions = [
            operations.morph(self.painter, case.prompt(0), case.prompt(1), FRAMES, Framing.CROP, self.how(index))
            for index, case in enumerate(self.cases)
        ]
        painted = self.paint(commissions)
        figures: dict[str, list[bool]] = {"begins with A": [], "ends with B": [], "flips exactly once, from A to B": []}
        for index, case in enumerate(self.cases):
            objects = [self.look(one.image).object for one in painted[index * FRAMES : (index + 1) * FRAMES]]
            found = [thing for thing in objects if thing in case.objects]
            flips = sum(one != other for one, other in zip(found, found[1:], strict=False))
            figures["begins with A"].append(objects[0] == case.objects[0])
            figures["ends with B"].append(objects[-1] == case.objects[1])
            figures["flips exactly once, from A to B"].append(flips == 1 and found[0] == case.objects[0])
        tell(f"morph of {FRAMES} frames", figures)

    def edit(self) -> None:
        """One object into another."""
        for strength in sorted({0.3, EDIT_STRENGTH, 0.75}):
            commissions = [
                operations.edit(self.painter, encode(case.picture), case.name(0), case.name(1), strength, Framing.CROP, self.how(index))
                for index, case in enumerate(self.cases)
            ]
            # All pictures have the model's size: nothing is to be put back anywhere.
            whole = [replace(commission, finish=lambda image: image) for commission in commissions]
            seen = [self.look(one.image) for one in self.paint(whole)]
            asked = [one.object == case.objects[1] for case, one in zip(self.cases, seen, strict=True)]
            kept = [one.background == case.backgrounds[0] for case, one in zip(self.cases, seen, strict=True)]
            figures = {
                "object changed into what was asked": asked,
                "object changed": [one.object != case.objects[0] for case, one in zip(self.cases, seen, strict=True)],
                "background kept": kept,
                "asked object, background kept": [one and other for one, other in zip(asked, kept, strict=True)],
            }
            tell(f"edit, strength {strength:g}", figures)

    def strength(self) -> None:
        """How far variations go."""
        files, distances, angles = [encode(case.picture) for case in self.cases], [], []
        sources = self.painter.look([case.picture for case in self.cases], Framing.CROP)
        for strength in STRENGTHS:
            painted = self.paint(
                [operations.variation(self.painter, [file], "", Framing.CROP, self.how(index), strength) for index, file in enumerate(files)]
            )
            pairs = zip(painted, self.cases, strict=True)
            distances.append([float(np.abs(np.asarray(one.image, int) - np.asarray(case.picture, int)).mean()) for one, case in pairs])
            angles.append(sphere.angle(self.painter.look([one.image for one in painted], Framing.CROP), sources).mean().item())
            print(f"variation, strength {strength:g}: {np.mean(distances[-1]):.1f} of 255 from its source, {angles[-1]:.2f} rad in meaning")
        steps = np.diff(np.array(distances), axis=0)
        tell("variation strength", {"every step leads further away": list((steps > 0).all(0)), "from 0 to 1 it does": list(steps.sum(0) > 0)})

    def draws(self) -> None:
        """Whether the best of eight draws by CLIP shows what was asked for more often than the worst."""
        figures: dict[str, list[bool]] = {}
        for name, which in (("nearest of eight draws", 0), ("farthest", -1)):
            picked = [self.painter.draws(case.prompt(0), seed=SEED + index * 8)[which] for index, case in enumerate(self.cases)]
            commissions = [
                operations.dream(self.painter, [case.prompt(0)], replace(self.how(index), prior_seed=one.seed, candidates=1))
                for index, (case, one) in enumerate(zip(self.cases, picked, strict=True))
            ]
            # A commission's options are those of all its samples; each keeps its own draw of the prior.
            seen = [self.look(one.image) for one in self.paint(commissions)]
            both = zip(seen, self.cases, strict=True)
            figures[name] = [(one.object, one.background) == (case.objects[0], case.backgrounds[0]) for one, case in both]
        tell("object and background as asked", figures)

    def verify(self) -> None:
        """Pictures painted again from their receipts, by a painter that remembers nothing."""
        largest = []
        for index, case in enumerate(self.cases):
            [painted] = self.painter.dream([case.prompt(0)], count=1, seed=SEED + index)
            verdict = Painter(self.painter.parts).verify(painted.picture.png)
            assert verdict.largest is not None
            largest.append(verdict.largest)
        together = self.painter.dream([self.cases[0].prompt(0)], count=9, seed=SEED)
        beside = [Painter(self.painter.parts).verify(one.picture.png).largest for one in together]
        alone, of_grid = [one == 0 for one in largest], [one == 0 for one in beside]
        tell("painted again from the receipt", {"difference 0": alone, "of a grid of nine, difference 0": of_grid})
        print(f"largest difference {max(largest)} of 255 alone, {max(one or 0 for one in beside)} of a grid\n")


SECTIONS: dict[str, Callable[[Benchmark], None]] = {
    "blend": Benchmark.blend,
    "morph": Benchmark.morph,
    "edit": Benchmark.edit,
    "strength": Benchmark.strength,
    "draws": Benchmark.draws,
    "verify": Benchmark.verify,
}


def main() -> None:
    """Paint, mark and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--count", type=int, default=48, help="cases of each section (default 48)")
    parser.add_argument("--config", type=Path, default=MODEL, help="another model of the same world")
    parser.add_argument("--sheet", type=Path, help="write the pictures as one PNG, a case in a column")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section is called {', '.join(sorted(unknown))}")
    benchmark = Benchmark(Painter.from_config(options.config), options.count)
    for name in options.sections or SECTIONS:
        started = time.perf_counter()
        SECTIONS[name](benchmark)
        print(f"({name}: {time.perf_counter() - started:.0f} s)\n", flush=True)
    if options.sheet:
        contact_sheet([case.picture for case in benchmark.cases] + benchmark.rows, options.count, benchmark.painter.side).save(options.sheet)


if __name__ == "__main__":
    main()
