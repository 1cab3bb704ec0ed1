"""How near few steps come to the exact solution: python -m tests.benchmarks.solvers [--config FILE] [--prompts 8]

Each unet starts from the same noise, is told the same and walks to a picture in fewer steps, or in 999 of DDIM without noise, which is the
deterministic solution as nearly as these networks give it; the distance of the two is the root of the mean square over pixels in [-1, 1].
"""

import argparse
from pathlib import Path

import torch

from engine.options import Options, Solver
from engine.training.world import NAMES
from engine.unclip import Painter
from engine.unclip.painter import Counter, no_report, samples_of
from engine.unclip.sampling import Walk, noise_from_seeds, walk_alone
from engine.unclip.stages import UnetStage
from tests.benchmarks.fidelity import MODEL

STEPS = {Solver.DDIM: (8, 12, 20, 32, 64, 250), Solver.DPM: (6, 8, 12, 16, 20)}
EXACT = 999


def solved(stage: UnetStage, embeds: torch.Tensor, smaller: torch.Tensor | None, guidance: float, steps: int, solver: Solver) -> torch.Tensor:
    """Walk one stage."""
    plan, rule = stage.plan(steps, solver)
    draw = noise_from_seeds(range(len(embeds)), (stage.unet.channels, stage.side, stage.side), embeds.device)
    lowres = {} if smaller is None else stage.enlarge(smaller, draw)
    brief = stage.brief(embeds, None, guidance, lowres, plan)
    return walk_alone(Walk(brief, draw(), plan, rule, draw, predicts=stage.predicts, settle=stage.settle), stage.ask)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=MODEL)
    parser.add_argument("--prompts", type=int, default=8)
    options = parser.parse_args()
    painter = Painter.from_config(options.config, device="cpu", dtype="float32")
    how = Options(count=1, seed=0)
    batch = [samples_of(f"a {name} on a green background", how)[0] for name in NAMES[: options.prompts]]
    embeds = painter.alone(painter.imagine(batch, painter.read([sample.prompt for sample in batch]), how, Counter(no_report, 10**9)))
    smaller = None
    for number, (stage, setting) in enumerate(zip(painter.parts.stages, painter.parts.settings, strict=True), start=1):
        exact = solved(stage, embeds, smaller, setting.guidance, EXACT, Solver.DDIM)
        for solver, several in STEPS.items():
            told = [(steps, solved(stage, embeds, smaller, setting.guidance, steps, solver)) for steps in several]
            distances = ", ".join(f"{steps} steps {(sample - exact).square().mean().sqrt():.4f}" for steps, sample in told)
            print(f"unet {number}, {stage.side} px, {solver}: {distances}", flush=True)
        smaller = exact


if __name__ == "__main__":
    main()
