import os
from io import BytesIO

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from engine import pictures
from engine.pictures import Tile
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


# Sheets.


def differ(sheet: Image.Image, box: tuple[int, int, int, int], colour: tuple[int, int, int] = pictures.GROUND) -> bool:
    """Tell whether anything in a box of a sheet has another colour."""
    part = sheet.crop(box)
    return ImageChops.difference(part, Image.new("RGB", part.size, colour)).getbbox() is not None


@pytest.mark.parametrize(("count", "size"), [(1, (96, 96)), (2, (96, 48)), (3, (96, 96)), (4, (96, 96)), (5, (96, 64)), (9, (96, 96))])
def test_a_thumbnail_is_a_small_grid(count: int, size: tuple[int, int]) -> None:
    assert pictures.thumbnail([noise(64, 64)] * count, 96).size == size


def test_pictures_of_a_thumbnail_stand_in_reading_order_parted_by_seams() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    small = pictures.thumbnail([png(colour) for colour in colours], 64)
    assert [small.getpixel(place) for place in ((16, 16), (48, 16), (16, 48))] == colours
    assert small.getpixel((48, 48)) == pictures.GROUND
    assert {small.getpixel((32, 16)), small.getpixel((16, 32))} == {pictures.GROUND}


def test_a_thumbnail_of_one_picture_is_the_picture() -> None:
    small = pictures.thumbnail([png((1, 2, 3))], 64)
    assert small.size == (64, 64) and not differ(small, (0, 0, 64, 64), (1, 2, 3))


def test_a_picture_of_any_shape_and_mode_fits_into_a_thumbnail() -> None:
    wide = pictures.encode(Image.new("RGBA", (90, 30), (255, 0, 0, 255)))
    file = BytesIO()
    Image.new("L", (1000, 1000), 200).save(file, "JPEG")
    small = pictures.thumbnail([wide, file.getvalue()], 64)
    assert [small.getpixel((16, y)) for y in (4, 16, 28)] == [pictures.GROUND, (255, 0, 0), pictures.GROUND]
    assert small.getpixel((48, 16)) == (200, 200, 200)


def test_without_pictures_a_thumbnail_is_an_empty_frame() -> None:
    empty = pictures.thumbnail([], 64)
    assert empty.size == (64, 64) and empty.getpixel((0, 32)) == pictures.LINE and not differ(empty, (4, 4, 60, 60))


def test_a_veil_lets_nothing_through_but_rough_colours() -> None:
    stripes = Image.fromarray(np.repeat(np.tile(np.repeat([0, 255], 4).astype(np.uint8), 12)[None, :], 96, 0)).convert("RGB")
    bare, veiled = (np.asarray(pictures.thumbnail([pictures.encode(stripes)], 96, veiled), float) for veiled in (False, True))
    # Beside the eye, which is in the middle.
    assert bare[:24].std() > 100 and veiled[:24].std() < 5
    other = pictures.encode(ImageChops.invert(stripes))
    assert np.abs(np.asarray(pictures.thumbnail([other], 96, True), float) - veiled).max() < 10


