"""DALL·E Mini beside min-dalle, in one run:

    python -m tests.benchmarks.mini [mini] [mega] [--threads 2] [--tokens 256] [--repeats 3] [--formats float32 …] [--json FILE]

The peer is the PyPI package min-dalle 0.4.11 (pip install --no-deps min-dalle==0.4.11 requests). Both read the same files, with random weights of the
true sizes; they take turns, and every ratio is of two neighbours in time. A picture is everything from the prompt to its colours; with fewer than 256
tokens only the tokens are timed. On a CPU the package cannot do bfloat16 (its cache is float32), so there its float32 is the peer of both.

`mega` needs a GPU: grids of 3 × 3 and 4 × 4 in one number format on both sides, the seconds and peak memory of each, how near ours is to the time
that reading the weights and the cache once per token takes, and pictures a second with a full batch of different prompts.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.mini import Painter
from engine.mini.decoding import BUCKETS, Drawing, Sample
from engine.mini.detokenizer import Detokenizer, Ladder
from engine.mini.loading import parts_of
from engine.mini.networks import Decoder, Encoder, Size
from engine.unclip.caches import Cache
from tests.benchmarks.speed import Pair, measured, seconds

LADDER = Ladder(16384, 256, 512, (512, 256, 256, 128, 128), (True, False, False, False, False))
SIZES = {
    "mini": Size(layers=12, width=1024, heads=16, glu=2730, texts=50264, reads=64, codes=16384, paints=256),
    "mega": Size(layers=24, width=2048, heads=32, glu=4096, texts=50272, reads=64, codes=16384, paints=256),
}
ANSWERS = {"mini": 16384, "mega": 16415}
"""Codes that the decoder's file knows, and one more."""
PROMPTS = [f"an avocado armchair in the style of painter {number}" for number in range(BUCKETS[-1])]
USUAL = Drawing(temperature=1.0, top_k=256, guidance=16.0)


