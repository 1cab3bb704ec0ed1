"""Measure how much memory loading takes, as a share of the file: python -m tests.benchmarks.loading [--mb 1000]

A process of its own for every kind of file and number format loads a made-up network and tells its peak of resident memory beyond what it had
before. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH = 2048


def write(folder: Path, layers: int) -> list[Path]:
    """Write random weights as a torch file and as safetensors, and a small file of each beside them."""
    import torch
    from safetensors.torch import save_file

    for name, count, width in (("small-weights", 1, 8), ("weights", layers, WIDTH)):
        weights = {f"{layer}.weight": torch.randn(width, width) for layer in range(count)}
        torch.save({"model": weights, "version": "1.1.0"}, folder / f"{name}.pth")
        save_file(weights, folder / f"{name}.safetensors")
    return [folder / "weights.pth", folder / "weights.safetensors"]


def load(path: Path, layers: int, width: int, dtype: str) -> object:
    """Load a file as the engine does."""
    import torch
    from torch import nn

    from engine.unclip.checkpoints import load_into, read_checkpoint

    with torch.device("meta"):
        net = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    load_into(net, read_checkpoint(path).weights, path, dtype=getattr(torch, dtype), device="cpu")
    return net


def memory(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)).split()[1]) * 1024


def measure(path: Path, layers: int, dtype: str) -> dict[str, float]:
    """Return peak and lasting memory of one load, in a process of its own, as shares of the file's size."""
    command = [sys.executable, "-m", "tests.benchmarks.loading", "--child", str(path), str(layers), dtype]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return {key: value / path.stat().st_size for key, value in json.loads(run.stdout).items()}


def main() -> None:
    """Measure all kinds, or one inside of its process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000, help="size of the file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        path, layers, dtype = Path(options.child[0]), int(options.child[1]), options.child[2]
        # What torch sets up for its first file is no part of any.
        load(path.with_name(f"small-{path.name}"), 1, 8, dtype)
        before = memory("VmRSS")
        net = load(path, layers, WIDTH, dtype)
        print(json.dumps({"peak": memory("VmHWM") - before, "after": memory("VmRSS") - before}))
        del net
        return
    layers = max(1, options.mb * 10**6 // (WIDTH * WIDTH * 4))
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder), layers):
            for dtype in ("float32", "bfloat16", "float16"):
                shares = measure(path, layers, dtype)
                print(f"{path.suffix:12} {dtype:9} peak {shares['peak']:.2f} × the file, afterwards {shares['after']:.2f} ×")


if __name__ == "__main__":
    main()
