"""What was worked out before and is likely to be asked for again, as far as there is room for it."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Keeps the values that were used last, at most so many; counts how often it was asked and how often it knew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self.asked = 0
        self.known = 0

    def get(self, key: Hashable) -> V | None:
        """Return what is kept under a key, if anything is."""
        self.asked += 1
        if key not in self._values:
            return None
        self.known += 1
        self._values.move_to_end(key)
        return self._values[key]

    def keep(self, key: Hashable, value: V) -> None:
        """Keep a value, instead of the one that was not used for the longest time."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
