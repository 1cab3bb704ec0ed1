"""What a run writes down for people: every figure in a file, as curves in a picture, and for TensorBoard; and pictures of what it can do by now."""

import contextlib
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

FIGURES = "figures.jsonl"
SMOOTH_SHARE = 50
"""Curves of losses are means over one part of so many of the run."""


class Curves:
    """The figures of one run."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on after a step: what was written of later ones, before a kill, is taken back."""
        self.folder = folder
        self.path = folder / FIGURES
        self.rows = [row for row in read_figures(self.path) if row["step"] <= step]
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of a step down."""
        row = {"step": step, **figures}
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def show(self, step: int, picture: Image.Image) -> None:
        """Keep a picture of what the networks can do at a step."""
        path = self.folder / "samples" / f"{step:07}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        self.board.add_image("samples", np.asarray(picture), step, dataformats="HWC")

    def flush(self) -> None:
        """Have every figure on the disk."""
        self.file.flush()
        self.board.flush()

    def draw(self) -> None:
        """Draw the curves."""
        self.flush()
        draw_curves(self.rows, self.folder / "curves.png")

    def close(self) -> None:
        """Finish. Where the disk is full, what was written before stays."""
        try:
            self.draw()
        except OSError as error:
            log.warning("the last figures of %s cannot be written: %s", self.folder, error)
        with contextlib.suppress(OSError):
            self.board.close()
        with contextlib.suppress(OSError):
            self.file.close()


def read_figures(path: Path) -> list[dict[str, float]]:
    """Read the figures of a run; a last line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Draw losses, smoothed, beside those of validation, and every other figure in a field of its own."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "rate"):
                series[name].append((row["step"], value))
    losses = [name for name in series if "loss" in name]
    others = [name for name in series if name not in losses]
    figure = Figure(figsize=(5 * (1 + len(others)), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    fields = figure.subplots(1, 1 + len(others), squeeze=False)[0]
    for name in losses:
        steps, values = (np.array(axis) for axis in zip(*series[name], strict=True))
        if name.startswith("loss/"):
            width = max(len(values) // SMOOTH_SHARE, 1)
            values = np.convolve(values, np.ones(width) / width, "valid")
            steps = steps[width - 1 :]
        fields[0].plot(steps, values, label=name, marker="" if name.startswith("loss/") else "o", markersize=3)
    if losses:
        if any(value > 0 for name in losses for _, value in series[name]):
            fields[0].set_yscale("log")
        fields[0].legend(loc="upper right")
    for field, name in zip(fields[1:], others, strict=True):
        field.plot(*zip(*series[name], strict=True), marker="o", markersize=3)
        field.set_title(name)
    for field in fields:
        field.set_xlabel("step")
        field.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
