"""How often the bundled model paints what was asked.

    python -m tests.benchmarks.fidelity [singles pairs variations inpainting wording guidance] [--prompts 500] [--config MODEL.json] [--sheet FILE]

Asks for what was never shown in training: objects on backgrounds, and pairs of objects, that were held out. Every picture is marked by a classifier
that shares nothing with the model: it lays every sprite, in every size, at every place over the picture, on the nearest background colour, and takes
the one that leaves the least squared error; a second object is looked for in what the first leaves unexplained. On true scenes its own errors are
printed first.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from engine.jobs import Preset
from engine.options import Options, Solver
from engine.pictures import encode
from engine.training import world
from engine.training.clip import misspelt
from engine.training.sheets import contact_sheet
from engine.training.world import BACKGROUNDS, NAMES, OBJECTS, PLACE_WORDS, SIDE, SIZE_NAMES, SIZES, Place, Scene, Sprites, Thing
from engine.unclip.commissions import Commission, no_report, samples_of
from engine.unclip.painter import Painter

MODEL = Path(__file__).parents[2] / "configs" / "picturebook" / "picturebook.json"
BORDER_PX = 2
OFF_MIDDLE_PX = 22
"""An object whose centre is further from the picture's stands at a border: in true scenes it is at most 16 and at least 28."""
AT_ONCE = 8
MIDDLE_SIZE = SIZE_NAMES.index("")
CHECKED_SCENES = 200
SHEET_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a picture: indices into NAMES, of the first object and of a second one, BACKGROUNDS and SIZE_NAMES, and where the first stands."""

    object: int
    second: int
    background: int
    size: int
    place: Place


class Classifier:
    """Names what is in a picture of the world."""

    def __init__(self) -> None:
        self.colours = torch.tensor(list(BACKGROUNDS.values())) / 255
        self.stamps = [torch.from_numpy(np.stack(stamps)).permute(0, 3, 1, 2) for stamps in Sprites().stamps]

    def __call__(self, picture: Tensor) -> Seen:
        """Classify one picture, (3, SIDE, SIDE) float in [0, 1]."""
        inner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
        colour = picture[:, ~inner].median(dim=1).values
        background = int((self.colours - colour).square().sum(1).argmin())
        plain = self.colours[background].view(3, 1, 1)
        rest = picture - plain
        thing, change = self.best(rest, plain)
        rest = rest.clone()
        rest[:, thing.top : thing.top + change.shape[-1], thing.left : thing.left + change.shape[-1]] -= change
        second, _ = self.best(rest, plain, sizes=(MIDDLE_SIZE,))
        return Seen(thing.object, second.object, background, thing.size, place_of(thing))

    def best(self, rest: Tensor, plain: Tensor, sizes: Sequence[int] = range(len(SIZES))) -> tuple[Thing, Tensor]:
        """Find the sprite that explains most of what is left of a picture, and the change that it makes."""
        best = (-math.inf, Thing(0, 0, 0, 0))
        for size in sizes:
            # A pasted object changes the plain background by alpha × (sprite - background). The error that explaining the picture with this
            # change leaves is |y|² - 2 y·change + |change|²; the first term is the same for all.
            change = self.change(size, plain)
            gain = 2 * F.conv2d(rest[None], change)[0] - change.square().sum((1, 2, 3)).view(-1, 1, 1)
            value, place = gain.flatten().max(0)
            thing, row, column = (int(index) for index in np.unravel_index(int(place), gain.shape))
            best = max(best, (float(value), Thing(thing, size, column, row)), key=lambda found: found[0])
        return best[1], self.change(best[1].size, plain)[best[1].object]

    def change(self, size: int, plain: Tensor) -> Tensor:
        """Return what each object, pasted, changes of a plain background: (48, 3, side, side)."""
        stamps = self.stamps[size]
        return stamps[:, 3:] * (stamps[:, :3] - plain)


def place_of(thing: Thing) -> Place:
    """Say in a word where an object stands."""
    half = list(SIZES.values())[thing.size] / 2
    across, down = thing.left + half - SIDE / 2, thing.top + half - SIDE / 2
    if max(abs(across), abs(down)) <= OFF_MIDDLE_PX:
        return Place.MIDDLE
    if abs(across) > abs(down):
        return Place.LEFT if across < 0 else Place.RIGHT
    return Place.TOP if down < 0 else Place.BOTTOM


def prompt_of(scene: Scene) -> str:
    """Ask for a scene."""
    names, background = [NAMES[thing.object] for thing in scene.things], list(BACKGROUNDS)[scene.background]
    if len(names) == 2:
        return world.with_articles(f"a {names[0]} next to a {names[1]} on a {background} background")
    place = "" if scene.place is Place.MIDDLE else PLACE_WORDS[scene.place][0]
    return world.with_articles(f"a {SIZE_NAMES[scene.things[0].size]} {names[0]} {place} on a {background} background")


def held_out_singles(count: int) -> list[Scene]:
    """Draw scenes of one object on a background that it was never shown on; sizes and places in turn."""
    rng = np.random.default_rng(0)
    pairs = [(o, b) for o in range(len(NAMES)) for b in range(len(BACKGROUNDS)) if world.held_out(o, b)]
    rng.shuffle(pairs)
    kinds = [(size, place) for size, name in enumerate(SIZE_NAMES) for place in Place if name != "big" or place is Place.MIDDLE]
    scenes = []
    for index in range(count):
        (thing, background), (size, place) = pairs[index % len(pairs)], kinds[index % len(kinds)]
        scenes.append(Scene((world.place_thing(rng, thing, size, place),), background, place))
    return scenes


def held_out_pairs(count: int) -> list[Scene]:
    """Draw scenes of two objects that were never shown together."""
    rng = np.random.default_rng(1)
    pairs = [(o, p) for o in range(len(NAMES)) for p in range(len(NAMES)) if o != p and world.held_out_pair(o, p)]
    rng.shuffle(pairs)
    scenes = []
    for left, right in pairs:
        free = [b for b in range(len(BACKGROUNDS)) if not world.held_out(left, b) and not world.held_out(right, b)]
        scenes.append(Scene(world.place_pair(rng, left, right), int(rng.choice(free))))
    return [scenes[index % len(scenes)] for index in range(count)]


def interval(share: float, count: int) -> str:
    """Return a share in percent with its 95% Wilson interval."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return f"{100 * share:5.1f} % ({100 * (centre - half):.1f} to {100 * (centre + half):.1f})"


