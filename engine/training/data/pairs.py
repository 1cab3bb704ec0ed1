"""Captions with embeddings and no pictures, as clip-retrieval writes them: all that a prior is trained on."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.errors import Misconfigured
from engine.training.data.layouts import NO_CAPTION, NO_EMBEDDING, Sample
from engine.training.data.reorder import Part, find_parts
from engine.training.data.tars import clean


@dataclass(frozen=True, slots=True)
class Position:
    """How far reading is: in which epoch, at which part in its order, and how many of its rows were taken."""

    epoch: int = 0
    part: int = 0
    taken: int = 0
    passed: dict[str, int] = field(default_factory=dict)


class Pairs:
    """The rows of clip-retrieval's `img_emb` and `metadata`, epoch after epoch; where reading is can be noted and gone on from, as of `Samples`.

    With a `seed`, parts and the rows in them come in another order in each epoch. `keep` tells by its key, PART/ROW, whether a row belongs here.
    """

    def __init__(
        self,
        embeds: Path,
        metadata: Path,
        *,
        width: int | None = None,
        seed: int | None = None,
        epochs: int | None = 1,
        share: tuple[int, int] = (0, 1),
        keep: Callable[[str], bool] | None = None,
    ) -> None:
        """Find the parts.

        Raises:
            Misconfigured: one of a pair is missing, they are not of one length, or of another width than wanted.
        """
        self.parts = find_parts(embeds, metadata)
        if not self.parts:
            raise Misconfigured(f"{embeds} holds no embeddings (img_emb_0.npy). Make them with clip-retrieval.")
        found = self.parts[0].rows().shape[1]
        if width not in (None, found):
            raise Misconfigured(f"The embeddings of {embeds} are {found} wide, {width} are wanted. They must be of the model's own CLIP.")
        self.seed, self.epochs, self.share, self.keep = seed, epochs, share, keep
        self.position = Position()

    @property
    def passed(self) -> Counter[str]:
        """How many rows could not be used, by reason."""
        return Counter(self.position.passed)

    def count(self) -> int:
        """Return how many rows there are."""
        return sum(len(part.rows()) for part in self.parts)

    def state_dict(self) -> dict[str, Any]:
        """Return where reading is, as JSON has it."""
        return {"position": asdict(self.position), "order": self.order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            Misconfigured: the rows come in another order now.
        """
        if state["order"] != self.order():
            raise Misconfigured(f"Reading cannot go on: the order was {state['order']}, now it is {self.order()}.")
        self.position = Position(**state["position"])

    def order(self) -> dict[str, Any]:
        """Return what the order of the rows depends on."""
        return {"rows": self.count(), "parts": len(self.parts), "seed": self.seed, "share": list(self.share)}

    def __iter__(self) -> Iterator[Sample]:
        """Yield rows from where reading is to the end of the last epoch.

        Raises:
            Misconfigured: a table cannot be read, or no row can be used.
        """
        while self.epochs is None or self.position.epoch < self.epochs:
            found, begun = False, self.position == Position(self.position.epoch, passed=self.position.passed)
            parts = self.shuffled(len(self.parts), 0)
            for place in range(self.position.part, len(parts)):
                for sample in self.rows(int(parts[place]), place):
                    found = True
                    yield sample
            if begun and not found and (self.epochs is None or self.keep is None):
                reasons = ", ".join(f"{count} × {reason}" for reason, count in self.passed.items()) or "there are none"
                raise Misconfigured(f"No row of {self.parts[0].embeds.parent} can be used: {reasons}.")
            self.position = Position(self.position.epoch + 1, passed=self.position.passed)
        self.position = Position(passed=self.position.passed)

    def rows(self, number: int, place: int) -> Iterator[Sample]:
        """Yield the rows that are left of one part."""
        part = self.parts[number]
        captions, embeds = captions_of(part), part.rows()
        own = self.shuffled(len(embeds), 1 + number)[self.share[0] :: self.share[1]]
        for taken in range(self.position.taken, len(own)):
            row = int(own[taken])
            self.position = replace(self.position, part=place, taken=taken + 1)
            key = f"{number}/{row}"
            if self.keep is not None and not self.keep(key):
                continue
            embed = np.array(embeds[row], np.float32)
            caption = clean(str(captions[row] or ""))
            if missing := NO_CAPTION if not caption else NO_EMBEDDING if not (np.isfinite(embed).all() and embed.any()) else "":
                self.position = replace(self.position, passed=dict(self.passed + Counter([missing])))
                continue
            yield Sample(None, caption, torch.from_numpy(embed), key)
        self.position = replace(self.position, part=place + 1, taken=0)

    def shuffled(self, count: int, draw: int) -> np.ndarray:
        """Return the numbers below `count` in the order of one draw of the epoch at hand."""
        if self.seed is None:
            return np.arange(count)
        return np.random.default_rng((self.seed, self.position.epoch, draw)).permutation(count)


def captions_of(part: Part) -> list[str | None]:
    """Read the captions of a part.

    Raises:
        Misconfigured: they cannot be read, or there are none.
    """
    try:
        table = pq.read_table(part.metadata, columns=["caption"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise Misconfigured(f"{part.metadata} has no captions that can be read: {str(error).splitlines()[0]:.120}.") from None
    captions: list[str | None] = table.column(0).to_pylist()
    return captions
