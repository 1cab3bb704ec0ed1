"""From a prompt to pictures, straight down the page: CLIP text → prior → base decoder → upsamplers → PNG."""

import itertools
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from dalle2_pytorch import Decoder
from PIL import Image
from torch import Tensor, nn

from engine import pictures
from engine.errors import Misconfigured
from engine.jobs import Painting, Picture, Progress, Request
from engine.unclip.checkpoints import fill
from engine.unclip.clip import OpenClip, TextCondition
from engine.unclip.config import LOCAL_CLIP, File, ModelConfig, PriorSource, UnetSource, read_json, read_model_config
from engine.unclip.networks import PriorStage, UnetStage, build_decoder, build_prior
from engine.unclip.sampling import noise_from_seeds, walk

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)

DEFAULT_STEPS = 64
DEFAULT_GUIDANCE = 1.0


@dataclass(frozen=True, slots=True)
class Setting:
    """How a stage is walked."""

    steps: int
    guidance: float


@dataclass(frozen=True, slots=True)
class Painter:
    """A loaded model. One thread at a time may paint with it."""

    model: str
    known_words: tuple[str, ...]
    clip: OpenClip
    prior: PriorStage
    prior_setting: Setting
    unets: tuple[UnetStage, ...]
    unet_settings: tuple[Setting, ...]
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def from_config(cls, path: Path | str, device: str = "auto", dtype: str = "float32") -> "Painter":
        """Load the model that a config describes; its name is that of the config file.

        `device` is "auto", "cpu" or "cuda"; `dtype`, "float32" or "bfloat16", is what the networks compute in.

        Raises:
            Misconfigured: config or weights are missing, damaged or do not fit together, or there is no such device.
        """
        path = Path(path)
        config = read_model_config(path)
        chosen = choose_device(device)
        clip = load_clip(config, path.parent)
        prior = load_prior(config.prior, path.parent)
        unets, unet_settings = load_unets(config, path.parent)
        check_widths(path, clip, prior, unets)
        for module in (clip, prior.net, *(stage.unet for stage in unets)):
            module.to(chosen)
        return cls(
            model=path.stem,
            known_words=read_vocabulary(config.vocabulary, path.parent),
            clip=clip,
            prior=prior,
            prior_setting=setting_or_default(config.prior.default_sample_timesteps, config.prior.default_cond_scale),
            unets=unets,
            unet_settings=unet_settings,
            device=chosen,
            dtype=getattr(torch, dtype),
        )

    @torch.no_grad()
    def paint(self, request: Request, report: Callable[[Progress], None]) -> Painting:
        """Paint what was asked, calling `report` after every denoising step.

        Raises:
            Cancelled: `report` raised it, between two steps.
        """
        started = time.perf_counter()
        walks = self.walks(request)
        counter = itertools.count(1)
        total = sum(len(stage.plan(setting.steps)[0]) for stage, setting in walks)

        def on_step(name: str, preview: Callable[[Tensor], bytes] | None) -> Callable[[int, Tensor], None]:
            def tell(done: int, x_0: Tensor) -> None:
                report(Progress(name, next(counter), total, preview and (lambda: preview(x_0))))

            return tell

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            text = self.read(request)
            embed = self.imagine(request, text, walks[0][1], on_step("prior", None))
            samples = self.decode(request, text, embed, [setting for _, setting in walks[1:]], on_step)
        base = walks[1][1]
        return Painting(
            pictures=tuple(self.finish(request, base, seed, sample) for seed, sample in zip(request.seeds, to_images(samples), strict=True)),
            model=self.model,
            steps=base.steps,
            guidance=base.guidance,
            seconds=time.perf_counter() - started,
            unknown_words=self.unknown_words(request.prompt),
        )

    def walks(self, request: Request) -> list[tuple[PriorStage | UnetStage, Setting]]:
        """Say in order which stages are walked and how: the request speaks of the base decoder, the model of the rest."""
        base = self.unet_settings[0]
        asked = Setting(base.steps if request.steps is None else request.steps, base.guidance if request.guidance is None else request.guidance)
        settings = (self.prior_setting, asked, *self.unet_settings[1:])
        stages: tuple[PriorStage | UnetStage, ...] = (self.prior, *self.unets)
        # A network that never saw a missing condition has nothing to be guided away from.
        return [(stage, how if stage.can_be_guided else Setting(how.steps, 1.0)) for stage, how in zip(stages, settings, strict=True)]

    def read(self, request: Request) -> TextCondition:
        """Embed the prompt, once per picture."""
        text = self.clip.embed_text(self.clip.tokenize([request.prompt]).to(self.device))
        return TextCondition(text.embed.expand(request.count, -1), text.encodings.expand(request.count, -1, -1))

    def imagine(self, request: Request, text: TextCondition, how: Setting, on_step: Callable[[int, Tensor], None]) -> Tensor:
        """Let the prior draw one picture embedding per seed: (B, D) float."""
        prior = self.prior
        draw = noise_from_seeds(request.seeds, tuple(text.embed.shape[1:]), self.device)
        steps, rule = prior.plan(how.steps)
        start = prior.start(draw())
        embed = walk(prior.denoiser(text, how.guidance), start, steps, rule, draw, predicts=prior.predicts, settle=prior.settle, on_step=on_step)
        return prior.finish(embed) / prior.scale

    def decode(
        self,
        request: Request,
        text: TextCondition,
        embed: Tensor,
        settings: list[Setting],
        on_step: Callable[[str, Callable[[Tensor], bytes]], Callable[[int, Tensor], None]],
    ) -> Tensor:
        """Walk down the cascade: (B, C, H, W) float, pictures in [-1, 1] but for the last step's overshoot."""
        samples: Tensor | None = None
        for number, (stage, how) in enumerate(zip(self.unets, settings, strict=True), start=1):
            draw = noise_from_seeds(request.seeds, (3, stage.side, stage.side), self.device, stream=number)
            lowres = {} if samples is None else stage.enlarge(samples, draw)
            steps, rule = stage.plan(how.steps)
            name = "base" if number == 1 else "upsampler"
            samples = walk(
                stage.denoiser(embed, text, how.guidance, lowres),
                draw(),
                steps,
                rule,
                draw,
                predicts=stage.predicts,
                settle=stage.settle,
                on_step=on_step(name, preview),
            )
        assert samples is not None
        return samples

    def finish(self, request: Request, how: Setting, seed: int, sample: Image.Image) -> Picture:
        """Encode one picture with its receipt."""
        receipt = {"prompt": request.prompt, "seed": seed, "model": self.model, "steps": how.steps, "guidance": how.guidance}
        return Picture(pictures.write_receipt(pictures.encode(sample), receipt), seed, sample.width, sample.height)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Return the words of a prompt, in order and once, that a model with a short vocabulary never saw."""
        if not self.known_words:
            return ()
        words = re.findall(r"[^\W\d_]+", prompt.lower())
        return tuple(dict.fromkeys(word for word in words if word not in self.known_words))


def to_images(samples: Tensor) -> list[Image.Image]:
    """Turn (B, C, H, W) float in [-1, 1], or a little outside, into pictures of 8 bits."""
    values = ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(value)) for value in values]


def preview(x_0: Tensor) -> bytes:
    """Show a predicted x_0 as a grid."""
    return pictures.grid([pictures.encode(sample) for sample in to_images(x_0)])


def setting_or_default(steps: int | None, guidance: float | None) -> Setting:
    """Fill in what a model config leaves open."""
    return Setting(DEFAULT_STEPS if steps is None else steps, DEFAULT_GUIDANCE if guidance is None else guidance)


def choose_device(name: str) -> torch.device:
    """Find the device to paint on.

    Raises:
        Misconfigured: CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise Misconfigured("device is 'cuda', but torch sees no CUDA GPU. Set device = \"auto\" or install the driver.")
    return torch.device(name)


