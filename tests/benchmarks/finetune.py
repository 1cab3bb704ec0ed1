"""Whether the bundled model learns something new from a few pictures, and what it forgets.

    python -m tests.benchmarks.finetune [--pictures 200] [--prompts 100] [--speed 1] [--folder FOLDER]

Draws pictures of a robot, which the model never saw, runs README's two commands on them, and asks for robots on backgrounds and at places that none
of the pictures showed; and for what the model knew, before and after. Marked as in `fidelity`, whose classifier is shown the robot too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.training import world
from engine.training.sheets import contact_sheet
from engine.training.world import BACKGROUNDS, NAMES, SIDE, SIZE_NAMES, SIZES, Place, Scene, Sprites
from engine.unclip.painter import Painter
from tests.benchmarks.fidelity import MODEL, Benchmark, Classifier, held_out_pairs, held_out_singles, marks, pair_marks, prompt_of, tell

ROBOT = Path(__file__).with_name("robot.png")
"""What `draw("🤖")` of `engine.training.sprites` gives."""
NEW = len(NAMES)
UNSEEN_BACKGROUNDS = (4, 6)
"""Blue and pink: no picture shows a robot on them."""


def stamps() -> list[np.ndarray]:
    """Return the robot in every size, (side, side, 4) float32."""
    tile = Image.open(ROBOT).convert("RGBA")
    return [np.asarray(tile.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255 for side in SIZES.values()]


def with_robot(sprites: Sprites) -> Sprites:
    """Let a sheet of sprites have one more."""
    for size, stamp in enumerate(stamps()):
        sprites.stamps[size].append(stamp)
    return sprites


def scenes(count: int, backgrounds: Sequence[int], seed: int) -> list[Scene]:
    """Draw scenes with the robot."""
    rng = np.random.default_rng(seed)
    kinds = [(size, place) for size, name in enumerate(SIZE_NAMES) for place in Place if name != "big" or place is Place.MIDDLE]
    drawn = []
    for index in range(count):
        size, place = kinds[index % len(kinds)]
        drawn.append(Scene((world.place_thing(rng, NEW, size, place),), int(rng.choice(backgrounds)), place))
    return drawn


def asked(scene: Scene) -> str:
    """Ask for a scene with the robot."""
    apple = replace(scene, things=(replace(scene.things[0], object=0),))
    return prompt_of(apple).replace("an apple", "a robot").replace("apple", "robot")


def draw_folder(folder: Path, count: int) -> None:
    """Draw pictures of the robot with captions beside."""
    sprites, known = with_robot(Sprites()), [index for index in range(len(BACKGROUNDS)) if index not in UNSEEN_BACKGROUNDS]
    for index, scene in enumerate(scenes(count, known, seed=1)):
        Image.fromarray(sprites.draw(scene)).save(folder / f"{index:03}.png")
        (folder / f"{index:03}.txt").write_text(asked(scene))


def main() -> None:
    """Fine-tune, paint, mark and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200, help="of the robot to learn from")
    parser.add_argument("--prompts", type=int, default=100, help="for each figure")
    parser.add_argument("--speed", default="1")
    parser.add_argument("--folder", type=Path, help="keep pictures, shards, runs and the new model there; one that is there goes on where it was")
    parser.add_argument("--sheet", type=Path, help="write the painted robots as one PNG")
    options = parser.parse_args()
    classify = Classifier()
    classify.stamps = [torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2) for sized in with_robot(Sprites()).stamps]
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        draw_folder(folder / "pictures", options.pictures)
        started = time.perf_counter()
        command = [sys.executable, "-m", "engine.training"]
        subprocess.run([*command, "data", str(folder / "pictures"), str(folder / "shards")], check=True)
        learn = ["finetune", str(folder / "shards"), "--name", "robot", "--out", str(folder / "models"), "--run", str(folder / "run")]
        subprocess.run([*command, *learn, "--speed", options.speed], check=True)
        print(f"\nboth commands: {(time.perf_counter() - started) / 60:.1f} min\n")
        before, after = (
            Benchmark(Painter.from_config(path), classify, options.prompts) for path in (MODEL, folder / "models" / "robot" / "robot.json")
        )
    for title, backgrounds in (("robots on backgrounds that they were shown on", None), ("robots on others", UNSEEN_BACKGROUNDS)):
        wanted = scenes(options.prompts, backgrounds or [b for b in range(len(BACKGROUNDS)) if b not in UNSEEN_BACKGROUNDS], seed=2)
        tell(title, marks(wanted, after.dream([asked(scene) for scene in wanted])))
    if options.sheet:
        contact_sheet(after.painted, 12, SIDE).save(options.sheet)
    singles, pairs = held_out_singles(options.prompts), held_out_pairs(options.prompts)
    for title, one in (("before", before), ("after", after)):
        tell(f"one object of the old ones, {title}", marks(singles, one.dream([prompt_of(scene) for scene in singles])))
        tell(f"two objects of the old ones, {title}", pair_marks(pairs, one.dream([prompt_of(scene) for scene in pairs])))


if __name__ == "__main__":
    main()
