"""Weights from disk into networks: safetensors, or torch files that need no code; memory-mapped, straight to dtype and device.

Source of the layouts: dalle2-pytorch, releases 0.7.0 to 1.15.6, `trainer.py`, and its train scripts.
"""

import ctypes
import json
import mmap
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine.errors import Misconfigured

SNIFFED_BYTES = 512
MADV_PAGEOUT = 21
"""Of Linux from 5.4 on; older ones answer that they do not know it."""
NAMED_KEYS = 3
"""Of a long list of keys, an error names so many."""
CONFIG_LIMIT_BYTES = 1_000_000
"""Of a train config inside a safetensors file."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds: the state dict to paint with, memory-mapped; the release that it was trained with and its train config, if it says."""

    path: Path
    weights: dict[str, Tensor]
    version: str | None
    config: dict[str, Any] | None


class Inert:
    """Stands for a harmless object in a checkpoint, whatever class that had: it only keeps what was stored."""

    def __new__(cls, *stored: object) -> "Inert":
        made = super().__new__(cls)
        made.__dict__["stored"] = stored
        return made

    def __init__(self, *stored: object) -> None:
        """Take what `__new__` keeps."""

    def __setstate__(self, state: object) -> None:
        self.__dict__["state"] = state


VERSION_CLASSES = (
    "packaging.version.Version",
    "packaging.version._Version",
    "packaging._structures.InfinityType",
    "packaging._structures.NegativeInfinityType",
)
"""What the library's trainers wrote as the version of a prior, over the years of `packaging`."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors or torch file, whichever it is, without running anything that it holds. EMA weights come before others.

    Raises:
        Misconfigured: it is missing, damaged, of another format, or cannot be read without running code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
    except FileNotFoundError:
        raise Misconfigured(f"Weights {path} are missing. Check the path in the model config, or restore the file.") from None
    except OSError as error:
        raise Misconfigured(f"Weights {path} cannot be read: {error.strerror}.") from None
    if complaint := no_weights(start):
        raise Misconfigured(f"Weights {path}: this file {complaint}. Restore it and start again.")
    # A safetensors file begins with the length of its header, whose lowest byte may be the one that begins a pickle.
    if start[8:9] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        return unwrap(path, read_torch(path, is_zip=start.startswith(b"PK")))
    return read_safetensors(path)


def no_weights(start: bytes) -> str:
    """Say what a file is whose first bytes are those of no checkpoint; empty if they may be."""
    text = start.lstrip().lower()
    if not start:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, perhaps a login or an error page of the server that it comes from"
    if text.startswith(b"version https://git-lfs"):
        return "is only a pointer of git-lfs; fetch the real one with `git lfs pull`"
    if text.startswith((b"{", b"[")):
        return "is JSON"
    return ""


def read_safetensors(path: Path) -> Checkpoint:
    """Read a safetensors file; version and config, as JSON, may be in its metadata."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # it is no mapping
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise Misconfigured(f"Weights {path} are damaged or no safetensors file ({reason:.100}). Restore the file and start again.") from None
    config = facts.get("config", "")
    try:
        parsed = json.loads(config) if 0 < len(config) <= CONFIG_LIMIT_BYTES else None
    except ValueError:
        raise Misconfigured(f"Weights {path}: the config in the file's metadata is no JSON. Restore the file.") from None
    return Checkpoint(path, weights, facts.get("version"), parsed if isinstance(parsed, dict) else None)


def read_torch(path: Path, *, is_zip: bool) -> object:
    """Read a torch file that needs no code; those of torch before 1.6 cannot be memory-mapped."""
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in VERSION_CLASSES]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "nsupported" in line or "GLOBAL" in line), str(error).splitlines()[0])
        raise Misconfigured(
            f"Weights {path} cannot be read without running code that they bring along ({' '.join(reason.split()):.160}). "
            "Convert them to safetensors on a machine where you trust the file."
        ) from None
    except Exception as error:
        # A damaged pickle can lead torch's reader anywhere.
        reason = " ".join(str(error).split())
        raise Misconfigured(f"Weights {path} are damaged or no file of torch ({reason:.100}). Restore the file and start again.") from None


