import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.jobs import (
    CANDIDATES_LIMIT,
    COUNT_LIMIT,
    FRAMES_LIMIT,
    GUIDANCE_LIMIT,
    INGREDIENTS_LIMIT,
    LEAST_STEPS,
    PRIOR_STEPS_LIMIT,
    PROMPT_LIMIT,
    SEED_LIMIT,
    SOURCES_LIMIT,
    STEPS_LIMIT,
    UNETS_LIMIT,
    WEIGHT_LIMIT,
    WHEEL,
    Ingredient,
    Kind,
    Painting,
    Picture,
    Request,
)

WORDS, FILE = Ingredient(prompt="a cat"), Ingredient(b"png")


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
        ("prior_seed", [-1, SEED_LIMIT]),
        ("strength", [-0.1, 1.1, float("nan")]),
        ("drift", [-0.1, 1.1, float("nan")]),
        ("step", [-0.1, 1.1, float("nan")]),
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
        (Kind.DRAWS, {}, "prompt"),
        (Kind.DRAWS, {"prompt": "a cat", "count": CANDIDATES_LIMIT + 1}, "count"),
        (Kind.EDIT, {"prompt": "a dog", "image": b"png"}, "prompt"),
        (Kind.EDIT, {"prompt": "a dog", "before": "a cat"}, "picture"),
        (Kind.EXPLORE, {"count": WHEEL}, "picture"),
        (Kind.EXPLORE, {"count": WHEEL - 1, "image": b"png"}, "count"),
        (Kind.VERIFY, {}, "picture"),
        (Kind.VERIFY, {"image": b"png", "ingredients": (WORDS,)}, "sources"),
        (Kind.VERIFY, {"image": b"png", "ingredients": (FILE,) * (SOURCES_LIMIT + 1)}, "sources"),
        *((Kind.BLEND, {"ingredients": (WORDS,) * number}, "ingredients") for number in (0, 1, INGREDIENTS_LIMIT + 1)),
        *((Kind.MORPH, {"ingredients": (WORDS,) * number, "count": 5}, "ingredients") for number in (0, 1, 3)),
        *((Kind.MORPH, {"ingredients": (WORDS, FILE), "count": count}, "count") for count in (1, FRAMES_LIMIT + 1)),
    ],
)
def test_what_a_kind_of_request_needs_is_named(kind: Kind, values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Request(**{"prompt": "", "seed": 1, "count": 1, "kind": kind} | values)  # type: ignore[arg-type] # wrong on purpose
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "ingredients"),
        ({"picture": b"png", "prompt": "a cat"}, "ingredients"),
        ({"prompt": " "}, "prompt"),
        *(({"prompt": "a cat", "weight": weight}, "weights") for weight in (0, -1, WEIGHT_LIMIT + 1, float("nan"))),
    ],
)
def test_an_ingredient_is_a_picture_or_a_prompt_and_counts_for_something(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Ingredient(**values)  # type: ignore[arg-type] # wrong on purpose
    assert refused.value.field == field


def test_what_is_made_of_several_things_is_shown_and_searched_for_as_one_text() -> None:
    blend = Request("not this", 1, kind=Kind.BLEND, ingredients=(FILE, WORDS, Ingredient(prompt="a dog")))
    assert blend.prompt == "a cat + a dog" and blend.texts == ("a cat", "a dog") and blend.files == (b"png",)
    morph = Request("", 1, 3, kind=Kind.MORPH, ingredients=(WORDS, Ingredient(prompt="a dog")))
    assert morph.prompt == "a cat → a dog" and morph.seeds == (1, 1, 1)
    louder = morph.worded(str.upper)
    assert louder.prompt == "A CAT → A DOG" and [one.prompt for one in louder.ingredients] == ["A CAT", "A DOG"]
    edit = Request("a dog", 1, kind=Kind.EDIT, image=b"png", before="a cat").worded(str.upper)
    assert (edit.prompt, edit.before, edit.texts) == ("A DOG", "A CAT", ("A DOG", "A CAT"))


def test_a_request_becomes_another_kind_of_work_without_what_belonged_to_the_first() -> None:
    edit = Request("a dog", 7, 2, 30, 2.0, Kind.EDIT, b"png", before="a cat", strength=0.5, model="tiny")
    assert edit.turned_into(Kind.VARIATION, image=b"other") == Request("a dog", 7, 2, 30, 2.0, Kind.VARIATION, b"other", model="tiny")
    wheel = edit.turned_into(Kind.EXPLORE, prompt="", image=b"png", count=WHEEL)
    assert wheel.turned_into(Kind.DREAM, prompt="a cat").count == 4


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
