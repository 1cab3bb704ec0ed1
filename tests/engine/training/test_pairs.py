from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Misconfigured
from engine.training.data.pairs import Pairs
from engine.training.source import Retrieval, Source, Wanted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs"), (7, 5, 9))


def write(folder: Path, counts: tuple[int, ...], width: int = 4) -> Path:
    for inner in ("img_emb", "metadata"):
        (folder / inner).mkdir(parents=True)
    for number, count in enumerate(counts):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.full((count, width), 1 + number, np.float16) + np.arange(count)[:, None] / 16)
        captions = [f"{number}/{row}" for row in range(count)]
        pq.write_table(pa.table({"image_path": captions, "caption": captions}), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def pairs(folder: Path, **options: object) -> Pairs:
    return Pairs(folder / "img_emb", folder / "metadata", **options)  # type: ignore[arg-type]


def test_every_caption_comes_with_its_own_embedding(folder: Path) -> None:
    for seed in (None, 3):
        read = list(pairs(folder, seed=seed))
        assert sorted(sample.key for sample in read) == sorted(f"{part}/{row}" for part, count in enumerate((7, 5, 9)) for row in range(count))
        for sample in read:
            part, row = (int(number) for number in sample.caption.split("/"))
            assert sample.key == sample.caption and sample.embed is not None and sample.embed.tolist() == [1 + part + row / 16] * 4
    assert [sample.key for sample in pairs(folder, seed=3)] != [sample.key for sample in pairs(folder, seed=4)]


@settings(deadline=None, max_examples=30)
@given(taken=st.integers(0, 60), seed=st.none() | st.integers(0, 3))
def test_reading_goes_on_where_it_was(folder: Path, taken: int, seed: int | None) -> None:
    whole = [sample.key for sample in islice(pairs(folder, seed=seed, epochs=None), 70)]
    first = pairs(folder, seed=seed, epochs=None)
    begun = [sample.key for sample in islice(first, taken)]
    again = pairs(folder, seed=seed, epochs=None)
    again.load_state_dict(first.state_dict())
    assert begun + [sample.key for sample in islice(again, 70 - taken)] == whole


def test_readers_divide_the_rows(folder: Path) -> None:
    parts = [{sample.key for sample in pairs(folder, seed=1, share=(number, 2))} for number in range(2)]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 21


def test_rows_that_cannot_be_used_are_counted_and_a_part_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path, (4,))
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.array([[1, 1], [0, 0], [np.nan, 1], [1, 2]], np.float32))
    pq.write_table(pa.table({"image_path": list("abcd"), "caption": ["one", "two", "three", None]}), tmp_path / "metadata" / "metadata_0.parquet")
    reader = pairs(tmp_path)
    assert [sample.caption for sample in reader] == ["one"]
    assert reader.passed == {"no embedding": 2, "no caption": 1}
    assert list(pairs(tmp_path, keep=lambda key: False)) == []
    with pytest.raises(Misconfigured, match="No row of .* can be used"):
        next(iter(pairs(tmp_path, keep=lambda key: False, epochs=None)))


def test_what_does_not_fit_is_one_sentence(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Misconfigured, match="are 4 wide, 768 are wanted"):
        pairs(folder, width=768)
    with pytest.raises(Misconfigured, match="holds no embeddings"):
        Pairs(tmp_path, tmp_path)
    write(tmp_path, (3,))
    pq.write_table(pa.table({"image_path": ["a", "b", "c"]}), tmp_path / "metadata" / "metadata_0.parquet")
    with pytest.raises(Misconfigured, match="has no captions that can be read"):
        list(pairs(tmp_path))
    (tmp_path / "metadata" / "metadata_0.parquet").unlink()
    with pytest.raises(Misconfigured, match="has no counterpart"):
        pairs(tmp_path)
    reader = pairs(folder)
    with pytest.raises(Misconfigured, match="Reading cannot go on"):
        reader.load_state_dict(pairs(folder, seed=1).state_dict())


def test_a_prior_may_be_trained_on_them(folder: Path) -> None:
    source = Source(Retrieval(folder / "img_emb", folder / "metadata"), None, Wanted(pictures=False, embeds=True, width=4), (0.7, 0.3))
    assert source.validates and source.count() == 15
    parts = [{sample.key for sample in source.samples(keep)} for keep in (source.is_training, source.is_validation)]
    assert len(parts[0] | parts[1]) == 21 and not parts[0] & parts[1]
