"""Pictures with their captions, as people have them: a folder, a folder with a table, or what img2dataset wrote."""

import csv
import hashlib
import json
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import Misconfigured
from engine.jobs import words_of
from engine.training.data.tally import Reason
from engine.training.data.tars import caption_of, clean, expected_count, find_shards, picture_of, read_tar
from engine.uploads import LIMIT_BYTES

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
CAPTION_LIMIT_BYTES = 64 * 1024
"""Of a file with a caption: no more of it is read."""
FILE_COLUMNS = ("file", "path", "file_name", "filename", "image", "image_path", "url")
CAPTION_COLUMNS = ("caption", "text", "prompt")
COUNTER = re.compile(r"\s*(?:\(\d+\)|\d+)$")
"""At the end of a name: what tells pictures of one thing apart."""
NO_WORDS = set("img dsc dscn dscf pxl mvimg image images photo picture pic screenshot untitled unnamed download".split())
"""What cameras and browsers call pictures of anything."""

Cursor = tuple[int, int]
"""Where in a source reading goes on: which of its parts, and how many pictures of that one were read."""


@dataclass(frozen=True, slots=True)
class Found:
    """One picture of a source, undecoded, or the `problem` that keeps it away, and `why`. `after` is the place of the next one."""

    name: str
    after: Cursor
    data: bytes = b""
    caption: str = ""
    problem: Reason | None = None
    why: str = ""


class Source(Protocol):
    """Pictures in an order that does not change."""

    def count(self) -> int | None:
        """Return how many there are, where that is known before they are read."""

    def fingerprint(self) -> str:
        """Return what changes where any picture or caption does."""

    def read(self, start: Cursor) -> Iterator[Found]:
        """Yield every picture from a place on."""


def open_source(path: Path, captions: Path | None, columns: tuple[str | None, str | None], out: Path) -> Source:
    """Find out what a source is; `columns` name those of the captions' table, `out` is no part of it.

    Raises:
        Misconfigured: there is no such source, or it holds no picture.
    """
    if path.suffix == ".tar" or any(path.glob("*.tar")):
        if captions:
            raise Misconfigured(f"The captions of {path} are inside of the .tar files. Leave --captions out.")
        return Tars(find_shards(path))
    if not path.is_dir():
        raise Misconfigured(f"{path} is no folder. Name a folder with pictures, or with the .tar files of img2dataset.")
    pictures = sorted(walk(path, out))
    if not pictures:
        raise Misconfigured(f"{path} holds no picture ({', '.join(ENDINGS)}) and no .tar file. Check the path.")
    return Folder(path, pictures, read_table(captions, *columns) if captions else None)


def walk(top: Path, out: Path) -> Iterator[str]:
    """Yield the relative path of every picture below a folder; links to folders are followed, each folder once.

    Raises:
        Misconfigured: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise Misconfigured(f"{error.filename} cannot be read: {error.strerror}. Allow it, or move it out of {top}.") from None

    entered = {os.path.realpath(out)}
    for folder, inner, names in os.walk(top, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in names:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield (Path(folder) / name).relative_to(top).as_posix()


class Table:
    """Captions by the path of a file, as a table has them: from the folder of the pictures, from one above it, or from one in it."""

    def __init__(self, captions: dict[str, str]) -> None:
        self.captions = captions
        self.alike: dict[str, list[str]] = {}
        for path in captions:
            self.alike.setdefault(bare(path), []).append(path)

    def find(self, name: str) -> str | None:
        """Find the path that a picture has in the table: its own, else the longest that ends alike."""
        alike = [path for path in self.alike.get(bare(name), ()) if f"/{path}".endswith(f"/{name}") or f"/{name}".endswith(f"/{path}")]
        return name if name in alike else max(alike, key=len, default=None)


def bare(path: str) -> str:
    """Return the name of a file without its folders."""
    return path.rsplit("/", 1)[-1]


class Folder:
    """A folder of pictures.

    A caption is what the .txt file beside the picture says, else what the table says. Where there is neither table nor any such file, the names of
    the pictures are the captions.
    """

    def __init__(self, top: Path, pictures: Sequence[str], table: Table | None) -> None:
        self.top, self.pictures, self.table = top, pictures, table
        self.names_are_captions = table is None and not any(self.text_file(name).is_file() for name in pictures)
        there = {table.find(name) for name in pictures} if table else set()
        self.missing = [path for path in table.captions if path not in there] if table else []

    def count(self) -> int | None:
        """Return how many there are, with those that only the table names."""
        return len(self.pictures) + len(self.missing)

    def text_file(self, name: str) -> Path:
        """Return where the caption of a picture would be."""
        return (self.top / name).with_suffix(".txt")

    def fingerprint(self) -> str:
        """Return what changes where any picture or caption does."""
        state: list[object] = [state_of(path) for name in self.pictures for path in (self.top / name, self.text_file(name))]
        return digest([*self.pictures, *state, self.table and sorted(self.table.captions.items())])

    def read(self, start: Cursor) -> Iterator[Found]:
        """Yield every picture from a place on, and then what the table names in vain."""
        for index, name in enumerate(self.pictures[start[1] :], start[1]):
            yield self.found(name, (0, index + 1))
        for index, name in enumerate(self.missing, len(self.pictures)):
            if index >= start[1]:
                yield Found(name, (0, index + 1), problem=Reason.MISSING)

    def found(self, name: str, after: Cursor) -> Found:
        """Read one picture and its caption."""
        try:
            caption = self.caption(name)
            if not caption:
                return Found(name, after, problem=Reason.CAPTION)
            with (self.top / name).open("rb") as file:
                return Found(name, after, file.read(LIMIT_BYTES + 1), caption)
        except OSError as error:
            return Found(name, after, problem=Reason.UNREADABLE, why=error.strerror or type(error).__name__)

    def caption(self, name: str) -> str:
        """Return the caption of a picture, empty where there is none."""
        text = self.text_file(name)
        if text.is_file():
            with text.open("rb") as file:
                return clean(file.read(CAPTION_LIMIT_BYTES).decode("utf-8-sig", "replace"))
        if self.table is not None:
            return self.table.captions.get(self.table.find(name) or "", "")
        return caption_of_name(Path(name).stem) if self.names_are_captions else ""


class Tars:
    """What img2dataset wrote: shards with pictures, captions and facts."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def count(self) -> int | None:
        """Return how many there are, where the files beside the shards say so."""
        counts = [expected_count(shard) for shard in self.shards]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def fingerprint(self) -> str:
        """Return what changes where any shard does."""
        return digest([[shard.name, state_of(shard)] for shard in self.shards])

    def read(self, start: Cursor) -> Iterator[Found]:
        """Yield every picture from a place on."""
        for part in range(start[0], len(self.shards)):
            shard = self.shards[part]
            index = -1
            for index, (key, files) in enumerate(read_tar(shard)):
                if part == start[0] and index < start[1]:
                    continue
                name, after = f"{shard.name}/{key}", (part, index + 1)
                picture, caption = picture_of(files), caption_of(files)
                if picture is None:
                    yield Found(name, after, problem=Reason.UNREADABLE, why="no picture in this sample")
                elif not caption:
                    yield Found(name, after, problem=Reason.CAPTION)
                else:
                    yield Found(name, after, picture, caption)
            expected = expected_count(shard)
            if expected is not None and expected != index + 1:
                raise Misconfigured(f"Shard {shard} holds {index + 1} samples, but its stats say {expected}. Fetch it again, or leave it out.")


