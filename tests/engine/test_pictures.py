import os
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import pictures
from tests.conftest import png


def noise(width: int, height: int) -> bytes:
    """Return a picture that no format can make small."""
    return pictures.encode(Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)))


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, (32, 32)), (2, (64, 32)), (3, (64, 64)), (4, (64, 64)), (5, (96, 64)), (6, (96, 64)), (7, (96, 96)), (9, (96, 96))],
)
def test_a_grid_is_as_square_as_its_count_allows(count: int, size: tuple[int, int]) -> None:
    assert opened(pictures.grid([png((1, 2, 3))] * count, tile_px=32)).size == size


def test_pictures_stand_in_reading_order() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    grid = opened(pictures.grid([png(colour) for colour in colours], tile_px=32))
    assert [grid.getpixel(place) for place in ((16, 16), (48, 16), (16, 48))] == [(*colour, 255) for colour in colours]
    assert grid.getpixel((48, 48))[3] == 0


def test_a_picture_larger_than_a_tile_is_not_made_smaller() -> None:
    assert opened(pictures.grid([noise(100, 100), png((0, 0, 0))], tile_px=32)).size == (200, 100)


def test_a_picture_that_is_no_square_keeps_its_shape_in_a_grid() -> None:
    wide = pictures.encode(Image.new("RGB", (40, 20), (255, 0, 0)))
    sheet = opened(pictures.grid([wide, wide], tile_px=32))
    assert sheet.size == (80, 40)
    assert [sheet.getpixel((20, y)) for y in (0, 15, 39)] == [(0, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 0)]


def test_what_is_a_little_too_large_loses_nothing() -> None:
    gradient = Image.linear_gradient("L").resize((300, 300)).convert("RGB")
    png = pictures.encode(gradient)
    data, ending = pictures.fit(png, len(png) - 1)
    assert ending == "webp" and opened(data).convert("RGB").tobytes() == gradient.tobytes()


def test_a_picture_that_fits_stays_as_it_is() -> None:
    data = png((1, 2, 3))
    assert pictures.fit(data, len(data)) == (data, "png")


@given(st.integers(3_000, 60_000))
@settings(max_examples=20, deadline=None)
def test_a_picture_is_made_to_fit_any_sensible_limit(limit: int) -> None:
    data, ending = pictures.fit(noise(150, 150), limit)
    assert len(data) <= limit and ending == "jpg"
    assert opened(data).format == "JPEG"


def test_a_limit_that_no_picture_can_keep_is_an_error() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        pictures.fit(noise(64, 64), 100)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=1000), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_receipt_survives_any_prompt(prompt: str, seed: int) -> None:
    facts = pictures.read_receipt(pictures.write_receipt(png((1, 2, 3)), {"prompt": prompt, "seed": seed}))
    assert (facts["prompt"], facts["Description"], facts["seed"], facts["Software"]) == (prompt, prompt, str(seed), "Reverie")


def test_a_receipt_changes_no_pixel() -> None:
    data = noise(16, 16)
    assert opened(pictures.write_receipt(data, {"seed": 1})).tobytes() == opened(data).tobytes()


def test_a_picture_without_receipt_has_none() -> None:
    assert pictures.read_receipt(png((1, 2, 3))) == {}