def tell(title: str, figures: dict[str, Sequence[bool]]) -> None:
    """Print how often each fact was right."""
    print(title)
    for name, right in figures.items():
        print(f"  {name:<34}{interval(sum(right) / len(right), len(right))} of {len(right)}")
    print(flush=True)


def marks(scenes: Sequence[Scene], seen: Sequence[Seen]) -> dict[str, Sequence[bool]]:
    """Compare scenes of one object with what is in the pictures."""
    both = list(zip(scenes, seen, strict=True))
    small = [(a, b) for a, b in both if SIZE_NAMES[a.things[0].size] != "big"]
    return {
        "object": [a.things[0].object == b.object for a, b in both],
        "background": [a.background == b.background for a, b in both],
        "size": [a.things[0].size == b.size for a, b in both],
        "place, where it is not big": [a.place is b.place for a, b in small],
        "object, background, size": [(a.things[0].object, a.background, a.things[0].size) == (b.object, b.background, b.size) for a, b in both],
    }


def pair_marks(scenes: Sequence[Scene], seen: Sequence[Seen]) -> dict[str, Sequence[bool]]:
    """Compare scenes of two objects with what is in the pictures."""
    both = [({thing.object for thing in a.things}, {b.object, b.second}) for a, b in zip(scenes, seen, strict=True)]
    return {
        "both objects": [asked == found for asked, found in both],
        "one of them at least": [bool(asked & found) for asked, found in both],
        "background": [a.background == b.background for a, b in zip(scenes, seen, strict=True)],
    }


