import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.concepts import STRICTNESS, shown

WIDTH = 64


def embedding(*numbers: float) -> bytes:
    """Return an embedding of unit length with these numbers first."""
    vector = np.zeros(WIDTH)
    vector[: len(numbers)] = numbers
    return (vector / np.linalg.norm(vector)).astype("<f2").tobytes()


def drawn(seed: int) -> bytes:
    return embedding(*np.random.default_rng(seed).standard_normal(WIDTH))


EVERYDAY = [drawn(seed) for seed in range(1000, 1020)]


@pytest.mark.parametrize("strictness", STRICTNESS)
def test_a_picture_of_a_concept_shows_it_and_an_everyday_one_shows_none(strictness: str) -> None:
    concepts = {"gun": embedding(1), "blood": embedding(0, 1)}
    for text, picture in concepts.items():
        assert shown(picture, concepts, EVERYDAY, STRICTNESS[strictness]) == [text]
    assert not any(shown(picture, concepts, EVERYDAY, STRICTNESS[strictness]) for picture in EVERYDAY)


def test_a_concept_that_everything_is_as_like_as_shows_nowhere() -> None:
    assert shown(drawn(3), {"picture": EVERYDAY[0]}, EVERYDAY, 2.0) == []


def test_nothing_is_shown_where_there_is_nothing_to_compare_with() -> None:
    assert shown(drawn(1), {}, EVERYDAY, 2.0) == [] and shown(drawn(1), {"gun": drawn(1)}, [], 2.0) == []


def test_what_counts_is_how_far_a_concept_stands_out_among_everyday_ones() -> None:
    """Everyday ones are 0 and 0.6 alike to the picture: 0.3 on average, and 0.3 is one standard deviation."""
    picture, everyday = embedding(1), [embedding(0, 1), embedding(0.6, 0.8)]
    concepts = {"near": embedding(0.95, 0.3122), "far": embedding(0.85, 0.5268)}
    assert shown(picture, concepts, everyday, 2.0) == ["near"]
    assert shown(picture, concepts, everyday, 1.8) == ["near", "far"]
    assert shown(picture, concepts, everyday, 2.2) == []


def test_one_everyday_text_is_no_measure_and_no_fault() -> None:
    assert shown(embedding(1), {"same": embedding(1)}, [embedding(0, 1)], 0.9) == ["same"]
    assert shown(embedding(1), {"same": embedding(1)}, [embedding(0, 1)], 1.1) == []


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_the_stricter_find_all_that_the_less_strict_do(seed: int, wanted: int, share: float) -> None:
    mixed = share * np.frombuffer(drawn(wanted), "<f2").astype(float) + (1 - share) * np.frombuffer(drawn(seed), "<f2").astype(float)
    concepts = {"wanted": drawn(wanted)} | {str(number): drawn(2000 + number) for number in range(30)}
    low, middle, high = (set(shown(embedding(*mixed), concepts, EVERYDAY, STRICTNESS[name])) for name in ("low", "middle", "high"))
    assert low <= middle <= high
    if share > 0.9:
        assert "wanted" in low
