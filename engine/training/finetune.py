"""The command `finetune`: a model learns something new from a few pictures, and is offered under a name of its own.

CLIP stays as it is, so everything that was embedded keeps its meaning; the prior learns what the new captions mean, the cascade how it is painted.
What the model knew is rehearsed beside it: both go on answering old captions as they did before.
"""

import argparse
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import Misconfigured
from engine.files import fetch
from engine.jobs import words_of
from engine.training import runs
from engine.training.configs import DecoderRun, PriorRun
from engine.training.data.embed import Eye
from engine.training.data.shards import EYEFUL
from engine.training.data.sources import digest
from engine.training.data.tars import MANIFEST, caption_of, find_shards, picture_of, read_tar
from engine.training.data.writing import jpeg, npy, write_plain
from engine.training.picturebook import MODEL, write_config, write_half
from engine.training.world import draw_world
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.config import LOCAL_CLIP, ModelConfig, PriorSource, UnetSource, read_json, read_model_config
from engine.unclip.loading import config_of
from engine.unclip.train_config import DecoderConfig

log = logging.getLogger(__name__)

BUNDLED = MODEL / "picturebook.json"
OFFERED = MODEL.parents[1] / "data" / "models"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
NEW_SHARES = {"prior": 0.2, "decoder": 0.3}
"""Of the samples that each learns from."""
REHEARSED = 6000
"""Old samples that are rehearsed."""
REHEARSAL_SEED = 2
SHARD_SIZE = 1200
PRIOR = {"steps": 160, "lr": 1e-3, "batch_size": 128}
"""Few, or it learns the new captions by heart: after twice as many steps, fewer of other captions were right."""
BASE = {"steps": 200, "lr": 1.5e-3, "batch_size": 64, "p2_loss_weight_gamma": 0.5}
UPSAMPLER = {"steps": 60, "lr": 1.5e-3, "batch_size": 32, "p2_loss_weight_gamma": 0.0}
"""Every one of them."""
WARM_UP_SHARE = 0.1
NOISE_MARGIN = 3.0
"""Upsamplers learn to enlarge pictures up to so many times as noisy as they are told when they paint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes."""
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="what `data` wrote with this model's config")
    parser.add_argument("--name", required=True, help="of the new model: small letters, digits, - and _")
    parser.add_argument("--model", type=Path, default=BUNDLED, metavar="MODEL.json", help="model that learns (default: picturebook)")
    parser.add_argument("--rehearsal", type=Path, metavar="SHARDS", help="what it knows already (default: for picturebook, its own world)")
    parser.add_argument("--out", type=Path, default=OFFERED, metavar="FOLDER", help="where models lie that the bot offers (default: data/models)")
    parser.add_argument("--run", type=Path, metavar="RUN", help="folder of the run; one that is there goes on where it was (default: runs/NAME)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="divides the number of steps: 2 is faster and worse (default 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default auto)")


def run(options: argparse.Namespace) -> str:
    """Train, and put the new model where the bot looks.

    Raises:
        Misconfigured: model and shards do not fit, or training cannot be done; the message says what to do.
    """
    if not NAME.fullmatch(options.name) or options.name == options.model.stem:
        raise Misconfigured(f"A model cannot be called '{options.name:.40}'. Use 1 to 32 small letters, digits, - and _, and not the old name.")
    if options.speed <= 0:
        raise Misconfigured(f"--speed must be above 0, not {options.speed:g}.")
    folder = options.run or Path("runs") / options.name
    config = read_model_config(options.model)
    source = only_source(config, options.model)
    eye = Eye.from_config(options.model, options.device)
    check_shards(options.shards, eye)
    samples = list(files_of(options.shards))
    if not samples:
        raise Misconfigured(f"{options.shards} holds no sample with picture, caption and embedding. Make it with `python -m engine.training data`.")
    captions = [files["txt"].decode() for files in samples]
    new = frozenset(captions)
    mixed = mix(samples, options.rehearsal, options.model, eye, folder / "shards")

    def steps(settings: dict[str, Any]) -> dict[str, Any]:
        count = max(round(settings["steps"] / options.speed), 1)
        return {
            "steps": count,
            "lr": settings["lr"],
            "optimizer": "muon",
            "lr_schedule": "cosine",
            "warmup_steps": round(count * WARM_UP_SHARE),
            "max_grad_norm": 1.0,
            "ema_beta": 0.99,
            "validate_every_steps": max(count // 4, 1),
        }

    tracker: dict[str, Any] = {"log": {}, "save": {}}
    splits = {"train": 1.0, "val": 0.0, "test": 0.0}
    assert config.prior is not None and config.clip is not None
    prior_weights, prior_config, prior_path = parts_of(config.prior, options.model.parent)
    prior = PriorRun.model_validate(
        {
            "prior": {**prior_config["prior"], "clip": None},
            "data": {"image_url": str(mixed / "prior"), "batch_size": PRIOR["batch_size"], "splits": splits},
            "train": {**steps(PRIOR), "load_from": str(prior_weights), "random_seed": 0, "eval_timesteps": [20]},
            "tracker": tracker,
        }
    )
    log.info("the prior learns what the captions mean")
    runs.train_prior(prior, eye.clip, mixed / "prior", None, folder / "prior", options.device, prior_path, new)

    weights, decoder_config, decoder_path = parts_of(source, options.model.parent)
    count = len(decoder_config["decoder"]["unets"])
    for index in range(count):
        settings = BASE if index == 0 else UPSAMPLER
        decoder = DecoderRun.model_validate(
            {
                "decoder": {**decoder_config["decoder"], "clip": None, "p2_loss_weight_gamma": settings["p2_loss_weight_gamma"]},
                "data": {"webdataset_base_url": str(mixed / "decoder"), "batch_size": settings["batch_size"], "splits": splits},
                "train": {
                    **steps(settings),
                    "load_from": str(weights),
                    "unet_training_mask": [other == index for other in range(count)],
                    "lowres_noise_max": noisiest(decoder_config),
                    "whiten_embeds": True,
                },
                "evaluate": {},
                "tracker": tracker,
            }
        )
        log.info("unet %d of %d learns how it is painted", index + 1, count)
        runs.train_decoder(decoder, eye.clip, mixed / "decoder", None, folder / f"unet{index + 1}", options.device, decoder_path, new)
        weights = folder / f"unet{index + 1}" / "latest.safetensors"
    path = write_model(options, config, folder, weights, decoder_config, prior_config, captions)
    return f"{path} is offered as model '{options.name}' where more_models names {options.out}"


def noisiest(decoder_config: dict[str, Any]) -> float:
    """Return the share of noise, in (0, 1], up to which upsamplers learn to enlarge."""
    return min(NOISE_MARGIN * DecoderConfig.model_validate(decoder_config["decoder"]).lowres_noise_sample_level, 1.0) or 1.0


def only_source(config: ModelConfig, path: Path) -> UnetSource:
    """Return the one checkpoint that holds all unets of a model.

    Raises:
        Misconfigured: the model has no prior or no decoder, or several checkpoints.
    """
    if config.prior is None or config.decoder is None or config.clip is None:
        raise Misconfigured(f"Model config {path} has no prior or no decoder. Fine-tune a whole model.")
    if len(config.decoder.unet_sources) > 1:
        raise Misconfigured(
            f"The unets of model config {path} lie in several checkpoints. Train each with `decoder --from` and write a config by hand."
        )
    return config.decoder.unet_sources[0]


def parts_of(source: PriorSource | UnetSource, base: Path) -> tuple[Path, dict[str, Any], Path | None]:
    """Return where a source's weights are, its train config, and the file that is named for that, if one is.

    Raises:
        Misconfigured: they cannot be had.
    """
    weights = fetch(source.load_model_from, base)
    named = None if source.load_config_from is None else fetch(source.load_config_from, base)
    config, _ = config_of(read_checkpoint(weights), named)
    assert isinstance(config, dict)
    return weights, config, named


def check_shards(shards: Path, eye: Eye) -> None:
    """Make sure that shards were embedded by the model's own CLIP.

    Raises:
        Misconfigured: they were not, as far as their manifest tells.
    """
    find_shards(shards)
    manifest = shards / MANIFEST
    if manifest.exists() and read_json(manifest).get("clip") != eye.fingerprint():
        raise Misconfigured(
            f"{shards} was not embedded by this model's CLIP. Make it with `python -m engine.training data … --config` of this model."
        )


def mix(new: list[dict[str, bytes]], rehearsal: Path | None, model: Path, eye: Eye, folder: Path) -> Path:
    """Write new samples, each as often as it takes, among old ones: a folder of shards for the prior and one for the decoder.

    Raises:
        Misconfigured: the folder holds a mixture of others.
    """
    done = folder / "done"
    made_of = digest([str(rehearsal), *(hashlib.sha256(data).hexdigest() for files in new for data in files.values())])
    if done.exists():
        if done.read_text() != made_of:
            raise Misconfigured(f"{folder.parent} holds a run with other samples. Name another folder with --run, or delete this one.")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    old: list[dict[str, bytes]] = []
    if rehearsal is not None:
        old = [files for files, _ in zip(files_of(rehearsal), range(REHEARSED), strict=False)]
    elif model.resolve() == BUNDLED.resolve():
        old = list(draw_old(eye))
    else:
        log.warning("nothing is rehearsed: what the model knew may fade. Name some of its old shards with --rehearsal")
    for part, share in NEW_SHARES.items():
        repeats = max(round(len(old) * share / (1 - share) / len(new)), 1)
        samples = new * repeats + old
        np.random.default_rng(0).shuffle(samples)
        write_plain(folder / part, samples, SHARD_SIZE)
        log.info("%s: %d new samples, each %d times, among %d old ones", part, len(new), repeats, len(old))
    done.write_text(made_of)
    return folder


def files_of(shards: Path) -> Iterator[dict[str, bytes]]:
    """Yield the samples of shards that are whole."""
    for shard in find_shards(shards):
        for _, files in read_tar(shard):
            picture, caption = picture_of(files), caption_of(files)
            if picture and caption and "npy" in files:
                yield {"jpg": picture, "txt": caption.encode(), "npy": bytes(files["npy"])}


def draw_old(eye: Eye) -> Iterator[dict[str, bytes]]:
    """Draw the world of the bundled model anew."""
    scenes = list(draw_world(REHEARSED, REHEARSAL_SEED))
    for start in range(0, len(scenes), EYEFUL):
        part = scenes[start : start + EYEFUL]
        images = [Image.fromarray(picture) for picture, _, _ in part]
        squares = [image.resize((eye.clip.side, eye.clip.side), Image.Resampling.LANCZOS) for image in images]
        for image, (_, caption, _), embed in zip(images, part, eye.embed(squares), strict=True):
            yield {"jpg": jpeg(image), "txt": caption.encode(), "npy": npy(embed)}


def write_model(
    options: argparse.Namespace,
    config: ModelConfig,
    folder: Path,
    weights: Path,
    decoder_config: dict[str, Any],
    prior_config: dict[str, Any],
    captions: Sequence[str],
) -> Path:
    """Write a model config with everything that it needs beside it, in one go."""
    place, part = options.out / options.name, options.out / f".{options.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_half(read_checkpoint(weights).weights, part / "decoder.safetensors")
    write_half(read_checkpoint(folder / "prior" / "latest.safetensors").weights, part / "prior.safetensors")
    write_config("decoder", decoder_config, part)
    write_config("prior", prior_config, part)
    content = read_json(options.model)
    [unets] = content["decoder"]["unet_sources"]
    for part_config, name in ((unets, "decoder"), (content["prior"], "prior")):
        part_config["load_model_from"] = {"load_type": "local", "path": f"{name}.safetensors"}
        part_config["load_config_from"] = {"load_type": "local", "path": f"{name}.json"}
    # CLIP does not know what is new: of several draws, the nearest to the prompt is the one that shows it least.
    content["prior"]["default_candidates"] = 1
    assert config.clip is not None
    if config.clip.model.startswith(LOCAL_CLIP):
        shutil.copytree(options.model.parent / config.clip.model.removeprefix(LOCAL_CLIP), part / "clip")
        content["clip"]["model"] = f"{LOCAL_CLIP}clip"
    if config.vocabulary is not None:
        known = fetch(config.vocabulary, options.model.parent).read_text(encoding="utf-8").split()
        learnt = words_of(" ".join(captions))
        (part / "words.txt").write_text("\n".join(dict.fromkeys([*known, *learnt])) + "\n", encoding="utf-8")
        content["vocabulary"] = {"load_type": "local", "path": "words.txt"}
    (part / f"{options.name}.json").write_text(json.dumps(content, indent=2))
    # A bot that runs looks at this folder whenever somebody asks: what it finds is always whole.
    before = options.out / f".{options.name}.before"
    shutil.rmtree(before, ignore_errors=True)
    if place.exists():
        place.rename(before)
    part.rename(place)
    shutil.rmtree(before, ignore_errors=True)
    return place / f"{options.name}.json"