def load_clip(config: ModelConfig, folder: Path) -> OpenClip:
    """Build CLIP and load its weights."""
    clip_folder = folder / config.clip.model.removeprefix(LOCAL_CLIP)
    clip = OpenClip.from_config(read_json(clip_folder / "open_clip_config.json"), clip_folder)
    fill(clip.model, clip_folder / "open_clip_model.safetensors")
    return clip


def built(build: Callable[[dict[str, Any]], Module], part: str, file: File, folder: Path) -> Module:
    """Build a network from one part of a train config of the library.

    Raises:
        Misconfigured: the file cannot be read, has no such part, or the library can make nothing of it.
    """
    path = folder / file.path
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get(part), dict):
        raise Misconfigured(f"{path} holds no '{part}' object. Point load_config_from to a train config of dalle2-pytorch.")
    try:
        return build(config[part])
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise Misconfigured(f"{path}: dalle2-pytorch can make no {part} of this: {reason:.200}") from None


def load_prior(source: PriorSource, folder: Path) -> PriorStage:
    """Build the prior and load its weights."""
    prior = built(build_prior, "prior", source.load_config_from, folder)
    fill(prior, folder / source.load_model_from.path)
    return PriorStage.of(prior)


def load_unets(config: ModelConfig, folder: Path) -> tuple[tuple[UnetStage, ...], tuple[Setting, ...]]:
    """Build every unet of the cascade and load its weights, in the order of the cascade."""
    found: dict[int, tuple[UnetStage, Setting]] = {}
    for source in config.decoder.unet_sources:
        decoder = built(build_decoder, "decoder", source.load_config_from, folder)
        if max(source.unet_numbers) > len(decoder.unets):
            raise Misconfigured(
                f"{folder / source.load_config_from.path} describes {len(decoder.unets)} unets; unet_numbers asks for {source.unet_numbers}."
            )
        fill(decoder, folder / source.load_model_from.path)
        found.update(stages_of(source, decoder))
    ordered = [found[number] for number in sorted(found)]
    return tuple(stage for stage, _ in ordered), tuple(setting for _, setting in ordered)


def stages_of(source: UnetSource, decoder: Decoder) -> dict[int, tuple[UnetStage, Setting]]:
    """Take the unets that a source stands for out of its decoder."""
    nothing = [None] * len(source.unet_numbers)
    settings = zip(source.unet_numbers, source.default_sample_timesteps or nothing, source.default_cond_scale or nothing, strict=True)
    return {number: (UnetStage.of(decoder, number - 1), setting_or_default(steps, guidance)) for number, steps, guidance in settings}


def check_widths(path: Path, clip: OpenClip, prior: PriorStage, unets: tuple[UnetStage, ...]) -> None:
    """Make sure that the parts speak of embeddings of one width, and that sides grow.

    Raises:
        Misconfigured: they do not.
    """
    if prior.net.dim != clip.width:
        raise Misconfigured(f"Model config {path}: the prior is {prior.net.dim} wide, CLIP {clip.width}. They must come from one training.")
    sides = [stage.side for stage in unets]
    if sides != sorted(set(sides)):
        raise Misconfigured(f"Model config {path}: picture sizes of the unets must grow along the cascade; they are {sides}.")


def read_vocabulary(file: File | None, folder: Path) -> tuple[str, ...]:
    """Read the words that a small model knows, one per line."""
    if file is None:
        return ()
    try:
        return tuple((folder / file.path).read_text(encoding="utf-8").split())
    except OSError as error:
        raise Misconfigured(f"Vocabulary {folder / file.path} cannot be read: {error.strerror}.") from None
