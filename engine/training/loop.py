"""The one training loop: whatever is trained, a run that is killed goes on from its last checkpoint to the same losses.

Nothing random is carried over a step: every draw of a step comes from the seed, the step and the process. What a step sees is where the samples are
read, and that is in the checkpoint too.
"""

import json
import logging
import math
import pickle
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from tqdm import tqdm

from engine.errors import Misconfigured
from engine.training.curves import Curves
from engine.training.muon import Muon, is_matrix
from engine.training.saving import unwritable, write_whole
from engine.training.source import Batch, Source

log = logging.getLogger(__name__)

REPORT_EVERY_S = 30.0
STATE = "state.pt"
BETAS = (0.9, 0.99)
EMA_FIRST_STEPS = 10
"""Early in a run the average forgets faster: after n steps it keeps (1 + n) / (10 + n) at most. Source: Polyak averaging as in TensorFlow."""


@dataclass(frozen=True, slots=True)
class Course:
    """How training goes, whatever is trained.

    `optimizer` is "adamw" or "muon"; `schedule` is what the learning rate does after the warm-up, "constant" or "cosine" (down to zero at the last
    step); `ema` how much of the average is kept at each step, None for no average; `patience` after how many validations without a better loss
    training stops.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    optimizer: str = "adamw"
    schedule: str = "constant"
    warm_up: int = 0
    max_grad_norm: float | None = None
    ema: float | None = None
    save_every_s: float = 300.0
    save_every_steps: int | None = None
    validate_every: int = 1000
    patience: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A network that is trained, with its learning rate at the peak and its weight decay."""

    module: nn.Module
    rate: float
    decay: float