def test_of_a_veiled_picture_nine_colours_are_left() -> None:
    """Two pictures with the same nine averages look the same behind a veil, whatever they show."""
    random = np.random.default_rng(1)
    cells = random.integers(60, 190, (3, 3, 3))
    shifts = [random.integers(-50, 50, (32, 32)) for _ in range(2)]
    seen = []
    for shift in shifts:
        shift = shift - round(shift.mean())
        whole = np.block([[[np.kron(cells[..., channel], np.ones((32, 32))) + np.tile(shift, (3, 3))]] for channel in range(3)])
        picture = Image.fromarray(whole.reshape(3, 96, 96).transpose(1, 2, 0).astype(np.uint8))
        seen.append(np.asarray(pictures.thumbnail([pictures.encode(picture)], 96, True), float))
    assert np.abs(seen[0] - seen[1]).max() <= 3


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_veiled_thumbnail_is_as_large_as_a_bare_one_and_shows_an_eye(count: int) -> None:
    black = [png((0, 0, 0))] * count
    veiled = pictures.thumbnail(black, 90, True)
    assert veiled.size == pictures.thumbnail(black, 90).size
    assert veiled.getpixel((veiled.width // 2, veiled.height // 2)) == pictures.INK


@pytest.mark.parametrize("count", [1, 2, 5, 6, 10, 60])
def test_a_contact_sheet_has_a_labelled_place_for_each_result(count: int) -> None:
    sheet = opened(pictures.contact_sheet([Tile([png((250, 0, 0))], f"#{number}") for number in range(count)]))
    columns, rows = min(count, 5), -(-count // 5)
    assert sheet.size == (columns * 200 + 8, rows * 224 + 8) and sheet.format == "PNG"
    sheet = sheet.convert("RGB")
    for index in range(columns * rows):
        left, top = 8 + index % columns * 200, 8 + index // columns * 224
        there = index < count
        assert (sheet.getpixel((left + 96, top + 96)) == (250, 0, 0)) is there
        # The label is below, and nowhere else.
        assert differ(sheet, (left, top + 192, left + 192, top + 216)) is there
        assert not differ(sheet, (left, top + 216, left + 192, top + 224))


def test_labels_say_what_they_are_told_to() -> None:
    labels = {label: pictures.contact_sheet([Tile([], label)]) for label in ("#1", "#7", "#9007199254740991")}
    assert len(set(labels.values())) == 3
    widest = opened(labels["#9007199254740991"]).convert("RGB")
    assert not differ(widest, (0, 200, 8, 224)) and not differ(widest, (200, 200, 208, 224))


def test_veiled_and_lost_results_have_their_places_too() -> None:
    red = [png((250, 0, 0))]
    sheet = opened(pictures.contact_sheet([Tile(red, "#1", veiled=True), Tile([], "#2"), Tile(red, "#3")])).convert("RGB")
    places = [sheet.getpixel((8 + index * 200 + 20, 30)) for index in range(3)]
    assert places[1:] == [pictures.GROUND, (250, 0, 0)] and places[0] not in places[1:]


def below(sheet: Image.Image, depth: int, start: int, end: int) -> bool:
    """Tell whether a line leaves a row of a tree downwards and reaches another one, indented by one more."""
    trunk = 8 + depth * 44 + 18
    column = [sheet.getpixel((trunk, y)) for y in range(8 + start * 80 + 72 + 1, 8 + end * 80 + 36)]
    return set(column) == {pictures.LINE} and sheet.getpixel((trunk + 20, 8 + end * 80 + 36)) == pictures.LINE


def test_a_tree_joins_each_result_to_the_one_that_it_goes_back_to() -> None:
    red = [png((250, 0, 0))]
    depths = [0, 1, 2, 1, 0, 1]
    sheet = opened(pictures.tree([Tile(red, f"#{number}", depth) for number, depth in enumerate(depths)])).convert("RGB")
    assert sheet.size == (8 + 2 * 44 + 72 + 200, 6 * 80 + 8)
    for row, depth in enumerate(depths):
        assert sheet.getpixel((8 + depth * 44 + 36, row * 80 + 44)) == (250, 0, 0)
        assert differ(sheet, (8 + depth * 44 + 80, 8 + row * 80, sheet.width, 80 + row * 80))
    assert below(sheet, 0, 0, 1) and below(sheet, 1, 1, 2) and below(sheet, 0, 0, 3) and below(sheet, 0, 4, 5)
    # The second oldest has nothing above it, and what is on the way of a line is not joined to it.
    assert not differ(sheet, (0, 3 * 80 + 44 + 3, 30, 4 * 80 + 8))
    assert not below(sheet, 1, 1, 3) and not below(sheet, 0, 3, 4)


@pytest.mark.parametrize("count", [1, 20, 60])
def test_a_tree_may_be_a_long_line_or_wide(count: int) -> None:
    deep = opened(pictures.tree([Tile([], "#1", depth) for depth in range(count)]))
    wide = opened(pictures.tree([Tile([], "#1", min(depth, 1)) for depth in range(count)]))
    assert deep.size == (280 + (count - 1) * 44, count * 80 + 8) and wide.size == (280 + min(count - 1, 1) * 44, count * 80 + 8)


def test_a_framed_result_stands_out() -> None:
    bare, framed = (opened(pictures.tree([Tile([], "#1"), Tile([], "#2", 1, framed=framed)])).convert("RGB") for framed in (False, True))
    assert pictures.ACCENT not in {colour for _, colour in bare.getcolors(1000) or []}
    assert framed.getpixel((8 + 44 - 2, 8 + 80 + 20)) == pictures.ACCENT and framed.getpixel((8 - 2, 20)) == pictures.GROUND


# Strips and films.


def test_a_strip_is_one_row_and_no_wider_than_can_be_looked_at() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    strip = opened(pictures.strip([png(colour) for colour in colours], tile_px=32))
    assert strip.size == (96, 32) and [strip.getpixel((x, 16)) for x in (16, 48, 80)] == colours
    assert opened(pictures.strip([noise(40, 20)] * 3, tile_px=32)).size == (120, 20)
    assert opened(pictures.strip([png((0, 0, 0))] * 32)).size == (pictures.STRIP_PX, pictures.STRIP_PX // 32)


def test_an_animation_goes_forth_and_back_for_ever() -> None:
    shades = [(shade, shade, shade) for shade in (10, 90, 170, 250)]
    animation = opened(pictures.gif([png(shade) for shade in shades], side_px=32))
    assert animation.size == (32, 32) and animation.info["loop"] == 0
    found = []
    for index in range(animation.n_frames):
        animation.seek(index)
        found.append(animation.convert("RGB").getpixel((16, 16))[0])
    assert found == [10, 90, 170, 250, 170, 90]


@pytest.mark.parametrize("size", [(8, 8), (31, 17), (300, 200)])
def test_a_film_shows_every_picture_once(size: tuple[int, int]) -> None:
    shades = (20, 90, 160, 230)
    film = pictures.film([pictures.encode(Image.new("RGB", size, (shade, shade, shade))) for shade in shades], tile_px=64)
    with av.open(BytesIO(film)) as container:
        assert container.format.name.startswith("mov") and container.streams.video[0].codec_context.name == "h264"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx(shades, abs=4)
    height, width, _ = frames[0].shape
    assert width % 2 == height % 2 == 0 and width / height == pytest.approx(size[0] / size[1], rel=0.05) and max(width, height) >= 64
