"""The command line, as a process of its own with the bundled model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.__main__ import arguments
from engine.options import Solver
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


def test_every_operation_writes_what_it_made(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path), "--seed", "7", "--json"]
    cat = json.loads(engine("dream", "a cat", "a dog", "--count", "1", "--steps", "3,2", "--repeats", "2", "--candidates", "2", *out).stdout)
    assert [Path(path).name for path in cat["pictures"]] == [f"picturebook-{part}-{seed}.png" for part in (1, 2) for seed in (7, 8)]
    assert [Path(path).name for path in cat["grids"]] == ["picturebook-1-7-grid.png", "picturebook-2-7-grid.png"]
    picture = cat["pictures"][0]
    mask = tmp_path / "mask.png"
    Image.new("L", (128, 128)).save(mask)
    with Image.open(mask) as half:
        half.paste(255, (0, 0, 64, 128))
        half.save(mask)

    varied = json.loads(engine("variation", picture, picture, "--count", "2", "--steps", "2", *out).stdout)
    assert len(varied["pictures"]) == 4
    inpainted = json.loads(engine("inpaint", picture, "--mask", str(mask), "--prompt", "a dog", "--count", "1", "--steps", "2", *out).stdout)
    with Image.open(inpainted["pictures"][0]) as after, Image.open(picture) as before:
        assert after.crop((65, 0, 128, 128)).tobytes() == before.crop((65, 0, 128, 128)).tobytes()
    with Image.open(json.loads(engine("upscale", picture, *out).stdout)["pictures"][0]) as large:
        assert large.size == (128, 128)

    embedded = json.loads(engine("embed", "a cat", "a dog", "--candidates", "3", "--cond-scale", "1.5", "--sample-timesteps", "8", *out).stdout)
    text, image = (np.load(embedded["files"][key]) for key in ("text_embed", "image_embed"))
    assert text.shape == image.shape == (2, 128) and text.dtype == image.dtype == np.float32
    facts = json.loads(Path(embedded["files"]["json"]).read_text())
    assert [one["prompt"] for one in facts] == ["a cat", "a dog"] and np.allclose(facts[1]["image_embed"], image[1])
    assert facts[0]["tokens"][0] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dream", "a", "b" * 10_000], 2, "prompt must be at most 1000"),
        (["dream", "a", "--candidates", "33"], 2, "candidates must be 1 to 32, not 33."),
        (["dream", "a", "--guidance", "1,x"], 2, "argument --guidance"),
        (["variation", "nowhere.png"], 2, "nowhere.png: No such file"),
        (["variation", "README.md", "--steps", "1"], 2, "cannot be read"),
        (["inpaint", "README.md"], 2, "--prompt"),
        (["inpaint", "loopback/screenshot.png", "--prompt", "a", "--config", "nowhere.json"], 2, "mask must be given"),
        (["dream", "a", "--device", "cuda:9"], 1, "no such GPU"),
        (["dream", "a", "--config", "configs/laion-upsampler.json", "--memory", "sometimes"], 2, "--memory"),
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


@pytest.mark.parametrize("command", ["dream a", "variation f", "inpaint f --prompt a", "upscale f", "embed a"])
def test_every_command_takes_the_common_options(command: str) -> None:
    given = "--config c.json --count 2 --seed 3 --steps 5 --guidance 1.5 --prior-guidance 2 --candidates 4 --solver dpm++ --out d --json"
    options = arguments([*command.split(), *given.split()])
    assert (options.count, options.seed, options.candidates, options.config, options.out, options.json) == (2, 3, 4, Path("c.json"), Path("d"), True)
    assert options.solver is Solver.DPM
    if command.startswith("embed"):
        # The last of two names for one thing is heard.
        assert (options.prior_steps, options.prior_guidance) == (5, 2)
    else:
        assert (options.steps, options.guidance, options.prior_guidance) == ([5], [1.5], 2)
