"""The library's own modules, which train; what they learn is painted with by `engine.unclip`.

Source: dalle2-pytorch 1.15.6.
"""

import math
from typing import Any

import torch
from dalle2_pytorch import Decoder, DiffusionPrior
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from torch import Tensor, nn

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


def hear_embeddings(unet: nn.Module) -> None:
    """Let a new unet hear picture embeddings from the start.

    They have unit length, so each of their D numbers is about 1 / sqrt(D), and layers initialised for numbers of about 1 hardly notice them.
    """
    for name in ("image_to_tokens", "to_image_hiddens"):
        layers = getattr(unet, name, None)
        for layer in layers if isinstance(layers, nn.Sequential) else ():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.mul_(math.sqrt(layer.in_features))


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
        hear_embeddings(unet)
    return decoder
