"""All layouts in use, as one stream that can be repeated and gone on with."""

import itertools
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from engine.errors import Misconfigured
from engine.training.data import Sample, Samples, layouts, reorder
from engine.training.data import command as data_command
from engine.training.data.tars import Widths, widths_of
from tests.engine.training.conftest import Make
from tests.engine.training.drawing import draw_folder, files_of, npy, scene, write_retrieval, write_tar
from tests.engine.training.test_data_shards import files_at_most

D = 6


def embed_of(number: int) -> np.ndarray:
    """Return what CLIP would see in a sample."""
    values = np.random.default_rng(number).standard_normal(D).astype(np.float32)
    return values / np.linalg.norm(values)


def key_of(number: int, size: int = 4) -> str:
    return f"{number // size:03}{number % size:02}"


def write_shards(folder: Path, count: int = 10, *, inside: bool = False, size: int = 4, without: tuple[int, ...] = ()) -> Path:
    """Write shards of `size`, some samples missing, as a download leaves them."""
    for shard, numbers in itertools.groupby(range(count), lambda number: number // size):
        kept = [number for number in numbers if number not in without]
        more = {number: {"npy": npy(embed_of(number))} if inside else {} for number in kept}
        write_tar(folder / f"{shard:03}.tar", [(key_of(number, size), files_of(number, f"fox {number}", **more[number])) for number in kept])
    return folder


def write_beside(folder: Path, count: int = 10, *, size: int = 4, without: tuple[int, ...] = (), digits: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard, numbers in itertools.groupby(range(count), lambda number: number // size):
        rows = [np.zeros(D) if number in without else embed_of(number) for number in numbers]
        np.save(folder / f"img_emb_{shard:0{digits}}.npy", np.stack(rows).astype(np.float32))
    return folder


def write_apart(folder: Path, count: int = 10, *, size: int = 4, without: tuple[int, ...] = (), dtype: str = "float32") -> Path:
    numbers = np.random.default_rng(0).permutation([number for number in range(count) if number not in without])
    parts = [
        ([key_of(number, size) for number in some], np.stack([embed_of(number) for number in some]).astype(dtype))
        for some in np.array_split(numbers, 3)
    ]
    return write_retrieval(folder, parts)


def numbers_of(samples: Any) -> list[int]:
    return [int(sample.caption.split()[1]) for sample in samples]


def sentence(use: Callable[[], object]) -> str:
    with pytest.raises(Misconfigured) as refused:
        use()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def same(one: Sample, other: Sample) -> bool:
    assert one.picture is not None and one.embed is not None
    return one.key == other.key and one.caption == other.caption and torch.equal(one.picture, other.picture) and torch.equal(one.embed, other.embed)


@pytest.mark.parametrize("layout", ["inside", "beside", "elsewhere", "in img_emb", "apart", "apart, elsewhere"])
def test_every_layout_gives_the_same_samples(tmp_path: Path, layout: str) -> None:
    without = (5, 9)
    shards = write_shards(tmp_path / "shards", inside=layout == "inside", without=without)
    elsewhere = None
    match layout:
        case "beside":
            write_beside(shards, without=without)
        case "elsewhere":
            elsewhere = write_beside(tmp_path / "embeds", without=without, digits=6)
        case "in img_emb":
            write_beside(shards / "img_emb", without=without)
        case "apart":
            write_apart(shards, without=without)
        case "apart, elsewhere":
            elsewhere = write_apart(tmp_path / "retrieval", without=without)
    samples = list(Samples(shards, elsewhere, embeds=True, width=D))
    assert numbers_of(samples) == [number for number in range(10) if number not in without]
    for sample in samples:
        number = int(sample.caption.split()[1])
        assert sample.key == key_of(number)
        assert sample.embed.dtype == torch.float32 and np.array_equal(sample.embed, embed_of(number))
        assert sample.picture.dtype == torch.uint8 and sample.picture.shape == (3, 64, 64)
        assert (sample.picture.float() - torch.from_numpy(np.array(scene(number, (64, 64)))).permute(2, 0, 1)).abs().mean() < 25


def test_widths_come_from_a_shard_that_tells_them(tmp_path: Path) -> None:
    """The name of the first shard has fewer zeros than the keys, which only the later ones show."""
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tar", [(key_of(4 * shard + n), files_of(n, f"fox {4 * shard + n}")) for n in range(4)])
    write_beside(tmp_path, 12)
    assert all(np.array_equal(sample.embed, embed_of(number)) for number, sample in enumerate(Samples(tmp_path, embeds=True)))


def test_only_what_is_asked_for_is_there(tmp_path: Path) -> None:
    write_shards(tmp_path, inside=True)
    [first, *_] = Samples(tmp_path, pictures=False)
    assert first.picture is None and first.embed is None and first.caption == "fox 0"
    [first, *_] = Samples(tmp_path, embeds=True, side=16)
    assert first.picture.shape == (3, 16, 16) and first.embed.shape == (D,)


def test_what_the_command_makes_is_read(tmp_path: Path, make: Make) -> None:
    make(draw_folder(tmp_path / "pictures", 7), tmp_path / "out", size=3)
    samples = Samples(tmp_path / "out", embeds=True, width=128)
    assert samples.count() == 7 == len(list(samples))
    assert "128 wide, 768 are wanted" in sentence(lambda: list(Samples(tmp_path / "out", embeds=True, width=768)))


digits = st.integers(1, 7)


@given(st.data(), digits, digits)
def test_widths_are_found_from_names(data: st.DataObject, shard_width: int, index_width: int) -> None:
    shard, index = data.draw(st.integers(0, 10**shard_width - 1)), data.draw(st.integers(0, 10**index_width - 1))
    key = f"{shard:0{shard_width}}{index:0{index_width}}"
    assert widths_of(Path(f"{shard:0{shard_width}}.tar"), key) == Widths(shard_width, index_width)
    # A file may have fewer zeros than the keys have: of shards after the first this changes nothing, and in the first only the place counts.
    found = widths_of(Path(f"laion_{shard}.tar"), key)
    assert found is not None and found.split(key) == (shard, index)


@given(st.text(max_size=12), st.integers(0, 999))
def test_any_key_has_widths_that_name_its_shard_or_none(key: str, shard: int) -> None:
    if (found := widths_of(Path(f"{shard:03}.tar"), key)) is not None:
        assert found.shard >= 1 and found.index >= 1 and found.split(key)[0] == shard


@pytest.mark.parametrize(
    ("shard", "key"), [("3.tar", "0004001"), ("shard.tar", "0003001"), ("003.tar", "a003001"), ("3.tar", "3"), ("0.tar", "7001"), ("0.tar", "0")]
)
def test_keys_of_other_shards_have_no_widths(shard: str, key: str) -> None:
    assert widths_of(Path(shard), key) is None


def test_a_seed_repeats_the_order_and_every_epoch_has_another_one(tmp_path: Path) -> None:
    write_shards(tmp_path, 30)

    def order(seed: int | None, buffer: int = 7) -> list[int]:
        return numbers_of(Samples(tmp_path, pictures=False, seed=seed, buffer=buffer, epochs=2))

    assert order(None) == [*range(30)] * 2
    first = order(1)
    assert first == order(1) != order(2)
    one, two = first[:30], first[30:]
    assert sorted(one) == sorted(two) == [*range(30)] and one != two
    assert order(1, 30) != first
    # Samples come from a block of the buffer's size, which begins where the shard does.
    blocks = [set(one[start : start + 7]) for start in range(0, 30, 7)]
    assert all(len({number // 4 for number in block}) <= 3 for block in blocks)
    assert {number // 4 for number in one[:4]} != {0}


@pytest.mark.parametrize("layout", ["inside", "beside"])
@pytest.mark.parametrize("seed", [None, 5])
def test_reading_goes_on_exactly_at_every_place(tmp_path: Path, layout: str, seed: int | None) -> None:
    write_shards(tmp_path, 11, inside=layout == "inside", without=(6,))
    if layout == "beside":
        write_beside(tmp_path, 11, without=(6,))
    more = [{"npy": npy(embed_of(number))} if layout == "inside" else {} for number in range(4)]
    first = [(key_of(number), files_of(number, f"fox {number}", **more[number])) for number in range(4)]
    first[3][1]["jpg"] = b"broken"
    write_tar(tmp_path / "000.tar", first)

    def reader() -> Samples:
        return Samples(tmp_path, embeds=True, seed=seed, buffer=3, epochs=3)

    unbroken = list(reader())
    assert len(unbroken) == 27
    for taken in range(len(unbroken) + 1):
        samples = reader()
        before = list(itertools.islice(samples, taken))
        state = json.loads(json.dumps(samples.state_dict()))
        again = reader()
        again.load_state_dict(state)
        together = before + list(itertools.islice(again, len(unbroken) - taken))
        assert all(same(one, other) for one, other in zip(unbroken, together, strict=True))
        if 0 < taken < len(unbroken):
            assert 2 <= again.passed["no readable picture"] <= 3


def test_going_on_opens_no_shard_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, 20)
    samples = Samples(tmp_path, pictures=False, buffer=4, seed=1)
    before = numbers_of(itertools.islice(samples, 14))
    opened, read_tar = [], layouts.read_tar
    monkeypatch.setattr(layouts, "read_tar", lambda shard: (opened.append(shard.name), read_tar(shard))[1])
    again = Samples(tmp_path, pictures=False, buffer=4, seed=1)
    again.load_state_dict(samples.state_dict())
    assert sorted(before + numbers_of(again)) == [*range(20)]
    assert len(opened) == 3


def test_reading_begins_anew_after_the_last_epoch(tmp_path: Path) -> None:
    write_shards(tmp_path)
    samples = Samples(tmp_path, pictures=False, seed=1, buffer=4)
    assert numbers_of(samples) == numbers_of(samples)
    endless = Samples(tmp_path, pictures=False, seed=1, epochs=None)
    assert len(list(itertools.islice(endless, 35))) == 35 and endless.position.epoch == 3


@pytest.mark.parametrize("change", [{"seed": 2}, {"buffer": 9}, {"share": (0, 2)}])
def test_going_on_in_another_order_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_shards(tmp_path)
    usual: dict[str, Any] = {"seed": 1, "buffer": 4}
    state = Samples(tmp_path, **usual).state_dict()
    [name] = change
    assert f"Reading cannot go on: {name} was" in sentence(lambda: Samples(tmp_path, **usual | change).load_state_dict(state))


def test_several_readers_share_the_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, 30)
    parts = [numbers_of(Samples(tmp_path, pictures=False, seed=3, share=(reader, 3))) for reader in range(3)]
    assert sorted(sum(parts, [])) == [*range(30)] and all(parts)
    assert "8 shards cannot be divided between 9 readers" in sentence(lambda: list(Samples(tmp_path, share=(0, 9))))


def test_workers_of_a_loader_divide_the_share_of_their_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, 30)
    found = []
    for reader, worker in itertools.product(range(2), range(2)):
        samples = pickle.loads(pickle.dumps(Samples(tmp_path, pictures=False, seed=3, share=(reader, 2))))
        monkeypatch.setattr(layouts, "get_worker_info", lambda worker=worker: SimpleNamespace(id=worker, num_workers=2))
        found += numbers_of(samples)
    assert sorted(found) == [*range(30)]
    monkeypatch.undo()
    batches = list(DataLoader(Samples(tmp_path, seed=3, side=8, pictures=True, captions=True), batch_size=None))
    assert sorted(numbers_of(batches)) == [*range(30)] and batches[0].picture.shape == (3, 8, 8)


def test_damaged_samples_are_counted_and_passed_over(tmp_path: Path) -> None:
    good = {"npy": npy(embed_of(0))}
    write_tar(
        tmp_path / "000.tar",
        [
            ("00000", files_of(0, "fox 0", **good)),
            ("00001", files_of(1, "fox 1", **good) | {"jpg": b"broken"}),
            ("00002", {"txt": b"fox 2", **good}),
            ("00003", files_of(3, "", **good)),
            ("00004", files_of(4, "fox 4")),
            ("00005", files_of(5, "fox 5", npy=b"broken")),
            ("00006", files_of(6, "fox 6", npy=npy(np.full(D, np.nan, np.float32)))),
            ("00007", files_of(7, "fox 7", npy=npy(np.zeros(D)))),
            ("00008", files_of(8, "fox 8", npy=npy(np.array([{}], object)))),
            ("00009", files_of(9, "fox 9", **good)),
            ("00009", {"jpg": b"another"}),
            ("00010", files_of(10, "fox 10", npy=npy(embed_of(0).astype(np.float16)[None]))),
        ],
    )
    samples = Samples(tmp_path, embeds=True)
    assert numbers_of(samples) == [0, 10]
    assert samples.passed == {"no readable picture": 2, "no caption": 1, "no embedding": 5, "two files of a name": 1}
    assert numbers_of(Samples(tmp_path, pictures=False)) == [0, 1, 2, 4, 5, 6, 7, 8, 10]


@pytest.mark.parametrize("epochs", [1, None])
def test_shards_of_which_nothing_can_be_used_are_refused(tmp_path: Path, epochs: int | None) -> None:
    write_tar(tmp_path / "0.tar", [("0000", {"jpg": b"broken", "txt": b"a fox"})])
    assert "can be used: 1 × no readable picture" in sentence(lambda: list(Samples(tmp_path, epochs=epochs)))
    write_tar(tmp_path / "0.tar", [])
    assert "there are none" in sentence(lambda: list(Samples(tmp_path, epochs=epochs)))


def test_a_sample_without_caption_serves_who_asks_for_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("0000", {"jpg": files_of(0)["jpg"]})])
    assert [sample.caption for sample in Samples(tmp_path, captions=False)] == [""]


def test_missing_shards_are_named(tmp_path: Path, make: Make) -> None:
    shards = write_shards(tmp_path / "shards", 12)
    (shards / "001.tar").unlink()
    assert "Shard 1 of" in (told := sentence(lambda: Samples(shards))) and "2 are there, 3 should be" in told
    assert numbers_of(Samples(f"{shards}/{{000,002}}.tar", pictures=False)) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert "001.tar is missing" in sentence(lambda: Samples(f"{shards}/{{000..002}}.tar"))
    assert numbers_of(Samples(shards / "002.tar", pictures=False)) == [8, 9, 10, 11]
    make(draw_folder(tmp_path / "pictures", 5), tmp_path / "out", size=2)
    (tmp_path / "out" / "00002.tar").unlink()
    assert "Shard 2 of" in (told := sentence(lambda: Samples(tmp_path / "out"))) and "2 are there, 3 should be" in told
    (tmp_path / "empty").mkdir()
    assert "holds no shards" in sentence(lambda: Samples(tmp_path / "empty"))


def test_a_shard_that_is_cut_off_or_holds_too_few_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 8)
    whole = (tmp_path / "001.tar").read_bytes()
    (tmp_path / "001.tar").write_bytes(whole[: len(whole) // 2])
    assert "001.tar cannot be read" in sentence(lambda: list(Samples(tmp_path)))
    (tmp_path / "001.tar").write_bytes(whole)
    (tmp_path / "001_stats.json").write_text('{"successes": 5}')
    assert "001.tar holds 4 samples, but its stats say 5" in sentence(lambda: list(Samples(tmp_path)))
    assert Samples(tmp_path).count() is None


def test_shards_without_embeddings_are_named_where_some_are_needed(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 8)
    assert "000.tar holds no embeddings" in (told := sentence(lambda: Samples(shards, embeds=True))) and "engine.training data" in told
    assert "holds none either" in sentence(lambda: Samples(shards, tmp_path / "gone", embeds=True))
    write_shards(shards, 4, inside=True)
    assert "001.tar holds 4 samples and no embedding" in sentence(lambda: list(Samples(shards, embeds=True)))


def test_embeddings_and_shards_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 12)
    embeds = write_beside(tmp_path / "embeds", 12)

    def told(**options: Any) -> str:
        return sentence(lambda: list(Samples(shards, embeds, embeds=True, **options)))

    def keep(name: str, change: Callable[[np.ndarray], np.ndarray], **options: Any) -> str:
        rows = np.load(embeds / name)
        np.save(embeds / name, change(rows))
        answer = told(**options)
        np.save(embeds / name, rows)
        return answer

    assert f"its embeddings are {D} wide, 7 are wanted" in told(width=7)
    short = keep("img_emb_0001.npy", lambda rows: rows[:2])
    assert "001.tar: sample 00102 is number 2" in short and "holds 2 embeddings" in short
    long = keep("img_emb_0001.npy", lambda rows: np.concatenate([rows, rows]))
    assert "001.tar holds 4 samples" in long and "8 embeddings" in long
    assert "002.tar: its embeddings are 3 wide, 6 are wanted" in keep("img_emb_0002.npy", lambda rows: rows[:, :3])
    assert "holds no table of embeddings" in keep("img_emb_0000.npy", lambda rows: rows[0])
    whole = (embeds / "img_emb_0002.npy").read_bytes()
    (embeds / "img_emb_0002.npy").write_bytes(whole[:-9])
    assert "img_emb_0002.npy cannot be read as embeddings" in told()
    (embeds / "img_emb_0002.npy").unlink()
    assert "002.tar has no embeddings" in (missing := told()) and "3 shards are there, embeddings of 2" in missing
    np.save(embeds / "img_emb_0002.npy", np.load(embeds / "img_emb_0001.npy"))
    np.save(embeds / "img_emb_0003.npy", np.load(embeds / "img_emb_0001.npy"))
    assert "Shard 3 is missing: 3 are there" in told()
    assert len(list(Samples(f"{shards}/{{000..002}}.tar", embeds, embeds=True))) == 12
    (embeds / "img_emb_0003.npy").unlink()
    write_tar(shards / "002.tar", [("00100", files_of(1))])
    assert "002.tar is number 2, its sample 00100 is one of shard 1" in told()
    write_tar(shards / "002.tar", [("002000", files_of(1))])
    assert "002.tar: sample '002000' is not named by 3 + 2 digits" in told()


def test_rows_of_zeros_are_no_embeddings(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, 8)
    write_beside(shards, 8, without=(2,))
    samples = Samples(shards, embeds=True)
    assert numbers_of(samples) == [0, 1, 3, 4, 5, 6, 7] and samples.passed == {"no embedding": 1}


@pytest.mark.parametrize("open_files", [1, 2, 64])
@pytest.mark.parametrize("batch_rows", [1, 3, 4096])
def test_embeddings_are_reordered_in_bounded_memory(tmp_path: Path, open_files: int, batch_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reorder, "OPEN_FILES", open_files)
    monkeypatch.setattr(reorder, "BATCH_ROWS", batch_rows)
    shards = write_shards(tmp_path / "shards", 30, without=(8, 11, 29))
    found = write_apart(tmp_path / "found", 30, without=(8, 11, 29), dtype="float16")
    already_open = len(os.listdir("/dev/fd"))
    out = reorder.reorder(found, tmp_path / "out", sorted(shards.glob("*.tar")))
    assert len(os.listdir("/dev/fd")) <= already_open
    for shard in range(8):
        rows = np.load(out / f"img_emb_{shard:03}.npy")
        wanted = [embed_of(n) if n not in (8, 11, 29) else np.zeros(D) for n in range(4 * shard, min(4 * shard + 4, 29))]
        wanted = wanted[:3] if shard == 2 else wanted
        assert rows.dtype == np.float16 and np.array_equal(rows, np.stack(wanted).astype(np.float16))


def test_what_is_reordered_is_kept_until_the_source_changes(tmp_path: Path) -> None:
    shards = sorted(write_shards(tmp_path / "shards").glob("*.tar"))
    found, out = write_apart(tmp_path / "found"), tmp_path / "out"
    reorder.reorder(found, out, shards)
    before = (out / "img_emb_000.npy").stat().st_mtime_ns
    with reorder.FileLock(tmp_path / ".out.lock"):
        # What is there needs nobody to wait, nor a folder that can be written to.
        reorder.reorder(found, out, shards)
    assert (out / "img_emb_000.npy").stat().st_mtime_ns == before
    rows = np.load(found / "img_emb" / "img_emb_0.npy")
    np.save(found / "img_emb" / "img_emb_0.npy", -rows)
    reorder.reorder(found, out, shards)
    assert (out / "img_emb_000.npy").stat().st_mtime_ns != before


def test_paths_of_pictures_are_keys_too(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 4)
    write_retrieval(tmp_path / "found", [([f"/data/img/{key_of(n)}.jpg" for n in (2, 0, 1, 3)], np.stack([embed_of(n) for n in (2, 0, 1, 3)]))])
    samples = list(Samples(shards, tmp_path / "found", embeds=True))
    assert all(np.array_equal(sample.embed, embed_of(number)) for number, sample in enumerate(samples)) and len(samples) == 4


def test_parts_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    shards = sorted(write_shards(tmp_path / "shards").glob("*.tar"))
    found = write_apart(tmp_path / "found")

    def told() -> str:
        answer = sentence(lambda: reorder.reorder(found, tmp_path / "out", shards))
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()
        return answer

    rows = np.load(found / "img_emb" / "img_emb_1.npy")
    np.save(found / "img_emb" / "img_emb_1.npy", rows[:-1])
    assert "img_emb_1.npy holds 2 embeddings" in (answer := told()) and "names 3 samples" in answer
    np.save(found / "img_emb" / "img_emb_1.npy", rows[:, :3])
    assert f"img_emb_1.npy is 3 wide, {found}/img_emb/img_emb_0.npy 6" in told()
    (found / "img_emb" / "img_emb_1.npy").unlink()
    assert "metadata_1.parquet has no counterpart" in told()
    np.save(found / "img_emb" / "img_emb_1.npy", rows)
    (found / "metadata" / "metadata_1.parquet").write_bytes(b"x")
    assert "metadata_1.parquet cannot be read" in told()
    write_retrieval(found, [(["a fox", "a cat"], rows[:2])])
    for inner in (*found.glob("*/*_1.*"), *found.glob("*/*_2.*")):
        inner.unlink()
    assert "sample 'a fox' is not named by 3 + 2 digits" in told()
    reorder.pq.write_table(reorder.pa.table({"key": ["00000", "00001"]}), found / "metadata" / "metadata_0.parquet")
    assert "has no column image_path" in told()
    write_tar(tmp_path / "odd" / "0.tar", [("a fox", files_of(0))])
    assert "is not named by the number of its shard" in sentence(lambda: reorder.reorder(found, tmp_path / "out", [tmp_path / "odd" / "0.tar"]))
    write_tar(tmp_path / "odd" / "0.tar", [])
    assert "No shard holds a sample" in sentence(lambda: reorder.reorder(found, tmp_path / "out", [tmp_path / "odd" / "0.tar"]))


def test_a_full_disk_leaves_no_half_reordered_folder(tmp_path: Path) -> None:
    shards = sorted(write_shards(tmp_path / "shards").glob("*.tar"))
    found, out = write_apart(tmp_path / "found"), tmp_path / "out"
    for limit in (0, 100, 150):
        with files_at_most(limit):
            assert "is full. Make room" in sentence(lambda: reorder.reorder(found, out, shards))
        assert not out.exists() and not (tmp_path / "out.part").exists()
    reorder.reorder(found, out, shards)
    out.rename(tmp_path / "mine")
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds other files" in sentence(lambda: reorder.reorder(found, out, shards))


def test_the_command_reorders(tmp_path: Path) -> None:
    shards, found = write_shards(tmp_path / "shards"), write_apart(tmp_path / "found")

    def run(*words: str) -> str:
        parser = data_command.argparse.ArgumentParser()
        data_command.add_arguments(parser)
        return data_command.run(parser.parse_args([str(found), str(tmp_path / "out"), *words]))

    assert "with --shards" in sentence(run)
    assert str(tmp_path / "out") in run("--shards", str(shards))
    assert len(list(Samples(shards, tmp_path / "out", embeds=True))) == 10
