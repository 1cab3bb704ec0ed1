"""Measure what half precision changes: python -m tests.benchmarks.precision [--config FILE]

Paints the same prompts and seeds in float32, bfloat16 and float16, and tells how far embeddings and pictures lie apart.
"""

import argparse
from pathlib import Path

import numpy as np

from engine.unclip import Painter
from engine.unclip.commissions import Painted

ROOT = Path(__file__).parents[2]
PROMPTS = ("a fox on a blue background", "a big cat on a red background", "a small boat on a white background", "an owl on a purple background")


def values(painted: Painted) -> np.ndarray:
    """Return a picture's pixels, 0 to 255."""
    return np.asarray(painted.image.convert("RGB")).astype(float)


def main() -> None:
    """Paint and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/picturebook/picturebook.json")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    painted = {
        dtype: Painter.from_config(options.config, options.device, dtype).dream(PROMPTS, count=4, seed=11)
        for dtype in ("float32", "bfloat16", "float16")
    }
    exact = painted.pop("float32")
    for dtype, ours in painted.items():
        embeds = [np.abs(one.embed - other.embed).max() for one, other in zip(ours, exact, strict=True)]
        pixels = [np.abs(values(one) - values(other)) for one, other in zip(ours, exact, strict=True)]
        means = sorted(difference.mean() for difference in pixels)
        print(
            f"{dtype:9} of {len(exact)} pictures: embeddings differ by at most {max(embeds):.4f}; "
            f"pixels (of 255) on average by {np.mean(means):.2f}, median picture {means[len(means) // 2]:.2f}, worst picture {means[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
