"""How far what a model paints is from true pictures: CMMD, a distance between two sets of CLIP embeddings.

    python -m tests.benchmarks.cmmd [--config MODEL.json] [--shards FOLDER] [--pictures 500]

Takes captions and pictures that were not trained on (of the bundled model's world, drawn with another seed, or of --shards), paints the captions,
and compares. What two halves of the true pictures differ by is printed beside it.

Source: Jayasumana et al. 2024, arXiv:2401.09603: the squared maximum mean discrepancy under a Gaussian kernel with sigma = 10 between embeddings of
unit length, times 1000; here the unbiased estimate, with the config's own CLIP.
"""

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from engine.training.data import Samples
from engine.training.world import draw_world
from engine.unclip.painter import Painter
from engine.uploads import Framing

MODEL = Path(__file__).parents[2] / "configs" / "picturebook" / "picturebook.json"
SIGMA, SCALE = 10.0, 1000.0
UNSEEN_SEED = 1
"""The bundled model was trained on scenes of seed 0."""
AT_ONCE = 8


def cmmd(ours: Tensor, true: Tensor) -> float:
    """Return the distance between two sets of embeddings, (N, D) and (M, D), both of two rows at least; it may be a little below zero."""

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(one.double(), other.double()).square() / (2 * SIGMA**2))

    def within(rows: Tensor) -> Tensor:
        values = kernel(rows, rows)
        return (values.sum() - values.diagonal().sum()) / (len(rows) * (len(rows) - 1))

    return SCALE * float(within(ours) + within(true) - 2 * kernel(ours, true).mean())


def held_out(shards: Path | None, count: int) -> list[tuple[str, Image.Image]]:
    """Return captions with their true pictures."""
    if shards is None:
        return [(caption, Image.fromarray(picture)) for picture, caption, _ in draw_world(count, UNSEEN_SEED)]
    samples = itertools.islice(Samples(shards), count)
    return [(one.caption, Image.fromarray(one.picture.permute(1, 2, 0).numpy())) for one in samples if one.picture is not None]


def main() -> None:
    """Paint, embed, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=MODEL)
    parser.add_argument("--shards", type=Path, help="pictures with captions that were not trained on, with a config that knows their like")
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    painter = Painter.from_config(options.config)
    true = held_out(options.shards, options.pictures)
    painted: list[Image.Image] = []
    for start in tqdm(range(0, len(true), AT_ONCE), disable=None):
        part = true[start : start + AT_ONCE]
        painted += [one.image for one in painter.dream([caption for caption, _ in part], count=1, seed=start)]

    def embed(images: list[Image.Image]) -> Tensor:
        return torch.cat([painter.look(images[start : start + 64], Framing.CROP) for start in range(0, len(images), 64)])

    # As JPEG, as the shards hold them: a distance between file formats is none between models.
    ours, theirs = embed([through_jpeg(image) for image in painted]), embed([through_jpeg(image) for _, image in true])
    order = np.random.default_rng(0).permutation(len(theirs))
    one, other = theirs[order[: len(order) // 2]], theirs[order[len(order) // 2 :]]
    print(f"CMMD of {len(painted)} pictures: {cmmd(ours, theirs):.3f}; between two halves of the true ones: {cmmd(one, other):.3f}")


def through_jpeg(image: Image.Image) -> Image.Image:
    """Return a picture as a shard would give it back."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=95, subsampling="4:4:4")
    return Image.open(file).convert("RGB")


if __name__ == "__main__":
    main()