class Trainee(Protocol):
    """What is trained: it knows its losses and how it is looked at."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The networks that are trained, by name."""

    def loss(self, name: str, batch: Batch) -> Tensor:
        """Return the loss of one part on a batch."""

    def measure(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Return figures on samples that are not trained on; "loss" is the one to be small."""

    def show(self, batch: Batch) -> Image.Image | None:
        """Draw what the networks can do by now, where that can be seen."""

    def write(self, folder: Path, name: str) -> None:
        """Write the networks as they are, as `engine` and the library load them."""


def share_of_rate(course: Course, step: int) -> float:
    """Return the share of the peak learning rate at a step, from 0."""
    if step < course.warm_up:
        return (step + 1) / (course.warm_up + 1)
    if course.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - course.warm_up) / max(course.steps - course.warm_up, 1))) / 2


def seed_everything(*numbers: int) -> None:
    """Seed torch, numpy and Python, which the libraries draw from, with a mixture of numbers."""
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)


class Average:
    """The exponential moving average of some networks' parameters."""

    def __init__(self, modules: nn.ModuleDict, keep: float) -> None:
        self.modules, self.keep = modules, keep
        self.values = {name: value.detach().clone() for name, value in modules.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step's parameters in; steps count from 0."""
        keep = min(self.keep, (1 + step) / (EMA_FIRST_STEPS + step))
        values, now = list(self.values.values()), [value.detach() for _, value in self.modules.named_parameters()]
        torch._foreach_lerp_(values, now, 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the networks hold the average meanwhile."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the networks' parameters and the average."""
        for name, value in self.modules.named_parameters():
            value.data, self.values[name] = self.values[name], value.data


class Loop:
    """One run in its own folder."""

    def __init__(self, trainee: Trainee, source: Source, course: Course, folder: Path, accelerator: Accelerator, fingerprint: dict[str, Any]) -> None:
        """Get ready; go on where the folder's checkpoint is.

        Raises:
            Misconfigured: the folder holds another run, or its checkpoint is damaged.
        """
        self.trainee, self.source, self.course, self.folder, self.accelerator = trainee, source, course, folder, accelerator
        self.fingerprint = fingerprint
        self.modules = nn.ModuleDict({name: part.module for name, part in trainee.parts.items()}).to(accelerator.device)
        groups = [group for part in trainee.parts.values() for group in groups_of(part)]
        optimizer = Muon(groups, BETAS) if course.optimizer == "muon" else torch.optim.AdamW(groups, lr=0.0, betas=BETAS)
        self.optimizer = accelerator.prepare(optimizer)
        self.average = None if course.ema is None else Average(self.modules, course.ema)
        self.step, self.best, self.worse, self.stopped = 0, math.inf, 0, False
        self.reader = source.reader(course.seed, accelerator.process_index, accelerator.num_processes)
        self.resume()
        self.curves: Curves | None = None

    def run(self) -> None:
        """Train to the last step, or until validation says that it is enough.

        Raises:
            Misconfigured: the loss is no number, the disk is full, or the samples cannot be read; the last checkpoint stays good.
        """
        self.curves = Curves(self.folder, self.step) if self.accelerator.is_main_process else None
        try:
            self.work()
        except OSError as error:
            raise Misconfigured(unwritable(self.folder, error)) from None
        finally:
            if self.curves:
                self.curves.close()

    def work(self) -> None:
        """Do every step that is left."""
        course, saved, told = self.course, time.monotonic(), time.monotonic()
        self.began = self.step, saved
        main, batches = self.accelerator.is_main_process, self.batches()
        with tqdm(total=course.steps, initial=self.step, unit=" steps", disable=None if main else True) as bar:
            while self.step < course.steps and not self.stopped:
                losses = self.train_step(batches)
                bar.update()
                bar.set_postfix({name: f"{loss:.4f}" for name, loss in losses.items()}, refresh=False)
                if self.curves:
                    figures = {f"loss/{name}": loss for name, loss in losses.items()}
                    self.curves.add(self.step, figures | {"rate": share_of_rate(course, self.step - 1)})
                now = time.monotonic()
                if main and now - told > REPORT_EVERY_S and bar.disable:
                    told = now
                    log.info("%s", self.progress(losses))
                last = self.step == course.steps
                if self.step % course.validate_every == 0 or last:
                    self.validate()
                due = self.step % course.save_every_steps == 0 if course.save_every_steps else now - saved > course.save_every_s
                if agreed(self.accelerator, due or last or self.stopped):
                    self.save()
                    saved = time.monotonic()

    def batches(self) -> Iterator[Batch]:
        """Yield batches for ever, from where reading is."""
        while True:
            samples = []
            for sample in self.reader:
                samples.append(sample)
                if len(samples) == self.course.batch_size:
                    yield self.source.collate(samples, self.accelerator.device)
                    samples = []

    def train_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Do one step of the optimizer and return the losses.

        Raises:
            Misconfigured: a loss or a gradient is no number.
        """
        course = self.course
        self.modules.train()
        share = share_of_rate(course, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak"]
        totals = dict.fromkeys(self.trainee.parts, 0.0)
        for turn in range(course.accumulation):
            seed_everything(course.seed, self.step, turn, self.accelerator.process_index)
            batch = next(batches)
            for name in self.trainee.parts:
                with self.accelerator.autocast():
                    loss = self.trainee.loss(name, batch) / course.accumulation
                self.accelerator.backward(loss)
                totals[name] += float(loss.detach())
        average_gradients(self.accelerator, self.modules)
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        norms = [float(nn.utils.clip_grad_norm_(part.module.parameters(), course.max_grad_norm or math.inf)) for part in self.trainee.parts.values()]
        broken = not all(math.isfinite(total) for total in totals.values())
        if broken or (self.accelerator.scaler is None and not all(math.isfinite(norm) for norm in norms)):
            kept = f"The last good checkpoint, of step {self.kept()}, is kept" if self.kept() else "Nothing was saved yet"
            raise Misconfigured(f"The loss of step {self.step + 1} is no number. {kept}. Lower lr or max_grad_norm, and start again.")
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.step)
        self.step += 1
        return totals

    def progress(self, losses: Mapping[str, float]) -> str:
        """Say how far the run is and how long it will take, at the pace since it was started, looks and checkpoints included."""
        told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        step, started = self.began
        left = (time.monotonic() - started) / (self.step - step) * (self.course.steps - self.step)
        return f"step {self.step} of {self.course.steps}: {told}, about {left / 60:.0f} min left"

    def validate(self) -> None:
        """Look at the networks: figures on samples kept apart, and a picture. The best ones are kept."""
        self.modules.eval()
        with self.averaged(), torch.no_grad(), self.accelerator.autocast():
            figures: dict[str, float] = {}
            if self.source.validates:
                seed_everything(self.course.seed, 0)
                figures = self.trainee.measure(self.source.validation(self.course.batch_size, self.accelerator.device))
            if self.accelerator.is_main_process:
                seed_everything(self.course.seed, 0)
                self.look(figures)
        if not figures:
            return
        if not math.isfinite(figures["loss"]):
            raise Misconfigured(f"The validation loss of step {self.step} is no number. The last good checkpoint is kept; lower lr.")
        if figures["loss"] < self.best:
            self.best, self.worse = figures["loss"], 0
            self.publish("best")
        else:
            self.worse += 1
            if self.course.patience is not None and self.worse >= self.course.patience:
                log.info("step %d: no better for %d validations; enough", self.step, self.worse)
                self.stopped = True

    def look(self, figures: dict[str, float]) -> None:
        """Write figures and a picture down."""
        assert self.curves is not None
        if figures:
            log.info("step %d: %s", self.step, ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
            self.curves.add(self.step, {f"validation/{name}": value for name, value in figures.items()})
        samples = self.source.examples(self.accelerator.device)
        if samples is not None and (picture := self.trainee.show(samples)) is not None:
            self.curves.show(self.step, picture)
        self.curves.draw()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the networks hold their average, where there is one."""
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield

    def publish(self, name: str) -> None:
        """Write the networks, averaged, for others to load."""
        if self.accelerator.is_main_process:
            with self.averaged():
                self.trainee.write(self.folder, name)

    def kept(self) -> int:
        """Return the step of the last checkpoint; 0 where there is none."""
        try:
            return int(json.loads((self.folder / "run.json").read_bytes())["step"])
        except (OSError, ValueError, KeyError):
            return 0

    def save(self) -> None:
        """Write everything that the run needs to go on, and the networks.

        Raises:
            Misconfigured: the disk is full or cannot be written to. What was there stays.
        """
        readers = self.gather_readers()
        if self.curves is None:
            return
        self.curves.flush()
        state = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "best": self.best,
            "worse": self.worse,
            "stopped": self.stopped,
            "modules": self.modules.state_dict(),
            "average": self.average.values if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "readers": readers,
        }
        write_whole(self.folder / STATE, lambda path: torch.save(state, path))
        write_whole(self.folder / "run.json", lambda path: path.write_text(json.dumps(self.fingerprint | {"step": self.step}, indent=1)))
        self.publish("latest")

    def gather_readers(self) -> list[dict[str, Any]]:
        """Return where each process reads."""
        own = self.reader.state_dict()
        if self.accelerator.num_processes == 1:
            return [own]
        states: list[Any] = [None] * self.accelerator.num_processes
        torch.distributed.all_gather_object(states, own)
        return states

    def resume(self) -> None:
        """Go on from the folder's checkpoint, where there is one.

        Raises:
            Misconfigured: it is another run's, or damaged.
        """
        path = self.folder / STATE
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            fingerprint = state["fingerprint"]
        except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise Misconfigured(f"Checkpoint {path} is damaged ({' '.join(str(error).split()):.80}). Delete {self.folder} and start again.") from None
        if differing := [key for key in self.fingerprint if self.fingerprint[key] != fingerprint.get(key)]:
            raise Misconfigured(f"{self.folder} holds another run: its {differing[0]} differs. Name another folder with --out, or delete this one.")
        if len(state["readers"]) != self.accelerator.num_processes:
            raise Misconfigured(f"{self.folder} was trained by {len(state['readers'])} processes; go on with as many.")
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.values = {name: value.to(self.accelerator.device) for name, value in state["average"].items()}
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.reader.load_state_dict(state["readers"][self.accelerator.process_index])
        self.step, self.best, self.worse, self.stopped = state["step"], state["best"], state["worse"], state["stopped"]
        log.info("going on after step %d", self.step)


def groups_of(part: Part) -> list[dict[str, Any]]:
    """Sort a network's parameters: what decays and what Muon makes orthogonal.

    Matrices and kernels decay, scales and shifts do not. Source: dalle2-pytorch 1.15.6, `optimizer.py`.
    """
    kinds: dict[tuple[bool, bool], list[Tensor]] = {}
    trained = {value for value in part.module.parameters() if value.requires_grad}
    for module in part.module.modules():
        for name, value in module.named_parameters(recurse=False):
            if value in trained:
                trained.remove(value)  # modules may share it
                kinds.setdefault((value.ndim >= 2, is_matrix(module, name, value)), []).append(value)
    return [
        {"params": values, "peak": part.rate, "weight_decay": part.decay if decays else 0.0, "orthogonal": orthogonal}
        for (decays, orthogonal), values in kinds.items()
    ]


def average_gradients(accelerator: Accelerator, modules: nn.Module) -> None:
    """Give all processes the mean of their gradients.

    Done here and not by a wrapper around the networks, whose attributes the library's losses ask for.
    """
    if accelerator.num_processes == 1:
        return
    parameters = [value for value in modules.parameters() if value.requires_grad]
    gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
    mean = accelerator.reduce(_flatten_dense_tensors(gradients), "mean")
    for parameter, gradient in zip(parameters, _unflatten_dense_tensors(mean, gradients), strict=True):
        parameter.grad = gradient


def agreed(accelerator: Accelerator, wish: bool) -> bool:
    """Tell whether one of all processes wishes something: their clocks differ, and they must do the same."""
    if accelerator.num_processes == 1:
        return wish
    return bool(accelerator.reduce(torch.tensor(float(wish), device=accelerator.device), "sum"))


def make_accelerator(device: str, amp: bool) -> Accelerator:
    """Find the device, the CPU where there is no GPU, and the processes that `accelerate launch` started."""
    cpu = device == "cpu" or not torch.cuda.is_available()
    if device.startswith("cuda") and cpu:
        log.warning("there is no GPU; training on the CPU")
    half = "no" if not amp else "bf16" if cpu or torch.cuda.is_bf16_supported() else "fp16"
    return Accelerator(cpu=cpu, mixed_precision=half)