def write_files(folder: Path, name: str) -> Path:
    """Write a model of random weights as min-dalle lays it out; return its config."""
    size = SIZES[name]
    model, shared = folder / f"dalle_bart_{name}", folder / "vqgan"
    model.mkdir(), shared.mkdir(exist_ok=True)
    with torch.device("meta"):
        networks = {model / "encoder.pt": Encoder(size), model / "decoder.pt": Decoder(size), shared / "detoker.pt": Detokenizer(LADDER)}
    for path, network in networks.items():
        weights = {}
        for key, value in network.state_dict().items():
            parts = parts_of(key)
            longer = ANSWERS[name] + 1 - size.codes if path.name == "decoder.pt" and key in ("embed_tokens.weight", "lm_head.weight") else 0
            for part in parts:
                shape = (len(value) // len(parts) + longer, *value.shape[1:])
                scale = 1.0 if value.ndim == 1 or "embed" in key else value[0].numel() ** -0.5
                weights[part] = torch.ones(shape).half() if value.ndim == 1 else (torch.randn(shape) * scale).half()
        torch.save(weights, path)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    (model / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (model / "merges.txt").write_text("#version\n\u0120 a\n")
    files = {
        "vocabulary": "vocab.json",
        "merges": "merges.txt",
        "encoder": "encoder.pt",
        "decoder": "decoder.pt",
        "detokenizer": "../vqgan/detoker.pt",
    }
    config: dict[str, Any] = {"kind": "dalle-mini", "layers": size.layers, "width": size.width, "heads": size.heads}
    config |= {key: {"load_type": "local", "path": path} for key, path in files.items()}
    path = model / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def package(config: Path, dtype: torch.dtype, device: str) -> Any:
    """Load the package's model of these files, without its client of the network."""
    try:
        import requests  # noqa: F401  # the package imports it, and is not let near it
    except ImportError:
        sys.modules["requests"] = types.ModuleType("requests")
    threads = torch.get_num_threads()
    module = importlib.import_module("min_dalle.min_dalle")
    torch.set_num_threads(threads)
    module.requests = types.SimpleNamespace(get=lambda address: None)  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message=".*autocast.*")
    return module.MinDalle(str(config.parents[1]), dtype, device, is_mega=config.stem == "mega", is_verbose=False)


def their_tokens(model: Any, count: int, tokens: int) -> torch.Tensor:
    """Draw some tokens the way that the package's stream does."""
    ids = model.tokenizer.tokenize(PROMPTS[0])
    rows = torch.ones(2, 64, dtype=torch.long)
    rows[0, :2], rows[1, : len(ids)] = torch.tensor([ids[0], ids[-1]]), torch.tensor(ids)
    pairs = [0] * count + [1] * count
    states, mask = model.encoder(rows)[pairs], rows[pairs].not_equal(1)[:, None, None, :]
    cache = torch.zeros(model.layer_count, count * 4, 256, model.embed_count)
    drawn = torch.full((count, 257), 2**14 - 1)
    how = torch.tensor([USUAL.temperature, USUAL.top_k, USUAL.guidance])
    for index in range(tokens):
        drawn[:, index + 1], cache = model.decoder.sample_tokens(
            settings=how, attention_mask=mask, encoder_state=states, attention_state=cache, prev_tokens=drawn[:, [index]],
            token_index=torch.tensor([index]),
        )  # fmt: skip
    return drawn


def their_pictures(model: Any, side: int) -> torch.Tensor:
    """Paint a grid with the package."""
    [grid] = model.generate_raw_image_stream(PROMPTS[0], seed=1, grid_size=side)
    return grid.cpu()


def our_pictures(painter: Painter, prompts: list[str], tokens: int = 256) -> torch.Tensor | None:
    """Paint a picture of each prompt, or only draw some tokens of them."""
    # What was read for another picture does not count.
    painter.texts = Cache(len(PROMPTS) + 1)
    batch = painter.borrow_batch()
    samples = [Sample(painter.read(prompt), seed, USUAL) for seed, prompt in enumerate(prompts)]
    for sample in samples:
        batch.join(sample)
    for _ in range(tokens):
        batch.step()
    for sample in list(batch.samples):
        batch.leave(sample)
    painter.give_back_batch(batch)
    codes = [sample.codes for sample in samples if sample.codes is not None]
    return painter.parts.paint(torch.stack(codes)).cpu() if codes else None


def on_cpu(config: Path, tokens: int, formats: Sequence[str]) -> Iterator[Pair]:
    """One picture and four, in each of our number formats."""
    model = package(config, torch.float32, "cpu")
    for dtype in formats:
        painter = Painter.from_config(config, device="cpu", dtype=dtype)
        for side in (1, 2):

            def theirs(side: int = side) -> object:
                return their_pictures(model, side) if tokens == 256 else their_tokens(model, side**2, tokens)

            def ours(side: int = side, painter: Painter = painter) -> object:
                return our_pictures(painter, PROMPTS[:1] * side**2, tokens)

            what = "whole pictures: {}" if tokens == 256 else f"first {tokens} tokens of pictures: {{}}"
            yield f"{config.stem}, {what.format(side**2)}, CPU, {dtype} against float32", theirs, ours


def peak_bytes(work: Any) -> int:
    """Measure how much of the GPU's memory is taken at most while something is done, weights included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def their_peak_bytes(config: Path) -> dict[int, int]:
    """Load the package's model, and let it go again; return its peaks by the side of the grid."""
    model = package(config, torch.bfloat16, "cuda")
    return {side: peak_bytes(partial(their_pictures, model, side)) for side in (3, 4)}


def floor_s(size: Size, count: int, bytes_per_s: float) -> float:
    """Estimate how long reading the decoder's weights at every token, and what it remembers, takes in a format of two bytes."""
    weights = size.layers * (6 * size.width**2 + 3 * size.width * size.glu) + size.codes * size.width
    remembered = size.layers * 2 * (2 * count) * (size.paints / 2) * size.width
    return (weights + remembered) * 2 * size.paints / bytes_per_s


def bandwidth() -> float:
    """Measure how many bytes a second this GPU copies, both ways counted."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    start.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return float(2 * 20 * source.nbytes / (start.elapsed_time(end) / 1000))


def on_gpu(config: Path, repeats: int) -> list[dict[str, Any]]:
    """Grids beside the package's, then a full batch of ours."""
    size, speed = SIZES[config.stem], bandwidth()
    # Each alone, so that one's weights do not count as the other's.
    their_peaks = their_peak_bytes(config)
    torch.cuda.empty_cache()
    painter = Painter.from_config(config, device="cuda", dtype="bfloat16", memory="resident")
    our_peaks = {side: peak_bytes(partial(our_pictures, painter, PROMPTS[:1] * side**2)) for side in (3, 4)}
    model = package(config, torch.bfloat16, "cuda")
    rows = []
    for side in (3, 4):
        name = f"{config.stem}, grid of {side} × {side}, {torch.cuda.get_device_name()}, bfloat16"
        row = measured((name, partial(their_pictures, model, side), partial(our_pictures, painter, PROMPTS[:1] * side**2)), repeats)
        floor = floor_s(size, side**2, speed)
        rows.append(row | {"floor_s": floor, "share_of_floor": floor / row["ours_s"], "peak_bytes": [their_peaks[side], our_peaks[side]]})
    count = BUCKETS[-1]
    seconds(lambda: our_pictures(painter, PROMPTS[:count])), seconds(lambda: our_pictures(painter, PROMPTS[:count]))
    taken = min(seconds(lambda: our_pictures(painter, PROMPTS[:count])) for _ in range(repeats))
    rows.append({"what": f"{config.stem}, {count} different prompts at once, bfloat16", "ours_s": taken, "pictures_per_s": count / taken})
    return rows


def told(row: dict[str, Any]) -> str:
    """Say what a measurement came to."""
    if "ratio" not in row:
        return f"{row['what']}: {row['ours_s']:.3f} s, {row['pictures_per_s']:.1f} pictures a second"
    text = f"{row['what']}: {row['theirs_s']:.3f} s against {row['ours_s']:.3f} s, {row['ratio']:.2f} × ({row['least']:.2f} to {row['most']:.2f})"
    if "floor_s" in row:
        theirs, ours = (size / 2**30 for size in row["peak_bytes"])
        text += f"; floor {row['floor_s']:.3f} s, {row['share_of_floor']:.0%} of it reached; {theirs:.1f} GiB against {ours:.1f} at most"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["mini", "mega", []], default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"], help="of ours on the CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if "mini" in options.parts or not options.parts:
            for pair in on_cpu(write_files(Path(folder), "mini"), options.tokens, options.formats):
                rows.append(measured(pair, options.repeats))
                print(told(rows[-1]), flush=True)
        if "mega" in options.parts or not options.parts:
            if torch.cuda.is_available():
                rows += on_gpu(write_files(Path(folder), "mega"), options.repeats)
                print("\n".join(map(told, rows[-3:])), flush=True)
            else:
                print("mega: skipped, there is no GPU here")
    facts = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__, "threads": options.threads}
    if options.json:
        options.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
