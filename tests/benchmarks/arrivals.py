"""People who ask at random moments, simulated with measured step times: python -m tests.benchmarks.arrivals [--jobs 2000] [--law MS_A_STEP MS_A_ROW]

Times how long a step of each of the bundled model's networks takes with 1 to 32 rows, then lets requests for a grid of four arrive at 30 to 115 % of
what the device can do one request at a time, on a clock that only the steps move. `engine.unclip.company` itself decides who shares a step; beside
that, everybody in turn. `--law` simulates another device, on which a step takes so long whatever it does, and so much longer with every row.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.unclip import Painter, company
from engine.unclip.company import Company, Course, Leg, Member
from engine.unclip.memory import Lodging
from engine.unclip.sampling import Walk

CPU = torch.device("cpu")
LOADS = (0.3, 0.7, 0.95, 1.15)
SIZES = (1, 2, 4, 8, 16, 32)
REPEATS = 7


@dataclass
class Stage:
    """A network of the simulation: rows and steps of a grid of four, and seconds of a step by rows."""

    name: str
    rows: int
    steps: int
    seconds: Callable[[int], float]
    network: nn.Module = field(default_factory=nn.Identity)


class Stroll:
    """A walk on which nothing is worked out."""

    def __init__(self, rows: int, steps: int) -> None:
        self.told, self._left = SimpleNamespace(rows=rows), steps

    @property
    def is_done(self) -> bool:
        return self._left == 0

    def enter(self) -> None:
        """Do nothing."""

    def take(self, prediction: object) -> None:
        """Take a step."""
        self._left -= 1


def measured(model: Path) -> list[Stage]:
    """Time the steps of a model's networks."""
    painter = Painter.from_config(model, device="cpu", dtype="float32")
    parts = painter.parts
    assert parts.prior is not None
    stages = []
    for number, (stage, setting) in enumerate(((parts.prior, parts.prior_setting), *zip(parts.stages, parts.settings, strict=True))):
        rows = 4 if number == 0 or setting.guidance == 1 else 8
        steps, rule = stage.plan(setting.steps, setting.solver)
        seconds = []
        for size in SIZES:
            if number == 0:
                brief: Any = parts.prior.brief(painter.read(["a cat"] * size), 1.0, steps)
                shape: tuple[int, ...] = (parts.prior.net.dim,)
            else:
                unet = parts.stages[number - 1]
                smaller = torch.zeros(size, 3, unet.from_side or 1, unet.from_side or 1)
                lowres = {} if unet.from_side is None else unet.enlarge(smaller, lambda size=size: torch.zeros(size, 3, 1, 1))
                brief, shape = unet.brief(torch.zeros(size, unet.unet.image_embed_dim or 1), None, 1.0, lowres, steps), (3, unet.side, unet.side)
            walk = Walk(brief, torch.zeros(size, *shape), steps, rule, lambda: torch.zeros(1), predicts=stage.predicts)
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                stage.ask([walk])
                times.append(time.perf_counter() - started)
            seconds.append(statistics.median(times))
        name = ("prior", "base", "upsampler")[min(number, 2)]
        print(f"{name}: " + ", ".join(f"{size} rows {1000 * value:.1f} ms" for size, value in zip(SIZES, seconds, strict=True)), flush=True)
        stages.append(Stage(name, rows, len(steps), partial(between, seconds)))
    return stages


def between(seconds: Sequence[float], rows: int) -> float:
    """Return the seconds of a step of so many rows, from those of SIZES; beyond, they grow with the rows."""
    return float(np.interp(rows, SIZES, seconds)) * max(rows / SIZES[-1], 1.0)


def simulate(stages: Sequence[Stage], arrivals: Sequence[float], *, together: bool) -> list[float]:
    """Return how long each request took from its arrival to its grid."""
    clock = [0.0]
    real_time = company.time
    company.time = SimpleNamespace(perf_counter=lambda: clock[0], monotonic=lambda: clock[0])  # type: ignore[assignment, attr-defined]
    try:

        def course(index: int) -> Course[int]:
            for stage in stages:

                def ask(walks: Sequence[Any], stage: Stage = stage) -> list[Any]:
                    clock[0] += stage.seconds(sum(walk.told.rows for walk in walks))
                    return [None] * len(walks)

                yield Leg(stage.network, ask, Stroll(stage.rows, stage.steps))  # type: ignore[arg-type]
            return index

        here = Company(Lodging(CPU, is_resident=True), course, {})
        waiting = list(enumerate(arrivals))
        took = [0.0] * len(arrivals)
        while waiting or here:
            if not here:
                clock[0] = max(clock[0], waiting[0][1])
            while waiting and waiting[0][1] <= clock[0] and (not here or (together and here.has_room)):
                here.join(waiting.pop(0)[0])
            done: list[Member[int]] = here.step()
            for member in done:
                assert member.result is not None
                took[member.result] = clock[0] - arrivals[member.result]
        return took
    finally:
        company.time = real_time  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("configs/picturebook/picturebook.json"))
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--law", type=float, nargs=2, metavar=("MS_A_STEP", "MS_A_ROW"))
    options = parser.parse_args()
    if options.law:
        fixed, each = (value / 1000 for value in options.law)
        stages = [Stage("base", 8, 64, lambda count: fixed + each * count), Stage("upsampler", 4, 64, lambda count: fixed + 4 * each * count)]
    else:
        with torch.inference_mode():
            stages = measured(options.model)
    alone_s = sum(stage.steps * stage.seconds(stage.rows) for stage in stages)
    print(f"one grid alone: {alone_s:.2f} s")
    for load in LOADS:
        random.seed(0)
        arrivals, now = [], 0.0
        for _ in range(options.jobs):
            now += random.expovariate(load / alone_s)
            arrivals.append(now)
        told = []
        for together in (False, True):
            took = np.array(simulate(stages, arrivals, together=together))
            told.append((float(took.mean()), float(np.quantile(took, 0.99))))
        (mean, worst), (shared_mean, shared_worst) = told
        print(
            f"{load:.0%}: in turn mean {mean:.2f} s, p99 {worst:.2f} s; together {shared_mean:.2f}, {shared_worst:.2f} s "
            f"({shared_mean / mean:.2f} ×, {shared_worst / worst:.2f} ×)",
            flush=True,
        )


if __name__ == "__main__":
    main()
