"""From pictures to a model: data, training, and the recipe of the bundled model.

    python -m engine.training data SOURCE OUT              # pictures with captions into shards
    python -m engine.training drawn SHARDS OUT --config MODEL.json  # and with what its prior draws
    python -m engine.training clip --config TRAIN.json     # and prior, and decoder
    python -m engine.training finetune SHARDS --name NAME  # a few pictures of something new into a model that the bot offers
    python -m engine.training world OUT                    # the bundled model's own world as shards; then its recipe, see picturebook.py
    python -m engine.training export                       # trained networks into configs/picturebook
    python -m engine.training gallery                      # the sheets of the README

Every command says more with --help.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from engine.errors import Misconfigured
from engine.training import finetune, picturebook, runs
from engine.training.data import command as data
from engine.training.data import drawn

INTERRUPTED = 130
BEGUN_ANEW = ("drawn", "world", "export", "gallery")
"""Commands that do not go on where they were."""


def add_world(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what `world` takes."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards")
    parser.add_argument("--scenes", type=int, default=60_000, help="how many (default 60,000)")
    parser.add_argument("--seed", type=int, default=0)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what `export` takes."""
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="a trained CLIP")
    parser.add_argument("--prior", type=Path, metavar="FILE", help="a trained prior")
    parser.add_argument("--unets", type=Path, nargs="+", metavar="FILE", help="decoders that one unet of each was trained of, from small to large")


def world(options: argparse.Namespace) -> str:
    """Draw the world."""
    picturebook.write_world(options.out, options.scenes, options.seed)
    return f"{options.scenes:,} scenes in {options.out}"


def export(options: argparse.Namespace) -> str:
    """Put what was trained into the bundled model."""
    if options.clip:
        picturebook.export_clip(options.clip)
    if options.prior:
        picturebook.export_prior(options.prior)
    if options.unets:
        picturebook.export_decoder(options.unets)
    return f"{sum(path.stat().st_size for path in picturebook.MODEL.rglob('*.safetensors')) / 1e6:.1f} MB in {picturebook.MODEL}"


def gallery(options: argparse.Namespace) -> str:
    """Paint the sheets of the README."""
    picturebook.gallery()
    return f"Painted {picturebook.MODEL / 'gallery.png'}"


Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], str]]
COMMANDS: dict[str, Command] = {
    "data": ("pictures with captions into shards", data.add_arguments, data.run),
    "drawn": ("shards with what a prior draws beside what CLIP sees", drawn.add_arguments, drawn.run),
    "clip": ("train a CLIP", runs.add_arguments, runs.run_clip),
    "prior": ("train a diffusion prior", runs.add_arguments, runs.run_prior),
    "decoder": ("train a decoder: base, upsamplers, or both", runs.add_arguments, runs.run_decoder),
    "finetune": ("teach a model something new", finetune.add_arguments, finetune.run),
    "world": ("draw the world of the bundled model", add_world, world),
    "export": ("put trained networks into the bundled model", add_export, export),
    "gallery": ("paint the sheets of the README", lambda parser: None, gallery),
}


def main() -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (told, add, _) in COMMANDS.items():
        command = commands.add_parser(name, help=told, description=told)
        command.add_argument("--threads", type=int, default=argparse.SUPPRESS, help="CPU threads of torch (default: all)")
        add(command)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        print(COMMANDS[options.command][2](options))
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted." if options.command in BEGUN_ANEW else "Interrupted. The same command goes on where it was.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
