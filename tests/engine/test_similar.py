import hashlib
import math
from collections.abc import Collection, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine import similar
from engine.similar import CANDIDATES, ROOM, SIGNATURE_BITS, Entry, Index, ranked, signature, vector_of

WIDTH = 96


def embedding(numbers: NDArray[np.float64]) -> bytes:
    return (numbers / np.linalg.norm(numbers)).astype("<f2").tobytes()


def distance(one: bytes, other: bytes) -> int:
    """Count the bits that differ, by Python's own integers."""
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).bit_count()


def bits(number: int) -> bytes:
    """Return one of many made-up signatures: those of neighbouring numbers are often alike, and some are the same."""
    draw = np.random.default_rng(number // 5)
    made = bytearray(draw.bytes(SIGNATURE_BITS // 8))
    made[number % 4] ^= 1 << number % 7
    return bytes(made)


# Signatures.


def test_a_signature_has_its_size_and_is_always_the_same() -> None:
    numbers = np.random.default_rng(1).standard_normal(WIDTH)
    assert len(signature(embedding(numbers))) == SIGNATURE_BITS // 8
    assert signature(embedding(numbers)) == signature(embedding(numbers))


def test_the_opposite_of_an_embedding_differs_in_every_bit() -> None:
    numbers = np.random.default_rng(1).standard_normal(WIDTH)
    assert distance(signature(embedding(numbers)), signature(embedding(-numbers))) == SIGNATURE_BITS


def test_the_length_of_an_embedding_does_not_matter() -> None:
    numbers = np.random.default_rng(1).standard_normal(WIDTH).astype("<f2")
    assert signature(numbers.tobytes()) == signature((numbers * 4).tobytes())


@pytest.mark.parametrize(("width", "digest"), [(64, "9f2d72da1e9110b8"), (768, "62b8c635f3f10655")])
def test_signatures_on_disk_stay_good(width: int, digest: str) -> None:
    # With one number that is not zero, bits are the signs of one row of the directions, whatever a processor rounds.
    made = b"".join(signature(embedding(np.eye(width)[place])) for place in (0, width // 2, width - 1))
    assert hashlib.sha256(made).hexdigest()[:16] == digest


@pytest.mark.parametrize("degrees", [5, 20, 45, 90, 120, 175])
def test_signatures_differ_in_as_many_bits_as_the_angle_is_wide(degrees: float) -> None:
    draw = np.random.default_rng(degrees)
    angle = math.radians(degrees)
    found = []
    for _ in range(200):
        one, other = np.linalg.qr(draw.standard_normal((WIDTH, 2)))[0].T
        found.append(distance(signature(embedding(one)), signature(embedding(math.cos(angle) * one + math.sin(angle) * other))))
    share = angle / math.pi
    spread = math.sqrt(SIGNATURE_BITS * share * (1 - share))
    # One in 200 lies beyond five standard deviations less often than once in ten thousand such tests; half a bit is for rounding to float16.
    assert abs(np.mean(found) - SIGNATURE_BITS * share) < 4 * spread / math.sqrt(len(found)) + 0.5
    assert max(abs(count - SIGNATURE_BITS * share) for count in found) < 5 * spread + 0.5
    assert np.std(found) == pytest.approx(spread, rel=0.25)


# The index.


class Model:
    """What an index does, said plainly."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}

    def add(self, entries: Sequence[Entry]) -> None:
        self.remove([entry.picture for entry in entries])
        self.entries |= {entry.picture: entry for entry in entries}

    def remove(self, pictures: Sequence[int]) -> None:
        for picture in pictures:
            self.entries.pop(picture, None)

    def allowed(self, user_id: int | None, guild_id: int | None, channels: Collection[int] | None, adult: bool) -> list[Entry]:
        return [
            entry
            for entry in self.entries.values()
            if (user_id is None or entry.user_id == user_id)
            and (guild_id is None or entry.guild_id == guild_id)
            and (channels is None or entry.channel_id in channels)
            and (adult or not entry.is_adult)
        ]


def check_nearest(
    index: Index,
    model: Model,
    wanted: bytes,
    user_id: int | None = None,
    guild_id: int | None = None,
    channels: Collection[int] | None = None,
    adult: bool = True,
) -> None:
    """Make sure that an index finds the nearest ones in order, of equals those that came first."""
    allowed = sorted(model.allowed(user_id, guild_id, channels, adult), key=lambda entry: distance(entry.bits, wanted))
    found = index.nearest(wanted, user_id=user_id, guild_id=guild_id, channels=channels, adult=adult)
    assert found == [entry.picture for entry in allowed[: similar.CANDIDATES]]


# Few people, so that filters find some, and one whose pictures are most.
USERS, GUILDS, CHANNELS = (1, 1, 1, 2, 3, 4, 5, 2**63 - 1), (0, 7, 7, 8, 2**63 - 1), (20, 21, 22, 23, 2**63 - 1)
ENTRIES = st.builds(
    Entry,
    picture=st.integers(1, 60),
    bits=st.integers(0, 99).map(bits),
    user_id=st.sampled_from(USERS),
    guild_id=st.sampled_from(GUILDS),
    channel_id=st.sampled_from(CHANNELS),
    is_adult=st.booleans(),
)
ACTS = st.one_of(
    st.tuples(st.just("add"), st.lists(ENTRIES, max_size=25, unique_by=lambda entry: entry.picture)),
    st.tuples(st.just("remove"), st.lists(st.integers(-1, 70), max_size=10)),
    st.tuples(
        st.just("nearest"),
        st.tuples(
            st.integers(0, 99).map(bits),
            st.none() | st.sampled_from(USERS),
            st.none() | st.sampled_from(GUILDS),
            st.none() | st.frozensets(st.sampled_from((*CHANNELS, 99))),
            st.booleans(),
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(acts=st.lists(ACTS, max_size=25), candidates=st.sampled_from((1, 4, 600)), chunk=st.sampled_from((1, 8, 1 << 15)), room=st.integers(1, 8))
def test_the_index_finds_what_a_plain_list_finds(acts: list[tuple[str, object]], candidates: int, chunk: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CANDIDATES", candidates), ("CHUNK", chunk), ("ROOM", room)):
            patch.setattr(similar, name, value)
        index, model = Index(), Model()
        for act, values in acts:
            if act == "nearest":
                check_nearest(index, model, *values)  # type: ignore[misc]
            else:
                getattr(index, act)(values)
                getattr(model, act)(values)
            assert len(index) == len(model.entries)
        check_nearest(index, model, bits(3))


def some(count: int, first: int = 1, user_id: int = 1, guild_id: int = 7, is_adult: bool = False) -> list[Entry]:
    return [Entry(first + number, bits(first + number), user_id, guild_id, 20, is_adult) for number in range(count)]


def test_an_empty_index_finds_nothing() -> None:
    assert Index().nearest(bits(1)) == [] and Index().nearest(bits(1), user_id=0, guild_id=0, channels=[1], adult=False) == []
    assert len(Index()) == 0


def test_a_picture_that_is_added_again_takes_the_place_of_the_earlier_one() -> None:
    index = Index()
    index.add(some(3))
    index.add([Entry(2, bits(50), 9, 8, 20, True)])
    assert len(index) == 3
    assert index.nearest(bits(50))[0] == 2 and index.nearest(bits(2), user_id=9) == [2]
    assert sorted(index.nearest(bits(2), user_id=1)) == [1, 3]


def test_unknown_pictures_are_removed_without_harm() -> None:
    index = Index()
    index.remove([1, 2])
    index.add(some(3))
    # Zero is how the index marks what was taken out, in rooms that are free as well.
    index.remove([0, -1, 99, 2])
    index.remove([2, 0])
    assert len(index) == 2 and sorted(index.nearest(bits(1))) == [1, 3]


def test_nothing_of_what_was_removed_stays_in_memory() -> None:
    index = Index()
    index.add([Entry(picture, bits(1), 123456789, 987654321, 20 + picture, True) for picture in (1, 2)])
    index.remove([1, 2])
    kept = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert kept and not any(value.any() for value in kept)


def test_the_index_grows_beyond_its_first_room() -> None:
    index, model = Index(), Model()
    for first in range(1, 3 * ROOM, 700):
        entries = some(700, first, user_id=first)
        index.add(entries)
        model.add(entries)
    assert len(index) == len(model.entries) > 3 * ROOM
    for user_id in (None, 1, 701):
        check_nearest(index, model, bits(1500), user_id)
    assert len(index.nearest(bits(1500))) == CANDIDATES


@pytest.mark.parametrize("share", [0.01, 0.15, 0.25, 0.9])
def test_few_and_many_that_count_are_searched_the_same(share: float) -> None:
    # The share decides whether the index looks at all or only at those that count.
    few = int(2000 * share)
    entries = some(few, user_id=5, is_adult=False) + some(2000 - few, few + 1, user_id=6, is_adult=True)
    np.random.default_rng(0).shuffle(entries)  # type: ignore[arg-type]
    index, model = Index(), Model()
    index.add(entries)
    model.add(entries)
    check_nearest(index, model, bits(77), 5)
    check_nearest(index, model, bits(77), adult=False)
    check_nearest(index, model, bits(77), 5, 7, {20}, adult=False)
    assert index.nearest(bits(77), user_id=5, guild_id=8) == []


# Embeddings.


def test_the_most_alike_come_first_with_their_cosines() -> None:
    draw = np.random.default_rng(2)
    wanted, others = draw.standard_normal(WIDTH), draw.standard_normal((50, WIDTH))
    found = [(100 + place, embedding(other)) for place, other in enumerate(others)]
    cosines = others @ wanted / np.linalg.norm(others, axis=1) / np.linalg.norm(wanted)
    result = ranked(embedding(wanted), found, 7)
    assert [picture for picture, _ in result] == [100 + int(place) for place in np.argsort(-cosines)[:7]]
    assert [cosine for _, cosine in result] == pytest.approx(sorted(cosines, reverse=True)[:7], abs=2e-3)


def test_of_equals_the_first_given_comes_first() -> None:
    same = embedding(np.ones(WIDTH))
    result = ranked(same, [(9, same), (4, same), (6, embedding(-np.ones(WIDTH))), (5, same)], 10)
    assert [picture for picture, _ in result] == [9, 4, 5, 6]
    assert [cosine for _, cosine in result] == pytest.approx([1, 1, 1, -1], abs=2e-3)


def test_nothing_is_ranked_where_nothing_was_found() -> None:
    assert ranked(embedding(np.ones(WIDTH)), [], 5) == []
    assert ranked(embedding(np.ones(WIDTH)), [(1, embedding(np.ones(WIDTH)))], 0) == []


def test_hardly_any_of_the_most_alike_is_missed_among_thousands() -> None:
    draw = np.random.default_rng(3)
    centres = draw.standard_normal((200, WIDTH))
    numbers = centres[draw.integers(200, size=20_000)] + draw.standard_normal((20_000, WIDTH))
    embeddings = {number + 1: embedding(row) for number, row in enumerate(numbers)}
    index = Index()
    index.add(Entry(number, signature(data), 1, 1, 1, False) for number, data in embeddings.items())
    table = np.stack([vector_of(data) for data in embeddings.values()])
    hits = 0
    for _ in range(100):
        wanted = embedding(numbers[draw.integers(20_000)] + 0.3 * draw.standard_normal(WIDTH))
        best = {int(place) + 1 for place in np.argsort(-(table @ vector_of(wanted)), kind="stable")[:10]}
        near = index.nearest(signature(wanted))
        hits += len(best & {picture for picture, _ in ranked(wanted, [(number, embeddings[number]) for number in near], 10)})
    assert hits >= 970
