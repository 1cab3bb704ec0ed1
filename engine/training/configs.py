"""What is trained and how: the JSON of dalle2-pytorch's train configs, with a few keys more, and one of our own for CLIP.

Source of the format: dalle2-pytorch 1.15.6, `train_configs.py`. The keys that it lacks are those of `Extras` and `ClipTraining`.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from dalle2_pytorch.train_configs import (
    DecoderDataConfig,
    DecoderTrainConfig,
    DiffusionPriorDataConfig,
    DiffusionPriorTrainConfig,
    TrainDecoderConfig,
    TrainDiffusionPriorConfig,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor
from torchvision import transforms

from engine.errors import Misconfigured
from engine.training.loop import Course
from engine.unclip.config import ClipSource, first_mistake, read_json

log = logging.getLogger(__name__)

REMOTE = ("pipe:", "s3:", "http:", "https:", "gs:", "hdfs:")
VALIDATIONS = 20
"""Of a run that does not say how often."""


class Extras(BaseModel):
    """What the library's train configs cannot say.

    `steps` ends a run whatever `epochs` says; `optimizer` is what learns from the gradients; `lr_schedule` is what the learning rate does after the
    warm-up; `gradient_accumulation` batches make one step; `patience` is after how many validations without a better loss a run stops; `load_from` is
    a checkpoint to start from.
    """

    steps: int | None = Field(None, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr_schedule: Literal["constant", "cosine"] = "constant"
    gradient_accumulation: int = Field(1, ge=1)
    validate_every_steps: int | None = Field(None, ge=1)
    save_every_steps: int | None = Field(None, ge=1)
    save_every_seconds: int = Field(300, ge=1)
    patience: int | None = Field(None, ge=1)
    load_from: str | None = None


class Splits(BaseModel):
    """Shares of the samples: to train on, to validate with, and to leave alone. The library's own check of them fails with today's pydantic."""

    model_config = ConfigDict(extra="forbid")
    train: float = Field(default=0.75, gt=0, le=1)
    val: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def check_sum(self) -> "Splits":
        if not math.isclose(self.train + self.val + self.test, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test must sum to 1, not {self.train + self.val + self.test:g}")
        return self


class DecoderData(DecoderDataConfig):
    """The library's."""

    splits: Splits = Splits()


class DecoderTraining(Extras, DecoderTrainConfig):
    """The library's, with ours.

    `lowres_noise_max`, in (0, 1], is how noisy the smaller picture is at most that an upsampler learns to enlarge; `whiten_embeds` has unets learn
    from embeddings as much in every direction; `embed_noise`, in lengths of an embedding, is how long the noise of every second one is at most;
    `compile` has torch compile them, which takes minutes at the start.
    """

    lowres_noise_max: float = Field(1.0, gt=0, le=1)
    whiten_embeds: bool = False
    embed_noise: float = Field(0.0, ge=0)
    compile: bool = False


class DecoderRun(TrainDecoderConfig):
    """A config for `decoder`."""

    data: DecoderData
    train: DecoderTraining

    @model_validator(mode="after")
    def check_has_embeddings(self) -> "DecoderRun":
        """Take the place of the library's check, which returns something else than the config with today's pydantic."""
        return self


class PriorTraining(Extras, DiffusionPriorTrainConfig):
    """The library's, with ours."""

    save_every_seconds: int = Field(3600, ge=1)


class PriorData(DiffusionPriorDataConfig):
    """The library's; where the shards hold both embeddings and captions, `image_url` names them and `meta_url` is not needed."""

    meta_url: str = ""
    num_data_points: int = 250_000_000
    splits: Splits = Splits()


class PriorRun(TrainDiffusionPriorConfig):
    """A config for `prior`."""

    data: PriorData
    train: PriorTraining


class ClipData(BaseModel):
    """Shards, and how captions are worn: with misspelt words, with words that mean nothing.

    `confusable` are groups of phrases: a caption with one of a group is told from the same caption with another of it, which pictures of a batch
    alone seldom ask for. Where a caption has phrases of several groups, one of them is drawn.
    """

    model_config = ConfigDict(extra="forbid")
    webdataset_base_url: str
    batch_size: int = Field(ge=2)
    splits: Splits = Splits(train=0.95, val=0.05, test=0.0)
    typo_share: float = Field(0.0, ge=0, le=1)
    nonsense_share: float = Field(0.0, ge=0, le=1)
    confusable: list[Annotated[list[str], Field(min_length=2)]] = []


class ClipTraining(Extras):
    """How CLIP is trained. `freeze_text` and `freeze_image` leave a tower as it is."""

    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(20, ge=1)
    lr: float = Field(5e-4, gt=0)
    wd: float = Field(0.1, ge=0)
    warmup_steps: int | None = None
    max_grad_norm: float = 1.0
    use_ema: bool = True
    ema_beta: float = Field(0.999, ge=0, lt=1)
    amp: bool = False
    device: str = "cuda:0"
    picture_noise: float = Field(0.0, ge=0, le=1)
    freeze_text: bool = False
    freeze_image: bool = False


class ClipRun(BaseModel):
    """A config for `clip`."""

    model_config = ConfigDict(extra="forbid")
    clip: ClipSource
    data: ClipData
    train: ClipTraining
    seed: int = 0


