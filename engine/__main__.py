"""Paint from the command line.

    python -m engine dream "a cat on a red background" --seed 7
    python -m engine variation cat.png
    python -m engine inpaint cat.png --mask mask.png --prompt "a dog on a red background"
    python -m engine upscale small.png
    python -m engine blend cat.png "a dog on a blue background" --weights 2,1
    python -m engine morph cat.png "a dog on a blue background" --frames 9
    python -m engine edit cat.png --before "a cat" --after "a fox"
    python -m engine explore cat.png
    python -m engine draws "a cat on a red background" --number 8
    python -m engine embed "a cat on a red background"
    python -m engine verify cat.png

Writes pictures as PNG, a grid of several, a morph as strip, GIF and MP4 too, embeddings as .npy and JSON, and prints where, with which seed and how
long it took. Exit codes: 0 done, 1 the model cannot be loaded, the results not be written, or a picture is not what its receipt says, 2 the request
cannot be served, 130 interrupted.
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
from engine.jobs import (
    CANDIDATES_LIMIT,
    COUNT_LIMIT,
    FRAMES_LIMIT,
    GUIDANCE_LIMIT,
    INGREDIENTS_LIMIT,
    LEAST_FRAMES,
    SEED_LIMIT,
    STEPS_LIMIT,
    Preset,
    Progress,
    Report,
    check_prompt,
    check_range,
)
from engine.options import (
    DRAFTS_LIMIT,
    EDIT_STRENGTH,
    EFFORTS,
    EXPLORE_STEP,
    Keywords,
    Options,
    Solver,
    check_ingredients,
)
from engine.uploads import LIMIT_BYTES, Framing, open_picture, read_mask
from engine.verdicts import Finding

if TYPE_CHECKING:
    from engine.mini import MiniSettings
    from engine.mini import Painter as Mini
    from engine.unclip.commissions import Embedded, Painted
    from engine.unclip.painter import Painter

ROOT = Path(__file__).parents[1]
INTERRUPTED = 130
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of files: a word with one is no prompt, even where the file is missing."""
LONGEST_PATH = 255


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Paint with DALL-E 2 on this machine.")
    # What a command has no option for.
    parser.set_defaults(prompt=[], file=[], source=[], ingredient=[], weights=None, mask=None, seed=None, count=1, seamless=False)
    parser.set_defaults(temperature=None, top_k=None)
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
    blend = commands.add_parser("blend", help="paint what lies between pictures and prompts")
    blend.add_argument("ingredient", nargs="+", help=f"two to {INGREDIENTS_LIMIT} pictures or prompts: what names a file is a picture")
    blend.add_argument("--weights", type=numbers(float), help="how much each counts: 2,1 (default: all the same)")
    morph = commands.add_parser("morph", help="paint the way from one picture or prompt to another")
    morph.add_argument("ingredient", nargs=2, metavar=("from", "to"), help="a picture or a prompt each: what names a file is a picture")
    morph.add_argument("--frames", type=int, default=9, help=f"pictures, {LEAST_FRAMES} to {FRAMES_LIMIT} (default 9)")
    edit = commands.add_parser("edit", help="change what words say of a picture")
    edit.add_argument("file", type=Path, help="the picture")
    edit.add_argument("--before", required=True, help="what it shows now, of what is to change: a cat")
    edit.add_argument("--after", required=True, help="what it is to show instead: a tiger")
    explore = commands.add_parser("explore", help="paint a wheel of pictures around one, in the directions in which its neighbours differ")
    explore.add_argument("file", type=Path, help="the picture in the middle")
    explore.add_argument("--step", type=float, default=EXPLORE_STEP, help=f"how far, 0 to 1 (default {EXPLORE_STEP:g})")
    draws = commands.add_parser("draws", help="let the prior draw, and tell how near each draw is to the prompt")
    draws.add_argument("prompt", help="what to draw")
    draws.add_argument("--number", type=int, default=8, help=f"of draws, 1 to {CANDIDATES_LIMIT} (default 8)")
    embed = commands.add_parser("embed", help="turn prompts into CLIP's text embedding and the prior's picture embedding")
    embed.add_argument("prompt", nargs="+", help="what to embed")
    verify = commands.add_parser("verify", help="paint a picture again from its receipt and compare")
    verify.add_argument("file", type=Path, help="the picture, as PNG with its receipt")
    verify.add_argument("--source", nargs="+", type=Path, default=[], help="the files that it was made from, in their order")

    variation.add_argument("--strength", type=float, help="how far from the picture, 0 to 1: nothing but its meaning is kept (default 1)")
    variation.add_argument("--drift", type=float, default=0.0, help="how far the meaning is turned aside, 0 to 1 (default 0)")
    edit.add_argument("--strength", type=float, default=EDIT_STRENGTH, help=f"how far the meaning is changed, 0 to 1 (default {EDIT_STRENGTH:g})")

    for command in (dream, variation, inpaint, upscale, blend, morph, edit, explore, draws, embed):
        if command in (dream, variation, inpaint, upscale, blend, edit, embed):
            default_count = 1 if command in (upscale, edit, embed) else 4
            command.add_argument("--count", type=int, default=default_count, help=f"of each, 1 to {COUNT_LIMIT} (default {default_count})")
        command.add_argument("--seed", type=int, help=f"0 to {SEED_LIMIT - 1}; equal seeds paint equal pictures (default: random)")
        # Only the prior works for embeddings: there, its options have the short names too.
        short = ["--steps", "--guidance"] if command in (draws, embed) else []
        asks = "" if command in (dream, inpaint, blend, morph, draws, embed) else "; taken here too, but nothing here asks the prior"
        command.add_argument("--prior-steps", "--sample-timesteps", *short[:1], type=int, help=f"denoising steps of the prior{asks}")
        command.add_argument("--prior-guidance", "--cond-scale", *short[1:], type=float, help=f"guidance of the prior{asks}")
        if command is not draws:
            default_candidates = 2 if command is embed else None
            usual = "2" if command is embed else f"the model's, with the preset best {EFFORTS[Preset.BEST].candidates} at least"
            command.add_argument(
                "--candidates", type=int, default=default_candidates, help=f"draws of the prior to choose from (default {usual}){asks}"
            )
        command.add_argument(
            "--preset", type=Preset, choices=list(Preset), default=Preset.BALANCED, help="how much work a picture is worth (default balanced)"
        )
        if command in (dream, variation):
            command.add_argument(
                "--drafts", type=int, help=f"small pictures for CLIP to choose from, for each, 1 to {DRAFTS_LIMIT} (default the model's)"
            )
        if command not in (draws, embed):
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
        if command in (variation, inpaint, upscale, blend, morph, edit, explore):
            command.add_argument(
                "--framing", type=Framing, choices=list(Framing), default=Framing.CROP, help="how a picture becomes a square (default crop)"
            )
    for command in commands.choices.values():
        command.add_argument("--config", type=Path, default=ROOT / "configs/picturebook/picturebook.json", help="model config (default: picturebook)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
        command.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: bfloat16 on a GPU")
        command.add_argument("--memory", choices=("auto", "resident", "offload"), default="auto", help="whether weights stay on the GPU")
        command.add_argument("--out", type=Path, default=Path("pictures"), metavar="DIR", help="where to write (default: pictures)")
        command.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
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
    # What can be told before torch is imported and a model loaded is told at once.
    prompts = check_texts(options)
    known = {key: value for key, value in vars(options).items() if key in Keywords.__annotations__ and value is not None}
    keywords = Keywords(**{**known, "seed": seed})  # type: ignore[typeddict-item]  # argparse has read each with its type
    Options(**keywords)
    files = options.file if isinstance(options.file, list) else [options.file]
    images, sources = [read_file(path) for path in files], [read_file(path) for path in options.source]
    mask = read_file(options.mask) if options.mask else None
    ingredients = [ingredient(word) for word in options.ingredient]
    for image in (*images, *sources, *(one for one in ingredients if isinstance(one, bytes))):
        opened = open_picture(image)
        if options.command == "inpaint":
            read_mask(mask, opened)
    check_numbers(options)
    from engine.mini import MiniSettings
    from engine.mini import Painter as Mini
    from engine.models import load_painter

    started = time.perf_counter()
    tokens = MiniSettings(temperature=options.temperature, top_k=options.top_k, seamless=options.seamless)
    painter = load_painter(options.config, options.device, options.dtype, options.memory)
    loaded = time.perf_counter()
    parts, written, painted = 1, None, []
    with tqdm(unit="step", leave=False, disable=None) as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.total
            bar.set_description(progress.stage, refresh=False)
            bar.update(progress.done - bar.n)

        match options.command:
            case "dream" | "variation" if isinstance(painter, Mini):
                parts = len(prompts) if options.command == "dream" else len(files)
                painted = of_tokens(painter, options, images, report, tokens, count=options.count, seed=seed)
            case operation if isinstance(painter, Mini):
                raise InvalidRequest(
                    "model", "have a {parts} for {operation}; '{model}' has none", parts="decoder", operation=operation, model=painter.model
                )
            case _ if tokens != MiniSettings():
                raise InvalidRequest("seamless", "be left out, as temperature and top_k; {model} paints without tokens", model=painter.model)
            case "dream":
                parts, painted = len(prompts), painter.dream(options.prompt, report, **keywords)
            case "variation":
                more = {"strength": options.strength, "drift": options.drift}
                parts = len(files)
                painted = painter.variation(images, report, prompt=options.prompt, framing=options.framing, **more, **keywords)
            case "inpaint":
                painted = painter.inpaint(images[0], mask, options.prompt, report, framing=options.framing, **keywords)
            case "upscale":
                parts, painted = len(files), painter.upscale(images, report, prompt=options.prompt, framing=options.framing, **keywords)
            case "blend":
                painted = painter.blend(ingredients, options.weights, report, framing=options.framing, **keywords)
            case "morph":
                start, end = ingredients
                painted = painter.morph(start, end, options.frames, report, framing=options.framing, **keywords)
                written = write_film(painter, painted, options.out, seed)
            case "edit":
                words = (options.before, options.after)
                painted = painter.edit(images[0], *words, report, strength=options.strength, framing=options.framing, **keywords)
            case "explore":
                painted = painter.explore(images[0], options.step, report, framing=options.framing, **keywords)
                written = write_numbered(painter, painted, options.out, seed)
            case "draws":
                drawn = painter.draws(options.prompt, options.number, report, **keywords)
                written = {"draws": [{"prior_seed": one.seed, "score": round(one.score, 4)} for one in drawn]}
            case "embed":
                written = write_embeddings(painter, painter.embed(options.prompt, report, **keywords), options.out, seed)
            case "verify":
                verdict = painter.verify(images[0], sources, report)
                written = {name: getattr(verdict, name) for name in ("finding", "sentence", "same_model", "largest", "mean", "differs")}
    times = {"seed": seed, "load_s": round(loaded - started, 2), "seconds": round(time.perf_counter() - loaded, 2)}
    words_told = {
        "unknown_words": [] if isinstance(painter, Mini) else list(painter.unknown_words(" ".join(prompts))),
        "known_words": list(painter.known_words),
    }
    return times | (write_pictures(painter, painted, options.out, seed, parts) if written is None else written) | words_told


def check_texts(options: argparse.Namespace) -> list[str]:
    """Return all prompts of a command line.

    Raises:
        InvalidRequest: one cannot be read.
    """
    prompts = [options.prompt] if isinstance(options.prompt, str) else [*options.prompt]
    optional = options.command in ("variation", "upscale")
    prompts += [options.before, options.after] if options.command == "edit" else []
    prompts += [word for word in options.ingredient if not names_file(word)]
    for prompt in prompts:
        if prompt or not optional:
            check_prompt(prompt)
    return prompts


def check_numbers(options: argparse.Namespace) -> None:
    """Make sure that the numbers of single commands are in their ranges.

    Raises:
        InvalidRequest: one is not.
    """
    if options.command == "blend":
        check_ingredients(options.ingredient, options.weights)
    for name, least, most in (
        ("strength", 0, 1),
        ("drift", 0, 1),
        ("step", 0, 1),
        ("frames", LEAST_FRAMES, FRAMES_LIMIT),
        ("number", 1, CANDIDATES_LIMIT),
    ):
        if (value := getattr(options, name, None)) is not None:
            check_range(name, value, least, most)


def names_file(word: str) -> bool:
    """Tell whether a word of the command line names a picture rather than being a prompt."""
    path = Path(word)
    return path.suffix.lower() in PICTURES or len(word) < LONGEST_PATH and path.is_file()


def ingredient(word: str) -> bytes | str:
    """Read the picture that a word names, or return it as a prompt.

    Raises:
        InvalidRequest: the picture is not there, or cannot be read.
    """
    return read_file(Path(word)) if names_file(word) else word


def of_tokens(
    painter: "Mini", options: argparse.Namespace, images: list[bytes], report: Report, tokens: "MiniSettings", **asked: Any
) -> "list[Painted]":
    """Paint with a DALL·E Mini.

    Raises:
        InvalidRequest: it cannot do what is asked.
    """
    asked["guidance"] = options.guidance[0] if getattr(options, "guidance", None) else None
    if options.command == "dream":
        return painter.dream(options.prompt, report, tokens, **asked)
    return painter.variation(images, report, tokens, prompt=options.prompt, **asked)


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


def write_numbered(painter: "Painter", painted: "list[Painted]", folder: Path, seed: int) -> dict[str, Any]:
    """Write pictures of one seed with their numbers, and a grid of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{painter.model}-{seed}"
    paths = [Path(f"{stem}-{number}.png") for number in range(1, len(painted) + 1)]
    for path, one in zip(paths, painted, strict=True):
        one.save(path)
    grid = Path(f"{stem}-grid.png")
    grid.write_bytes(pictures.grid([one.picture.png for one in painted[:COUNT_LIMIT]]))
    return {"grids": [str(grid)], "pictures": [str(path) for path in paths], "settings": [one.settings for one in painted]}


def write_film(painter: "Painter", painted: "list[Painted]", folder: Path, seed: int) -> dict[str, Any]:
    """Write the frames of a morph, and all of them as strip, GIF and MP4."""
    written = write_numbered(painter, painted, folder, seed)
    frames = [one.picture.png for one in painted]
    for name, ending, make in (("strip", "-strip.png", pictures.strip), ("gif", ".gif", pictures.gif), ("film", ".mp4", pictures.film)):
        path = folder / f"{painter.model}-{seed}{ending}"
        path.write_bytes(make(frames))
        written[name] = str(path)
    return written


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


def lines_of(result: dict[str, Any]) -> list[str]:
    """Tell what was made."""
    if "draws" in result:
        return [f"prior seed {one['prior_seed']}: {one['score']:.4f}" for one in result["draws"]]
    if "film" in result:
        return [result["strip"], result["gif"], result["film"]]
    return [result["files"]["json"]] if "files" in result else result["grids"]


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
    differs = result.get("finding") in (Finding.DIFFERENT, Finding.OTHER_SIZE, Finding.OTHER_MODEL)
    if options.json:
        print(json.dumps(result))
        return int(differs)
    if "finding" in result:
        size = "" if result["largest"] is None else f" Largest difference {result['largest']}, mean {result['mean']:.3g}, of 255."
        print(result["sentence"] + size)
        return int(differs)
    print("\n".join(lines_of(result)))
    print(f"seed {result['seed']}, {result['seconds']} s (model loaded in {result['load_s']} s before)")
    if result.get("unknown_words"):
        print(f"The model never saw: {', '.join(result['unknown_words'])}. It knows: {', '.join(result['known_words'])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
