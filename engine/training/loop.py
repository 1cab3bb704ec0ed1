"""The one training loop of the bundled model: AdamW, one cycle of the learning rate, bfloat16, a checkpoint on disk."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

SAVE_EVERY_S = 120.0
REPORT_EVERY_STEPS = 50


def fit(model: nn.Module, loss_of_step: Callable[[int], Tensor], *, steps: int, peak_rate: float, checkpoint: Path) -> None:
    """Train `model` in place, and go on from `checkpoint` where one is there.

    `loss_of_step` draws its own batch from the number of the step, so a resumed run sees what an unbroken one would have seen.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.1)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "step": step}
        half_written = checkpoint.with_suffix(".part")
        torch.save(state, half_written)
        half_written.replace(checkpoint)

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    model.train()
    started = saved = time.monotonic()
    mean = 0.0
    for step in range(first, steps):
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of_step(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if step == first else 0.98 * mean + 0.02 * loss.item()
        now = time.monotonic()
        if (step + 1) % REPORT_EVERY_STEPS == 0:
            left_s = (now - started) / (step + 1 - first) * (steps - step - 1)
            log.info("step %d of %d: loss %.4f, %.0f min left", step + 1, steps, mean, left_s / 60)
        if now - saved > SAVE_EVERY_S:
            save(step + 1)
            saved = now
    save(steps)
    model.eval()