Run = ClipRun | PriorRun | DecoderRun
R = TypeVar("R", bound=BaseModel)


def read_run(kind: type[R], path: Path, changes: dict[str, Any]) -> R:
    """Read a config; `changes` are values that the command line puts in their places, by "data.batch_size" and the like.

    Raises:
        Misconfigured: it cannot be read, or a value is not what it must be.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise Misconfigured(f"Train config {path} is no JSON object.")
    for place, value in changes.items():
        *parts, key = place.split(".")
        inner = content
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[key] = value
    try:
        run = kind.model_validate(content)
    except ValidationError as error:
        raise Misconfigured(f"Train config {path}: {first_mistake(error)}. Mend that key and start again.") from None
    except (AssertionError, ValueError) as error:
        raise Misconfigured(f"Train config {path}: {' '.join(str(error).split()):.200}.") from None
    for place in ignored(content, run):
        log.warning("%s: %s is not known and is ignored", path, place)
    return run


def ignored(content: object, read: object, place: str = "") -> list[str]:
    """Name the keys of a config that nothing reads."""
    if not isinstance(content, dict) or not isinstance(read, BaseModel):
        return []
    found = []
    for key, value in content.items():
        if key not in type(read).model_fields:
            if type(read).model_config.get("extra") != "allow":
                found.append(f"{place}{key}")
        else:
            found += ignored(value, getattr(read, key), f"{place}{key}.")
    return found


def course_of(run: Run, samples: Callable[[], int]) -> Course:
    """Turn a config into numbers of steps; `samples` counts those to train on."""
    train, batch = run.train, run.data.batch_size
    together = batch * train.gradient_accumulation
    if train.steps is not None:
        steps = train.steps
    else:
        epoch = min(getattr(train, "epoch_samples", None) or samples(), getattr(run.data, "num_data_points", math.inf))
        steps = train.epochs * math.ceil(epoch / together)
    save_every = train.save_every_steps
    if save_every is None and isinstance(run, DecoderRun) and "save_every_n_samples" in train.model_fields_set:
        save_every = max(run.train.save_every_n_samples // together, 1)
    warm_up = train.warmup_steps
    return Course(
        steps=steps,
        batch_size=batch,
        accumulation=train.gradient_accumulation,
        optimizer=train.optimizer,
        schedule=train.lr_schedule,
        warm_up=max((step or 0 for step in warm_up), default=0) if isinstance(warm_up, (list, tuple)) else warm_up or 0,
        max_grad_norm=max(train.max_grad_norm) if isinstance(train.max_grad_norm, (list, tuple)) else train.max_grad_norm,
        ema=train.ema_beta if train.use_ema else None,
        save_every_s=train.save_every_seconds,
        save_every_steps=save_every,
        validate_every=train.validate_every_steps or max(steps // VALIDATIONS, 1),
        patience=train.patience,
        seed=seed_of(run),
    )


def seed_of(run: Run) -> int:
    """Return the seed of a run."""
    return run.train.random_seed if isinstance(run, PriorRun) else run.seed


def local_shards(pattern: str, first: int = 0, last: int = 9_999_999, width: int = 6) -> Path | str:
    """Find the shards that a config names: a folder, a pattern with braces, or the library's `path/{}.tar`.

    Raises:
        Misconfigured: they are not on this machine, or there are none.
    """
    if pattern.startswith(REMOTE):
        raise Misconfigured(f"data: '{pattern:.60}' is not on this machine. Fetch the shards and name their folder, here or with --data.")
    if "{}" not in pattern:
        return Path(pattern) if Path(pattern).is_dir() else pattern
    folder = Path(pattern.format("0")).parent
    names = {Path(pattern.format(str(number).zfill(width))).name: number for number in numbers_in(folder) if first <= number <= last}
    found = [folder / name for name in sorted(names, key=lambda name: names[name]) if (folder / name).is_file()]
    if not found:
        wanted = pattern.format(str(first).zfill(width))
        raise Misconfigured(f"data: no shard lies at {wanted} …. Check webdataset_base_url, start_shard and shard_width.")
    return f"{folder}/{{{','.join(path.name for path in found)}}}" if len(found) > 1 else str(found[0])


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the archives in a folder."""
    return sorted({int(digits) for path in folder.glob("*.tar") if (digits := "".join(letter for letter in path.stem if letter.isdigit()))})


def preparation(steps: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return what `preprocessing` does to a picture, (3, H, W) uint8, on its way to float in [0, 1].

    Raises:
        Misconfigured: it names something else than RandomResizedCrop, RandomHorizontalFlip and ToTensor.
    """
    known = {"RandomResizedCrop": transforms.RandomResizedCrop, "RandomHorizontalFlip": transforms.RandomHorizontalFlip}
    made = []
    for name, options in steps.items():
        if name == "ToTensor":
            continue
        if name not in known:
            raise Misconfigured(f"data.preprocessing: {name:.40} is not known; known are {', '.join(known)} and ToTensor.")
        try:
            made.append(known[name](**(options if isinstance(options, dict) else {})))
        except (TypeError, ValueError) as error:
            raise Misconfigured(f"data.preprocessing: {name}: {error}.") from None

    def prepare(picture: Tensor) -> Tensor:
        for step in made:
            picture = step(picture)
        return picture.to(torch.float32) / 255

    return prepare
