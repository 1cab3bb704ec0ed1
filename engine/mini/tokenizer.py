"""Prompts into the numbers that DALL·E Mini reads: words of small ASCII letters, cut into pieces by byte-pair merges.

Source of the format: kuprel/min-dalle 0.4.11, `text_tokenizer.py`; its ids are ours for any text. New here are the heap, which cuts a long word in
n log n steps, the memory of words, and that a text that is too long still ends as one.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from engine.errors import Misconfigured
from engine.unclip.caches import Cache
from engine.unclip.config import read_json

FIRST, LAST, UNKNOWN = "<s>", "</s>", "<unk>"
PADDING = 1
"""The id that fills rows up in training: networks do not look at it, whatever the vocabulary calls it."""
SPACE = "\u0120"
"""Begins every word; the merges write it so."""
WORDS_KEPT = 4096
KEPT_LETTERS = 40
"""A longer word is nobody's vocabulary and is not kept."""


class Tokenizer:
    """Reads texts with a vocabulary, piece → id, and merges, "left right" with the most important first."""

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[str]) -> None:
        self._ids = vocabulary
        self._ranks = {tuple(merge.split()): rank for rank, merge in enumerate(merges)}
        self._known: Cache[tuple[int, ...]] = Cache(WORDS_KEPT)
        self.first, self.last, self._unknown = vocabulary[FIRST], vocabulary[LAST], vocabulary[UNKNOWN]

    @classmethod
    def from_files(cls, vocabulary: Path, merges: Path) -> "Tokenizer":
        """Read vocab.json and merges.txt.

        Raises:
            Misconfigured: one of them is missing, damaged or of another format.
        """
        ids = read_json(vocabulary)
        if not isinstance(ids, dict) or not all(type(value) is int and value >= 0 for value in ids.values()):
            raise Misconfigured(f"Vocabulary {vocabulary} is no JSON object of words and whole numbers. Restore the file.")
        if missing := [word for word in (FIRST, LAST, UNKNOWN) if word not in ids]:
            raise Misconfigured(f"Vocabulary {vocabulary} lacks {', '.join(missing)}. Restore the file.")
        try:
            lines = merges.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise Misconfigured(f"Merges {merges} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise Misconfigured(f"Merges {merges} are no text in UTF-8. Restore the file.") from None
        if len(lines) < 3 or not any(len(line.split()) == 2 for line in lines[1:-1]):
            raise Misconfigured(f"Merges {merges} hold no pairs of pieces, one per line. Restore the file.")
        # The first line is a version, and behind the last newline there is nothing.
        return cls(ids, lines[1:-1])

    @property
    def largest(self) -> int:
        """The largest id that a text can come to."""
        return max(self._ids.values())

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a whole text between those of its first and last token."""
        return [self.first, *self._pieces(text), self.last]

    def read(self, text: str, most: int) -> list[int]:
        """Return the ids of a text, at most so many. A longer text is read as far as there is room and ends with the last token, as in training."""
        return [self.first, *islice(self._pieces(text), most - 2), self.last]

    def _pieces(self, text: str) -> Iterator[int]:
        for word in plain(text).split(" "):
            if word:
                yield from self._word(word)

    def _word(self, word: str) -> tuple[int, ...]:
        ids = self._known.get(word) if len(word) <= KEPT_LETTERS else None
        if ids is None:
            ids = tuple(self._ids.get(piece, self._unknown) for piece in self.merged(word))
            if len(word) <= KEPT_LETTERS:
                self._known.keep(word, ids)
        return ids

    def merged(self, word: str) -> list[str]:
        """Cut a word into pieces: join the pair of neighbours with the best rank, of equal ones the first, until no pair has one."""
        pieces = [SPACE, *word]
        after = list(range(1, len(pieces) + 1))
        before = list(range(-1, len(pieces) - 1))
        pairs: list[tuple[int, int, str, str]] = []

        def offer(left: int) -> None:
            right = after[left]
            if right < len(pieces) and (rank := self._ranks.get((pieces[left], pieces[right]))) is not None:
                heapq.heappush(pairs, (rank, left, pieces[left], pieces[right]))

        for place in range(len(pieces) - 1):
            offer(place)
        while pairs:
            _, place, left, right = heapq.heappop(pairs)
            other = after[place]
            # Pieces only grow: a pair that was offered before one of its halves was joined to another no longer stands there.
            if pieces[place] != left or other >= len(pieces) or pieces[other] != right:
                continue
            pieces[place], pieces[other] = left + right, ""
            after[place] = after[other]
            if after[place] < len(pieces):
                before[after[place]] = place
            offer(place)
            if place:
                offer(before[place])
        return [piece for piece in pieces if piece]


def plain(text: str) -> str:
    """Return a text as the vocabulary has it: emoji by their names, small letters, ASCII only; what is left of others is nothing."""
    if not text.isascii():
        # Its tables take a moment to import, and most prompts hold no emoji.
        from emoji import demojize

        text = demojize(text, delimiters=("", ""))
    return text.lower().encode("ascii", errors="ignore").decode()
