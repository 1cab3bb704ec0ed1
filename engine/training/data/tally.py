"""What became of every picture of a source: counted, with the first examples of each kind."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.training.data.tars import clean

EXAMPLES = 5
"""Of each reason that are told."""
NAME_CHARACTERS = 200


class Reason(StrEnum):
    """Why a picture of a source is not in the shards."""

    CAPTION = "no caption"
    UNREADABLE = "not readable"
    SMALL = "too small"
    DUPLICATE = "duplicate"
    MISSING = "named, but not there"


@dataclass(slots=True)
class Count:
    """How often something happened, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(clean(example)[:NAME_CHARACTERS])

    def join(self, other: "Count") -> None:
        """Count what was counted elsewhere, later."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        """Return the count as JSON has it."""
        return {"count": self.count, "examples": self.examples}


@dataclass(slots=True)
class Tally:
    """Pictures read and samples made; those skipped by reason, and captions that are longer than what CLIP reads."""

    read: int = 0
    samples: int = 0
    skipped: dict[Reason, Count] = field(default_factory=lambda: {reason: Count() for reason in Reason})
    cut: Count = field(default_factory=Count)

    def skip(self, reason: Reason, name: str, why: str = "") -> None:
        """Count a picture that is left out."""
        self.skipped[reason].add(f"{name}: {why}" if why else name)

    def join(self, other: "Tally") -> None:
        """Count what was counted elsewhere, later."""
        self.read += other.read
        self.samples += other.samples
        for reason, count in other.skipped.items():
            self.skipped[reason].join(count)
        self.cut.join(other.cut)

    def to_json(self) -> dict[str, Any]:
        """Return the tally as JSON has it."""
        skipped = {str(reason): count.to_json() for reason, count in self.skipped.items()}
        return {"read": self.read, "successes": self.samples, "skipped": skipped, "cut": self.cut.to_json()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Tally":
        """Read what `to_json` wrote."""
        skipped = {reason: Count(**facts["skipped"][reason]) for reason in Reason}
        return cls(facts["read"], facts["successes"], skipped, Count(**facts["cut"]))

    def lines(self) -> Iterable[str]:
        """Tell the tally as a table for people."""
        rows = [(str(reason), count) for reason, count in self.skipped.items() if count.count]
        if self.cut.count:
            rows.append(("cut: the caption is longer than what CLIP reads", self.cut))
        width = max((len(name) for name, _ in rows), default=0)
        for name, count in rows:
            more = ", …" if count.count > len(count.examples) else ""
            yield f"  {name:<{width}}  {count.count:>7}  {', '.join(count.examples)}{more}"
