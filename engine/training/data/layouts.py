"""Samples for training, out of shards: any of the three layouts in use, in an order that a seed repeats, from any place on.

Where the embeddings are:
    inside    SSSS.tar holds SSSSIIII.npy beside SSSSIIII.jpg
    beside    img_emb_SSSS.npy, whose row IIII is that of sample SSSSIIII, in the shards' folder or another one
    apart     clip-retrieval's img_emb/ and metadata/, in any order; brought into the order of the samples once, by `engine.training.data.reorder`
"""

import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from engine.errors import InvalidRequest, Misconfigured
from engine.training.data.pictures import on_white
from engine.training.data.reorder import is_unordered, open_rows, reorder
from engine.training.data.tars import TWICE, Widths, caption_of, expected_count, find_shards, find_widths, number_of, picture_of, read_tar
from engine.uploads import Frame, Framing, open_picture

BESIDE = re.compile(r"img_emb_(\d+)\.npy")
ROWS_AT_ONCE = 4096
NO_PICTURE, NO_CAPTION, NO_EMBEDDING, AMBIGUOUS = "no readable picture", "no caption", "no embedding", "two files of a name"
SMALL = "smaller than {} pixels"


class Sample(NamedTuple):
    """One picture with its caption.

    Shapes:
        picture  (3, H, W) uint8, or None where none was asked for
        embed    (D,) float32, or None where none was asked for
    """

    picture: Tensor | None
    caption: str
    embed: Tensor | None
    key: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A sample as a shard holds it. `embed` is its .npy, or its row beside the shard."""

    shard: Path
    key: str
    picture: bytes | None
    caption: str
    embed: bytes | np.ndarray | None
    twice: bool


class PassedOver(Exception):
    """A sample cannot be used; the message is one of the reasons above."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far reading is: in which epoch, at which place the block at hand begins, and how many of its samples were taken.

    `shard` counts in the order of the epoch, `sample` in that shard. `passed` says how many samples could not be used so far, and why.
    """

    epoch: int = 0
    block: int = 0
    shard: int = 0
    sample: int = 0
    taken: int = 0
    passed: dict[str, int] = field(default_factory=dict)


class Samples(IterableDataset[Sample]):
    """The samples of some shards, epoch after epoch.

    `path` is a folder of shards, one .tar, or a pattern like `shards/{00000..00009}.tar`. `embeddings` is the folder of those that lie elsewhere.
    What is asked for (`pictures`, `captions`, `embeds`) is there in every sample; one that lacks it or is damaged is passed over and counted in
    `passed`. `width` is that of the embeddings, `side` cuts pictures to squares.

    With a `seed`, shards and samples come in another order in each epoch, samples being drawn from a block of `buffer`. `epochs` is how many there
    are, None for ever. `share` is the part of one reader of several: number and count; workers of a `DataLoader` divide it further.

    `state_dict` says where reading is and `load_state_dict` goes on there, as torchdata's StatefulDataLoader asks for it; a plain DataLoader keeps
    it exact without workers. Iterating goes on where it was, and begins anew after the last epoch.
    """

    def __init__(
        self,
        path: Path | str,
        embeddings: Path | None = None,
        *,
        pictures: bool = True,
        captions: bool = True,
        embeds: bool = False,
        width: int | None = None,
        side: int | None = None,
        seed: int | None = None,
        buffer: int = 1000,
        epochs: int | None = 1,
        share: tuple[int, int] = (0, 1),
        keep: Callable[[str], bool] | None = None,
    ) -> None:
        """Find the shards and where their embeddings are.

        Raises:
            Misconfigured: a shard is missing or not finished, or embeddings are asked for and not there, or clip-retrieval's cannot be reordered.
        """
        self.shards = find_shards(path)
        self.pictures, self.captions, self.side = pictures, captions, side
        self.seed, self.buffer, self.epochs, self.share = seed, max(buffer, 1), epochs, share
        self.width, self.keep = width, keep
        self.embeds = embeds
        self.beside = find_embeddings(self.shards, embeddings, whole=Path(path).is_dir()) if embeds else None
        self.position = Position()

    @property
    def passed(self) -> Counter[str]:
        """How many samples could not be used, by reason."""
        return Counter(self.position.passed)

    def count(self) -> int | None:
        """Return how many samples an epoch has, of all readers, where the files beside the shards say so."""
        counts = [expected_count(shard) for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)

    def state_dict(self) -> dict[str, Any]:
        """Return where reading is, as JSON has it."""
        return {"position": asdict(self.position), "order": self.order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            Misconfigured: the samples come in another order now.
        """
        for key, value in self.order().items():
            if state["order"].get(key) != value:
                raise Misconfigured(f"Reading cannot go on: {key} was {state['order'].get(key)}, now it is {value}. Give it the earlier value.")
        self.position = Position(**state["position"])

    def order(self) -> dict[str, Any]:
        """Return what the order of the samples depends on."""
        return {"shards": len(self.shards), "seed": self.seed, "buffer": self.buffer, "share": list(self.share)}

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples from where reading is to the end of the last epoch.

        Raises:
            Misconfigured: a shard is missing, damaged, or holds another number of samples or other embeddings than it should; or nothing that is
                there can be used; a part of the samples, read once, may be empty.
        """
        while self.epochs is None or self.position.epoch < self.epochs:
            begun = replace(self.position, passed={}) == Position(self.position.epoch)
            for sample in self.epoch():
                begun = False
                yield sample
            if begun and (self.epochs is None or self.keep is None):
                reasons = ", ".join(f"{count} × {reason}" for reason, count in self.passed.items()) or "there are none"
                raise Misconfigured(f"No sample of {self.shards[0].parent} can be used: {reasons}. Make the shards again.")
            self.position = Position(epoch=self.position.epoch + 1, passed=self.position.passed)
        self.position = Position(passed=self.position.passed)

    def epoch(self) -> Iterator[Sample]:
        """Yield the rest of the epoch at hand."""
        start = self.position
        stream = self.raws(start.epoch, start.shard, start.sample)
        for block in itertools.count(start.block):
            placed = list(itertools.islice(stream, self.buffer))
            if not placed:
                return
            order = self.shuffled(len(placed), start.epoch, block + 1)
            for taken in range(self.position.taken, len(placed)):
                self.position = replace(self.position, taken=taken + 1)
                raw = placed[order[taken]][2]
                if self.keep is not None and not self.keep(raw.key):
                    continue
                try:
                    sample = self.decode(raw)
                except PassedOver as reason:
                    passed = self.passed + Counter([str(reason)])
                    self.position = replace(self.position, passed=dict(passed))
                else:
                    yield sample
            shard, index, _ = placed[-1]
            self.position = replace(self.position, block=block + 1, shard=shard, sample=index + 1, taken=0)

    def shuffled(self, count: int, epoch: int, draw: int) -> Sequence[int]:
        """Return the numbers below `count` in the order of one draw of an epoch: that of the shards is draw 0, those of the blocks follow."""
        if self.seed is None:
            return range(count)
        order: list[int] = np.random.default_rng((self.seed, epoch, draw)).permutation(count).tolist()
        return order

    def raws(self, epoch: int, first: int, skipped: int) -> Iterator[tuple[int, int, Raw]]:
        """Yield the samples of an epoch from shard number `first` on, without so many of its first ones, and where each stands.

        Raises:
            Misconfigured: there are fewer shards than readers.
        """
        worker = get_worker_info()
        workers = 1 if worker is None else worker.num_workers
        number, readers = self.share[0] * workers + (0 if worker is None else worker.id), self.share[1] * workers
        if readers > len(self.shards):
            raise Misconfigured(
                f"{len(self.shards)} shards cannot be divided between {readers} readers. Make more of them with a smaller --shard-size."
            )
        own = self.shuffled(len(self.shards), epoch, 0)[number::readers]
        for place in range(first, len(own)):
            for index, raw in enumerate(self.read_shard(self.shards[own[place]])):
                if place > first or index >= skipped:
                    yield place, index, raw

    def read_shard(self, shard: Path) -> Iterator[Raw]:
        """Yield the samples of a shard, and count them.

        Raises:
            Misconfigured: there are more or fewer than there should be, of samples or of embeddings.
        """
        rows = Rows(shard, self.beside, self.checked_width) if self.beside else None
        count = with_embed = 0
        for key, files in read_tar(shard):
            embed = rows.of(key) if rows else files.get("npy") if self.embeds else None
            with_embed += embed is not None
            count += 1
            yield Raw(shard, key, picture_of(files) if self.pictures else None, caption_of(files), embed, TWICE in files)
        expected = expected_count(shard)
        if expected not in (None, count):
            raise Misconfigured(f"Shard {shard} holds {count} samples, but its stats say {expected}. Restore it, or make it again.")
        if rows:
            rows.check(count)
        elif self.embeds and count and not with_embed:
            raise Misconfigured(f"Shard {shard} holds {count} samples and no embedding (.npy). Make it again with the embeddings of a CLIP.")

    def decode(self, raw: Raw) -> Sample:
        """Turn what a shard holds into what is trained on.

        Raises:
            PassedOver: a part that is asked for is missing or damaged.
            Misconfigured: the embedding is of another width.
        """
        if raw.twice:
            raise PassedOver(AMBIGUOUS)
        if self.captions and not raw.caption:
            raise PassedOver(NO_CAPTION)
        picture = self.decode_picture(raw.picture) if self.pictures else None
        return Sample(picture, raw.caption, self.decode_embed(raw) if self.embeds else None, raw.key)

    def decode_picture(self, data: bytes | None) -> Tensor:
        """Return a picture, (3, H, W) uint8.

        Raises:
            PassedOver: there is none, it cannot be read, or it is smaller than what is wanted.
        """
        try:
            picture = open_picture(data or b"")
        except InvalidRequest:
            raise PassedOver(NO_PICTURE) from None
        if self.side is not None and min(picture.size) < self.side:
            raise PassedOver(SMALL.format(self.side))
        flat = on_white(picture) if self.side is None else Frame(picture.size, self.side, Framing.CROP).apply(picture)
        return torch.from_numpy(np.array(flat)).permute(2, 0, 1).contiguous()

    def decode_embed(self, raw: Raw) -> Tensor:
        """Return an embedding, (D,) float32.

        Raises:
            PassedOver: there is none, or it holds no numbers.
            Misconfigured: it is of another width.
        """
        try:
            row = np.load(io.BytesIO(raw.embed), allow_pickle=False) if isinstance(raw.embed, bytes) else raw.embed
            values = np.array(row, np.float32).reshape(-1)
        except (ValueError, TypeError, EOFError, OSError):
            raise PassedOver(NO_EMBEDDING) from None
        if not np.isfinite(values).all() or not values.any():
            raise PassedOver(NO_EMBEDDING)
        self.checked_width(raw.shard, len(values))
        return torch.from_numpy(values)

    def checked_width(self, shard: Path, width: int) -> None:
        """Make sure that embeddings are as wide as asked for, or as the first ones.

        Raises:
            Misconfigured: they are not.
        """
        self.width = self.width or width
        if width != self.width:
            raise Misconfigured(f"Shard {shard}: its embeddings are {width} wide, {self.width} are wanted. They must be of the model's own CLIP.")


@dataclass(frozen=True, slots=True)
class Beside:
    """Embeddings in one file for each shard, by its number."""

    files: dict[int, Path]
    widths: Widths


class Rows:
    """The embeddings of one shard, beside it."""

    def __init__(self, shard: Path, beside: Beside, check_width: Callable[[Path, int], None]) -> None:
        """Open them.

        Raises:
            Misconfigured: they cannot be read, or are of another width.
        """
        self.shard, self.widths = shard, beside.widths
        self.number = number_of(shard)
        assert self.number is not None
        self.path = beside.files[self.number]
        self.rows = open_rows(self.path)
        check_width(shard, self.rows.shape[1])

    def of(self, key: str) -> np.ndarray:
        """Return the row of a sample.

        Raises:
            Misconfigured: there is none: the sample is one of another shard, or made otherwise.
        """
        try:
            shard, index = self.widths.split(key)
        except ValueError as error:
            raise Misconfigured(f"Shard {self.shard}: {error}, as in the other shards. They must be of one run.") from None
        if shard != self.number:
            raise Misconfigured(f"Shard {self.shard} is number {self.number}, its sample {key} is one of shard {shard}. Restore its name.")
        if index >= len(self.rows):
            raise Misconfigured(f"Shard {self.shard}: sample {key} is number {index}, but {self.path} holds {len(self.rows)} embeddings.")
        return np.array(self.rows[index], np.float32)

    def check(self, samples: int) -> None:
        """Make sure that there are no more embeddings than samples; rows of zeros stand for none.

        Raises:
            Misconfigured: there are.
        """
        given = sum(int(np.any(self.rows[start : start + ROWS_AT_ONCE] != 0, axis=1).sum()) for start in range(0, len(self.rows), ROWS_AT_ONCE))
        if given > samples:
            raise Misconfigured(f"Shard {self.shard} holds {samples} samples, but {self.path} {given} embeddings. They must be of one run.")


def find_embeddings(shards: Sequence[Path], folder: Path | None, whole: bool) -> Beside | None:
    """Find where the embeddings of some shards are: None inside of them. `whole` is whether these are all the shards there should be.

    Raises:
        Misconfigured: they are nowhere, or those of a shard are missing, or they cannot be reordered.
    """
    if folder is None:
        _, files = next(itertools.chain.from_iterable(read_tar(shard) for shard in shards), ("", {}))
        if "npy" in files:
            return None
    place = folder or shards[0].parent
    if is_unordered(place):
        place = reorder(place, place / "reordered", shards)
    elif (place / "img_emb").is_dir():
        place = place / "img_emb"
    found = {int(name[1]): path for path in (place.iterdir() if place.is_dir() else ()) if (name := BESIDE.fullmatch(path.name))}
    if not found:
        raise Misconfigured(
            f"Shard {shards[0]} holds no embeddings (.npy), and {place} holds none either (img_emb_0000.npy). Make them with "
            "`python -m engine.training data`, or name the folder where they are."
        )
    numbers = {number_of(shard): shard for shard in shards}
    for number, shard in numbers.items():
        if number not in found:
            raise Misconfigured(f"Shard {shard} has no embeddings in {place}: {len(shards)} shards are there, embeddings of {len(found)}.")
    if whole and (missing := sorted(found.keys() - numbers.keys())):
        raise Misconfigured(
            f"Shard {missing[0]} is missing: {len(shards)} are there, and {found[missing[0]]}, embeddings of {len(found)}. Restore it."
        )
    return Beside(found, find_widths(shards))
