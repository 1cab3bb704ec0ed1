"""Paint from the command line.

    python -m engine dream "a cat on a red background" --seed 7
    python -m engine variation cat.png
    python -m engine inpaint cat.png --mask mask.png --prompt "a dog on a red background"
    python -m engine upscale small.png
    python -m engine embed "a cat on a red background"

Writes pictures as PNG, a grid of several, or embeddings as .npy and JSON, and prints where, with which seed and how long it took. Exit codes:
0 done, 1 the model cannot be loaded or the results not be written, 2 the request cannot be served, 130 interrupted.
"""

import argparse
import json
import logging
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from engine import pictures
from engine.errors import InvalidRequest, Misconfigured
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, SEED_LIMIT, STEPS_LIMIT, Preset, Progress, Report, check_prompt
from engine.options import EFFORTS, Keywords, Options, Solver
from engine.uploads import LIMIT_BYTES, Framing, open_picture, read_mask

if TYPE_CHECKING:
    from engine.mini import MiniSettings
    from engine.mini import Painter as Mini
    from engine.unclip.painter import Embedded, Painted, Painter

ROOT = Path(__file__).parents[1]
INTERRUPTED = 130


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Paint with DALL-E 2 on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)

    dream = commands.add_parser("dream", help="paint what prompts describe")
    dream.add_argument("prompt", nargs="+", help="what to paint; several prompts are painted one after the other")
    variation = commands.add_parser("variation", help="paint other pictures with the meaning of given ones")
    variation.add_argument("file", nargs="+", type=Path, help="pictures to vary")
    variation.add_argument("--prompt", default="", help="words for models that read text beside the picture")
    inpaint = commands.add_parser("inpaint", help="repaint a part of a picture")
    inpaint.add_argument("file", type=Path, help="the picture")
    inpaint.add_argument("--mask", type=Path, help="white or transparent = repaint (default: where the picture itself is transparent)")
    inpaint.add_argument("--prompt", required=True, help="what the whole picture shows afterwards")
    inpaint.add_argument("--resamples", type=int, default=5, help="times each step is taken, so that new and old agree (default 5)")
    upscale = commands.add_parser("upscale", help="enlarge pictures with the unets after the first")
    upscale.add_argument("file", nargs="+", type=Path, help="pictures to enlarge")
    upscale.add_argument("--prompt", default="", help="words for models that read text beside the picture")
    embed = commands.add_parser("embed", help="turn prompts into CLIP's text embedding and the prior's picture embedding")
    embed.add_argument("prompt", nargs="+", help="what to embed")

    for command in (dream, variation, inpaint, upscale, embed):
        default_count = 1 if command in (upscale, embed) else 4
        command.add_argument("--count", type=int, default=default_count, help=f"of each, 1 to {COUNT_LIMIT} (default {default_count})")
        command.add_argument("--seed", type=int, help=f"0 to {SEED_LIMIT - 1}; equal seeds paint equal pictures (default: random)")
        # Only the prior works for embeddings: there, its options have the short names too.
        short = ["--steps", "--guidance"] if command is embed else []
        asks = "" if command in (dream, inpaint, embed) else "; taken here too, but nothing here asks the prior"
        command.add_argument("--prior-steps", "--sample-timesteps", *short[:1], type=int, help=f"denoising steps of the prior{asks}")
        command.add_argument("--prior-guidance", "--cond-scale", *short[1:], type=float, help=f"guidance of the prior{asks}")
        default_candidates = 2 if command is embed else None
        usual = "2" if command is embed else f"1, with the preset best {EFFORTS[Preset.BEST].candidates}"
        command.add_argument("--candidates", type=int, default=default_candidates, help=f"draws of the prior to choose from (default {usual}){asks}")
        command.add_argument(
            "--preset", type=Preset, choices=list(Preset), default=Preset.BALANCED, help="how much work a picture is worth (default balanced)"
        )
        if command is not embed:
            command.add_argument(
                "--steps", type=numbers(int), help=f"denoising steps of the base decoder, 1 to {STEPS_LIMIT}, or one number per unet: 64,32"
            )
            command.add_argument(
                "--guidance", type=numbers(float), help=f"how strictly to follow the prompt, 0 to {GUIDANCE_LIMIT:g}, or one per unet: 1.7,1"
            )
            command.add_argument(
                "--guidance-interval", type=numbers(float), help="noise between which unets are guided, 0 clean to 1 noise (default 0,1)"
            )
        command.add_argument("--solver", type=Solver, choices=list(Solver), help="how noise becomes a sample (default: the model's)")
        if command in (dream, variation):
            command.add_argument("--seamless", action="store_true", help="let every picture go on in its neighbours in the grid (DALL·E Mini)")
            command.add_argument("--temperature", type=float, help="how freely tokens are drawn (DALL·E Mini; default 1)")
            command.add_argument("--top-k", type=int, help="of how many likeliest tokens each is one (DALL·E Mini; default 256)")
        if command is dream:
            command.add_argument("--repeats", type=int, default=1, help="pictures of each draw of the prior (default 1)")
        if command in (variation, inpaint, upscale):
            command.add_argument(
                "--framing", type=Framing, choices=list(Framing), default=Framing.CROP, help="how a picture becomes a square (default crop)"
            )
        command.add_argument("--config", type=Path, default=ROOT / "configs/picturebook/picturebook.json", help="model config (default: picturebook)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
        command.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: bfloat16 on a GPU")
        command.add_argument("--memory", choices=("auto", "resident", "offload"), default="auto", help="whether weights stay on the GPU")
        command.add_argument("--out", type=Path, default=Path("pictures"), metavar="DIR", help="where to write (default: pictures)")
        command.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
        command.set_defaults(file=[], mask=None, seamless=False, temperature=None, top_k=None)
    return parser.parse_args(words)


def numbers(kind: type[int] | type[float]) -> Callable[[str], list[Any]]:
    """Return a reader of one number, or of several with commas between them."""

    def read(text: str) -> list[Any]:
        return [kind(word) for word in text.split(",")]

    read.__name__ = f"number ({kind.__name__})"
    return read


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do what is asked, write the files and say what was done."""
    seed = secrets.randbelow(SEED_LIMIT) if options.seed is None else options.seed
    prompts = [options.prompt] if isinstance(options.prompt, str) else options.prompt
    # What can be told before torch is imported and a model loaded is told at once.
    for prompt in prompts:
        if prompt or options.command in ("dream", "inpaint", "embed"):
            check_prompt(prompt)
    known = {key: value for key, value in vars(options).items() if key in Keywords.__annotations__ and value is not None}
    keywords = Keywords(**{**known, "seed": seed})  # type: ignore[typeddict-item]  # argparse has read each with its type
    Options(**keywords)
    files = options.file if isinstance(options.file, list) else [options.file]
    images = [read_file(path) for path in files]
    mask = read_file(options.mask) if options.mask else None
    for image in images:
        opened = open_picture(image)
        if options.command == "inpaint":
            read_mask(mask, opened)
    from engine.mini import MiniSettings
    from engine.mini import Painter as Mini
    from engine.models import load_painter

    started = time.perf_counter()
    tokens = MiniSettings(temperature=options.temperature, top_k=options.top_k, seamless=options.seamless)
    painter = load_painter(options.config, options.device, options.dtype, options.memory)
    loaded = time.perf_counter()
    with tqdm(unit="step", leave=False, disable=None) as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.total
            bar.set_description(progress.stage, refresh=False)
            bar.update(progress.done - bar.n)

        match options.command:
            case _ if isinstance(painter, Mini):
                painted = of_tokens(painter, options, images, report, tokens, count=options.count, seed=seed)
            case _ if tokens != MiniSettings():
                raise InvalidRequest("seamless", "be left out, as temperature and top_k; {model} paints without tokens", model=painter.model)
            case "dream":
                painted = painter.dream(options.prompt, report, **keywords)
            case "variation":
                painted = painter.variation(images, report, prompt=options.prompt, framing=options.framing, **keywords)
            case "inpaint":
                painted = painter.inpaint(images[0], mask, options.prompt, report, framing=options.framing, **keywords)
            case "upscale":
                painted = painter.upscale(images, report, prompt=options.prompt, framing=options.framing, **keywords)
            case _:
                embedded = painter.embed(options.prompt, report, **keywords)
                written = write_embeddings(painter, embedded, options.out, seed)
    times = {"seed": seed, "load_s": round(loaded - started, 2), "seconds": round(time.perf_counter() - loaded, 2)}
    if options.command != "embed":
        written = write_pictures(painter, painted, options.out, seed, parts=max(len(prompts) if options.command == "dream" else len(files), 1))
        written |= {
            "unknown_words": [] if isinstance(painter, Mini) else list(painter.unknown_words(" ".join(prompts))),
            "known_words": list(painter.known_words),
        }
    return times | written


def of_tokens(
    painter: "Mini", options: argparse.Namespace, images: list[bytes], report: Report, tokens: "MiniSettings", **asked: Any
) -> "list[Painted]":
    """Paint with a DALL·E Mini.

    Raises:
        InvalidRequest: it cannot do what is asked.
    """
    asked["guidance"] = options.guidance[0] if getattr(options, "guidance", None) else None
    match options.command:
        case "dream":
            return painter.dream(options.prompt, report, tokens, **asked)
        case "variation":
            return painter.variation(images, report, tokens, prompt=options.prompt, **asked)
        case operation:
            raise InvalidRequest(
                "model", "have a {parts} for {operation}; '{model}' has none", parts="decoder", operation=operation, model=painter.model
            )


def read_file(path: Path) -> bytes:
    """Read a picture, not more of it than may be.

    Raises:
        InvalidRequest: it is not there, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidRequest("file", "be a picture that can be read; {path}: {reason}", path=path, reason=error.strerror) from None


def write_pictures(painter: "Painter | Mini", painted: "list[Painted]", folder: Path, seed: int, parts: int) -> dict[str, Any]:
    """Write the pictures of so many prompts or files, and a grid of each one's; earlier files of the same seed are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    grids, paths = [], []
    size = len(painted) // parts
    for part in range(parts):
        name = f"{painter.model}-{part + 1}" if parts > 1 else painter.model
        own = painted[part * size : (part + 1) * size]
        for one in own:
            paths.append(folder / f"{name}-{one.seed}.png")
            one.save(paths[-1])
        grids.append(folder / f"{name}-{seed}-grid.png")
        grids[-1].write_bytes(pictures.grid([one.picture.png for one in own[:COUNT_LIMIT]]))
    return {
        "grid": str(grids[0]),
        "grids": [str(path) for path in grids],
        "pictures": [str(path) for path in paths],
        "settings": [one.settings for one in painted],
    }


def write_embeddings(painter: "Painter", embedded: "list[Embedded]", folder: Path, seed: int) -> dict[str, Any]:
    """Write text and picture embeddings, (N, D) float32 each, as .npy, and all of it as JSON."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{painter.model}-{seed}"
    files = {}
    for key in ("text_embed", "image_embed"):
        files[key] = f"{stem}-{key}.npy"
        np.save(files[key], np.stack([getattr(one, key) for one in embedded]))
    facts = [
        {"prompt": one.prompt, "seed": one.seed, "tokens": one.tokens, "text_embed": one.text_embed.tolist(), "image_embed": one.image_embed.tolist()}
        for one in embedded
    ]
    files["json"] = f"{stem}-embeddings.json"
    Path(files["json"]).write_text(json.dumps(facts))
    return {"files": files, "embeddings": facts}


def main() -> int:
    """Run one command and return its exit code."""
    options = arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        result = run(options)
    except InvalidRequest as error:
        print(f"{error}.", file=sys.stderr)
        return 2
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The results cannot be written to {options.out}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    if options.json:
        print(json.dumps(result))
        return 0
    shown = [result["files"]["json"]] if "files" in result else result["grids"]
    print("\n".join(shown))
    print(f"seed {result['seed']}, {result['seconds']} s (model loaded in {result['load_s']} s before)")
    if result.get("unknown_words"):
        print(f"The model never saw: {', '.join(result['unknown_words'])}. It knows: {', '.join(result['known_words'])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
