"""The cascade: a base decoder that paints embeddings, and upsamplers."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from engine.errors import Misconfigured
from engine.training.configs import DecoderRun
from engine.training.library import build_decoder
from engine.training.loop import Part
from engine.training.saving import write_networks
from engine.training.sheets import sheet_of
from engine.training.source import Batch
from engine.training.start import fill_decoder, weights_of
from engine.training.teacher import Teacher
from engine.training.whitening import Whitening
from engine.unclip.clip import Clip
from engine.unclip.dialects import LATEST

SHEET_STEPS = 20
TIMES = 1000
"""Levels of noise of the smaller picture, whatever the number of times."""


class DecoderTrainee:
    """The library's cascade in training, all of its unets or some."""

    def __init__(self, run: DecoderRun, clip: Clip | None, base: Path | None = None) -> None:
        """Build it, from a checkpoint where the config names one; `base` is the train config for one that carries none.

        `clip` reads captions where a unet is told them.

        Raises:
            Misconfigured: the config describes no cascade, or the checkpoint does not fit it.
        """
        self.run, self.clip = run, clip
        try:
            self.decoder = build_decoder(run.decoder.model_dump())
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise Misconfigured(f"The decoder config describes no cascade: {' '.join(str(error).split()):.200}.") from None
        self.release = LATEST
        if run.train.load_from is not None:
            self.release = fill_decoder(self.decoder, Path(run.train.load_from), base)
        # A tenth faster on CPUs, and what GPUs want in half precision.
        self.decoder.to(memory_format=torch.channels_last)
        count = len(self.decoder.unets)
        mask = run.train.unet_training_mask or [True] * count
        if len(mask) != count:
            raise Misconfigured(f"train.unet_training_mask has {len(mask)} values for {count} unets.")
        rates, decays = each(run.train.lr, count), each(run.train.wd, count)
        self.trained = {f"unet {index + 1}": index for index, is_trained in enumerate(mask) if is_trained}
        if not self.trained:
            raise Misconfigured("train.unet_training_mask leaves no unet to train.")
        self.parts = {name: Part(self.decoder.unets[index], rates[index], decays[index]) for name, index in self.trained.items()}
        self.asked = {name: torch.compile(part.module) if run.train.compile else part.module for name, part in self.parts.items()}
        """What is asked in training: the unets themselves, or what is faster and shares their weights."""
        self.whitening: Whitening | None = None
        self.teachers: dict[str, Teacher] = {}

    def keep(self, new: frozenset[str]) -> None:
        """Learn what captions are new, and go on painting the others as now."""
        unets, schedulers = self.decoder.unets, self.decoder.noise_schedulers
        self.teachers = {name: Teacher(unets[index], schedulers[index], new) for name, index in self.trained.items()}

    def whiten(self, embeds: Tensor) -> None:
        """Learn from embeddings in the coordinates that suit these, (N, D)."""
        self.whitening = Whitening.of(embeds)
        if self.run.train.load_from is not None:
            self.whitening.unfold(self.decoder)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The cascade's, as they are to be written."""
        weights = weights_of(self.decoder)
        return weights if self.whitening is None else self.whitening.folded(weights)

    @property
    def needs_embeds(self) -> bool:
        """Whether a unet that is trained is told embeddings."""
        return any(part.module.cond_on_image_embeds for part in self.parts.values())

    @property
    def needs_captions(self) -> bool:
        """Whether a unet that is trained is told captions."""
        return any(part.module.cond_on_text_encodings for part in self.parts.values())

    def loss(self, name: str, batch: Batch) -> Tensor:
        """Return a unet's loss at random times.

        As the library's, but pictures are shrunk by averaging: its nearest neighbour drops pixels, and what the base paints is no such picture.
        """
        index, decoder = self.trained[name], self.decoder
        unet, side, scheduler = decoder.unets[index], decoder.image_sizes[index], decoder.noise_schedulers[index]
        assert batch.pictures is not None
        if name in self.teachers:
            self.teachers[name].hear(batch.captions)
        embeds = None if batch.embeds is None else self.noised(batch.embeds if self.whitening is None else self.whitening(batch.embeds))
        pictures = shrunk(batch.pictures, side)
        lowres, levels = (None, None) if index == 0 else self.smaller(index, batch.pictures)
        if (crop := decoder.random_crop_sizes[index]) is not None:
            top, left = (int(value) for value in torch.randint(0, side - crop + 1, (2,)))
            scale = side // decoder.image_sizes[index - 1]
            top, left = top // scale * scale, left // scale * scale
            pictures = pictures[..., top : top + crop, left : left + crop]
            lowres = None if lowres is None else lowres[..., top : top + crop, left : left + crop]
        loss: Tensor = decoder.p_losses(
            self.asked[name],
            pictures.contiguous(memory_format=torch.channels_last),
            scheduler.sample_random_times(len(pictures)),
            image_embed=embeds if unet.cond_on_image_embeds else None,
            text_encodings=self.encodings(batch) if unet.cond_on_text_encodings else None,
            lowres_cond_img=lowres,
            lowres_noise_level=levels,
            noise_scheduler=scheduler,
            predict_x_start=decoder.predict_x_start[index],
            predict_v=decoder.predict_v[index],
            learned_variance=decoder.learned_variance[index],
        )
        return loss

    def noised(self, embeds: Tensor) -> Tensor:
        """Add noise to every second embedding on average, (B, D): a prior's are a little off too, and those of what was never shown together.

        Source: Ho et al. 2021, arXiv:2106.15282, section 4 (conditioning augmentation), there of smaller pictures.
        """
        if self.run.train.embed_noise == 0:
            return embeds
        levels = self.run.train.embed_noise * (2 * torch.rand(len(embeds), 1, device=embeds.device) - 1).clamp(min=0)
        return embeds + levels * embeds.norm(dim=-1, keepdim=True) * torch.randn_like(embeds) / embeds.shape[-1] ** 0.5

    def smaller(self, index: int, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what an upsampler is told of the picture: it, at the size of the stage before, enlarged again, blurred and noised as configured."""
        decoder = self.decoder
        conditioner = decoder.lowres_conds[index]
        lowres = shrunk(pictures, decoder.image_sizes[index - 1])
        if conditioner.use_blur and random.random() < conditioner.blur_prob:
            lowres = gaussian_blur(lowres, [conditioner.blur_kernel_size] * 2, [conditioner.blur_sigma] * 2)
        lowres = F.interpolate(lowres, decoder.image_sizes[index], mode="nearest")
        if not conditioner.use_noise:
            return lowres, None
        most = max(round(self.run.train.lowres_noise_max * TIMES), 1)
        lowres, levels = conditioner.noise_image(lowres, torch.randint(0, most, (len(lowres),), device=lowres.device))
        return lowres, levels

    def encodings(self, batch: Batch) -> Tensor:
        """Read the captions of a batch."""
        assert self.clip is not None and batch.pictures is not None
        with torch.no_grad():
            return self.clip.embed_text(self.clip.tokenize(batch.captions).to(batch.pictures.device)).encodings

    def measure(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Return the loss of each unet and their sum."""
        totals: dict[str, list[float]] = {name: [] for name in self.parts}
        for batch in batches:
            for name, losses in totals.items():
                losses.append(float(self.loss(name, batch)))
        means = {name: sum(losses) / len(losses) for name, losses in totals.items() if losses}
        return ({"loss": sum(means.values())} if means else {}) | (means if len(means) > 1 else {})

    def show(self, batch: Batch) -> Image.Image | None:
        """Paint a few samples with `engine`: originals above, below them what each trained unet makes of their embeddings or smaller pictures."""
        batch = batch.first(self.run.train.n_sample_images)
        encodings = self.encodings(batch) if self.needs_captions else None
        settings, unets = self.run.model_dump(mode="json"), [*self.trained.values()]
        return sheet_of(self.weights, settings, self.release, unets, batch, encodings, steps=SHEET_STEPS)

    def write(self, folder: Path, name: str) -> None:
        """Write the cascade as the library's trainer does."""
        write_networks(folder, name, self.weights, self.run.model_dump(mode="json"), self.release)


def each(value: Any, count: int) -> list[float]:
    """Return one value for each unet.

    Raises:
        Misconfigured: there are fewer or more.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise Misconfigured(f"train: {values} holds {len(values)} values for {count} unets.")
    return values


def shrunk(pictures: Tensor, side: int) -> Tensor:
    """Average pictures, (B, 3, S, S) with S ≥ side, down to a side.

    Raises:
        Misconfigured: they are smaller.
    """
    if min(pictures.shape[-2:]) < side:
        width, height = pictures.shape[-1], pictures.shape[-2]
        raise Misconfigured(f"The pictures are {width} × {height} px; the config paints {side}. Make shards with --side {side}.")
    return F.adaptive_avg_pool2d(pictures, side)
