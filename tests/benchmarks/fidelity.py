"""How often the bundled model paints what was asked.

    python -m tests.benchmarks.fidelity [--pictures 244] [--trained] [--grid FILE]

Asks for objects on backgrounds that were never shown together in training and marks every picture with a classifier that shares nothing
with the model: it compares the picture with every sprite, in every size, at every place, on the nearest background colour, and takes the one
that leaves the least squared error. On true scenes its own errors are printed first.
"""

import argparse
import io
import math
import re
import statistics
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.jobs import Request
from engine.training.world import BACKGROUNDS, OBJECTS, SIDE, SIZES, Scene, Sprites, held_out
from engine.unclip.painter import Painter

MODEL = Path(__file__).parents[2] / "configs" / "picturebook" / "picturebook.json"
BORDER_PX = 2
PER_PROMPT = 4


class Classifier:
    """Names what is in a picture of the world: indices of object, background and size."""

    def __init__(self) -> None:
        self.colours = torch.tensor(list(BACKGROUNDS.values())) / 255
        self.stamps = [torch.from_numpy(np.stack(stamps)).permute(0, 3, 1, 2) for stamps in Sprites().stamps]

    def __call__(self, picture: Tensor) -> tuple[int, int, int]:
        """Classify one picture, (3, SIDE, SIDE) float in [0, 1]."""
        inner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
        colour = picture[:, ~inner].median(dim=1).values
        background = int((self.colours - colour).square().sum(1).argmin())
        plain = self.colours[background].view(3, 1, 1)
        best = (-math.inf, 0, 0)
        for size, stamps in enumerate(self.stamps):
            # A pasted object changes the plain background by alpha × (sprite - background). The error that explaining the picture with this
            # change leaves is |y|² - 2 y·change + |change|²; the first term is the same for all.
            change = stamps[:, 3:] * (stamps[:, :3] - plain)
            gain = 2 * F.conv2d((picture - plain)[None], change)[0] - change.square().sum((1, 2, 3)).view(-1, 1, 1)
            value, place = gain.flatten(1).max(1).values.max(0)
            best = max(best, (float(value), int(place), size))
        return best[1], background, best[2]


def prompt_of(scene: tuple[int, int, int]) -> str:
    """Ask for an object, a background and a size."""
    thing, background, size = scene
    text = f"a {list(SIZES)[size]} {OBJECTS[thing]} on a {list(BACKGROUNDS)[background]} background"
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))


def interval(share: float, count: int) -> str:
    """Return a share in percent with its 95% Wilson interval."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return f"{100 * share:5.1f} % ({100 * (centre - half):.1f} to {100 * (centre + half):.1f})"


def show(title: str, asked: list[tuple[int, int, int]], seen: list[tuple[int, int, int]]) -> None:
    """Print how often each fact of a scene was right."""
    right = np.array(asked) == np.array(seen)
    print(f"{title}, {len(asked)} pictures")
    for name, share in zip(("object", "background", "size"), right.mean(0), strict=True):
        print(f"  {name:<11}{interval(float(share), len(asked))}")
    print(f"  {'all three':<11}{interval(float(right.all(1).mean()), len(asked))}", flush=True)


def check_classifier(classify: Classifier, count: int) -> None:
    """Mark true scenes."""
    rng, sprites = np.random.default_rng(1), Sprites()
    scenes = [tuple(int(v) for v in rng.integers((len(OBJECTS), len(BACKGROUNDS), len(SIZES)))) for _ in range(count)]
    places = [[int(v) for v in rng.integers(SIDE - list(SIZES.values())[size] + 1, size=2)] for _, _, size in scenes]
    drawn = [sprites.draw(Scene(*scene, *place)) for scene, place in zip(scenes, places, strict=True)]
    show("classifier on true scenes", scenes, [classify(torch.from_numpy(picture).permute(2, 0, 1) / 255) for picture in drawn])


def main() -> None:
    """Paint, mark and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=244)
    parser.add_argument("--trained", action="store_true", help="ask for pairs that were shown in training instead")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--grid", type=Path, help="write the pictures as one PNG")
    options = parser.parse_args()
    classify = Classifier()
    check_classifier(classify, 200)

    pairs = [(o, b) for o in range(len(OBJECTS)) for b in range(len(BACKGROUNDS)) if held_out(o, b) != options.trained]
    np.random.default_rng(0).shuffle(pairs)
    prompts = math.ceil(options.pictures / PER_PROMPT)
    wanted = [(*pairs[index % len(pairs)], index % len(SIZES)) for index in range(prompts)]
    painter = Painter.from_config(MODEL)
    asked: list[tuple[int, int, int]] = []
    samples: list[Tensor] = []
    seconds: list[float] = []
    for index, scene in enumerate(wanted):
        started = time.perf_counter()
        request = Request(prompt_of(scene), PER_PROMPT * index, PER_PROMPT, options.steps, options.guidance)
        painting = painter.paint(request, lambda progress: None)
        seconds.append(time.perf_counter() - started)
        samples += [as_tensor(picture.png) for picture in painting.pictures]
        asked += [scene] * PER_PROMPT
    seen = [classify(sample) for sample in samples]
    show("pairs shown in training" if options.trained else "pairs never shown in training", asked, seen)
    mistakes = Counter((OBJECTS[a[0]], OBJECTS[s[0]]) for a, s in zip(asked, seen, strict=True) if a[0] != s[0])
    print("  most mistaken:", ", ".join(f"{wanted} for {got} {count}×" for (wanted, got), count in mistakes.most_common(5)))
    print(f"  grid of four: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")
    if options.grid:
        write_grid(samples, options.grid)


def as_tensor(png: bytes) -> Tensor:
    """Read a picture: (3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB"))).permute(2, 0, 1) / 255


def write_grid(samples: list[Tensor], path: Path) -> None:
    """Write all pictures, twelve in a row."""
    rows = torch.stack(samples[: len(samples) // 12 * 12]).unflatten(0, (-1, 12))
    sheet = rows.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray((sheet * 255).byte().numpy()).save(path)


if __name__ == "__main__":
    main()
