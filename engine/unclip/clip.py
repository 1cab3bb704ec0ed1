"""Text and pictures in one space: the CLIP that prior and decoder were trained on.

Dimensions: B batch, L tokens of the context, D embedding width, W text width, C = 3 channels, H = W = side of CLIP's own pictures.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from engine.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class TextCondition:
    """What the prior is told about a prompt.

    Shapes:
        embed      (B, D) float, unit length
        encodings  (B, L, W) float, zero after the prompt's end
    """

    embed: Tensor
    encodings: Tensor


class OpenClip(nn.Module):
    """An open_clip model with its own tokenizer, behind the two questions that unCLIP asks.

    Source: what `OpenClipAdapter` of dalle2-pytorch 1.15.6 hands to the prior, without its fixed vocabulary and its downloads.
    """

    def __init__(self, model_config: dict[str, Any], preprocess: dict[str, Any], folder: Path) -> None:
        super().__init__()
        text = dict(model_config["text_cfg"])
        tokenizer = dict(text.pop("tokenizer_kwargs", {}))
        if "bpe_path" in tokenizer:
            tokenizer["bpe_path"] = str(folder / tokenizer["bpe_path"])
        self.tokenizer = SimpleTokenizer(context_length=text["context_length"], **tokenizer)
        if self.tokenizer.vocab_size != text["vocab_size"]:
            raise ValueError(f"the vocabulary has {self.tokenizer.vocab_size} tokens, vocab_size says {text['vocab_size']}")
        self.model = CLIP(model_config["embed_dim"], model_config["vision_cfg"], text)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(preprocess["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess["std"]).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> "OpenClip":
        """Build the untrained model that an `open_clip_config.json` describes; `folder` is where it lies, and its vocabulary.

        Raises:
            Misconfigured: a part of the config is missing or not what open_clip expects, or the vocabulary cannot be read.
        """
        try:
            return cls(config["model_cfg"], config["preprocess_cfg"], folder)
        except (OSError, EOFError, zlib.error) as error:
            raise Misconfigured(f"The vocabulary that {folder / 'open_clip_config.json'} names as bpe_path cannot be read: {error}.") from None
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise Misconfigured(f"{folder / 'open_clip_config.json'} does not describe a CLIP of open_clip: {error!r}.") from None

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self.model.text_projection.shape[1])

    def tokenize(self, texts: list[str]) -> Tensor:
        """Turn texts into (B, L) int64; what does not fit into the context is cut off."""
        return self.tokenizer(texts)

    def embed_text(self, tokens: Tensor) -> TextCondition:
        """Embed tokenized prompts.

        Shapes:
            tokens  (B, L) int64

        Source: Radford et al. 2021, arXiv:2103.00020; masking as in dalle2-pytorch's CLIP adapters, so that padding is zero.
        """
        kept: list[Tensor] = []
        hook = self.model.ln_final.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            embed = F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        finally:
            hook.remove()
        before_end = (tokens == self.tokenizer.eot_token_id).cumsum(dim=-1) == 0
        upto_end = F.pad(before_end, (1, -1), value=True) & (tokens != 0)
        return TextCondition(embed, kept[0].float() * upto_end[..., None])

    def embed_image(self, pictures: Tensor) -> Tensor:
        """Embed pictures.

        Shapes:
            pictures  (B, C, H, W) float in [0, 1]
            returns   (B, D) float, unit length
        """
        return F.normalize(self.model.encode_image((pictures - self.mean) / self.std).float(), dim=-1)
