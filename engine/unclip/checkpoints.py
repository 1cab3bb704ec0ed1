"""Weights from disk into networks: safetensors only, which can hold no code."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import Misconfigured

DERIVED = ("noise_schedulers.", "lowres_conds.", "vaes.", "_dummy")
"""Parts of the library's modules that follow from the config and need no weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, memory-mapped.

    Raises:
        Misconfigured: it is missing, truncated or of another format.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise Misconfigured(f"Weights {path} are missing. Check the path in the model config, or restore the file.") from None
    except (SafetensorError, OSError) as error:
        raise Misconfigured(f"Weights {path} are damaged or no safetensors file ({error}). Restore the file and start again.") from None


def fill(module: nn.Module, path: Path) -> None:
    """Load the weights at `path` into `module`, in float32, and get it ready to paint.

    Raises:
        Misconfigured: the file cannot be read, or its tensors are not those of the module.
    """
    weights = read_weights(path)
    wanted = {key: value.shape for key, value in module.state_dict().items() if not key.startswith(DERIVED)}
    missing, unexpected = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    if missing or unexpected:
        example = min(missing or unexpected)
        raise Misconfigured(
            f"Weights {path} are those of another network: {len(missing)} tensors missing, {len(unexpected)} unexpected, such as {example}."
        )
    for key, shape in wanted.items():
        if weights[key].shape != shape:
            raise Misconfigured(f"Weights {path}: {key} has shape {tuple(weights[key].shape)}, the config asks for {tuple(shape)}.")
        if not torch.isfinite(weights[key]).all():
            raise Misconfigured(f"Weights {path}: {key} holds values that are no numbers. Restore the file and start again.")
    module.load_state_dict({key: weights[key].float() for key in wanted}, strict=False)
    module.eval().requires_grad_(False)
