"""What a step costs, counted and not timed: operations, arithmetic, and nothing that waits for the device."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engine.options import Solver
from engine.unclip import Painter
from engine.unclip.dialects import LATEST
from engine.unclip.sampling import Predicts, Walk, advance, clip
from engine.unclip.schedule import alpha_bars
from engine.unclip.stages import AT_ONCE, UnetBrief, UnetStage
from engine.unclip.unet import Unet

FOLDER = Path(__file__).parents[3] / "configs" / "picturebook"
META = torch.device("meta")
MOST_OPERATIONS = 1000
VIEWS = (
    "view", "unsqueeze", "permute", "transpose", "split", "unbind", "expand", "alias", "detach", "select", "slice", "aten.t.", "chunk", "squeeze",
)  # fmt: skip
"""Operations that launch nothing."""


class Watched(TorchDispatchMode):
    """Counts operations, and notes every tensor that comes to be on another device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.counts, self.strays = device, Counter[str](), []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        self.counts[name] += 1
        if "_local_scalar_dense" in name or any(isinstance(leaf, torch.Tensor) and leaf.device != self.device for leaf in tree_leaves(out)):
            self.strays.append(name)
        return out

    @property
    def launches(self) -> int:
        return sum(count for name, count in self.counts.items() if not any(view in name for view in VIEWS))


def laion_walk() -> tuple[UnetStage, Walk[UnetBrief]]:
    """The base unet of LAION's size, without any memory, and a guided grid of four half way."""
    with META:
        unet = Unet(
            320, image_embed_dim=768, cond_on_image_embeds=True, cond_dim=512, dim_mults=(1, 2, 3, 4), num_resnet_blocks=4,
            self_attn=(False, True, True, True),
        ).requires_grad_(False)  # fmt: skip
    stage = UnetStage(unet, LATEST, 64, None, alpha_bars("cosine", 1000), Predicts.EPS, clip, 0.0, False, False, None, True, 20)
    steps, rule = stage.plan(20, Solver.DPM)
    with META:
        brief = stage.brief(torch.empty(4, 768), None, 3.0, {}, steps)
        x = torch.empty(4, 3, 64, 64)
    walk = Walk(brief, x, steps, rule, lambda: pytest.fail("nothing is drawn"), predicts=stage.predicts, settle=stage.settle)
    return stage, walk


def test_a_guided_step_launches_few_operations_and_never_waits_for_the_device() -> None:
    stage, walk = laion_walk()
    with torch.no_grad():
        advance([walk], stage.ask)
        for _ in range(2, AT_ONCE):
            with Watched(META) as step:
                advance([walk], stage.ask)
            assert step.launches <= MOST_OPERATIONS, step.counts.most_common(20)
            assert step.strays == []


def flops_of(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def test_a_picture_takes_no_more_arithmetic_than_its_steps_need() -> None:
    painter = Painter.from_config(FOLDER / "picturebook.json", device="cpu")
    clip, needed = painter.parts.clip, 0
    assert clip is not None and painter.parts.drafts > 1
    for stage, setting in zip(painter.parts.stages, painter.parts.settings, strict=True):
        steps, rule = stage.plan(setting.steps, setting.solver)
        lowres = (
            {} if stage.from_side is None else stage.enlarge(torch.zeros(1, 3, stage.from_side, stage.from_side), lambda: torch.zeros(1, 3, 1, 1))
        )
        embed = torch.nn.functional.normalize(torch.ones(1, clip.width), dim=-1)
        brief = stage.brief(embed, None, setting.guidance, lowres, steps)
        walk = Walk(brief, torch.zeros(1, 3, stage.side, stage.side), steps, rule, lambda: torch.zeros(1), predicts=stage.predicts)
        walk.told.moments[walk.step.time]
        drafts = painter.parts.drafts if stage.side <= clip.side else 1
        needed += drafts * len(steps) * flops_of(lambda stage=stage, walk=walk: stage.ask([walk]))
    whole = flops_of(lambda: painter.dream(["a cat on a red background"], seed=3, count=1))
    assert needed < whole <= 1.1 * needed
