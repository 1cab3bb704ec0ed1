"""The library's own modules, which train; what they learn is painted with by `engine.unclip`.

Source: dalle2-pytorch 1.15.6.
"""

import math
from typing import Any

import torch
from dalle2_pytorch import Decoder, DiffusionPrior
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from torch import Tensor, nn

SAMPLES_PER_DIRECTION = 4
"""Embeddings per direction that it takes at least to tell how far they spread."""
LEAST_SPREAD = 0.01
"""Of the widest direction's: what spreads less is no louder than this."""
USUAL_TEXT_LENGTH = 256
"""Of the library's prior network."""
DERIVED = ("noise_schedulers.", "noise_scheduler.", "lowres_conds.", "vaes.", "_dummy")
"""Parts of the library's modules that follow from the config and need no weights."""


def keep_times_exact(unet: nn.Module) -> None:
    """Let a unet embed its times in float32 under autocast.

    The library casts the times to the type of its first convolution's output; bfloat16 cannot tell 998 from 1000, and the fast
    sinusoids of such times are noise.
    """

    def to_float(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.float()

    unet.get_submodule("init_conv").register_forward_hook(to_float)


def hear_embeddings(unet: nn.Module, embeds: Tensor) -> None:
    """Let a new unet hear picture embeddings, (N, D) of unit length, in all of their directions from the start.

    Layers are initialised for inputs that vary by about 1 in every direction; embeddings vary by 1 / sqrt(D) on average, much in a few directions,
    such as backgrounds, and ten or a hundred times less in others, such as what is in front of them. What whitens them goes into the weights.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.3.
    """
    embeds = embeds.float()
    mean, gain = embeds.mean(dim=0), torch.eye(embeds.shape[1]) * math.sqrt(embeds.shape[1])
    if len(embeds) >= SAMPLES_PER_DIRECTION * embeds.shape[1]:
        _, values, directions = torch.linalg.svd(embeds - mean, full_matrices=False)
        spread = values / math.sqrt(len(embeds) - 1)
        gain = directions.T @ (directions / spread.clamp(min=LEAST_SPREAD * float(spread[0]))[:, None])
    for name in ("image_to_tokens", "to_image_hiddens"):
        layers = getattr(unet, name, None)
        for layer in layers if isinstance(layers, nn.Sequential) else ():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.copy_(layer.weight @ gain)
                    layer.bias.sub_(layer.weight @ mean)


def build_prior(config: dict[str, Any]) -> DiffusionPrior:
    """Build the untrained prior that the `prior` part of a train config describes."""
    net = dict(config["net"])
    if net.get("max_text_len") is None:
        # The config class hands its own default, None, on to a network that needs a number.
        net["max_text_len"] = USUAL_TEXT_LENGTH
    return DiffusionPriorConfig(**{**config, "net": net, "clip": None}).create()


def build_decoder(config: dict[str, Any]) -> Decoder:
    """Build the untrained cascade that the `decoder` part of a train config describes."""
    decoder = DecoderConfig(**{**config, "clip": None}).create()
    for unet in decoder.unets:
        keep_times_exact(unet)
    return decoder
