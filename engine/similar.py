"""Which pictures look alike, among millions: signatures of a few bytes are compared with all, embeddings with the nearest of those only.

A signature is one bit per random direction: on which side of it an embedding lies. Two embeddings differ in as many bits as the angle between them
is wide, on average. Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms" (SimHash).

Dimensions: D numbers of an embedding, B = SIGNATURE_BITS, N pictures.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE_BITS = 1024
SIGNATURE_SEED = 20221
"""Of the directions. Signatures on disk were made with it: it stays."""
CANDIDATES = 200
"""Pictures with the nearest signatures, whose embeddings are compared: among a million, the first ten were all found with so many."""
CHUNK = 1 << 15
"""Signatures compared at once: 4 MB stay in the processor's cache."""
SPARSE = 0.2
"""Share of the pictures below which only those are looked at that count; above it, looking at all of them is faster."""
TOO_FAR = SIGNATURE_BITS + 1
ROOM = 1024
"""Pictures that a new index has room for."""

Vector = NDArray[np.float32]


def vector_of(embedding: bytes) -> Vector:
    """Return an embedding as numbers, (D,) float32."""
    return np.frombuffer(embedding, "<f2").astype(np.float32)


@functools.cache
def directions(width: int) -> Vector:
    """Return the directions for embeddings of D numbers, (D, B)."""
    return np.random.default_rng(SIGNATURE_SEED).standard_normal((width, SIGNATURE_BITS)).astype(np.float32)


def signature(embedding: bytes) -> bytes:
    """Return the signature of an embedding, B bits."""
    vector = vector_of(embedding)
    return np.packbits(vector @ directions(len(vector)) > 0).tobytes()


def ranked(wanted: bytes, found: Sequence[tuple[int, bytes]], most: int) -> list[tuple[int, float]]:
    """Return the nearest of pictures by their embeddings, with the cosine of the angle to the wanted one, the nearest first."""
    if not found:
        return []
    cosines = vector_of(b"".join(embedding for _, embedding in found)).reshape(len(found), -1) @ vector_of(wanted)
    order = np.argsort(-cosines, kind="stable")[:most]
    return [(found[place][0], float(cosines[place])) for place in order]


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in the index, and who may find it. A guild of 0 is none."""

    picture: int
    bits: bytes
    user_id: int
    guild_id: int
    channel_id: int
    is_adult: bool


class Index:
    """The signatures of all pictures of one space, in memory: 157 bytes each. Reading and changing at the same time is for callers to keep apart."""

    def __init__(self) -> None:
        self._count = 0
        # Words of signatures stand in rows, one picture a column: whole rows are compared at once.
        self._bits = np.zeros((SIGNATURE_BITS // 64, ROOM), np.uint64)
        self._picture, self._user, self._guild = (np.zeros(ROOM, np.int64) for _ in range(3))
        """A picture of 0 was taken out."""
        # Channels are counted from 0 as they come up: whether a picture's may be seen is then read from a table.
        self._channel_numbers: dict[int, int] = {}
        self._channel = np.zeros(ROOM, np.int32)
        self._adult = np.zeros(ROOM, np.bool_)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._picture[: self._count]))

    def add(self, entries: Iterable[Entry]) -> None:
        """Take pictures in, each once, in place of earlier entries of the same ones."""
        entries = list(entries)
        if not entries:
            return
        pictures = [entry.picture for entry in entries]
        # When many are read from disk, they are newer than all before: to look for earlier ones would take longer than the rest.
        if min(pictures) <= self._picture[: self._count].max(initial=0):
            self.remove(pictures)
        self._make_room(self._count + len(entries))
        new = slice(self._count, self._count + len(entries))
        self._bits[:, new] = np.frombuffer(b"".join(entry.bits for entry in entries), np.uint64).reshape(len(entries), -1).T
        self._picture[new] = pictures
        self._user[new] = [entry.user_id for entry in entries]
        self._guild[new] = [entry.guild_id for entry in entries]
        self._channel[new] = [self._channel_numbers.setdefault(entry.channel_id, len(self._channel_numbers)) for entry in entries]
        self._adult[new] = [entry.is_adult for entry in entries]
        self._count = new.stop

    def _make_room(self, needed: int) -> None:
        room = len(self._picture)
        if needed > room:
            room = max(needed, 2 * room)
            self._bits = enlarged(self._bits, room)
            self._picture, self._user, self._guild = (enlarged(facts, room) for facts in (self._picture, self._user, self._guild))
            self._channel, self._adult = enlarged(self._channel, room), enlarged(self._adult, room)

    def remove(self, pictures: Iterable[int]) -> None:
        """Take pictures out, with all that is known of them; unknown ones are left alone."""
        places = np.flatnonzero(np.isin(self._picture[: self._count], np.fromiter(pictures, np.int64)))
        self._bits[:, places] = 0
        self._picture[places] = self._user[places] = self._guild[places] = 0
        self._channel[places] = 0
        self._adult[places] = False

    def nearest(
        self,
        bits: bytes,
        *,
        user_id: int | None = None,
        guild_id: int | None = None,
        channels: Iterable[int] | None = None,
        adult: bool = True,
    ) -> list[int]:
        """Return the pictures with the nearest signatures, the nearest first: those of a person, a guild or some channels, where given.

        `adult` tells whether those of age-restricted channels count. Of equally near ones, those that came first go first.
        """
        allowed = self._allowed(user_id, guild_id, channels, adult)
        if np.count_nonzero(allowed) < SPARSE * self._count:
            places = np.flatnonzero(allowed)
            distances = self._distances(bits, places)
        else:
            places = None
            distances = self._distances(bits, None)
            np.copyto(distances, TOO_FAR, where=~allowed)
        limit = TOO_FAR - 1
        if len(distances) > CANDIDATES:
            limit = min(limit, np.partition(distances, CANDIDATES - 1)[CANDIDATES - 1])
        near = np.flatnonzero(distances <= limit)
        near = near[np.argsort(distances[near], kind="stable")[:CANDIDATES]]
        return [int(number) for number in self._picture[near if places is None else places[near]]]

    def _distances(self, bits: bytes, places: NDArray[np.int64] | None) -> NDArray[np.uint16]:
        """Return in how many bits signatures differ from the given one: those at some places, or all."""
        distances = np.zeros(self._count if places is None else len(places), np.uint16)
        for start in range(0, len(distances), CHUNK):
            part = slice(start, min(start + CHUNK, len(distances)))
            for row, word in zip(self._bits, np.frombuffer(bits, np.uint64), strict=True):
                distances[part] += np.bitwise_count((row[part] if places is None else row[places[part]]) ^ word)
        return distances

    def _allowed(self, user_id: int | None, guild_id: int | None, channels: Iterable[int] | None, adult: bool) -> NDArray[np.bool_]:
        """Return which pictures count."""
        allowed = self._picture[: self._count] > 0
        if user_id is not None:
            allowed &= self._user[: self._count] == user_id
        if guild_id is not None:
            allowed &= self._guild[: self._count] == guild_id
        if channels is not None:
            visible = np.zeros(len(self._channel_numbers), np.bool_)
            visible[[self._channel_numbers[channel] for channel in channels if channel in self._channel_numbers]] = True
            allowed &= visible[self._channel[: self._count]]
        if not adult:
            allowed &= ~self._adult[: self._count]
        return allowed


def enlarged(values: NDArray[Any], room: int) -> NDArray[Any]:
    """Return the same values with more room behind them. What is not used of it takes no memory yet."""
    larger = np.zeros((*values.shape[:-1], room), values.dtype)
    larger[..., : values.shape[-1]] = values
    return larger
