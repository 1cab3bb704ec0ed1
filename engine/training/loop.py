"""The one training loop of the bundled model: AdamW, cycles of the learning rate, bfloat16, a checkpoint on disk."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

SAVE_EVERY_S = 120.0
REPORT_EVERY_STEPS = 50
WARM_UP = 0.1
"""Share of a cycle in which the learning rate rises."""


def rate(position: float) -> float:
    """Return the share of the peak learning rate at a position in [0, 1) of a cycle: up in a line, down along a cosine."""
    return position / WARM_UP if position < WARM_UP else (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP))) / 2


def fit(model: nn.Module, loss_of_step: Callable[[int], Tensor], *, steps: int, cycles: int = 1, peak_rate: float, checkpoint: Path) -> None:
    """Train `model` in place for `cycles` × `steps`, and go on from `checkpoint` where one is there.

    `loss_of_step` draws its own batch from the number of the step, so a resumed run sees what an unbroken one would have seen.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        half_written = checkpoint.with_suffix(".part")
        torch.save(state, half_written)
        half_written.replace(checkpoint)

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    model.train()
    started = saved = time.monotonic()
    mean = 0.0
    for step in range(first, cycles * steps):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate(step % steps / steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of_step(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if step == first else 0.98 * mean + 0.02 * loss.item()
        now = time.monotonic()
        if (step + 1) % REPORT_EVERY_STEPS == 0:
            left_s = (now - started) / (step + 1 - first) * (cycles * steps - step - 1)
            log.info("step %d of %d: loss %.4f, %.0f min left", step + 1, cycles * steps, mean, left_s / 60)
        if now - saved > SAVE_EVERY_S:
            save(step + 1)
            saved = now
    save(cycles * steps)
    model.eval()
