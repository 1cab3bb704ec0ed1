"""Files that are there as a whole or not at all, and networks in the form that `engine` and the library load."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import Misconfigured
from engine.unclip.dialects import Release

LOCK = ".lock"
READABLE = 0o644
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, so that nobody else writes to it meanwhile.

    Raises:
        Misconfigured: somebody does already.
        OSError: there can be no such folder, or nothing can be written to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise Misconfigured(f"Another run is writing to {folder}. Wait for it, or name another folder.") from None


def put_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place and put there when all of it is on the disk. If that fails, what was there before stays."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        # safetensors lets nobody but its owner read what it writes; a bot may run as somebody else.
        part.chmod(READABLE)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def put_json(path: Path, content: Any) -> None:
    """Put JSON in its place as `put_whole` does."""
    put_whole(path, lambda part: part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file of a run in its place.

    Raises:
        Misconfigured: it cannot be written. What was there before stays.
    """
    try:
        put_whole(path, write)
    except (OSError, RuntimeError, SafetensorError) as error:
        refusal = of_system(error)
        if refusal is None:
            raise
        raise Misconfigured(unwritable(path, refusal)) from None


def of_system(error: Exception) -> OSError | None:
    """Return what the operating system said, which torch's writer hides and safetensors' has in its text; None where it said nothing."""
    if isinstance(error, OSError):
        return error
    if found := re.search(r"os error (\d+)", str(error)):
        number = int(found[1])
        return OSError(number, os.strerror(number))
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if "inline_container" in str(error) else None


def unwritable(path: Path, error: OSError) -> str:
    """Say why a file or folder of a run cannot be written."""
    reason = "the disk is full. Make room and" if error.errno in FULL else f"{error.strerror or error}. Mend that and"
    return f"{path} cannot be written: {reason} run the same command again: it goes on from the last good checkpoint."


def write_networks(folder: Path, name: str, weights: dict[str, Tensor], config: dict[str, Any], release: Release) -> None:
    """Write networks of a release as NAME.pth, `{"model", "version", "config"}` as the library's trainers do, and as NAME.safetensors.

    Raises:
        Misconfigured: they cannot be written.
    """
    weights = {key: value.detach().cpu() for key, value in weights.items()}
    facts = {"version": str(release), "config": json.dumps(config)}
    write_whole(folder / f"{name}.pth", lambda path: torch.save({"model": weights, "version": str(release), "config": config}, path))
    write_tensors(folder / f"{name}.safetensors", weights, facts)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, str] | None = None) -> None:
    """Write tensors and facts about them as safetensors.

    Raises:
        Misconfigured: they cannot be written.
    """
    # The format has no word for tensors that share their memory, as the rotary frequencies of all layers do.
    own = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    write_whole(path, lambda part: save_file(own, part, metadata=facts))
