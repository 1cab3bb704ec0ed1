import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.archives import packed
from tests.conftest import noise, png

LIMIT = 20_000


def opened(archives: list[bytes]) -> list[tuple[str, bytes]]:
    """Return all files of archives, each of which is sound."""
    found = []
    for archive in archives:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            assert file.testzip() is None
            found += [(name, file.read(name)) for name in file.namelist()]
    return found


def facts_in(files: list[tuple[str, bytes]]) -> Any:
    return json.loads(b"".join(data for name, data in files if name.startswith("everything.json")))


NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=60).map(lambda name: f"p/{name}.png"),
    unique=True,
    max_size=12,
)
FACTS = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(deadline=None)
@given(NAMES, st.data(), FACTS, st.integers(2_000, 30_000), st.integers(0, 3_000))
def test_every_archive_fits_and_everything_comes_out_whole_and_once(
    names: list[str], data: st.DataObject, facts: Any, limit_bytes: int, repeat: int
) -> None:
    sizes = data.draw(st.lists(st.integers(0, limit_bytes - 800), min_size=len(names), max_size=len(names)))
    files = [(name, np.random.default_rng(size).bytes(size)) for name, size in zip(names, sizes, strict=True)]
    facts = {"facts": facts, "text": [f"{number:x}🦊" for number in range(repeat)]}
    archives = list(packed(files, facts, limit_bytes))
    assert all(len(archive) <= limit_bytes for archive in archives)
    found = opened(archives)
    assert facts_in(found) == facts
    assert [(name, content) for name, content in found if not name.startswith("everything.json")] == files


def test_files_of_any_size_around_the_border_of_an_archive_fit() -> None:
    for size in range(LIMIT - 1100, LIMIT - 799):
        archives = list(packed([("a.png", bytes(size)), ("b.png", bytes(200))], {}, LIMIT))
        assert all(len(archive) <= LIMIT for archive in archives)
        assert [name for name, _ in opened(archives)] == ["everything.json", "a.png", "b.png"]


def test_few_files_come_in_one_archive_and_more_in_as_few_as_hold_them() -> None:
    assert len(list(packed([(f"{number}.png", bytes(4_000)) for number in range(4)], {}, LIMIT))) == 1
    assert len(list(packed([(f"{number}.png", bytes(4_000)) for number in range(5)], {}, LIMIT))) == 2


def test_an_export_of_nothing_is_an_archive_with_the_facts() -> None:
    [archive] = packed([], {}, LIMIT)
    assert opened([archive]) == [("everything.json", b"{}")]


def test_facts_beyond_one_archive_come_in_parts_that_make_one_text() -> None:
    facts = {"prompts": [np.random.default_rng(number).bytes(20).hex() + " 🦊" for number in range(2_000)]}
    archives = list(packed([("a.png", png((1, 2, 3)))], facts, LIMIT))
    found = opened(archives)
    assert len(archives) > 2 and all(len(archive) <= LIMIT for archive in archives)
    assert [name for name, _ in found[:3]] == ["everything.json", "everything.json.1", "everything.json.2"]
    assert facts_in(found) == facts and found[-1] == ("a.png", png((1, 2, 3)))


def test_facts_can_be_read_by_people() -> None:
    [(_, text)] = opened(list(packed([], {"prompt": "a 🦊 in the Zoö"}, LIMIT)))
    assert text.decode() == '{\n "prompt": "a 🦊 in the Zoö"\n}'


def test_half_a_character_is_no_reason_to_keep_everything_back() -> None:
    assert facts_in(opened(list(packed([], {"model": "half \ud83d"}, LIMIT)))) == {"model": "half \ud83d"}


@pytest.mark.parametrize("side", [90, 300])
def test_a_picture_beyond_one_archive_is_made_to_fit(side: int) -> None:
    picture = noise(side)
    assert len(picture) > LIMIT
    archives = list(packed([("p/1.0.png", picture), ("p/2.png", png((1, 2, 3)))], {}, LIMIT))
    files = dict(opened(archives))
    assert all(len(archive) <= LIMIT for archive in archives)
    assert list(files) == ["everything.json", "p/1.0.jpg", "p/2.png"]
    assert Image.open(io.BytesIO(files["p/1.0.jpg"])).format == "JPEG"


@pytest.mark.parametrize("spare", [0, 50, 120, 799, 800, 801])
def test_a_picture_that_just_fits_or_just_does_not_is_in_an_archive_that_fits(spare: int) -> None:
    picture = noise(90)
    archives = list(packed([("p/1.png", picture)], {}, len(picture) + spare))
    assert all(len(archive) <= len(picture) + spare for archive in archives)
    [_, (name, _)] = opened(archives)
    assert (name == "p/1.png") == (spare >= 800)


def test_files_are_read_from_disk_and_lost_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "2.png").write_bytes(png((4, 5, 6)))
    files = [(f"pictures/7/{number}.png", tmp_path / f"{number}.png") for number in range(3)]
    [archive] = packed(files, {"known": 1}, LIMIT)
    assert opened([archive])[1:] == [("pictures/7/0.png", png((1, 2, 3))), ("pictures/7/2.png", png((4, 5, 6)))]


def test_an_archive_is_made_when_it_is_asked_for(tmp_path: Path) -> None:
    """Exports may be large: no more than one archive is in memory."""
    files = [(f"{number}.png", tmp_path / f"{number}.png") for number in range(3)]
    for _, path in files:
        path.write_bytes(bytes(15_000))
    archives = packed(files, {}, LIMIT)
    next(archives)
    files[2][1].write_bytes(b"later")
    assert [name for name, data in opened(list(archives)) if data == b"later"] == ["2.png"]
