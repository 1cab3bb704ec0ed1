import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.jobs import (
    CANDIDATES_LIMIT,
    COUNT_LIMIT,
    GUIDANCE_LIMIT,
    LEAST_STEPS,
    PRIOR_STEPS_LIMIT,
    PROMPT_LIMIT,
    SEED_LIMIT,
    STEPS_LIMIT,
    UNETS_LIMIT,
    Kind,
    Painting,
    Picture,
    Request,
)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("prompt", ["", "   ", "\n\t", "x" * (PROMPT_LIMIT + 1), "half a fox \ud83e", "\udd8a"]),
        ("count", [0, -1, COUNT_LIMIT + 1]),
        ("seed", [-1, SEED_LIMIT]),
        ("steps", [0, STEPS_LIMIT + 1, (), (0,), (3, None, STEPS_LIMIT + 1), (1,) * (UNETS_LIMIT + 1)]),
        ("guidance", [-0.1, GUIDANCE_LIMIT + 0.1, float("nan"), float("inf"), (), (1.0, -0.1), (None, float("nan")), (None,) * (UNETS_LIMIT + 1)]),
        ("candidates", [0, CANDIDATES_LIMIT + 1]),
        ("prior_steps", [LEAST_STEPS - 1, PRIOR_STEPS_LIMIT + 1]),
        ("prior_guidance", [-0.1, GUIDANCE_LIMIT + 0.1, float("nan")]),
    ],
)
def test_a_value_outside_its_range_is_named(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidRequest) as refused:
            Request(**{"prompt": "a cat", "seed": 1, field: value})  # type: ignore[arg-type] # wrong on purpose
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (Kind.DREAM, {}, "prompt"),
        (Kind.EMBED, {}, "prompt"),
        (Kind.INPAINT, {"image": b"png", "mask": b"png"}, "prompt"),
        (Kind.INPAINT, {"prompt": "a cat", "image": b"png"}, "mask"),
        *((kind, {"prompt": "a cat", "mask": b"png"}, "picture") for kind in (Kind.INPAINT, Kind.VARIATION, Kind.UPSCALE)),
        (Kind.EMBED, {"prompt": "a cat", "count": 2}, "count"),
    ],
)
def test_what_a_kind_of_request_needs_is_named(kind: Kind, values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Request(**{"prompt": "", "seed": 1, "count": 1, "kind": kind} | values)  # type: ignore[arg-type] # wrong on purpose
    assert refused.value.field == field


@given(st.integers(0, SEED_LIMIT - 1), st.integers(1, COUNT_LIMIT))
def test_the_seeds_of_a_grid_count_on_and_each_paints_its_picture_alone(seed: int, count: int) -> None:
    seeds = Request("a cat", seed, count).seeds
    assert len(set(seeds)) == count and seeds[0] == seed
    assert all(Request("a cat", each, 1).seeds == (each,) for each in seeds)


def test_a_painting_of_one_picture_is_otherwise_the_same() -> None:
    pictures = tuple(Picture(bytes([seed]), seed, 8, 8) for seed in range(3))
    painting = Painting(pictures, "m", 5, 1.5, 0.5, ("fox",), "space")
    assert painting.only(1) == Painting(pictures[1:2], "m", 5, 1.5, 0.5, ("fox",), "space")
    assert painting.only(-1) is None and painting.only(3) is None
