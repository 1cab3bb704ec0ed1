"""Pictures and captions as people have them."""

import csv
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Misconfigured
from engine.training.data.sources import Found, Source, caption_of_name, open_source, read_table
from engine.training.data.tally import Reason
from tests.engine.training.drawing import draw_folder, files_of, scene, write_tar

NONE = (None, None)


def found_in(path: Path, captions: Path | None = None, columns: tuple[str | None, str | None] = NONE) -> list[Found]:
    return list(open_source(path, captions, columns, path / "out").read((0, 0)))


def captions_in(path: Path, captions: Path | None = None) -> dict[str, str]:
    return {found.name: found.caption for found in found_in(path, captions) if not found.problem}


def sentence(path: Path, captions: Path | None = None, columns: tuple[str | None, str | None] = NONE) -> str:
    with pytest.raises(Misconfigured) as refused:
        found_in(path, captions, columns)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("stem", "caption"),
    [
        ("a_red_fox-3", "a red fox"),
        ("a red fox", "a red fox"),
        ("a-red-fox (12)", "a red fox"),
        ("A.Red.Fox_0001", "A Red Fox"),
        ("fox 3 4", "fox"),
        ("7_dwarfs", "7 dwarfs"),
        ("cafe\u0301_2", "café"),
        ("ein_Fuchs_im_Schnee", "ein Fuchs im Schnee"),
        ("狐-1", "狐"),
        ("IMG_1234", ""),
        ("DSC0042", ""),
        ("Screenshot (3)", ""),
        ("0001", ""),
        ("---", ""),
    ],
)
def test_the_name_of_a_file_becomes_words(stem: str, caption: str) -> None:
    assert caption_of_name(stem) == caption


words = st.lists(st.text("abcdefghijklmnopqrstuvwxyzäéß", min_size=2, max_size=8), min_size=2, max_size=6)


@given(words, st.sampled_from(["_", "-", " ", "__", "+"]), st.one_of(st.just(""), st.integers(0, 10**6).map(lambda n: f"-{n}")))
def test_words_joined_to_a_name_come_back(parts: list[str], between: str, counter: str) -> None:
    assert caption_of_name(between.join(["fox", *parts]) + counter) == unicodedata.normalize("NFC", " ".join(["fox", *parts]))


@given(st.text(max_size=60))
def test_any_name_becomes_one_line_that_would_stay_as_it_is(stem: str) -> None:
    caption = caption_of_name(stem)
    assert caption == " ".join(caption.split()) and caption.isprintable()
    assert caption_of_name(caption) == caption


def test_pictures_come_in_order_from_all_folders_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("b fox.png", "deep/er/a cat.JPG", "deep/a dog.webp", ".hidden fox.png", ".git/a fox.png", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert captions_in(tmp_path) == {"b fox.png": "b fox", "deep/a dog.webp": "a dog", "deep/er/a cat.JPG": "a cat"}
    assert [found.name for found in found_in(tmp_path)] == sorted(captions_in(tmp_path))


def test_links_in_circles_end_and_a_folder_is_read_once(tmp_path: Path) -> None:
    draw_folder(tmp_path / "pictures" / "deep", 2)
    (tmp_path / "pictures" / "deep" / "up").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "again").symlink_to("deep")
    (tmp_path / "pictures" / "a circle.png").symlink_to("a circle.png")
    found = found_in(tmp_path / "pictures")
    assert len(found) == 3
    assert [(one.name, one.problem) for one in found if one.problem] == [("a circle.png", Reason.UNREADABLE)]


def test_shards_inside_of_the_source_are_no_part_of_it(tmp_path: Path) -> None:
    draw_folder(tmp_path, 1)
    draw_folder(tmp_path / "out", 1, "an old one {}.png")
    assert len(found_in(tmp_path)) == 1


def test_a_text_beside_the_picture_comes_first_and_then_names_are_no_captions(tmp_path: Path) -> None:
    draw_folder(tmp_path, 3)
    (tmp_path / "a_red_fox-1.txt").write_text("\ufeffa  blue\n owl\x00 \n", encoding="utf-8")
    (tmp_path / "a_red_fox-2.txt").write_text("  \n")
    found = found_in(tmp_path)
    assert [(one.caption, one.problem) for one in found] == [("", Reason.CAPTION), ("a blue owl", None), ("", Reason.CAPTION)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_names_captions_by_path_by_bare_name_and_by_address(tmp_path: Path, ending: str) -> None:
    pictures = draw_folder(tmp_path / "pictures" / "deep", 6)
    (pictures / "a_red_fox-3.txt").write_text("its own words")
    rows = [("deep/a_red_fox-0.png", "by path"), ("a_red_fox-1.png", "by\nname"), ("https://a.b/c/a_red_fox-2.png?x=1", "by address")]
    rows += [("deep/a_red_fox-3.png", "not these"), ("gone.png", "nothing"), ("shallow/a_red_fox-4.png", "another one's")]
    rows += [(r"C:\pictures\deep\a_red_fox-5.png", "from above")]
    table = tmp_path / f"captions.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"URL": [name for name, _ in rows], "TEXT": [text for _, text in rows]}), table)
    else:
        with table.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if ending == "tsv" else ",").writerows([("url", "text"), *rows])
    assert list(captions_in(tmp_path / "pictures", table).values()) == ["by path", "by name", "by address", "its own words", "from above"]
    problems = [(found.name, found.problem) for found in found_in(tmp_path / "pictures", table) if found.problem]
    assert problems == [("deep/a_red_fox-4.png", Reason.CAPTION), ("gone.png", Reason.MISSING), ("shallow/a_red_fox-4.png", Reason.MISSING)]


