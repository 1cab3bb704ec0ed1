import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from engine.errors import Misconfigured
from engine.training.curves import read_figures
from engine.training.loop import STATE, Average, Course, Loop, make_accelerator, share_of_rate
from engine.training.source import Source, Wanted, lot
from tests.engine.training.test_data_shards import files_at_most
from tests.engine.training.training import Line, decoder_config, write_json, write_shards

COURSE = Course(steps=9, batch_size=4, validate_every=3, save_every_steps=2, ema=0.9, seed=3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def source(shards: Path) -> Source:
    return Source(shards, None, Wanted(), (0.8, 0.2))


def loop_of(folder: Path, source: Source, course: Course = COURSE, line: Line | None = None, **fingerprint: object) -> Loop:
    torch.manual_seed(0)
    return Loop(line or Line(), source, course, folder, Accelerator(cpu=True), dict(fingerprint))


def losses_of(folder: Path) -> list[float]:
    return [row["loss/line"] for row in read_figures(folder / "figures.jsonl") if "loss/line" in row]


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    course = Course(steps=110, batch_size=1, schedule="cosine", warm_up=10)
    assert [share_of_rate(course, step) for step in (0, 4, 9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])
    assert [share_of_rate(course, step) for step in (10, 60, 110)] == pytest.approx([1, 0.5, 0])
    assert share_of_rate(Course(steps=5, batch_size=1), 4) == 1


def test_the_average_is_the_exponential_one_and_is_put_in_place_for_a_while_only() -> None:
    modules = nn.ModuleDict({"one": nn.Linear(1, 1, bias=False)})
    weight = modules["one"].weight
    weight.data.fill_(0)
    average, expected = Average(modules, 0.9), 0.0
    for step in range(40):
        weight.data.fill_(step)
        average.update(step)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
    with average.applied():
        assert weight.item() == pytest.approx(expected, rel=1e-5)
    assert weight.item() == 39


def test_a_stopped_run_goes_on_to_the_same_losses_and_weights(tmp_path: Path, source: Source) -> None:
    loop_of(tmp_path / "whole", source).run()
    for steps in (1, 4, 5, 9):
        loop_of(tmp_path / "parts", source, Course(**{**COURSE_FACTS, "steps": steps})).run()
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert (tmp_path / "parts" / "latest").read_text() == (tmp_path / "whole" / "latest").read_text()


COURSE_FACTS = {"batch_size": 4, "validate_every": 3, "save_every_steps": 2, "ema": 0.9, "seed": 3}


def test_accumulated_batches_are_one_large_one(tmp_path: Path, shards: Path) -> None:
    """The loss is a mean, so two batches of four weigh what one of eight does; noise is left out for it."""
    ends = []
    for batch, turns in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        line = Line()
        line.loss = lambda name, batch, line=line: (line.module(batch.pictures.mean((1, 2, 3))[:, None]) - 0.3).square().mean()  # type: ignore[method-assign]
        source = Source(shards, None, Wanted(), (1.0, 0.0))
        loop = loop_of(tmp_path / str(batch), source, Course(steps=4, batch_size=batch, accumulation=turns, seed=1), line)
        loop.run()
        ends.append([value.item() for value in loop.modules.parameters()])
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path, source: Source) -> None:
    with pytest.raises(Misconfigured, match=r"loss of step 6 is no number\. The last good checkpoint, of step 4, is kept\. Lower lr"):
        loop_of(tmp_path, source, line=Line(broken_at=6)).run()
    again = loop_of(tmp_path, source)
    assert again.step == 4
    again.run()
    assert len(losses_of(tmp_path)) == 9 and all(math.isfinite(loss) for loss in losses_of(tmp_path))


def test_a_loss_that_is_no_number_from_the_start_says_that_nothing_was_saved(tmp_path: Path, source: Source) -> None:
    with pytest.raises(Misconfigured, match="Nothing was saved yet"):
        loop_of(tmp_path, source, line=Line(broken_at=1)).run()


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays_good(tmp_path: Path, source: Source) -> None:
    loop_of(tmp_path, source, Course(**{**COURSE_FACTS, "steps": 4})).run()
    before = (tmp_path / STATE).read_bytes()
    with files_at_most(1000), pytest.raises(Misconfigured, match="the disk is full. Make room and run the same command again"):
        loop_of(tmp_path, source).run()
    assert (tmp_path / STATE).read_bytes() == before and not list(tmp_path.glob("*.part"))
    assert loop_of(tmp_path, source).step == 4


