"""ZIP files of pictures and facts, each small enough for the place that it goes to."""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from engine.pictures import fit

OVERHEAD_BYTES = 200
"""Of a file in an archive, beside its name, which stands there twice, and of the archive's own end: somewhat more than it is."""


def packed(files: Iterable[tuple[str, Path | bytes]], facts: Any, limit_bytes: int) -> Iterator[bytes]:
    """Yield ZIP archives of at most `limit_bytes` that hold files and, in the first, `facts` as JSON, one after the other, each made when asked for.

    A picture that is larger than an archive may be is made to fit, see `engine.pictures.fit`; one whose file is lost is left out.
    """
    archive = Archive()
    for name, data in pieces(files, facts, limit_bytes):
        if archive.names and archive.size + len(data) + 2 * len(name.encode()) + OVERHEAD_BYTES > limit_bytes:
            yield archive.closed()
            archive = Archive()
        archive.add(name, data)
    yield archive.closed()


def pieces(files: Iterable[tuple[str, Path | bytes]], facts: Any, limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield what goes into archives: the facts, in as many parts as they need, and the files."""
    most = limit_bytes - 4 * OVERHEAD_BYTES
    # Half a character, which no encoding has, is written as JSON writes it.
    text = json.dumps(facts, indent=1, ensure_ascii=False).encode(errors="backslashreplace")
    for part, start in enumerate(range(0, len(text), most)):
        yield ("everything.json" if part == 0 else f"everything.json.{part}"), text[start : start + most]
    for name, data in files:
        if isinstance(data, Path):
            try:
                data = data.read_bytes()
            except FileNotFoundError:
                continue
        if len(data) > most:
            data, ending = fit(data, most)
            name = f"{name.rpartition('.')[0]}.{ending}"
        yield name, data


class Archive:
    """A ZIP that is being written, in memory; nothing is compressed but texts, for pictures are already."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._zip = zipfile.ZipFile(self._file, "w")
        self.names: list[str] = []
        self.size = OVERHEAD_BYTES

    def add(self, name: str, data: bytes) -> None:
        """Add a file."""
        how = zipfile.ZIP_DEFLATED if ".json" in name else zipfile.ZIP_STORED
        self._zip.writestr(name, data, how)
        self.names.append(name)
        self.size = self._file.tell() + sum(len(known.encode()) + OVERHEAD_BYTES for known in self.names)

    def closed(self) -> bytes:
        """Return the whole archive."""
        self._zip.close()
        return self._file.getvalue()
