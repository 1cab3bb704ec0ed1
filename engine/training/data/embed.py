"""The eyes of a model config: how large its pictures are, and what its CLIP sees in them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.errors import Misconfigured
from engine.files import fetch
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.clip import Clip, OpenClip, load_clip
from engine.unclip.config import read_json, read_model_config
from engine.unclip.loading import config_of
from engine.unclip.memory import choose_lodging
from engine.unclip.model import CARRIED, DEFAULT_GUIDANCE, DEFAULT_STEPS, Files, Model, Setting, choose_device
from engine.unclip.painter import Painter
from engine.unclip.train_config import DecoderConfig, read_part
from engine.uploads import Framing

FINGERPRINT_VALUES = 64
"""Of each tensor that tell one CLIP from another."""


@dataclass(frozen=True, slots=True)
class Eye:
    """A CLIP that looks at pictures, as `engine.unclip` does."""

    painter: Painter
    clip: Clip

    @classmethod
    def from_config(cls, path: Path, device: str = "auto") -> "Eye":
        """Load the CLIP of a model config, in float32, and no other part of it.

        Raises:
            Misconfigured: the config names none, it cannot be had, or it does not look at pictures.
        """
        config = read_model_config(path)
        if config.clip is None:
            raise Misconfigured(f"Model config {path} names no clip, which embeddings are made with. Name another config, or use --no-embed.")
        lodging = choose_lodging(choose_device(device, config.devices), 0, "resident")
        carried = Files(config, path.parent).clip_weights() if config.clip.make in CARRIED else None
        clip = load_clip(config.clip, path.parent, dtype=torch.float32, device=str(lodging.home), carried=carried)
        if not clip.side:
            raise Misconfigured(f"The clip of model config {path} reads text only. Use --no-embed, or another config.")
        usual = Setting(DEFAULT_STEPS, DEFAULT_GUIDANCE)
        return cls(Painter(Model(path.stem, (), clip, None, usual, (), (), lodging)), clip)

    def fingerprint(self) -> str:
        """Return what changes where the CLIP is trained further or is another one."""
        hashed = hashlib.sha256()
        for name, value in sorted(self.clip.state_dict().items()):
            hashed.update(name.encode() + value.flatten()[:FINGERPRINT_VALUES].float().cpu().numpy().tobytes())
        return hashed.hexdigest()

    def embed(self, squares: list[Image.Image]) -> np.ndarray:
        """Embed pictures, (B, D) float32 of unit length."""
        embeds: np.ndarray = self.painter.look(squares, Framing.CROP).float().cpu().numpy()
        return embeds

    def cuts(self, caption: str) -> bool:
        """Tell whether a caption is longer than what CLIP reads."""
        ends = 2 if isinstance(self.clip, OpenClip) else 0
        return len(self.clip.tokenizer.encode(caption)) > self.clip.tokenizer.context_length - ends


def side_of(path: Path) -> int | None:
    """Return the side of the pictures that a config's model paints in the end; None where it has no decoder.

    Raises:
        Misconfigured: the train config cannot be had or does not say it.
    """
    config = read_model_config(path)
    if config.decoder is None:
        return None
    last = max(config.decoder.unet_sources, key=lambda source: max(source.unet_numbers))
    if last.load_config_from is not None:
        told = fetch(last.load_config_from, path.parent)
        return read_part(DecoderConfig, "decoder", read_json(told), told).sides[-1]
    carried = config_of(read_checkpoint(fetch(last.load_model_from, path.parent)), None)
    return read_part(DecoderConfig, "decoder", *carried).sides[-1]
