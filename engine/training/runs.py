"""The commands `clip`, `prior` and `decoder`: a config, shards and a folder into a run."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from engine.errors import Misconfigured
from engine.training.clip import ClipTrainee
from engine.training.configs import ClipRun, DecoderRun, PriorRun, Run, course_of, local_shards, preparation, read_run, seed_of
from engine.training.decoder import DecoderTrainee
from engine.training.loop import Loop, Trainee, make_accelerator, seed_everything
from engine.training.prior import PriorTrainee
from engine.training.saving import alone_in, unwritable
from engine.training.source import Retrieval, Source, Wanted
from engine.unclip.clip import Clip, load_clip
from engine.unclip.config import ClipSource, read_model_config

WHITENED = 4_096
"""Embeddings that tell in which directions they vary."""
VALIDATED = 10_000
"""Samples at most that a prior is validated with."""
NOT_OF_THE_RUN = ("steps", "patience", "save_every_seconds", "save_every_steps")
"""Settings that may change between the parts of one run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what these commands take."""
    parser.add_argument("--config", type=Path, required=True, metavar="TRAIN.json", help="what is trained and how")
    parser.add_argument("--data", metavar="SHARDS", help="folder of shards, instead of the config's")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="embeddings that lie outside of the shards")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; one that is there goes on where it was")
    parser.add_argument("--clip", type=Path, metavar="MODEL.json", help="model config whose CLIP reads captions, instead of the train config's")
    parser.add_argument("--from", dest="load_from", metavar="FILE", help="checkpoint to start from")
    parser.add_argument("--steps", type=int, metavar="N", help="steps in all, instead of the config's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default auto)")


def changes_of(options: argparse.Namespace, shards: str) -> dict[str, Any]:
    """Return what the command line says instead of the config, whose key for shards is `shards`."""
    changes = {"train.load_from": options.load_from, "train.steps": options.steps, shards: options.data}
    return {place: value for place, value in changes.items() if value is not None}


def clip_of(options: argparse.Namespace, named: Any) -> Clip:
    """Load the CLIP that reads captions.

    Raises:
        Misconfigured: none is named, or it cannot be had.
    """
    if options.clip is not None:
        source, base = read_model_config(options.clip).clip, options.clip.parent
    else:
        source = None if named is None else ClipSource(make=named.make, model=named.model, base_model_kwargs=named.base_model_kwargs)
        base = options.config.parent
    if source is None:
        raise Misconfigured(f"{options.clip or options.config} names no clip. Name a model config with --clip.")
    return load_clip(source, base, dtype=torch.float32, device="cpu")


def begin(run: Run, device: str) -> Accelerator:
    """Find the device, and seed what the networks begin with."""
    configured = getattr(run.train, "device", "cuda")
    accelerator = make_accelerator(configured if device == "auto" else device, run.train.amp)
    seed_everything(seed_of(run))
    return accelerator


def go(trainee: Trainee, source: Source, run: Run, out: Path, accelerator: Accelerator) -> str:
    """Train and say where the result is.

    Raises:
        Misconfigured: another process trains in the folder, it cannot be written to, it holds another run, or see `Loop.run`.
    """
    settings = run.model_dump(mode="json")
    kept = {"config": {**settings, "train": {key: value for key, value in settings["train"].items() if key not in NOT_OF_THE_RUN}}}
    with contextlib.ExitStack() as stack:
        if accelerator.is_main_process:
            try:
                stack.enter_context(alone_in(out))
            except OSError as error:
                raise Misconfigured(unwritable(out, error)) from None
        loop = Loop(trainee, source, course_of(run, source.count), out, accelerator, kept)
        loop.run()
    best = "best" if source.validates else "latest"
    return f"{loop.step:,} steps; {out / best} is the best so far, {out / 'curves.png'} how it went"


def run_clip(options: argparse.Namespace) -> str:
    """Train a CLIP."""
    run = read_run(ClipRun, options.config, changes_of(options, "data.webdataset_base_url"))
    accelerator = begin(run, options.device)
    trainee = ClipTrainee(run, options.config.parent)
    source = Source(local_shards(run.data.webdataset_base_url), None, Wanted(side=trainee.clip.side), (run.data.splits.train, run.data.splits.val))
    return go(trainee, source, run, options.out, accelerator)


def run_prior(options: argparse.Namespace) -> str:
    """Train a prior."""
    run = read_run(PriorRun, options.config, changes_of(options, "data.image_url"))
    clip = clip_of(options, run.prior.clip)
    image, meta = Path(run.data.image_url), Path(run.data.meta_url)
    apart = run.data.meta_url and image.is_dir() and any(image.glob("*.npy")) and not any(image.glob("*.tar"))
    shards = Retrieval(image, meta) if apart else local_shards(run.data.image_url)
    return train_prior(run, clip, shards, options.embeddings, options.out, options.device, options.config)


def train_prior(
    run: PriorRun,
    clip: Clip,
    shards: Path | str | Retrieval,
    embeddings: Path | None,
    out: Path,
    device: str,
    base: Path | None = None,
    new: frozenset[str] | None = None,
) -> str:
    """Train a prior on shards with embeddings and captions; `base` is the train config of a checkpoint to start from that carries none.

    Where captions are named that are `new`, it learns those and goes on answering the others as it did.
    """
    accelerator = begin(run, device)
    trainee = PriorTrainee(run, clip.to(accelerator.device), base)
    wanted = Wanted(pictures=False, embeds=True, width=run.prior.image_embed_dim)
    source = Source(shards, embeddings, wanted, (run.data.splits.train, run.data.splits.val), most=VALIDATED)
    if new is not None:
        trainee.keep(new)
    return go(trainee, source, run, out, accelerator)


def run_decoder(options: argparse.Namespace) -> str:
    """Train a decoder."""
    run = read_run(DecoderRun, options.config, changes_of(options, "data.webdataset_base_url"))
    data = run.data
    clip = clip_of(options, run.decoder.clip) if any(unet.cond_on_text_encodings for unet in run.decoder.unets) else None
    embeddings = options.embeddings or (Path(data.img_embeddings_url) if data.img_embeddings_url else None)
    shards = local_shards(data.webdataset_base_url, data.start_shard, data.end_shard, data.shard_width)
    return train_decoder(run, clip, shards, embeddings, options.out, options.device, options.config)


def train_decoder(
    run: DecoderRun,
    clip: Clip | None,
    shards: Path | str,
    embeddings: Path | None,
    out: Path,
    device: str,
    base: Path | None = None,
    new: frozenset[str] | None = None,
) -> str:
    """Train a decoder on shards of pictures, with embeddings where a unet is told them, and captions read by `clip` where it is told those.

    `base` and `new` are those of `train_prior`.
    """
    accelerator, data = begin(run, device), run.data
    trainee = DecoderTrainee(run, None if clip is None else clip.to(accelerator.device), base)
    cropped = "RandomResizedCrop" in data.preprocessing
    wanted = Wanted(
        captions=trainee.needs_captions or new is not None,
        embeds=trainee.needs_embeds,
        width=next((unet.image_embed_dim for unet in run.decoder.unets if trainee.needs_embeds), None),
        side=None if cropped else trainee.decoder.image_sizes[max(trainee.trained.values())],
        prepare=preparation(data.preprocessing),
    )
    source = Source(shards, embeddings, wanted, (data.splits.train, data.splits.val), most=run.train.validation_samples)
    if run.train.whiten_embeds and trainee.needs_embeds:
        trainee.whiten(source.embeds(WHITENED).to(accelerator.device))
    if new is not None:
        trainee.keep(new)
    return go(trainee, source, run, out, accelerator)