def state_of(path: Path) -> list[int]:
    """Return size and time of a file; nothing where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns]


def digest(value: object) -> str:
    """Return a hash of any value that JSON knows."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def caption_of_name(stem: str) -> str:
    """Turn the name of a file, without its ending, into words; empty where it says nothing about the picture."""
    words = clean(re.sub(r"[_\-+.\s]+", " ", unicodedata.normalize("NFC", stem)))
    without_counter = COUNTER.sub("", words)
    while without_counter != words:
        words, without_counter = without_counter, COUNTER.sub("", without_counter)
    says_something = any(letter.isalpha() for letter in words) and not set(words_of(words)) <= NO_WORDS
    return words if says_something else ""


def read_table(path: Path, file_column: str | None, caption_column: str | None) -> Table:
    """Read the captions of a CSV, TSV or Parquet file; without names of columns, the usual ones are looked for.

    Raises:
        Misconfigured: it cannot be read, or has no such columns.
    """
    try:
        rows: Iterable[tuple[object, object]]
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                names = choose_columns(path, file.schema_arrow.names, file_column, caption_column)
                table = file.read(columns=[*dict.fromkeys(names)])
            rows = zip(table[names[0]].to_pylist(), table[names[1]].to_pylist(), strict=True)
        else:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
                names = choose_columns(path, reader.fieldnames or [], file_column, caption_column)
                rows = [(row[names[0]], row[names[1]]) for row in reader]
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Misconfigured(f"{path} is no CSV in UTF-8 and no Parquet file: {reason:.120}.") from None
    captions: dict[str, str] = {}
    for name, caption in rows:
        if isinstance(name, str) and isinstance(caption, str) and name and clean(caption):
            captions[file_of(name)] = clean(caption)
    return Table(captions)


def choose_columns(path: Path, names: Sequence[str], file_column: str | None, caption_column: str | None) -> tuple[str, str]:
    """Find the columns of files and of captions.

    Raises:
        Misconfigured: there are none.
    """
    chosen = []
    for option, asked, usual in (("--file-column", file_column, FILE_COLUMNS), ("--caption-column", caption_column, CAPTION_COLUMNS)):
        wanted = (asked,) if asked else usual
        found = next((name for want in wanted for name in names if name.lower() == want.lower()), None)
        if found is None:
            raise Misconfigured(f"{path} has no column {' or '.join(wanted)}; it has {', '.join(names) or 'none'}. Name one with {option}.")
        chosen.append(found)
    return chosen[0], chosen[1]


def file_of(name: str) -> str:
    """Return the path that a table means: of an address, its last part."""
    if re.match(r"[a-z]+://", name):
        return urllib.parse.unquote(urllib.parse.urlsplit(name).path.rsplit("/", 1)[-1])
    return name.replace("\\", "/").removeprefix("./")