def unwrap(path: Path, content: object) -> Checkpoint:
    """Find the state dict, the release and the config in what a trainer saved."""
    if not isinstance(content, Mapping):
        raise Misconfigured(f"Weights {path} hold a {type(content).__name__}, not a state dict. Restore the file.")
    wrapped = next((content[key] for key in ("ema_model", "model", "state_dict") if isinstance(content.get(key), Mapping)), None)
    weights = dict(content if wrapped is None else wrapped)
    if "ema_model" not in content and isinstance(content.get("ema"), Mapping):
        weights |= averaged(content["ema"])
    weights = {str(key).removeprefix("module."): value for key, value in weights.items() if isinstance(value, Tensor)}
    if not weights:
        raise Misconfigured(f"Weights {path} hold no tensors. Restore the file.")
    version, config = content.get("version"), content.get("config")
    return Checkpoint(path, weights, None if version is None else release_of(version), config if isinstance(config, dict) else None)


def averaged(ema: Mapping[str, object]) -> dict[str, object]:
    """Return the averaged weights of what ema-pytorch saved: of a whole model, or of a decoder's unets one by one."""
    found = {}
    for key, value in ema.items():
        head, mark, tail = str(key).partition("ema_model.")
        if mark and (not head or head.rstrip(".").isdigit()):
            found[f"unets.{head}{tail}" if head else tail] = value
    return found


def release_of(version: object) -> str:
    """Return the release that a checkpoint names, as text or as an object of `packaging`."""
    if isinstance(version, Inert):
        numbers = release_numbers(vars(version))
        return ".".join(map(str, numbers)) if numbers else "an unreadable version"
    return str(version)


def release_numbers(stored: object, depth: int = 0) -> tuple[int, ...]:
    """Find the first tuple of at least two whole numbers inside nested plain values."""
    if isinstance(stored, Inert):
        stored = vars(stored)
    if isinstance(stored, tuple) and len(stored) >= 2 and all(isinstance(value, int) for value in stored):
        return stored
    values = stored.values() if isinstance(stored, Mapping) else stored if isinstance(stored, (tuple, list)) else ()
    if depth > 8:
        return ()
    return next((numbers for value in values if (numbers := release_numbers(value, depth + 1))), ())


def load_into(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    path: Path,
    *,
    dtype: torch.dtype,
    device: str,
    exact: Callable[[str], bool] = lambda key: False,
) -> None:
    """Put weights into a module on the meta device, tensor by tensor, and get it ready to paint.

    Its floating-point tensors become `dtype`, but float32 those whose keys are `exact`. What a tensor was converted from leaves memory at once,
    so that no second copy of the file builds up.

    Raises:
        Misconfigured: a tensor is missing, has another shape or holds what is no number.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if findings := differences(wanted, weights, strict=False):
        raise Misconfigured(f"Weights {path} are those of another network: {findings}.")
    filled = {}
    for key in wanted:
        stored = weights[key]
        if stored.is_floating_point():
            if not torch.isfinite(stored).all():
                raise Misconfigured(f"Weights {path}: {key} holds values that are no numbers. Restore the file and start again.")
            # Convolutions are faster on channels that lie side by side: a sixth on the CPU, and they pass that order on.
            layout = torch.channels_last if stored.ndim == 4 else torch.preserve_format
            filled[key] = stored.to(device, torch.float32 if exact(key) else dtype, memory_format=layout)
        else:
            filled[key] = stored.to(device)
        if filled[key].data_ptr() != stored.data_ptr():
            forget_pages(stored)
    module.load_state_dict(filled, strict=True, assign=True)
    module.eval().requires_grad_(False)


def differences(wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], *, strict: bool) -> str:
    """Say how a checkpoint's tensors differ from the wanted ones; unknown ones only if `strict`. Empty where they do not."""
    findings = []
    if missing := sorted(wanted.keys() - weights.keys()):
        findings.append(f"{len(missing)} tensors are missing ({some(missing)})")
    if (unknown := sorted(weights.keys() - wanted.keys())) and strict:
        findings.append(f"{len(unknown)} are not known ({some(unknown)})")
    shapes = [f"{key} {tuple(weights[key].shape)} for {shape}" for key, shape in wanted.items() if key in weights and weights[key].shape != shape]
    if shapes:
        findings.append(f"{len(shapes)} have another shape ({some(shapes)})")
    return "; ".join(findings)


def some(keys: list[str]) -> str:
    """List the first few keys."""
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(key[:80] for key in keys[:NAMED_KEYS]) + more


def forget_pages(tensor: Tensor) -> None:
    """Ask the system to take back the pages of a memory-mapped tensor, which it can read again."""
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0 and sys.platform == "linux":
        # Not MADV_DONTNEED: where a tensor is no mapping after all, that would wipe it out.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_PAGEOUT)
