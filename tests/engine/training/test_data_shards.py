"""From pictures to shards, through every kind of interruption."""

import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from engine.errors import Misconfigured
from engine.training.data import command, shards
from engine.training.data.embed import Eye, side_of
from engine.training.data.layouts import Samples
from engine.training.data.tally import EXAMPLES
from engine.unclip.painter import Painter
from engine.uploads import Framing, open_picture
from tests.engine.training.conftest import Make
from tests.engine.training.drawing import CONFIG, SIDE, bytes_of, draw_folder, encoded, files_of, scene, write_tar

ROOT = Path(__file__).parents[3]


def samples_in(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return the files of every sample, by key and ending, as tar itself reads them."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, ending = member.name.split(".")
                found.setdefault(key, {})[ending] = tar.extractfile(member).read()
    return found


def bomb() -> bytes:
    """Return a PNG whose header promises 10 gigapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + encoded(scene(0))[33:]


def refusal(make: Make, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Misconfigured) as refused:
        make(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_sample_is_picture_caption_facts_and_embedding(tmp_path: Path, make: Make) -> None:
    draw_folder(tmp_path / "pictures", 25)
    report = make(tmp_path / "pictures", tmp_path / "out")
    assert (report["successes"], report["shards"], report["read"], report["embedding_width"], report["side"]) == (25, 3, 25, 128, SIDE)
    samples = samples_in(tmp_path / "out")
    assert list(samples) == [f"{index // 10:05}{index % 10:04}" for index in range(25)]
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    for name, files in zip(names, samples.values(), strict=True):
        assert files["txt"] == b"a red fox"
        facts = json.loads(files["json"])
        assert (facts["file"], facts["width"], facts["height"], len(facts["sha256"])) == (name, 80, 66, 64)
        with Image.open(io.BytesIO(files["jpg"])) as picture:
            assert picture.format == "JPEG" and picture.size == (78, 64)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".lock" and path.name != ".lock") == [
        "00000.tar", "00000_stats.json", "00001.tar", "00001_stats.json", "00002.tar", "00002_stats.json", "manifest.json", "report.json",
    ]  # fmt: skip


def test_embeddings_are_those_that_the_painter_sees(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 7)
    Image.new("RGBA", (70, 90), (250, 10, 10, 90)).save(folder / "a ghost.png")
    make(folder, tmp_path / "out")
    embeds = np.stack([np.load(io.BytesIO(files["npy"])) for files in samples_in(tmp_path / "out").values()])
    painter = Painter.from_config(CONFIG, "cpu")
    pictures = [open_picture(path.read_bytes()) for path in sorted(folder.iterdir())]
    seen = painter.look(pictures, Framing.CROP).numpy()
    assert embeds.dtype == np.float32 and embeds.shape == (8, 128)
    assert np.abs(np.linalg.norm(embeds, axis=1) - 1).max() < 1e-6
    assert np.array_equal(embeds, seen)


def test_pictures_are_flattened_on_white_turned_upright_and_never_enlarged(tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    half = Image.new("RGBA", (64, 200), (255, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 64, 100))
    half.save(folder / "1 see through.png")
    lying = Image.new("RGB", (160, 80), "red")
    lying.paste("blue", (0, 0, 80, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(folder / "2 lying.jpg", exif=exif)
    Image.new("L", (1000, 100), 77).save(folder / "3 wide.png")
    make(folder, tmp_path / "out", embed=False)
    flat, upright, wide = (Image.open(io.BytesIO(files["jpg"])) for files in samples_in(tmp_path / "out").values())
    assert flat.size == (64, 200) and flat.getpixel((32, 150)) == (255, 255, 255) and flat.getpixel((32, 30))[2] > 240
    assert upright.size == (64, 128) and upright.getpixel((32, 30))[2] > 200 and upright.getpixel((32, 100))[0] > 200
    assert wide.size == (640, 64) and wide.mode == "RGB" and not upright.getexif()


def test_every_picture_is_accounted_for(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 3)
    (folder / "a copy.png").write_bytes((folder / "a_red_fox-0.png").read_bytes())
    (folder / "broken.png").write_bytes(b"x")
    (folder / "cut off.png").write_bytes(encoded(scene(50))[:200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "IMG_1.png").write_bytes(encoded(scene(51)))
    Image.new("1", (7000, 7000)).save(folder / "huge.png")
    Image.new("1", (66000, 64)).save(folder / "too long.png")
    for index in range(EXAMPLES + 2):
        scene(60 + index, (63, 200)).save(folder / f"tiny {index} thing.png")
    (folder / os.fsdecode(b"half of \xff a\nname.png")).write_bytes(b"x")
    scene(80).save(folder / f"{'a very long story of one fox and another fox ' * 4}.png")
    report = make(folder, tmp_path / "out")
    counts = {reason: told["count"] for reason, told in report["skipped"].items() if told["count"]}
    assert counts == {"no caption": 1, "not readable": 6, "too small": 7, "duplicate": 1}
    assert report["read"] == len(list(folder.iterdir())) == report["successes"] + sum(counts.values())
    assert (
        report["skipped"]["too small"]["examples"][0] == "tiny 0 thing.png: 63 × 200" and len(report["skipped"]["too small"]["examples"]) == EXAMPLES
    )
    assert report["cut"]["count"] == 1 and report["cut"]["examples"][0].startswith("a very long story")
    told = command.told(report, tmp_path / "out")
    assert "4 samples of 19 pictures, 1 shard in" in told and "128 wide" in told
    assert "too small" in told and "tiny 4 thing.png: 63 × 200, …" in told and "by heart" in told
    assert len(told.splitlines()) == 7 and told.encode()
    assert not any("named, but not there" in line for line in told.splitlines())


def test_two_runs_write_the_same_bytes(tmp_path: Path, make: Make) -> None:
    draw_folder(tmp_path / "pictures", 12)
    for name in ("one", "two"):
        make(tmp_path / "pictures", tmp_path / name, size=5)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


@pytest.fixture(params=["folder", "tars"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Pictures of which some are left out: also at the end, and copies of what an earlier shard holds."""
    if request.param == "folder":
        folder = draw_folder(tmp_path / "source", 14)
        for name in ("b copy.png", "y copy.png"):
            (folder / name).write_bytes((folder / "a_red_fox-1.png").read_bytes())
        (folder / "a_red_fox-14.png").write_bytes(b"broken")
        return folder
    for shard in range(3):
        samples = [(f"{shard:05}{index:04}", files_of(5 * shard + index)) for index in range(5)]
        samples.insert(3, (f"{shard:05}0008", files_of(2)))
        write_tar(tmp_path / "source" / f"{shard:05}.tar", [*samples, (f"{shard:05}0009", {"jpg": b"broken", "txt": b"a fox"})])
    return tmp_path / "source"


@pytest.mark.parametrize("after", [1, 3, 4, 8, 11, 13])
def test_a_run_that_was_broken_off_ends_in_the_same_bytes(
    tmp_path: Path, make: Make, source: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop at a picture, at a shard's end and at its stats."""
    make(source, tmp_path / "whole", size=4)
    calls = 0
    ready, put_json = shards.make_ready, shards.put_json

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shards, "make_ready", lambda *arguments: (count(), ready(*arguments))[1])
        patched.setattr(shards, "put_json", lambda path, facts: (count() if "stats" in path.name else None, put_json(path, facts)))
        with pytest.raises(KeyboardInterrupt):
            make(source, tmp_path / "broken", size=4)
    with pytest.raises(Misconfigured, match="is not finished"):
        Samples(tmp_path / "broken")
    make(source, tmp_path / "broken", size=4)
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")
    assert Samples(tmp_path / "broken").count() == json.loads((tmp_path / "whole" / "report.json").read_text())["successes"]


def test_a_run_that_was_killed_ends_in_the_same_bytes(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 120)
    make(folder, tmp_path / "whole", size=8)
    script = (
        "import argparse, torch; torch.set_num_threads(1)\n"
        "from engine.training.data import command\n"
        "parser = argparse.ArgumentParser(); command.add_arguments(parser); command.run(parser.parse_args())"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "killed"), "--shard-size", "8", "--side", "64"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and not (tmp_path / "killed" / "00002_stats.json").exists():
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was done before it was killed"
    complete = [name for name in bytes_of(tmp_path / "killed") if name.endswith("_stats.json")]
    assert 3 <= len(complete) < 15 and not (tmp_path / "killed" / "report.json").exists()
    make(folder, tmp_path / "killed", size=8)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_a_shard_gets_its_name_when_it_is_whole(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def stop_at_shards(path: Path, target: Path) -> Path:
        if target.suffix == ".tar":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", stop_at_shards)
    with pytest.raises(KeyboardInterrupt):
        make(draw_folder(tmp_path / "pictures", 3), tmp_path / "out", size=2)
    assert not list((tmp_path / "out").glob("*.tar*"))


def test_complete_shards_are_not_made_again(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = draw_folder(tmp_path / "pictures", 6)
    report = make(folder, tmp_path / "out", size=2)
    (tmp_path / "out" / "report.json").unlink()
    (tmp_path / "out" / "00002_stats.json").unlink()
    made, ready = [], shards.make_ready
    monkeypatch.setattr(shards, "make_ready", lambda *arguments: (made.append(arguments[0].name), ready(*arguments))[1])
    assert make(folder, tmp_path / "out", size=2) == report
    assert made == ["a_red_fox-4.png", "a_red_fox-5.png"]
    assert make(folder, tmp_path / "out", size=2) == report and len(made) == 2


def test_what_was_made_otherwise_is_refused(tmp_path: Path, make: Make, eye: Eye) -> None:
    folder, out = draw_folder(tmp_path / "pictures", 3), tmp_path / "out"
    make(folder, out)
    before = bytes_of(out)
    assert "side was 64, now 32" in refusal(make, folder, out, side=32)
    assert "made otherwise: quality was 95, now 80." in refusal(make, folder, out, quality=80)
    assert "shard size was 10, now 5" in refusal(make, folder, out, size=5)
    assert "CLIP is another one" in refusal(make, folder, out, embed=False)
    trained = dict(eye.clip.state_dict())
    with torch.no_grad():
        trained["model.text_projection"].add_(1e-3)
    try:
        assert "CLIP is another one" in refusal(make, folder, out)
    finally:
        with torch.no_grad():
            trained["model.text_projection"].sub_(1e-3)
    (folder / "a_red_fox-1.txt").write_text("a caption")
    assert "pictures or captions have changed" in refusal(make, folder, out)
    assert bytes_of(out) == before


def test_a_source_may_be_mended_before_the_first_shard(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 2, "IMG_{}.png")
    assert "None of the 2 pictures has a caption" in refusal(make, folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar*"))
    (folder / "IMG_0.txt").write_text("a fox")
    assert make(folder, tmp_path / "out")["successes"] == 1


def test_nothing_to_train_on_is_one_sentence(tmp_path: Path, make: Make) -> None:
    small = draw_folder(tmp_path / "small", 2)
    assert "All 2 pictures are smaller than the 200 pixels of the model (a_red_fox-0.png: 80 × 66)" in refusal(make, small, tmp_path / "o1", side=200)
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    (bombs / "a bomb.png").write_bytes(bomb())
    (bombs / "IMG_0.png").write_bytes(b"")
    told = refusal(make, bombs, tmp_path / "o2")
    assert "1 no caption, 1 not readable" in told
    write_tar(tmp_path / "empty" / "0.tar", [])
    assert "holds no picture" in refusal(make, tmp_path / "empty", tmp_path / "o3")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.tar").write_bytes(b"x" * 2000)
    assert "0.tar cannot be read" in refusal(make, tmp_path / "damaged", tmp_path / "o4")
    with pytest.raises(Misconfigured, match="is not finished"):
        Samples(tmp_path / "o1")


def test_one_picture_is_a_sample(tmp_path: Path, make: Make) -> None:
    report = make(draw_folder(tmp_path / "pictures", 1), tmp_path / "out")
    told = command.told(report, tmp_path / "out")
    assert "1 sample of 1 picture, 1 shard" in told and "so few pictures by heart" in told
    assert len(list(Samples(tmp_path / "out", embeds=True))) == 1


def test_ten_thousand_files_are_read(tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(10_000):
        (folder / f"a fox {index}.png").write_bytes(b"%d" % index)
    scene(0).save(folder / "a real one.png")
    report = make(folder, tmp_path / "out")
    assert (report["read"], report["successes"], report["skipped"]["not readable"]["count"]) == (10_001, 1, 10_000)


@contextmanager
def files_at_most(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 9)
    make(folder, tmp_path / "whole", size=4)
    for limit in (0, 100, 4096, 12_000):
        with files_at_most(limit):
            assert "is full. Make room" in refusal(make, folder, tmp_path / "full", size=4)
        assert not list((tmp_path / "full").glob("*.part")) and not list((tmp_path / "full").glob("*.tar"))
    make(folder, tmp_path / "full", size=4)
    assert bytes_of(tmp_path / "full") == bytes_of(tmp_path / "whole")


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 1)
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in refusal(make, folder, tmp_path / "file" / "out")
    assert "cannot be written to" in refusal(make, folder, tmp_path / "file")


def test_folders_of_others_and_of_another_run_are_left_alone(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert "holds other files (thesis.txt)" in refusal(make, folder, other)
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert "Another run is writing" in refusal(make, folder, tmp_path / "out")
    make(folder, tmp_path / "out")
    for name, told in (("manifest.json", "manifest.json is damaged"), ("00000_stats.json", "00000_stats.json is damaged")):
        whole = (tmp_path / "out" / name).read_bytes()
        (tmp_path / "out" / name).write_bytes(whole[:20])
        assert told in refusal(make, folder, tmp_path / "out")
        (tmp_path / "out" / name).write_bytes(whole)


def test_a_complete_shard_that_was_damaged_since_is_named(tmp_path: Path, make: Make) -> None:
    folder = draw_folder(tmp_path / "pictures", 4)
    make(folder, tmp_path / "out", size=2)
    (tmp_path / "out" / "report.json").unlink()
    for damage in (lambda path: path.write_bytes(b"x"), os.unlink):
        damage(tmp_path / "out" / "00000.tar")
        assert "00000.tar was complete and cannot be read now" in refusal(make, folder, tmp_path / "out", size=2)


def test_the_side_is_that_of_the_models_last_unet(tmp_path: Path) -> None:
    assert side_of(CONFIG) == 128
    config = json.loads(CONFIG.read_text())
    for source in (*config["decoder"]["unet_sources"], config["prior"]):
        for key in ("load_model_from", "load_config_from"):
            source[key]["path"] = str(CONFIG.parent / source[key]["path"])
    del config["decoder"]["unet_sources"][0]["load_config_from"]
    (tmp_path / "bare.json").write_text(json.dumps(config))
    with pytest.raises(Misconfigured, match="carries no train config"):
        side_of(tmp_path / "bare.json")
    del config["decoder"]
    (tmp_path / "prior.json").write_text(json.dumps(config))
    assert side_of(tmp_path / "prior.json") is None


def run(*words: str) -> str:
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def test_the_command_makes_shards(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "pictures", 3)
    (tmp_path / "t.csv").write_text("bild,worte\n" + "".join(f"a_red_fox-{index}.png,ein Fuchs\n" for index in range(3)))
    table = ("--captions", str(tmp_path / "t.csv"), "--file-column", "bild", "--caption-column", "worte")
    told = run(str(folder), str(tmp_path / "out"), "--side", "40", "--no-embed", "--shard-size", "2", *table)
    assert "3 samples of 3 pictures, 2 shards" in told and "40 px, no embeddings" in told
    assert {sample.caption for sample in Samples(tmp_path / "out")} == {"ein Fuchs"}
    assert {tuple(sample.picture.shape) for sample in Samples(tmp_path / "out")} == {(3, 40, 48)}


def test_what_the_command_cannot_do_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(draw_folder(tmp_path / "pictures", 1))
    with pytest.raises(Misconfigured, match="same folder"):
        run(folder, folder)
    config = json.loads(CONFIG.read_text())
    del config["prior"], config["clip"]
    (tmp_path / "blind.json").write_text(json.dumps(config))
    with pytest.raises(Misconfigured, match="names no clip"):
        run(folder, str(tmp_path / "out"), "--config", str(tmp_path / "blind.json"))
    config = json.loads(CONFIG.read_text())
    del config["decoder"]
    (tmp_path / "prior.json").write_text(json.dumps(config))
    with pytest.raises(Misconfigured, match="Name the size with --side"):
        run(folder, str(tmp_path / "out"), "--no-embed", "--config", str(tmp_path / "prior.json"))
    for words in (("--shard-size", "0"), ("--quality", "101"), ("--side", "many")):
        with pytest.raises(SystemExit):
            run(folder, str(tmp_path / "out"), *words)
        assert "--" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_line_tells_people_and_answers_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.training import __main__ as training

    monkeypatch.setattr(training.logging, "basicConfig", lambda **options: None)

    def answer(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["training", *words])
        return training.main(), *capsys.readouterr()

    folder = draw_folder(tmp_path / "pictures", 2)
    code, out, _ = answer("data", str(folder), str(tmp_path / "out"), "--threads", "1", "--side", "64")
    assert code == 0 and out.startswith("2 samples of 2 pictures, 1 shard in")
    code, out, err = answer("data", str(tmp_path / "gone"), str(tmp_path / "out"))
    assert code == 1 and not out and err.endswith("of img2dataset.\n") and err.count("\n") == 1

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "open_source", interrupted)
    code, _, err = answer("data", str(folder), str(tmp_path / "other"))
    assert code == training.INTERRUPTED and "goes on where it was" in err
    asked: list[str] = []
    monkeypatch.setitem(training.COMMANDS, "clip", ("", lambda parser: None, lambda options: asked.append("clip") or "done"))
    for words in (["clip"], ["clip", "--threads", "1"], ["--threads", "1", "clip"]):
        assert answer(*words)[0] == 0
    assert asked == ["clip"] * 3
