"""The command line with the bundled model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.__main__ import arguments
from engine.options import Solver
from engine.pictures import encode, read_receipt, write_receipt
from tests.engine.conftest import ROOT, CommandLine


def test_a_dream_is_written_as_a_grid_and_single_pictures_by_a_process_of_its_own(tmp_path: Path) -> None:
    words = ("dream", "a fox", "--seed", "7", "--count", "2", "--steps", "3", "--out", str(tmp_path), "--json")
    clean = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-m", "engine", *words], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["seed"], told["unknown_words"]) == (7, [])
    with Image.open(told["grid"]) as grid:
        assert grid.size == (512, 256)
    receipts = [read_receipt(Path(path).read_bytes()) for path in told["pictures"]]
    assert [receipt["seed"] for receipt in receipts] == ["7", "8"]


def test_people_are_told_path_seed_seconds_and_words_that_mean_nothing(engine: CommandLine, tmp_path: Path) -> None:
    run = engine("dream", "--count", "1", "--steps", "1", "--out", str(tmp_path), "--seed", "3", "--", "-dragon")
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "picturebook-3-grid.png") in run.stdout and "seed 3" in run.stdout
    assert "never saw: dragon" in run.stdout and "It knows: apple" in run.stdout


def test_every_operation_writes_what_it_made(engine: CommandLine, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path), "--seed", "7", "--json", "--prior-steps", "3"]
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


def test_what_only_unclip_can_do_is_written_too(engine: CommandLine, tmp_path: Path) -> None:
    def told(*words: str, code: int = 0) -> str:
        run = engine(*words)
        assert run.returncode == code, run.stderr
        return run.stdout

    def made(*words: str) -> dict[str, Any]:
        return dict(json.loads(told(*words, "--out", str(tmp_path), "--seed", "7", "--json")))

    quick = ("--steps", "2", "--prior-steps", "3")
    [cat] = made("dream", "a cat on a red background", "--count", "1", *quick)["pictures"]
    kept = tmp_path / "cat.png"
    kept.write_bytes(Path(cat).read_bytes())

    blended = made("blend", str(kept), "a dog", "--weights", "2,1", "--count", "2", *quick)
    assert [one["weights"] for one in blended["settings"]] == [[2, 1]] * 2 and len(blended["pictures"]) == 2
    morphed = made("morph", str(kept), "a dog", "--frames", "3", *quick)
    assert [Path(path).name for path in morphed["pictures"]] == [f"picturebook-7-{number}.png" for number in (1, 2, 3)]
    with Image.open(morphed["strip"]) as strip, Image.open(morphed["gif"]) as animation:
        assert strip.width == 3 * strip.height and animation.n_frames == 4
    assert Path(morphed["film"]).read_bytes()[4:8] == b"ftyp"
    [edited] = made("edit", str(kept), "--before", "a cat", "--after", "a dog", "--strength", "0.3", *quick)["settings"]
    assert (edited["before"], edited["prompt"], edited["strength"]) == ("a cat", "a dog", 0.3)
    [varied] = made("variation", str(kept), "--strength", "0.2", "--drift", "0.1", "--count", "1", *quick)["settings"]
    assert (varied["strength"], varied["drift"]) == (0.2, 0.1)
    drawn = made("draws", "a cat", "--number", "3")["draws"]
    assert sorted(one["prior_seed"] for one in drawn) == [7, 8, 9] and drawn[0]["score"] >= drawn[-1]["score"]
    assert "prior seed 7: 0." in told("draws", "a cat", "--number", "1", "--seed", "7")

    frame = told("verify", morphed["pictures"][1], "--source", str(kept))
    # It was painted beside two others, which rounds otherwise than alone.
    assert "This is the picture that its receipt describes" in frame
    assert len(made("explore", str(kept), "--step", "0.2", *quick)["pictures"]) == 9
    painted_over = tmp_path / "over.png"
    with Image.open(kept) as picture:
        facts = read_receipt(kept.read_bytes())
        picture.paste((0, 0, 0), (0, 0, 9, 9))
        painted_over.write_bytes(write_receipt(encode(picture), {key: facts[key] for key in facts.keys() - {"Software", "Description", "version"}}))
    assert "This is not the picture" in told("verify", str(painted_over), code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dream", "a", "b" * 10_000], 2, "prompt must be at most 1000"),
        (["dream", "a", "--candidates", "33"], 2, "candidates must be 1 to 32, not 33."),
        (["dream", "a", "--drafts", "0"], 2, "drafts must be 1 to 16, not 0."),
        (["dream", "a", "--guidance", "1,x"], 2, "argument --guidance"),
        (["variation", "nowhere.png"], 2, "nowhere.png: No such file"),
        (["variation", "README.md", "--steps", "1"], 2, "cannot be read"),
        (["inpaint", "README.md"], 2, "--prompt"),
        (["inpaint", "loopback/screenshot.png", "--prompt", "a", "--config", "nowhere.json"], 2, "mask must be given"),
        (["dream", "a", "--device", "cuda:9"], 1, "no such GPU"),
        (["dream", "a", "--config", "configs/laion-upsampler.json", "--memory", "sometimes"], 2, "--memory"),
        (["dream", ""], 2, "prompt must"),
        (["blend", "a cat", "--config", "nowhere.json"], 2, "ingredients must be two to 5"),
        (["blend", "a cat", "a dog", "--weights", "1,0", "--config", "nowhere.json"], 2, "weights must be above 0"),
        (["blend", "a cat", "nowhere.png"], 2, "nowhere.png: No such file"),
        (["morph", "a cat", "a dog", "--frames", "33", "--config", "nowhere.json"], 2, "frames must be 2 to 32, not 33."),
        (["edit", "loopback/screenshot.png", "--before", "a", "--after", "", "--config", "nowhere.json"], 2, "prompt must"),
        (
            ["edit", "loopback/screenshot.png", "--before", "a", "--after", "b", "--strength", "2", "--config", "nowhere.json"],
            2,
            "strength must be 0 to 1",
        ),
        (["variation", "loopback/screenshot.png", "--strength", "nan", "--config", "nowhere.json"], 2, "strength must be 0 to 1"),
        (["explore", "README.md"], 2, "cannot be read"),
        (["draws", "a", "--number", "0", "--config", "nowhere.json"], 2, "number must be 1 to 32"),
        (["verify", "loopback/screenshot.png"], 2, "carry a receipt"),
        (["dream", "a", "--count", "10"], 2, "count must be 1 to 9, not 10."),
        (["dream", "a", "--seed", "-1"], 2, "seed must"),
        (["dream", "a", "--config", "nowhere.json"], 1, "nowhere.json is missing"),
        (["dream", "a", "--steps", "1", "--count", "1", "--out", "LICENSE"], 1, "cannot be written to LICENSE"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(engine: CommandLine, arguments: list[str], code: int, says: str) -> None:
    run = engine(*arguments)
    assert run.returncode == code
    assert says in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "command", ["dream a", "variation f", "inpaint f --prompt a", "upscale f", "embed a", "blend a b", "edit f --before a --after b"]
)
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
