"""Paint from the command line.

    python -m engine dream "a cat on a red background" --seed 7

Writes a grid and its single pictures as PNG, and prints where, with which seed and how long it took. Exit codes: 0 painted, 1 the model
cannot be loaded, 2 the request cannot be served.
"""

import argparse
import json
import logging
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import pictures
from engine.errors import InvalidRequest, Misconfigured
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, SEED_LIMIT, STEPS_LIMIT, Painting, Progress, Request

ROOT = Path(__file__).parents[1]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Paint with DALL-E 2 on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    dream = commands.add_parser("dream", help="paint what a prompt describes")
    dream.add_argument("prompt", help="what to paint")
    dream.add_argument("--count", type=int, default=4, help=f"pictures, 1 to {COUNT_LIMIT} (default 4)")
    dream.add_argument("--seed", type=int, help=f"0 to {SEED_LIMIT - 1}; equal seeds paint equal pictures (default: random)")
    dream.add_argument("--steps", type=int, help=f"denoising steps of the base decoder, 1 to {STEPS_LIMIT} (default: the model's)")
    dream.add_argument("--guidance", type=float, help=f"how strictly to follow the prompt, 0 to {GUIDANCE_LIMIT:g} (default: the model's)")
    dream.add_argument("--config", type=Path, default=ROOT / "configs/picturebook/picturebook.json", help="model config (default: picturebook)")
    dream.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    dream.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    dream.add_argument("--out", type=Path, default=Path("pictures"), metavar="DIR", help="where to write (default: pictures)")
    dream.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser.parse_args(words)


def dream(options: argparse.Namespace) -> dict[str, Any]:
    """Paint, write the files and say what was done."""
    seed = secrets.randbelow(SEED_LIMIT) if options.seed is None else options.seed
    request = Request(options.prompt, seed, options.count, options.steps, options.guidance)
    # Imported late: torch takes seconds, and a mistake on the command line should be told at once.
    from engine.unclip.painter import Painter

    started = time.perf_counter()
    painter = Painter.from_config(options.config, options.device, options.dtype)
    loaded_s = time.perf_counter() - started
    with tqdm(unit="step", leave=False, disable=None) as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.total
            bar.set_description(progress.stage, refresh=False)
            bar.update(progress.done - bar.n)

        painting = painter.paint(request, report)
    times = {"seed": seed, "load_s": round(loaded_s, 2), "seconds": round(painting.seconds, 2)}
    return times | write(painting, options.out, seed) | {"known_words": list(painter.known_words)}


def write(painting: Painting, folder: Path, seed: int) -> dict[str, Any]:
    """Write a grid and its pictures; earlier files of the same seed are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = folder / f"{painting.model}-{seed}-grid.png"
    grid.write_bytes(pictures.grid([picture.png for picture in painting.pictures]))
    paths = []
    for picture in painting.pictures:
        paths.append(folder / f"{painting.model}-{picture.seed}.png")
        paths[-1].write_bytes(picture.png)
    return {"grid": str(grid), "pictures": [str(path) for path in paths], "unknown_words": list(painting.unknown_words)}


def main() -> int:
    """Run one command and return its exit code."""
    options = arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        result = dream(options)
    except InvalidRequest as error:
        print(f"{error}.", file=sys.stderr)
        return 2
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The pictures cannot be written to {options.out}: {error.strerror}.", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result))
        return 0
    print(f"{result['grid']}\nseed {result['seed']}, {result['seconds']} s (model loaded in {result['load_s']} s before)")
    if result["unknown_words"]:
        print(f"The model never saw: {', '.join(result['unknown_words'])}. It knows: {', '.join(result['known_words'])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
