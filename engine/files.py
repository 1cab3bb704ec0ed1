"""Files of a model, here or elsewhere: fetched once, verified, kept, and found again without a network.

Source of the format: LAION-AI/dalle2-laion, `File` in `dalle2_laion/config.py`.
"""

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from engine.errors import Misconfigured

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
CHECKSUM_LIMIT_BYTES = 1 << 20
"""Of a file that holds a checksum."""
DISK_RESERVE_BYTES = 200 << 20
"""Left free by a download."""
TIMEOUT_S = 30.0
TRIES = 5
"""Without getting any further."""
WAIT_S = 0.5
"""Before the second try; twice as long before each later one."""
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".json", ".npy")
"""Endings of files that are never web pages."""
HUB_PATH = re.compile(r"^/(?P<repository>[\w.-]+/[\w.-]+)/(?:resolve|raw|blob)/(?P<revision>[^/]+)/(?P<name>.+)$")
POINTER = re.compile(r"oid sha256:([0-9a-f]{64})\s+size (\d+)")


class File(BaseModel):
    """Where a file is; local paths, and the folder that keeps fetched files, are relative to the model config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    load_type: Literal["local", "url"]
    path: str
    checksum_file_path: str | None = None
    cache_dir: str | None = None
    filename_override: str | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes must come to. `kind` is "sha256", or "git" for the Hub's small files; `size` in bytes, None where unknown."""

    kind: str
    value: str
    size: int | None = None


def fetch(file: File, folder: Path) -> Path:
    """Return where a file lies on this machine, after fetching and verifying it if need be; `folder` is that of the model config.

    Raises:
        Misconfigured: it is missing, cannot be fetched, is not what its checksum says, or there is no room for it.
    """
    if file.load_type == "local":
        path = folder / Path(file.path).expanduser()
        if not path.is_file():
            raise Misconfigured(f"{path} is missing. Check the path in the model config, or restore the file.")
        return path
    name, cache, found = places_of(file, folder)
    try:
        if found:
            return from_hub(found["repository"], found["revision"], found["name"], cache, name)
        return from_address(file.path, target_of(file, cache, name), file.checksum_file_path, folder)
    except OSError as error:
        raise Misconfigured(f"{file.path} cannot be kept on this machine: {error.strerror or error}. See that the disk has room.") from None


def kept(file: File, folder: Path) -> Path | None:
    """Return where a file lies on this machine, unverified; None where it is still to be fetched. `folder` is that of the model config.

    Raises:
        Misconfigured: it should be on this machine and is missing, or its address is none.
    """
    if file.load_type == "local":
        return fetch(file, folder)
    name, cache, found = places_of(file, folder)
    if found:
        from huggingface_hub import try_to_load_from_cache

        if cache is not None and (cache / name).is_file():
            return cache / name
        path = try_to_load_from_cache(found["repository"], found["name"], cache_dir=cache and cache / "hub", revision=found["revision"])
        return Path(path) if isinstance(path, str) else None
    target = target_of(file, cache, name)
    return target if target.is_file() else None


def places_of(file: File, folder: Path) -> tuple[str, Path | None, re.Match[str] | None]:
    """Return what a file from an address is called here, the folder that its config wants it kept in, and where it is on the Hub if it is there.

    Raises:
        Misconfigured: it is no address, or the name is none of a file.
    """
    address = urllib.parse.urlsplit(file.path)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise Misconfigured(f"'{file.path:.200}' is no address that a file can be fetched from: it must begin with https:// or http://.")
    name = file_name(file.filename_override or urllib.parse.unquote(address.path.rsplit("/", 1)[-1]), file.path)
    cache = None if file.cache_dir is None else folder / Path(file.cache_dir).expanduser()
    return name, cache, HUB_PATH.match(urllib.parse.unquote(address.path)) if is_hub(address) else None


def target_of(file: File, cache: Path | None, name: str) -> Path:
    """Return where a file is kept that does not come from the Hub."""
    return (cache or Path.home() / ".cache" / "reverie" / hashlib.sha256(file.path.encode()).hexdigest()[:16]) / name


def file_name(name: str, address: str) -> str:
    """Make sure that a name stays inside of the folder that it is put into.

    Raises:
        Misconfigured: it does not, or is empty.
    """
    if not name or name in (".", "..") or any(character in name for character in "/\\\0") or len(name.encode(errors="replace")) > 200:
        raise Misconfigured(f"{address:.200}: '{name:.60}' cannot be the name of a file. Set filename_override.")
    return name


# --- the Hub ---


def is_hub(address: urllib.parse.SplitResult) -> bool:
    """Tell whether an address is one of the Hub, or of the one that stands in for it here."""
    from huggingface_hub import constants

    return address.netloc in ("huggingface.co", "hf.co", "www.huggingface.co", urllib.parse.urlsplit(constants.ENDPOINT).netloc)


