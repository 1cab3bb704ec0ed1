"""Whether a CLIP knows objects on backgrounds that it never saw them on.

    python -m tests.benchmarks.probe [--clip FOLDER] [--pictures 16000]

A linear classifier learns the object from embeddings of scenes of the bundled model's world, and is asked about scenes as trained on and about the
held-out ones. No decoder paints an object on a background where this fails: what it is told does not say which object it is.

Source of the method: Alain & Bengio 2016, arXiv:1610.01644.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from engine.training.world import NAMES, Scene, Sprites, random_scene
from engine.unclip.clip import Clip, load_clip
from engine.unclip.config import LOCAL_CLIP, ClipSource
from tests.benchmarks.fidelity import held_out_singles, interval

FOLDER = Path(__file__).parents[2] / "configs" / "training" / "picturebook"
ASKED = 1500
STEPS, BATCH, RATE = 1200, 256, 2e-3
AT_ONCE = 200


@torch.inference_mode()
def set_of(clip: Clip, sprites: Sprites, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Draw and embed scenes of one object: (N, D) float, and the objects, (N,) int64."""
    rows = []
    for start in tqdm(range(0, len(scenes), AT_ONCE), disable=None, leave=False):
        pictures = np.stack([sprites.draw(scene) for scene in scenes[start : start + AT_ONCE]])
        rows.append(clip.embed_image(F.interpolate(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255, clip.side, mode="area")))
    return torch.cat(rows), torch.tensor([scene.things[0].object for scene in scenes])


def singles(seed: int, count: int) -> list[Scene]:
    """Draw scenes of one object as they are trained on."""
    rng = np.random.default_rng(seed)
    return list(itertools.islice((scene for scene in iter(lambda: random_scene(rng), None) if len(scene.things) == 1), count))


def main() -> None:
    """Embed, learn, ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=FOLDER, help="a folder in open_clip's format (default: the bundled model's)")
    parser.add_argument("--pictures", type=int, default=16_000, help="to learn from")
    options = parser.parse_args()
    clip = load_clip(ClipSource(make="open_clip", model=f"{LOCAL_CLIP}{options.clip.resolve()}"), Path(), dtype=torch.float32, device="cpu")
    sprites = Sprites()

    known, objects = set_of(clip, sprites, singles(1, options.pictures))
    spread, directions = torch.linalg.eigh(torch.cov(known.T))
    whiten = directions / (spread + 0.02 * spread.mean()).sqrt()
    middle = known.mean(0)
    torch.manual_seed(0)
    probe = nn.Linear(known.shape[1], len(NAMES))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE, weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        rows = torch.randint(len(known), (BATCH,))
        loss = F.cross_entropy(probe((known[rows] - middle) @ whiten), objects[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        optimizer.step()
    for name, scenes in (("as trained on", singles(2, ASKED)), ("held out", held_out_singles(ASKED))):
        embeds, asked = set_of(clip, sprites, scenes)
        right = float((probe((embeds - middle) @ whiten).argmax(1) == asked).float().mean())
        print(f"{name:<14} {interval(right, len(scenes))} of {len(scenes)} objects")


if __name__ == "__main__":
    main()