def test_columns_are_named_by_options_and_missing_ones_told(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("bild,worte,extra\na.png,ein Fuchs\nb.png,ein Hund,1,2,3\n")
    assert read_table(table, "Bild", "worte").captions == {"a.png": "ein Fuchs", "b.png": "ein Hund"}
    draw_folder(tmp_path / "pictures", 1)
    assert "has no column file or path" in sentence(tmp_path / "pictures", table)
    assert "--caption-column" in sentence(tmp_path / "pictures", table, ("bild", None))
    assert "it has bild, worte, extra" in sentence(tmp_path / "pictures", table, ("bild", "nothing"))


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", b"no"), ("b.csv", b"file,text\n\xff\xfe,x"), ("c.csv", b""), ("d.csv", b'file,text\n"' + b"x" * 200_000)]
)
def test_a_broken_table_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    draw_folder(tmp_path / "pictures", 1)
    (tmp_path / name).write_bytes(content)
    assert name in sentence(tmp_path / "pictures", tmp_path / name)
    assert "No such file" in sentence(tmp_path / "pictures", tmp_path / "gone.csv")
    assert "gone.parquet" in sentence(tmp_path / "pictures", tmp_path / "gone.parquet")


def test_no_folder_an_empty_folder_and_a_table_beside_tars_are_refused(tmp_path: Path) -> None:
    assert "is no folder" in sentence(tmp_path / "gone")
    assert "holds no picture" in sentence(tmp_path)
    write_tar(tmp_path / "00000.tar", [("000000000", files_of(0))])
    assert "Leave --captions out" in sentence(tmp_path, tmp_path / "t.csv")


def test_what_img2dataset_wrote_is_read_in_order_with_captions_from_text_or_facts(tmp_path: Path) -> None:
    only_facts = {key: data for key, data in files_of(1, "from facts").items() if key != "txt"}
    write_tar(tmp_path / "00001.tar", [("000010000", files_of(2, "third"))])
    write_tar(
        tmp_path / "00000.tar",
        [("000000000", files_of(0, "first")), ("000000001", only_facts), ("000000002", {"json": b"no"}), ("000000003", {"jpg": b"x", "json": b"[]"})],
    )
    found = found_in(tmp_path)
    assert [one.caption for one in found] == ["first", "from facts", "", "", "third"]
    assert [one.problem for one in found] == [None, None, Reason.UNREADABLE, Reason.CAPTION, None]
    assert found[0].name == "00000.tar/000000000"
    assert found_in(tmp_path / "00001.tar")[0].caption == "third"


def test_shards_of_a_pattern_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    for shard in (0, 1, 3):
        write_tar(tmp_path / f"{shard}.tar", [(f"{shard}000", files_of(shard, f"fox {shard}"))])
    assert "Shard 2 of" in sentence(tmp_path)
    assert [one.caption for one in found_in(tmp_path / "{0,3}.tar")] == ["fox 0", "fox 3"]
    assert "2.tar is missing" in sentence(tmp_path / "{0..3}.tar")


def test_what_we_have_not_finished_is_no_source(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [("000000000", files_of(0))])
    (tmp_path / "manifest.json").write_text("{}")
    assert "is not finished" in sentence(tmp_path)


def test_a_shard_with_fewer_samples_than_its_stats_say_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "00007.tar", [("000070000", files_of(0))])
    (tmp_path / "00007_stats.json").write_text(json.dumps({"successes": 2}))
    told = sentence(tmp_path)
    assert "00007.tar holds 1 samples" in told and "say 2" in told


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_reading_goes_on_at_every_place(tmp_path: Path, kind: str) -> None:
    source: Source
    if kind == "folder":
        draw_folder(tmp_path, 4)
        table = tmp_path / "t.csv"
        table.write_text("file,text\n" + "".join(f"a_red_fox-{index}.png,fox\n" for index in range(6)))
        source = open_source(tmp_path, table, NONE, tmp_path / "out")
    else:
        for shard in range(2):
            write_tar(tmp_path / f"{shard}.tar", [(f"{shard}000{index}", files_of(index)) for index in range(3)])
        source = open_source(tmp_path, None, NONE, tmp_path / "out")
    everything = list(source.read((0, 0)))
    assert len(everything) == 6
    for index, found in enumerate(everything):
        assert list(source.read(found.after)) == everything[index + 1 :]


def test_a_fingerprint_changes_with_pictures_and_captions_only(tmp_path: Path) -> None:
    def fingerprint(table: Path | None = None) -> str:
        return open_source(tmp_path, table, NONE, tmp_path / "out").fingerprint()

    draw_folder(tmp_path, 2)
    seen = [fingerprint()]
    (tmp_path / "readme.md").write_text("no picture")
    assert fingerprint() == seen[0]
    for change in (
        lambda: scene(9, (90, 90)).save(tmp_path / "a_red_fox-1.png"),
        lambda: scene(9).save(tmp_path / "one more.png"),
        lambda: (tmp_path / "a_red_fox-1.txt").write_text("words"),
    ):
        change()
        seen.append(fingerprint())
    for text in ("first", "other"):
        (tmp_path / "t.csv").write_text(f"file,text\na_red_fox-0.png,{text}\n")
        seen.append(fingerprint(tmp_path / "t.csv"))
    assert len(set(seen)) == len(seen)
