"""Which pictures look alike, among millions: signatures of a few bytes are compared with all, embeddings with the nearest of those only.

A signature is one bit per random direction: on which side of it an embedding lies. Two embeddings differ in as many bits as the angle between them
is wide, on average. Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms" (SimHash).

Dimensions: D numbers of an embedding, B = SIGNATURE_BITS, N pictures.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGNATURE_BITS = 1024
SIGNATURE_SEED = 20221
"""Of the directions. Signatures on disk were made with it: it stays."""
CANDIDATES = 600
"""Pictures with the nearest signatures, whose embeddings are compared."""
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
    cosines = np.stack([vector_of(embedding) for _, embedding in found]) @ vector_of(wanted)
    order = np.argsort(-cosines, kind="stable")[:most]
    return [(found[place][0], float(cosines[place])) for place in order]


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in the index, and who may find it. A guild of 0 is none."""

    picture: int
    bits: bytes
    user_id: int
    guild_id: int
    is_adult: bool


class Index:
    """The signatures of all pictures of one space, in memory: 145 bytes each. Reading and changing at the same time is for callers to keep apart."""

    def __init__(self) -> None:
        self._count = 0
        # Words of signatures stand in rows, one picture a column: whole rows are compared at once.
        self._bits = np.zeros((SIGNATURE_BITS // 64, ROOM), np.uint64)
        self._picture, self._user, self._guild = (np.zeros(ROOM, np.int64) for _ in range(3))
        """A picture of 0 was taken out."""
        self._adult = np.zeros(ROOM, np.bool_)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._picture[: self._count]))

    def add(self, entries: Iterable[Entry]) -> None:
        """Take pictures in, in place of earlier entries of the same ones."""
        entries = list(entries)
        self.remove(entry.picture for entry in entries)
        self._make_room(self._count + len(entries))
        for place, entry in enumerate(entries, start=self._count):
            self._bits[:, place] = np.frombuffer(entry.bits, np.uint64)
            self._picture[place], self._user[place], self._guild[place] = entry.picture, entry.user_id, entry.guild_id
            self._adult[place] = entry.is_adult
        self._count += len(entries)

    def _make_room(self, needed: int) -> None:
        room = len(self._picture)
        if needed > room:
            more = max(needed, 2 * room) - room
            self._bits = np.pad(self._bits, ((0, 0), (0, more)))
            self._picture, self._user, self._guild = (np.pad(facts, (0, more)) for facts in (self._picture, self._user, self._guild))
            self._adult = np.pad(self._adult, (0, more))

    def remove(self, pictures: Iterable[int]) -> None:
        """Take pictures out, with all that is known of them; unknown ones are left alone."""
        gone = np.fromiter(pictures, np.int64)
        places = np.flatnonzero(np.isin(self._picture[: self._count], gone[gone > 0]))
        self._bits[:, places] = 0
        self._picture[places] = self._user[places] = self._guild[places] = 0
        self._adult[places] = False

    def nearest(self, bits: bytes, *, user_id: int | None = None, guild_id: int | None = None, adult: bool = True) -> list[int]:
        """Return the pictures with the nearest signatures among those of a person or a guild, and whether those of age-restricted channels count."""
        allowed = self._picture[: self._count] > 0
        if user_id is not None:
            allowed &= self._user[: self._count] == user_id
        if guild_id is not None:
            allowed &= self._guild[: self._count] == guild_id
        if not adult:
            allowed &= ~self._adult[: self._count]
        wanted = np.frombuffer(bits, np.uint64)
        few = np.count_nonzero(allowed) < SPARSE * self._count
        places = np.flatnonzero(allowed) if few else np.arange(self._count)
        distances = np.empty(len(places), np.uint16)
        for start in range(0, len(places), CHUNK):
            part = slice(start, min(start + CHUNK, len(places)))
            total = np.zeros(part.stop - part.start, np.uint16)
            for row, word in zip(self._bits, wanted, strict=True):
                total += np.bitwise_count((row[places[part]] if few else row[part]) ^ word)
            distances[part] = total
        if not few:
            distances[~allowed] = TOO_FAR
        if len(places) > CANDIDATES:
            near = np.argpartition(distances, CANDIDATES)[:CANDIDATES]
            places, distances = places[near], distances[near]
        order = np.argsort(distances, kind="stable")
        return [int(number) for number in self._picture[places[order][distances[order] < TOO_FAR]]]
