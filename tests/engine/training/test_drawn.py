"""Shards with what a prior draws beside what CLIP sees, with the bundled model's real weights."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import Misconfigured
from engine.training.data import drawn
from engine.training.data.layouts import Samples
from engine.training.data.writing import jpeg, write_plain
from engine.training.world import draw_world
from engine.unclip import Painter
from engine.uploads import Framing
from tests.engine.training.drawing import CONFIG, npy

SCENES = 12
LIE = "a small pizza at the top on a white background"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with what CLIP sees; the first has another one's caption, the second no embedding."""
    painter, folder = Painter.from_config(CONFIG, device="cpu"), tmp_path_factory.mktemp("drawn") / "shards"
    samples = []
    for index, (picture, caption, _) in enumerate(draw_world(SCENES, 3)):
        embed = painter.look([Image.fromarray(picture)], Framing.CROP)[0].numpy()
        files = {"jpg": jpeg(Image.fromarray(picture)), "txt": (caption if index else LIE).encode(), "npy": npy(embed if index != 1 else embed[:0])}
        samples.append(files)
    write_plain(folder, samples, 8)
    return folder


def draw(source: Path, out: Path, **ways: object) -> str:
    usual = {"config": CONFIG, "copies": 2, "alike": 0.9, "seed": 0, "device": "cpu"}
    return drawn.run(argparse.Namespace(source=source, out=out, **usual | ways))


def read(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Return captions and embeddings, in order."""
    return [(one.caption, one.embed.numpy()) for one in Samples(folder, embeds=True) if one.embed is not None]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_samples_are_kept_and_copied_with_embeddings_that_the_prior_draws(shards: Path, tmp_path: Path) -> None:
    told = draw(shards, tmp_path / "out")
    before, after = read(shards), read(tmp_path / "out")
    assert len(before) == SCENES - 1
    true = {embed.tobytes(): caption for caption, embed in before}
    copies, seen = [], np.zeros(0)
    for caption, embed in after:
        if embed.tobytes() in true:
            assert true.pop(embed.tobytes()) == caption
            seen = embed
        else:
            # A copy follows its sample: it is like it, and never the same.
            assert 0.9 <= likeness(embed, seen) < 0.9999
            copies.append((caption, embed))
    assert not true and told.startswith(f"{SCENES - 1} samples and {len(copies)} copies")
    assert 5 < len(copies) <= 2 * (SCENES - 2) and LIE not in dict(copies)
    assert len({embed.tobytes() for _, embed in copies}) == len(copies)


def test_equal_seeds_draw_the_same_and_others_do_not(shards: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw(shards, tmp_path / name, seed=seed, copies=1, alike=-1)
    one, same, other = (read(tmp_path / name) for name in "abc")
    assert [embed.tobytes() for _, embed in one] == [embed.tobytes() for _, embed in same]
    assert len(one) == len(other) == 2 * (SCENES - 1)
    assert [np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True)] == [True, False] * (SCENES - 1)


def test_what_cannot_be_drawn_for_is_said(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="holds something already"):
        draw(shards, shards)
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be written to: Not a directory"):
        draw(shards, tmp_path / "file" / "out")
    narrow = tmp_path / "narrow"
    write_plain(narrow, [{"jpg": jpeg(Image.new("RGB", (64, 64))), "txt": b"a cat", "npy": npy(np.ones(3, np.float32))}], 8)
    with pytest.raises(Misconfigured, match="its embeddings are 3 wide, 128 are wanted"):
        draw(narrow, tmp_path / "out")
    blind = CONFIG.parent.parent / "training" / "picturebook.json"
    done = subprocess.run(
        [sys.executable, "-m", "engine.training", "drawn", str(shards), str(tmp_path / "none"), "--config", str(blind)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr and "prior" in done.stderr