def from_hub(repository: str, revision: str, name: str, cache: Path | None, link_name: str) -> Path:
    """Fetch a file of the Hub with its own client, which caches, resumes and works offline, and verify it.

    With a `cache` folder, the file is also found there under its plain name, where dalle2-laion keeps it; one that dalle2-laion has left there,
    with its pointer beside it, is used as it is.
    """
    from huggingface_hub import hf_hub_download

    what = f"{repository}/{name} of the Hub"
    if cache is not None and (kept := kept_by_predecessor(cache / link_name)):
        return kept
    options: dict[str, Any] = {"revision": revision, "cache_dir": cache and cache / "hub"}
    for force in (False, True):
        try:
            path = Path(hf_hub_download(repository, name, force_download=force, **options))
        except Exception as error:
            # The Hub's client lets errors of the network, the disk and of its own through, of many kinds.
            raise Misconfigured(hub_sentence(what, error)) from None
        # The Hub's client calls a blob by its checksum: SHA-256 of large files, git's SHA-1 of small ones.
        value = path.resolve().name
        digest = Digest("sha256" if len(value) == 64 else "git", value) if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value) else None
        if digest is None or is_verified(path, digest):
            return path if cache is None else linked(path, cache / link_name)
        log.warning("%s is damaged in the cache and is fetched again", what)
    raise Misconfigured(f"{what} is not what its checksum says, twice in a row. Try again later, or tell its owner.")


def hub_sentence(what: str, error: Exception) -> str:
    """Say in one sentence why the Hub's client failed."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return f"{what} is only for people who accepted its terms. Accept them there, and set HF_TOKEN."
        case errors.RepositoryNotFoundError() | errors.EntryNotFoundError() | errors.RevisionNotFoundError() if not isinstance(
            error, errors.LocalEntryNotFoundError
        ):
            return f"{what} does not exist, or is private. Check the address; for a private one, set HF_TOKEN."
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return f"{what} cannot be reached and is not in the cache. Connect to the network once, or unset HF_HUB_OFFLINE."
        case OSError(errno=errno.ENOSPC):
            return f"{what} does not fit on the disk. Make room, or set cache_dir to another disk."
    reason = " ".join(str(error).split())
    return f"{what} cannot be fetched: {reason:.200}. Check the network and try again."


def kept_by_predecessor(path: Path) -> Path | None:
    """Return a file that dalle2-laion has kept, if it is still what the pointer beside it says."""
    pointer = path.with_name(path.name + ".checksum")
    if path.is_symlink() or not path.is_file() or not pointer.is_file():
        return None
    digest = read_digest(pointer.read_text(errors="replace")[:CHECKSUM_LIMIT_BYTES])
    return path if digest is not None and is_verified(path, digest) else None


def linked(path: Path, link: Path) -> Path:
    """Let a file be found under a plain name too, and return that; what lies there already is not touched."""
    if link.is_symlink() or not link.exists():
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(path, link.parent))
        temporary.replace(link)
        return link
    return path


# --- any other address ---


def from_address(address: str, target: Path, checksum: str | None, folder: Path) -> Path:
    """Fetch a file from any server to `target`, unless it is there and still what its checksum says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        wanted = None
        if checksum is not None:
            try:
                wanted = wanted_digest(checksum, folder)
            except Misconfigured as error:
                if not target.is_file():
                    raise
                log.warning("%s Using the file that is here already.", error)
                return target
        if target.is_file() and (wanted is None or is_verified(target, wanted)):
            return target
        part = target.with_name(f"{target.name}.part")
        download(address, part, wanted.size if wanted else None)
        if wanted is not None and not is_verified(part, wanted):
            part.unlink()
            raise Misconfigured(f"{address} is not what {checksum} says. Try again later, or tell its owner.")
        part.replace(target)
        part.with_name(f".{part.name}.json").unlink(missing_ok=True)
        return target


def wanted_digest(checksum: str, folder: Path) -> Digest:
    """Read a checksum from an address or a local file: git-lfs's pointer, sha256sum's line, bare digits, or the very content itself.

    Raises:
        Misconfigured: it cannot be had.
    """
    if re.match(r"https?://", checksum):
        content = small_file(checksum)
    else:
        path = folder / Path(checksum).expanduser()
        try:
            content = path.read_bytes()[:CHECKSUM_LIMIT_BYTES]
        except OSError as error:
            raise Misconfigured(f"The checksum file {path} cannot be read: {error.strerror}.") from None
    digest = read_digest(content.decode(errors="replace"))
    # dalle2-laion's configs name small files as their own checksums: equal content means that nothing is new.
    return digest or Digest("sha256", hashlib.sha256(content).hexdigest(), len(content))


def read_digest(text: str) -> Digest | None:
    """Find a SHA-256 in the text of a checksum file."""
    if pointer := POINTER.search(text):
        return Digest("sha256", pointer[1], int(pointer[2]))
    line = re.fullmatch(r"([0-9a-fA-F]{64})(\s+\*?\S.*)?", text.strip())
    return Digest("sha256", line[1].lower()) if line else None