def test_training_stops_early_and_keeps_the_best(tmp_path: Path, source: Source) -> None:
    loop = loop_of(tmp_path, source, Course(**{**COURSE_FACTS, "steps": 60, "validate_every": 2, "patience": 2}))
    loop.run()
    assert (loop.step, loop.best, loop.stopped) == (8, 2.0, True)
    assert (tmp_path / "best").read_text() != (tmp_path / "latest").read_text()
    assert loop_of(tmp_path, source).stopped


def test_another_run_and_a_damaged_checkpoint_are_refused(tmp_path: Path, source: Source) -> None:
    loop_of(tmp_path, source, lr=1).run()
    with pytest.raises(Misconfigured, match="holds another run: its lr differs"):
        loop_of(tmp_path, source, lr=2)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:200])
    with pytest.raises(Misconfigured, match="is damaged"):
        loop_of(tmp_path, source, lr=1)


def test_curves_and_pictures_are_drawn(tmp_path: Path, source: Source) -> None:
    loop_of(tmp_path, source).run()
    from PIL import Image

    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.width > 300
        assert len(curves.convert("RGB").getcolors(1 << 20) or []) > 50
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["0000003.png", "0000006.png", "0000009.png"]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_samples_are_parted_by_their_keys_and_never_shared(shards: Path) -> None:
    source = Source(shards, None, Wanted(pictures=False), (0.6, 0.3))
    parts = [{sample.key for sample in source.samples(keep)} for keep in (source.is_training, source.is_validation)]
    everything = {sample.key for sample in source.samples(lambda key: True)}
    assert not parts[0] & parts[1] and parts[0] | parts[1] <= everything
    assert all(lot(key) >= 0.9 for key in everything - parts[0] - parts[1])


def test_there_is_no_gpu_here_and_training_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert make_accelerator("cuda:0", amp=False).device.type == "cpu"
    assert "there is no GPU" in caplog.text


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_is_killed_goes_on_to_the_same_losses(optimizer: str, tmp_path: Path, shards: Path) -> None:
    """A real process, killed with SIGKILL in the middle of its work, and again."""
    config = write_json(tmp_path / "train.json", decoder_config(shards, steps=10, save_every_steps=2, optimizer=optimizer))

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "engine.training", "decoder", "--config", str(config), "--out", str(out), "--threads", "1"]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)

    def step_of(out: Path) -> int:
        try:
            return json.loads((out / "run.json").read_text())["step"]
        except (OSError, ValueError):
            return 0

    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "killed")
    while step_of(tmp_path / "killed") < 4 and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 4 <= step_of(tmp_path / "killed") < 10
    again = start(tmp_path / "killed")
    assert again.wait() == 0 and whole.wait() == 0
    assert b"going on after step" in (again.stderr.read() if again.stderr else b"")
    one, other = (read_figures(tmp_path / name / "figures.jsonl") for name in ("whole", "killed"))
    assert one == other and len([row for row in one if "loss/unet 1" in row]) == 10
    ends = [load_file(tmp_path / name / "latest.safetensors") for name in ("whole", "killed")]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    for process in (whole, killed, again):
        if process.stderr:
            process.stderr.close()


def launch(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Start two processes, as `accelerate launch` does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False)


def test_processes_share_their_gradients_and_do_the_same(tmp_path: Path) -> None:
    script = tmp_path / "share.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from engine.training.loop import agreed, average_gradients, make_accelerator\n"
        "accelerator = make_accelerator('cpu', amp=False)\n"
        "net = torch.nn.Linear(2, 1)\n"
        "net.weight.grad = torch.full_like(net.weight, accelerator.process_index + 1.0)\n"
        "average_gradients(accelerator, net)\n"
        "assert accelerator.num_processes == 2 and net.weight.grad.tolist() == [[1.5, 1.5]] and net.bias.grad.tolist() == [0.0]\n"
        "assert agreed(accelerator, accelerator.process_index == 1) and not agreed(accelerator, False)\n"
        "accelerator.end_training()\n"
    )
    done = launch(script)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_two_processes_train_one_model_and_go_on_as_two(tmp_path: Path, shards: Path) -> None:
    config = write_json(tmp_path / "train.json", decoder_config(shards, steps=4, save_every_steps=2))
    command = ("-m", "engine.training", "decoder", "--config", config, "--out", tmp_path / "run", "--device", "cpu", "--threads", 1)
    for steps in (2, 4):
        done = launch(*command, "--steps", steps)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    rows = read_figures(tmp_path / "run" / "figures.jsonl")
    assert [row["step"] for row in rows if "loss/unet 1" in row] == [1, 2, 3, 4]
    alone = subprocess.run([sys.executable, *map(str, command), "--steps", "6"], capture_output=True, check=False)
    assert alone.returncode == 1 and b"was trained by 2 processes; go on with as many" in alone.stderr
