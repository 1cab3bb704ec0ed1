"""Whether a CLIP knows objects on backgrounds, or beside others, that it never saw them with.

    python -m tests.benchmarks.probe [--clip FOLDER] [--pictures 16000] [--pairs] [--floor 0.0004]

A linear classifier learns which objects are there from embeddings of scenes of the bundled model's world, and is asked about scenes as trained on and
about the held-out ones. A decoder hardly paints what this does not find: what it is told does not say which object it is. `--floor` is the share of
an average direction's spread below which directions stay quieter than others (`engine/training/whitening.py`): it decides what there is to be found.

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

from engine.training.whitening import FLOOR, Whitening
from engine.training.world import NAMES, Scene, Sprites, random_scene
from engine.unclip.clip import Clip, load_clip
from engine.unclip.config import LOCAL_CLIP, ClipSource
from tests.benchmarks.fidelity import held_out_pairs, held_out_singles, interval

FOLDER = Path(__file__).parents[2] / "configs" / "training" / "picturebook"
ASKED = 1500
STEPS, BATCH, RATE = 1200, 256, 2e-3
AT_ONCE = 200


@torch.inference_mode()
def set_of(clip: Clip, sprites: Sprites, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Draw and embed scenes: (N, D) float, and which objects are there, (N, O) bool."""
    rows = []
    for start in tqdm(range(0, len(scenes), AT_ONCE), disable=None, leave=False):
        pictures = np.stack([sprites.draw(scene) for scene in scenes[start : start + AT_ONCE]])
        rows.append(clip.embed_image(F.interpolate(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255, clip.side, mode="area")))
    return torch.cat(rows), torch.tensor([[place in {thing.object for thing in scene.things} for place in range(len(NAMES))] for scene in scenes])


def known_scenes(seed: int, things: int, count: int) -> list[Scene]:
    """Draw scenes of so many objects as they are trained on."""
    rng = np.random.default_rng(seed)
    return list(itertools.islice((scene for scene in iter(lambda: random_scene(rng), None) if len(scene.things) == things), count))


def main() -> None:
    """Embed, learn, ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=FOLDER, help="a folder in open_clip's format (default: the bundled model's)")
    parser.add_argument("--pictures", type=int, default=16_000, help="to learn from")
    parser.add_argument("--pairs", action="store_true", help="of two objects instead of one")
    parser.add_argument("--floor", type=float, default=FLOOR, help=f"of the whitening (default: {FLOOR})")
    options = parser.parse_args()
    clip = load_clip(ClipSource(make="open_clip", model=f"{LOCAL_CLIP}{options.clip.resolve()}"), Path(), dtype=torch.float32, device="cpu")
    sprites = Sprites()

    things, held_out = (2, held_out_pairs) if options.pairs else (1, held_out_singles)
    known, objects = set_of(clip, sprites, known_scenes(1, things, options.pictures))
    middle = known.mean(0)
    whitening = Whitening.of(known - middle, options.floor)
    loudness = float(whitening(known - middle).square().mean().sqrt())
    torch.manual_seed(0)
    probe = nn.Linear(known.shape[1], len(NAMES))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE, weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        rows = torch.randint(len(known), (BATCH,))
        loss = F.cross_entropy(probe(whitening(known[rows] - middle) / loudness), objects[rows].float() / things)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        optimizer.step()
    for name, scenes in (("as trained on", known_scenes(2, things, ASKED)), ("held out", held_out(ASKED))):
        embeds, asked = set_of(clip, sprites, scenes)
        found = probe(whitening(embeds - middle) / loudness).topk(things).indices
        right = float(asked.gather(1, found).all(1).float().mean())
        print(f"{name:<14} {interval(right, len(scenes))} of {len(scenes)} scenes")


if __name__ == "__main__":
    main()
