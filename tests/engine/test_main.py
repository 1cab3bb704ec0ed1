"""The command line, as a process of its own with the bundled model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from engine.pictures import read_receipt

ROOT = Path(__file__).parents[2]


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_dream_is_written_as_a_grid_and_single_pictures(tmp_path: Path) -> None:
    run = engine("dream", "a fox", "--seed", "7", "--count", "2", "--steps", "3", "--out", str(tmp_path), "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["seed"], told["unknown_words"]) == (7, [])
    with Image.open(told["grid"]) as grid:
        assert grid.size == (512, 256)
    receipts = [read_receipt(Path(path).read_bytes()) for path in told["pictures"]]
    assert [receipt["seed"] for receipt in receipts] == ["7", "8"]


def test_people_are_told_path_seed_seconds_and_words_that_mean_nothing(tmp_path: Path) -> None:
    run = engine("dream", "--count", "1", "--steps", "1", "--out", str(tmp_path), "--seed", "3", "--", "-dragon")
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "picturebook-3-grid.png") in run.stdout and "seed 3" in run.stdout
    assert "never saw: dragon" in run.stdout and "It knows: apple" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dream", ""], 2, "prompt must"),
        (["dream", "a", "--count", "10"], 2, "count must be 1 to 9, not 10."),
        (["dream", "a", "--seed", "-1"], 2, "seed must"),
        (["dream", "a", "--config", "nowhere.json"], 1, "nowhere.json is missing"),
        (["dream", "a", "--steps", "1", "--count", "1", "--out", "LICENSE"], 1, "cannot be written to LICENSE"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(arguments: list[str], code: int, says: str) -> None:
    run = engine(*arguments)
    assert run.returncode == code
    assert says in run.stderr and "Traceback" not in run.stderr
