"""People who ask at random moments, simulated with measured step times: python -m tests.benchmarks.arrivals [--jobs 2000] [--real 0]

    python -m tests.benchmarks.arrivals --law MS_A_STEP MS_A_ROW

Times how long a step of each of the bundled model's networks takes with 1 to 32 rows, then lets requests for a grid of four arrive at 30 to 115 % of
what the device can do one request at a time, on a clock that only the steps move. `engine.unclip.company` itself decides who shares a step; beside
that, everybody in turn. `--law` simulates another device, on which a step takes so long whatever it does, and so much longer with every row.
`--real` has the bundled model paint for so many requests, at 95 % and on the clock of the wall, one way after the other.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from engine.jobs import Request
from engine.unclip import Painter, company
from engine.unclip.commissions import no_report
from engine.unclip.company import Company, Course, Leg, Member
from engine.unclip.memory import Lodging
from engine.unclip.sampling import Walk

CPU = torch.device("cpu")
LOADS = (0.3, 0.7, 0.95, 1.15)
REAL_LOAD = 0.95
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


def measured(painter: Painter) -> list[Stage]:
    """Time the steps of a model's networks."""
    parts = painter.parts
    assert parts.prior is not None
    stages = []
    for number, (stage, setting) in enumerate(((parts.prior, parts.prior_setting), *zip(parts.stages, parts.settings, strict=True))):
        rows = 4 * setting.candidates * (1 if setting.guidance == 1 else 2)
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
        name = ("prior", "base", "upsampler", "second upsampler")[number]
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


def paint(loaded: Painter, arrivals: Sequence[float], *, together: bool) -> list[float]:
    """Return how long each request really took from its arrival to its grid, with a painter that remembers nothing but its paces."""
    here = Painter(loaded.parts, loaded.paces).company()
    waiting = [(arrival, Request(f"a cat on a red background {index}", seed=index, count=4)) for index, arrival in enumerate(arrivals)]
    came: dict[int, float] = {}
    took = []
    started = time.perf_counter()
    with tqdm(total=len(arrivals), desc="together" if together else "in turn", leave=False) as bar:
        while waiting or here:
            now = time.perf_counter() - started
            if not here and waiting[0][0] > now:
                time.sleep(waiting[0][0] - now)
                continue
            while waiting and waiting[0][0] <= now and (not here or (together and here.has_room)):
                arrival, request = waiting.pop(0)
                came[id(here.join(request, no_report))] = arrival
            for member in here.step():
                if member.error is not None:
                    raise member.error
                took.append(time.perf_counter() - started - came.pop(id(member)))
                bar.update()
    return took


def drawn_arrivals(count: int, mean_s: float) -> list[float]:
    """Draw moments at which people ask, the same each time: seconds from the start, so many on average between two."""
    random.seed(0)
    return list(accumulate(random.expovariate(1 / mean_s) for _ in range(count)))


def tell(load: float, ways: Sequence[Sequence[float]]) -> None:
    """Print how long requests took in turn and together."""
    (mean, worst), (shared_mean, shared_worst) = ((float(np.mean(took)), float(np.quantile(took, 0.99))) for took in ways)
    print(
        f"{load:.0%}: in turn mean {mean:.2f} s, p99 {worst:.2f} s; together {shared_mean:.2f}, {shared_worst:.2f} s "
        f"({shared_mean / mean:.2f} ×, {shared_worst / worst:.2f} ×)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("configs/picturebook/picturebook.json"))
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--real", type=int, default=0, metavar="REQUESTS")
    parser.add_argument("--law", type=float, nargs=2, metavar=("MS_A_STEP", "MS_A_ROW"))
    options = parser.parse_args()
    if options.law and options.real:
        parser.error("what a law tells of is not here: leave out --real")
    if options.law:
        fixed, each = (value / 1000 for value in options.law)
        stages = [Stage("base", 8, 64, lambda count: fixed + each * count), Stage("upsampler", 4, 64, lambda count: fixed + 4 * each * count)]
    else:
        painter = Painter.from_config(options.model, device="cpu", dtype="float32")
        with torch.inference_mode():
            stages = measured(painter)
    alone_s = sum(stage.steps * stage.seconds(stage.rows) for stage in stages)
    print(f"one grid alone: {alone_s:.2f} s")
    for load in LOADS:
        arrivals = drawn_arrivals(options.jobs, alone_s / load)
        tell(load, [simulate(stages, arrivals, together=together) for together in (False, True)])
    if options.real:
        alone = paint(painter, [0.0] * 4, together=False)
        # They come all at once and are painted in turn: the last one waits for all.
        really_s = max(alone) / len(alone)
        print(f"for real, {options.real} requests, one grid alone {really_s:.2f} s")
        tell(REAL_LOAD, [paint(painter, drawn_arrivals(options.real, really_s / REAL_LOAD), together=together) for together in (False, True)])


if __name__ == "__main__":
    main()