def small_file(address: str) -> bytes:
    """Fetch a small file whole.

    Raises:
        Misconfigured: it cannot be fetched.
    """
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(CHECKSUM_LIMIT_BYTES)
            return content
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise Misconfigured(f"{address} cannot be fetched: {reason_of(error)}.") from None


def download(address: str, part: Path, size: int | None) -> None:
    """Fetch an address into `part`, going on where an earlier try ended if the server still has the same file.

    Raises:
        Misconfigured: it cannot be fetched, or there is no room for it.
    """
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if attempt(address, part, size):
                return
            reason = "the connection ended too early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise Misconfigured(f"{address} cannot be fetched: {http_sentence(error.code)}") from None
            reason = f"the server answers {error.code}"
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                part.unlink(missing_ok=True)
                raise Misconfigured(f"{address} does not fit on the disk. Make room, or set cache_dir to another disk.") from None
            reason = reason_of(error)
        except (http.client.HTTPException, ValueError) as error:
            reason = reason_of(error)
        got_further = part.exists() and part.stat().st_size > before
        tries = 1 if got_further else tries + 1
        if tries >= TRIES:
            raise Misconfigured(f"{address} cannot be fetched: {reason}. Check the address and the network, and try again.")
        time.sleep(WAIT_S * 2 ** (tries - 1))


def attempt(address: str, part: Path, size: int | None) -> bool:
    """Fetch as much as one connection brings; return whether that is all."""
    noted = part.with_name(f".{part.name}.json")
    have = part.stat().st_size if part.exists() and noted.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "Reverie", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        # A server that has another file by now sends all of it.
        request.add_header("If-Range", json.loads(noted.read_text())["validator"])
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            error.close()
            part.unlink(missing_ok=True)
            return False
        raise
    with answer:
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else size
        check_room(address, part.parent, (total or 0) - have)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            noted.write_text(json.dumps({"validator": validator}))
        else:
            noted.unlink(missing_ok=True)
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=part.name.removesuffix(".part"), total=total, initial=have, unit="B", unit_scale=True, leave=False, disable=None) as bar,
        ):
            while chunk := answer.read(CHUNK_BYTES):
                if not have and file.tell() == 0:
                    refuse_page(address, answer.headers.get("Content-Type", ""), chunk)
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() >= total


def refuse_page(address: str, kind: str, start: bytes) -> None:
    """Make sure that a server does not answer with a web page where weights are asked for.

    Raises:
        Misconfigured: it does.
    """
    path = urllib.parse.urlsplit(address).path
    if path.endswith(WEIGHTS) and (kind.startswith("text/html") or start.lstrip().lower().startswith((b"<!doctype", b"<html"))):
        raise Misconfigured(f"{address} answers with a web page, perhaps a login or an error. Open it in a browser and check the address.")


def check_room(address: str, folder: Path, needed: int) -> None:
    """Make sure that a download fits on the disk before it starts.

    Raises:
        Misconfigured: it does not.
    """
    free = shutil.disk_usage(folder).free
    if needed + DISK_RESERVE_BYTES > free:
        raise Misconfigured(
            f"{address} needs {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free. Make room, or set cache_dir to another disk."
        )


def http_sentence(code: int) -> str:
    """Say what a server's refusal means."""
    match code:
        case 401 | 403:
            return f"the server refuses it ({code}). It may be private, or need a token in the address."
        case 404 | 410:
            return f"there is no such file ({code}). Check the address."
        case _ if code < 400:
            return f"it is redirected in circles, or to what is no web address ({code}). Check the address."
    return f"the server answers {code}. Check the address."


def reason_of(error: Exception) -> str:
    """Say in a few words what went wrong on the network."""
    inner = getattr(error, "reason", None)
    text = " ".join(str(inner if inner is not None else error).split())
    return text[:160] or type(error).__name__


# --- verifying ---


def is_verified(path: Path, digest: Digest) -> bool:
    """Tell whether a file is what a digest says. A file that has not changed since it was verified is not read again."""
    facts = path.stat()
    if digest.size is not None and facts.st_size != digest.size:
        return False
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    note = Path.home() / ".cache" / "reverie" / "verified" / key
    state = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino} {digest.kind} {digest.value}"
    try:
        if note.read_text() == state:
            return True
    except OSError:
        pass
    if hash_file(path, digest.kind, facts.st_size) != digest.value:
        return False
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(state)
    except OSError:
        # It is only read once more next time.
        log.warning("what is verified cannot be noted in %s", note.parent)
    return True


def hash_file(path: Path, kind: str, size: int) -> str:
    """Return SHA-256, or git's SHA-1 of a blob, as hexadecimal digits."""
    # git's is no promise against attackers; it is what the Hub has for small files.
    hashed = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with (
        path.open("rb") as file,
        tqdm(
            desc=f"verify {path.name}", total=size, unit="B", unit_scale=True, leave=False, disable=None if size > 100 * CHUNK_BYTES else True
        ) as bar,
    ):
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
            bar.update(len(chunk))
    return hashed.hexdigest()