class Benchmark:
    """The sections, one method each."""

    def __init__(self, painter: Painter, classify: Classifier, prompts: int) -> None:
        self.painter, self.classify, self.prompts = painter, classify, prompts
        self.painted: list[Image.Image] = []

    def dream(self, prompts: Sequence[str], **options: object) -> list[Seen]:
        """Paint one picture of each prompt and look at it."""
        seen = []
        for start in tqdm(range(0, len(prompts), AT_ONCE), disable=None):
            part = prompts[start : start + AT_ONCE]
            seen += self.look([one.image for one in self.painter.dream(part, **({"count": 1, "seed": start} | options))])  # type: ignore[arg-type]
        return seen

    def look(self, images: Sequence[Image.Image]) -> list[Seen]:
        """Classify pictures, and keep them for the sheet."""
        self.painted += images
        return [self.classify(as_tensor(image)) for image in images]

    def singles(self) -> None:
        """One object, held out with its background."""
        scenes = held_out_singles(self.prompts * 7 // 10)
        tell("one object, never shown on this background", marks(scenes, self.dream([prompt_of(scene) for scene in scenes])))

    def pairs(self) -> None:
        """Two objects, held out together."""
        scenes = held_out_pairs(self.prompts - self.prompts * 7 // 10)
        tell("two objects, never shown together", pair_marks(scenes, self.dream([prompt_of(scene) for scene in scenes])))

    def variations(self) -> None:
        """Other pictures with the meaning of true ones."""
        scenes, sprites = held_out_singles(self.prompts // 5), Sprites()
        files = [encode(Image.fromarray(sprites.draw(scene))) for scene in scenes]
        seen = []
        for start in tqdm(range(0, len(files), AT_ONCE), disable=None):
            seen += self.look([one.image for one in self.painter.variation(files[start : start + AT_ONCE], count=1, seed=start)])
        told = marks(scenes, seen)
        kept = [a and b for a, b in zip(told["object"], told["background"], strict=True)]
        tell("variations of true pictures keep", {"object and background": kept} | told)

    def inpainting(self) -> None:
        """An object repainted into another one."""
        scenes, sprites = held_out_singles(self.prompts // 5), Sprites()
        rng = np.random.default_rng(2)
        right, untouched = [], []
        for index, scene in enumerate(tqdm(scenes, disable=None)):
            thing = scene.things[0]
            side = list(SIZES.values())[thing.size]
            wanted = int(rng.choice([o for o in range(len(NAMES)) if o != thing.object]))
            picture, mask = Image.fromarray(sprites.draw(scene)), Image.new("L", (SIDE, SIDE))
            mask.paste(255, (thing.left, thing.top, thing.left + side, thing.top + side))
            asked = replace(scene, things=(replace(thing, object=wanted),))
            [painted] = self.painter.inpaint(encode(picture), encode(mask), prompt_of(asked), count=1, seed=index)
            [seen] = self.look([painted.image])
            right.append(seen.object == wanted)
            kept = np.asarray(mask) == 0
            untouched.append(bool((np.asarray(painted.image.convert("RGB"))[kept] == np.asarray(picture)[kept]).all()))
        tell("inpainting", {"asked object": right, "rest untouched": untouched})

    def wording(self) -> None:
        """Slips, synonyms, plurals, another order of words."""
        backgrounds = list(BACKGROUNDS)
        asked: dict[str, list[tuple[int, int, str]]] = {"synonyms": [], "plurals": [], "slips": [], "other order": []}
        rng = np.random.default_rng(3)
        for index, name in enumerate(NAMES):
            free = [b for b in range(len(backgrounds)) if not world.held_out(index, b)]
            colour = int(rng.choice(free))
            for other in OBJECTS[name]:
                asked["synonyms"].append((index, colour, f"a {other} on a {backgrounds[colour]} background"))
            asked["plurals"].append((index, colour, f"{world.plural(name)} on {backgrounds[colour]}"))
            if len(name) > 3:
                asked["slips"].append((index, colour, f"a {misspelt(name, rng)} on a {backgrounds[colour]} background"))
            asked["other order"].append((index, colour, f"{backgrounds[colour]} background, {name}"))
        figures: dict[str, Sequence[bool]] = {}
        for kind, rows in asked.items():
            seen = self.dream([world.with_articles(text) for _, _, text in rows])
            figures[kind] = [(thing, colour) == (one.object, one.background) for (thing, colour, _), one in zip(rows, seen, strict=True)]
        tell("object and background right in spite of", figures)

    def guidance(self) -> None:
        """What guidance, the prior, its candidates and drafts are worth."""
        scenes = held_out_singles(self.prompts // 5)
        prompts = [prompt_of(scene) for scene in scenes]
        ways: dict[str, dict[str, object]] = {f"decoder guidance {scale:g}": {"guidance": scale} for scale in (1.0, 1.5, 3.0, 6.0)}
        ways |= {f"prior guidance {scale:g}": {"prior_guidance": scale} for scale in (1.0, 2.0)}
        ways |= {f"candidates {count}": {"candidates": count} for count in (1, 2, 8)}
        ways |= {f"drafts {count}": {"drafts": count} for count in (1, 2, 8)}
        figures: dict[str, Sequence[bool]] = {}
        for name, options in ways.items():
            figures[name] = all_right(scenes, self.dream(prompts, **options))
        without = []
        for start in range(0, len(prompts), AT_ONCE):
            how = Options(count=1, seed=start)
            embeds = self.painter.read(prompts[start : start + AT_ONCE]).embed
            samples = [replace(samples_of(prompt, how)[0], embed=embed) for prompt, embed in zip(prompts[start:], embeds, strict=False)]
            without += self.look(
                [one.image for one in self.painter.alone(self.painter.work(Commission(samples, how, drafts=self.painter.drafts(how)), no_report))]
            )
        figures["no prior: the text's embedding"] = all_right(scenes, without)
        tell("object, background, size and place, with", figures)

    def solvers(self) -> None:
        """What fewer steps cost, and what presets and an interval of guidance are worth; the same prompts and seeds for all."""
        scenes = held_out_singles(self.prompts // 5)
        prompts = [prompt_of(scene) for scene in scenes]
        ways: dict[str, dict[str, object]] = {"250 steps, ddim": {"steps": 250, "solver": Solver.DDIM}}
        ways |= {f"{steps} steps, {solver}": {"steps": steps, "solver": solver} for solver in (Solver.DDIM, Solver.DPM) for steps in (8, 12, 20)}
        ways |= {f"preset {preset}": {"preset": preset} for preset in Preset}
        ways |= {f"guided from {low:g} to {high:g}": {"guidance_interval": (low, high)} for low, high in ((0.3, 1.0), (0.0, 0.8), (0.2, 0.9))}
        figures: dict[str, Sequence[bool]] = {}
        seconds = {}
        for name, options in ways.items():
            started = time.perf_counter()
            figures[name] = all_right(scenes, self.dream(prompts, **options))
            seconds[name] = (time.perf_counter() - started) / len(prompts)
        tell("object, background, size and place, with", figures)
        print("seconds a picture: " + "; ".join(f"{name} {value:.2f}" for name, value in seconds.items()) + "\n", flush=True)


def all_right(scenes: Sequence[Scene], seen: Sequence[Seen]) -> list[bool]:
    """Tell of each picture of one object whether everything is as asked."""
    told = [((a.things[0].object, a.background, a.things[0].size), (b.object, b.background, b.size), a, b) for a, b in zip(scenes, seen, strict=True)]
    return [asked == found and (SIZE_NAMES[a.things[0].size] == "big" or a.place is b.place) for asked, found, a, b in told]


def check_classifier(classify: Classifier, count: int) -> None:
    """Mark true scenes."""
    sprites, singles, pairs = Sprites(), held_out_singles(count // 2), held_out_pairs(count // 2)

    def seen(scenes: Sequence[Scene]) -> list[Seen]:
        return [classify(as_tensor(Image.fromarray(sprites.draw(scene)))) for scene in scenes]

    tell("the classifier on true scenes", marks(singles, seen(singles)) | {"both objects": pair_marks(pairs, seen(pairs))["both objects"]})


def as_tensor(image: Image.Image) -> Tensor:
    """Read a picture: (3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


def time_grid(painter: Painter) -> None:
    """Print how long a grid of four takes."""
    seconds = []
    for seed in range(4):
        started = time.perf_counter()
        painter.dream(["a cat on a red background"], count=4, seed=seed)
        seconds.append(time.perf_counter() - started)
    print(f"a grid of four: median {sorted(seconds[1:])[1]:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s\n")


SECTIONS: dict[str, Callable[[Benchmark], None]] = {
    "singles": Benchmark.singles,
    "pairs": Benchmark.pairs,
    "variations": Benchmark.variations,
    "inpainting": Benchmark.inpainting,
    "wording": Benchmark.wording,
    "guidance": Benchmark.guidance,
    "solvers": Benchmark.solvers,
}


def main() -> None:
    """Paint, mark and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--prompts", type=int, default=500, help="of singles and pairs together; other sections ask for a fifth")
    parser.add_argument("--config", type=Path, default=MODEL, help="another model of the same world")
    parser.add_argument("--sheet", type=Path, help="write the pictures as one PNG")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section is called {', '.join(sorted(unknown))}")
    classify = Classifier()
    check_classifier(classify, CHECKED_SCENES)
    benchmark = Benchmark(Painter.from_config(options.config), classify, options.prompts)
    time_grid(benchmark.painter)
    for name in options.sections or SECTIONS:
        SECTIONS[name](benchmark)
    if options.sheet:
        contact_sheet(benchmark.painted, SHEET_COLUMNS, SIDE).save(options.sheet)


if __name__ == "__main__":
    main()
