"""Pictures from strangers: every mode and format, every kind of damage, and the way into a square and back."""

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageStat

from engine import uploads
from engine.errors import InvalidRequest
from engine.pictures import write_receipt
from engine.uploads import Frame, Framing, Region, feathered, open_picture, read_mask


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def scene(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """Draw a picture whose corners and colours tell which way up it is."""
    picture = Image.new("RGB", size, (200, 30, 30))
    ImageDraw.Draw(picture).rectangle((0, 0, size[0] // 3, size[1] // 3), fill=(20, 40, 220))
    return picture.convert(mode)


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        open_picture(data)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
    return str(refused.value)


def near(picture: Image.Image, expected: Image.Image, tolerance: float = 3) -> bool:
    """Tell whether two pictures differ by no more than so much on average: compression blurs edges."""
    difference = ImageStat.Stat(ImageChops.difference(picture.convert("RGB"), expected.convert("RGB")))
    return picture.size == expected.size and max(difference.mean) <= tolerance


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"])
def test_every_mode_becomes_eight_bits(mode: str) -> None:
    source = scene(mode="L") if mode.startswith(("I", "F")) else scene()
    if mode in ("I;16", "I"):
        picture = source.convert("I").point(lambda value: value * 257).convert(mode)
    elif mode == "F":
        picture = source.convert("F").point(lambda value: value * (1 / 255) + 0)
    else:
        picture = source.convert(mode)
    kind = "PNG" if mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16") else "TIFF"
    # No file format holds HSV.
    opened = uploads.in_eight_bits(picture) if mode == "HSV" else open_picture(encoded(picture, kind))
    assert opened.mode in ("RGB", "RGBA") and opened.size == (40, 30)
    if mode not in ("1", "P"):
        expected = source if mode.startswith(("I", "F", "RGB", "CMYK", "YCbCr", "HSV")) else picture.convert("RGB") if mode != "LAB" else source
        assert near(opened, expected, 12)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    ramp = Image.new("I;16", (256, 1))
    for x in range(256):
        ramp.putpixel((x, 0), x * 257)
    opened = open_picture(encoded(ramp))
    assert [opened.getpixel((x, 0))[0] for x in (0, 64, 128, 255)] == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("PNG", {})]
)
def test_every_usual_format_opens(kind: str, options: dict[str, Any]) -> None:
    assert near(open_picture(encoded(scene(), kind, **options)), scene(), 12)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    assert near(open_picture(encoded(scene(mode="CMYK"), "JPEG", quality=95)), scene(), 12)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    later = [Image.new("RGB", (40, 30), colour) for colour in ("green", "white")]
    assert near(open_picture(encoded(scene(), kind, save_all=True, append_images=later)), scene(), 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = scene() if orientation == 1 else scene().transpose(getattr(Image.Transpose, back[orientation]))
    assert near(open_picture(encoded(stored, "JPEG", quality=95, exif=exif)), scene(), 12)


def test_a_profile_is_heeded_and_a_broken_one_is_not() -> None:
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert near(open_picture(encoded(scene(), icc_profile=linear)), scene())
    assert near(open_picture(encoded(scene(), icc_profile=b"no profile")), scene())


def test_transparency_is_kept() -> None:
    picture = scene(mode="RGBA")
    picture.putpixel((5, 5), (0, 0, 0, 0))
    assert open_picture(encoded(picture)).getpixel((5, 5))[3] == 0
    palette = scene(mode="P")
    assert open_picture(encoded(palette, transparency=palette.getpixel((0, 0)))).getpixel((0, 0))[3] == 0


def png_of(width: int, height: int) -> bytes:
    """Return a tiny file that claims to be a picture of this size, all of it black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (100_000, 1000), (7000, 6000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert "40 megapixels" in refusal(png_of(*size))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello", "cannot be read"),
        (b"<html></html>", "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
        (b"%PDF-1.4", "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
        (encoded(scene())[:60], "damaged"),
        (encoded(scene((200, 200)), "JPEG")[:900], "damaged"),
        (b"\0" * (uploads.LIMIT_BYTES + 1), "at most 25 MB"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(data: bytes, says: str) -> None:
    assert says in refusal(data)


def test_a_single_pixel_is_a_picture() -> None:
    assert open_picture(encoded(Image.new("RGB", (1, 1), "red"))).size == (1, 1)


@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_is_refused_or_survived(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(scene(), kind))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(1, 6))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert open_picture(bytes(content)).mode in ("RGB", "RGBA")
    except InvalidRequest:
        pass


@given(st.integers(2, 90), st.integers(2, 90), st.sampled_from([8, 16, 64]), st.sampled_from(Framing))
@settings(max_examples=80, deadline=None)
def test_any_size_becomes_a_square_and_comes_back(width: int, height: int, side: int, how: Framing) -> None:
    frame = Frame((width, height), side, how)
    picture = scene((width, height))
    assert frame.apply(picture).size == (side, side)
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (width // 2 - 1, height // 2 - 1, width // 2 + 1, height // 2 + 1))
    assert frame.apply_mask(mask).getbbox() is not None
    result = frame.undo(picture, Image.new("RGB", (side, side), "lime"), mask)
    assert result.size == (width, height)
    changed = ImageChops.difference(result, picture).convert("L").point(lambda value: 255 if value else 0)
    assert ImageChops.subtract(changed, mask).getbbox() is None


def test_the_three_framings_show_what_they_say() -> None:
    wide = Image.new("RGB", (90, 30), "black")
    ImageDraw.Draw(wide).rectangle((30, 0, 59, 29), fill="white")
    crop, fit, pad = (Frame(wide.size, 30, how).apply(wide) for how in Framing)
    assert crop.getextrema() == ((255, 255),) * 3
    assert fit.getpixel((2, 15)) == (0, 0, 0) and fit.getpixel((15, 15)) == (255, 255, 255) and fit.getpixel((15, 1)) == (255, 255, 255)
    assert pad.getpixel((2, 15)) == (0, 0, 0) and pad.getpixel((15, 15)) == (255, 255, 255) and pad.getpixel((15, 1)) == (255, 255, 255)


masks = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 47), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_kept_pixels_stay_to_the_bit_and_repainted_ones_change(boxes: list[tuple[int, int, int, int]]) -> None:
    size = (640, 480)
    mask = Image.new("L", size)
    for left, top, width, height in boxes:
        ImageDraw.Draw(mask).rectangle((left * 10, top * 10, left * 10 + width * 4, top * 10 + height * 4), fill=255)
    picture = Image.effect_noise(size, 80).convert("RGB")
    result = Frame(size, 64, Framing.FIT).undo(picture, Image.new("RGB", (64, 64), "lime"), mask)
    kept = mask.point(lambda value: 255 - value)
    difference = ImageChops.difference(result, picture)
    assert Image.composite(difference, Image.new("RGB", size), kept).getbbox() is None
    changed = difference.convert("L").point(lambda value: 255 if value else 0)
    assert uploads.count_white(changed) > 0.4 * uploads.count_white(mask)


def test_the_seam_is_soft_and_lies_inside() -> None:
    mask = Image.new("L", (640, 640))
    ImageDraw.Draw(mask).rectangle((200, 0, 639, 639), fill=255)
    ramp = [feathered(mask).getpixel((x, 320)) for x in range(190, 220)]
    assert ramp[:10] == [0] * 10 and ramp[-1] == 255
    assert ramp == sorted(ramp) and len(set(ramp)) > 6


def mask_bytes(box: tuple[int, int, int, int], size: tuple[int, int] = (40, 30), mode: str = "L") -> bytes:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return encoded(mask.convert(mode))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_white_means_repaint(mode: str) -> None:
    mask = read_mask(mask_bytes((0, 0, 9, 29), mode=mode), scene())
    assert mask.getpixel((5, 5)) == 255 and mask.getpixel((20, 5)) == 0


def test_transparent_means_repaint_in_the_mask_and_in_the_picture() -> None:
    see_through = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    ImageDraw.Draw(see_through).rectangle((0, 0, 9, 29), fill=(0, 0, 0, 0))
    for mask in (read_mask(encoded(see_through), scene()), read_mask(None, see_through)):
        assert mask.getpixel((5, 5)) == 255 and mask.getpixel((20, 5)) == 0


def test_a_mask_of_another_size_is_scaled() -> None:
    mask = read_mask(mask_bytes((0, 0, 19, 59), (80, 60)), scene())
    assert mask.size == (40, 30) and mask.getpixel((9, 5)) == 255 and mask.getpixel((10, 5)) == 0


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (encoded(Image.new("L", (40, 30))), "keeps everything"),
        (encoded(Image.new("L", (40, 30), 255)), "keeps nothing"),
        (mask_bytes((0, 0, 5, 5), (30, 40)), "shape"),
        (None, "no transparent part"),
        (b"no picture", "cannot be read"),
    ],
)
def test_a_mask_that_makes_no_sense_is_refused(mask: bytes | None, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_mask(mask, scene())


def test_a_mask_outside_of_the_square_is_refused() -> None:
    frame = Frame((90, 30), 30, Framing.CROP)
    mask = Image.new("L", (90, 30))
    mask.paste(255, (0, 0, 20, 30))
    with pytest.raises(InvalidRequest, match="middle square"):
        frame.apply_mask(mask)


def test_the_seam_is_feathered_inside_of_what_is_repainted() -> None:
    original = Image.new("RGB", (256, 256), "black")
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 128, 256))
    frame = Frame((256, 256), 64, Framing.CROP)
    row = [frame.undo(original, Image.new("RGB", (64, 64), "white"), mask).getpixel((x, 128))[0] for x in range(256)]
    assert set(row[128:]) == {0} and set(row[8:120]) == {255}
    assert row[120:128] == sorted(row[120:128], reverse=True) and 1 < len(set(row[120:128]) - {0, 255}) <= 6


@pytest.mark.parametrize(("size", "kept"), [((3000, 1500), (1024, 512)), ((10, 20), (10, 20)), ((20_000, 300), (1024, 15))])
def test_pictures_that_are_taken_in_are_kept_at_a_size_to_work_on(size: tuple[int, int], kept: tuple[int, int]) -> None:
    taken = open_picture(uploads.take_in(encoded(Image.new("RGB", size))))
    assert taken.size == kept


@pytest.mark.parametrize("region", list(Region))
def test_every_region_repaints_something_and_keeps_something(region: Region) -> None:
    picture = Image.new("RGB", (41, 23), (200, 0, 0))
    picture.paste((0, 0, 200), (10, 8, 30, 15))
    mask = uploads.region_mask(picture, region)
    assert mask.size == picture.size and set(mask.tobytes()) == {0, 255}


@pytest.mark.parametrize("region", list(Region))
def test_where_there_is_nothing_to_choose_a_region_is_refused(region: Region) -> None:
    with pytest.raises(InvalidRequest):
        uploads.region_mask(Image.new("RGB", (1, 1)), region)


def test_an_overlay_shows_what_is_repainted_and_leaves_the_rest() -> None:
    picture = Image.new("RGB", (4, 4), (10, 200, 10))
    mask = Image.new("L", (4, 4))
    mask.paste(255, (0, 0, 2, 4))
    shown = uploads.overlay(picture, mask).convert("RGB")
    assert shown.getpixel((3, 3)) == (10, 200, 10) and shown.getpixel((0, 0)) != (10, 200, 10)


def test_a_receipt_is_read_from_pictures_only() -> None:
    assert uploads.receipt_of(write_receipt(encoded(Image.new("RGB", (2, 2))), {"seed": 3}))["seed"] == "3"
    with pytest.raises(InvalidRequest):
        uploads.receipt_of(b"no picture")
