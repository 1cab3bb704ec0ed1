"""Measure how much memory loading takes, as a share of the file: python -m tests.benchmarks.loading [--mb 1000]

A process of its own for every kind of file and number format loads a made-up network and tells its peak of resident memory beyond what it had
before. Linux only.
"""

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from engine.unclip.checkpoints import load_into, read_checkpoint

WIDTH = 2048


def write(folder: Path, layers: int) -> list[Path]:
    """Write random weights as a torch file and as safetensors, and a small file of each beside them."""
    for name, count, width in (("small-weights", 1, 8), ("weights", layers, WIDTH)):
        weights = {f"{layer}.weight": torch.randn(width, width) for layer in range(count)}
        torch.save({"model": weights, "version": "1.1.0"}, folder / f"{name}.pth")
        save_file(weights, folder / f"{name}.safetensors")
    return [folder / "weights.pth", folder / "weights.safetensors"]


def load(path: Path, layers: int, width: int, dtype: str) -> object:
    """Load a file as the engine does."""
    with torch.device("meta"):
        net = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    load_into(net, read_checkpoint(path).weights, path, dtype=getattr(torch, dtype), device="cpu")
    return net


def memory(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)).split()[1]) * 1024


def measure(path: Path, layers: int, dtype: str) -> dict[str, float]:
    """Return peak and lasting memory of one load as shares of the file's size; the process must have loaded nothing before."""
    # What torch sets up for its first file is no part of any.
    load(path.with_name(f"small-{path.name}"), 1, 8, dtype)
    before = memory("VmRSS")
    net = load(path, layers, WIDTH, dtype)
    shares = {key: (memory(line) - before) / path.stat().st_size for key, line in (("peak", "VmHWM"), ("after", "VmRSS"))}
    del net
    return shares


def main() -> None:
    """Measure all kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000, help="size of the file")
    options = parser.parse_args()
    layers = max(1, options.mb * 10**6 // (WIDTH * WIDTH * 4))
    # Each begins as a copy of a process that has imported this module and done nothing yet.
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["tests.benchmarks.loading"])
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, fresh, max_tasks_per_child=1) as processes:
        for path in write(Path(folder), layers):
            for dtype in ("float32", "bfloat16", "float16"):
                shares = processes.submit(measure, path, layers, dtype).result()
                print(f"{path.suffix:12} {dtype:9} peak {shares['peak']:.2f} × the file, afterwards {shares['after']:.2f} ×")


if __name__ == "__main__":
    main()
