"""Ours beside the library, in one run: python -m tests.benchmarks.speed [PART …] [--repeats 5] [--format F] [--json FILE] [--plot FILE]

`bundled`, `prior` and `base` are equal work; `defaults` is our usual steps against 250 of each unet; `start` is everything from the start of a
process to its first picture, with the peak of its memory; `previews` is what it costs that somebody watches.

The peer is what dalle2-laion does: the sampling loops of dalle2-pytorch 1.15.6 in float32, two prior samples and one after the other of the guided
answers. Weights, steps, guidance and batch are the same on both sides; the two take turns, and every ratio is of two neighbours in time. `people` is
eight requests at once against one after the other, both ours.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dalle2_pytorch.dalle2_pytorch as library
import torch
import torch.nn.functional as F
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from tqdm import tqdm

from engine.jobs import Progress, Request
from engine.options import Options, Solver
from engine.unclip import Painter, load_decoder, load_prior
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.clip import TextCondition, load_clip
from engine.unclip.commissions import Commission, Counter, no_report, samples_of
from engine.unclip.config import read_json, read_model_config
from engine.unclip.model import PACKED_WEIGHTS
from engine.unclip.packing import pack
from engine.unclip.sampling import Walk, noise_from_seeds, walk_alone
from engine.unclip.stages import Prior, UnetStage

MODEL = Path("configs/picturebook")
CPU = torch.device("cpu")
PRIOR: dict[str, Any] = {
    "net": {"dim": 768, "depth": 12, "heads": 12, "max_text_len": 77, "num_timesteps": 1000},
    "image_embed_dim": 768, "image_size": 224, "timesteps": 1000, "cond_drop_prob": 0.1,
}  # fmt: skip
BASE: dict[str, Any] = {
    "dim": 320, "dim_mults": [1, 2, 3, 4], "image_embed_dim": 768, "cond_dim": 512, "cond_on_image_embeds": True, "num_resnet_blocks": 4,
    "self_attn": [False, True, True, True], "memory_efficient": True,
}  # fmt: skip
PROMPT = "a cat on a red background"
PREVIEW_EVERY_S = 2.0
"""As `engine.worker` has it."""
Pair = tuple[str, Callable[[], object], Callable[[], object]]
"""What is compared, how the peer does it, and how we do."""


def walked(stage: Prior | UnetStage, brief: Any, shape: tuple[int, ...], steps: int, count: int, solver: Solver | None = None) -> torch.Tensor:
    """Walk from noise to samples."""
    plan, rule = stage.plan(steps, solver)
    draw = noise_from_seeds(range(count), shape, CPU)
    return walk_alone(Walk(brief, draw(), plan, rule, draw, predicts=stage.predicts, settle=stage.settle), stage.ask)


def loaded_by_library(steps: Sequence[int]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Load the bundled prior and decoder, which takes so many steps of each unet, with the library."""
    prior = DiffusionPriorConfig(**read_json(MODEL / "prior.json")["prior"]).create().eval()
    decoder = DecoderConfig(**{**read_json(MODEL / "decoder.json")["decoder"], "sample_timesteps": list(steps)}).create()
    for module, file in ((prior, "prior"), (decoder.eval(), "decoder")):
        module.load_state_dict({key: value.float() for key, value in read_checkpoint(MODEL / f"{file}.safetensors").weights.items()}, strict=False)
    return prior, decoder


def drawn_by_library(prior: torch.nn.Module, text: TextCondition, steps: int, guidance: float, candidates: int) -> torch.Tensor:
    """Draw image embeddings with the library and choose the nearest of each text's, (texts, D)."""
    count, width = text.embed.shape
    told = {"text_embed": text.embed.repeat_interleave(candidates, 0), "text_encodings": text.encodings.repeat_interleave(candidates, 0)}
    drawn = prior.p_sample_loop((count * candidates, width), text_cond=told, cond_scale=guidance, timesteps=steps)
    nearest = F.cosine_similarity(drawn, told["text_embed"]).view(count, candidates).argmax(1)
    return drawn.view(count, candidates, width)[torch.arange(count), nearest]


def bundled(steps: int | None = None) -> Iterator[Pair]:
    """The bundled model's grid of four, from texts that are read to pictures; the library takes `steps` of each unet, or as many as we do."""
    painter = Painter.from_config(MODEL / "picturebook.json", device="cpu", dtype="float32")
    settings, prior_setting = painter.parts.settings, painter.parts.prior_setting
    prior, decoder = loaded_by_library([steps or setting.steps for setting in settings])
    text = painter.read([PROMPT] * 4)
    batch, how = samples_of(PROMPT, Options(count=4, seed=0)), Options(count=4, seed=0)
    count = Counter(no_report, 10**9)

    def theirs() -> object:
        embed = drawn_by_library(prior, text, prior_setting.steps, prior_setting.guidance, prior_setting.candidates)
        return decoder.sample(image_embed=embed, cond_scale=tuple(setting.guidance for setting in settings))

    def ours() -> object:
        embeds = painter.alone(painter.draw_embeds(batch, text, how, count))[:, 0]
        return painter.alone(painter.decode(batch, embeds, Commission(batch, how), count))

    said = "equal steps" if steps is None else f"{steps} steps of each unet against our usual ones"
    yield f"bundled model, grid of 4, {said}, float32", theirs, ours


def start() -> Iterator[Pair]:
    """From the start of a process to the bundled model's first picture, with equal steps; each tells the peak of its memory."""
    peaks: dict[str, list[float]] = {"theirs": [], "ours": []}

    def run(who: str) -> None:
        told = subprocess.run([sys.executable, "-m", "tests.benchmarks.speed", "--first", who], check=True, capture_output=True, text=True)
        peaks[who].append(float(told.stdout.split()[-1]))

    yield "from a process's start to the first picture, bundled model", lambda: run("theirs"), lambda: run("ours")
    print("its peak of memory: " + ", ".join(f"{who} {statistics.median(peak):.0f} MiB" for who, peak in peaks.items()))


def first(who: str) -> None:
    """Paint one picture in this process and print the peak of its memory in MiB."""
    with torch.inference_mode():
        if who == "ours":
            Painter.from_config(MODEL / "picturebook.json", device="cpu", dtype="float32").dream([PROMPT], count=1, seed=0)
        else:
            parts = read_model_config(MODEL / "picturebook.json")
            [unets], clip = parts.decoder.unet_sources, load_clip(parts.clip, MODEL, dtype=torch.float32, device="cpu")
            prior, decoder = loaded_by_library(unets.default_sample_timesteps)
            text = clip.embed_text(clip.tokenize([PROMPT]))
            embed = drawn_by_library(prior, text, parts.prior.default_sample_timesteps, 1.0, parts.prior.default_candidates)
            decoder.sample(image_embed=embed, cond_scale=tuple(unets.default_cond_scale))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def random_prior(folder: Path, form: str) -> Iterator[Pair]:
    """LAION's prior, with random weights: 64 steps for two candidates."""
    prior = DiffusionPriorConfig(**PRIOR).create().eval()
    torch.save({"model": prior.state_dict(), "version": "1.15.6", "config": {"prior": PRIOR}}, folder / "prior.pth")
    embed = F.normalize(torch.randn(2, 768), dim=-1)
    encodings = torch.randn(2, 77, 768)
    stage, text = load_prior(folder / "prior.pth", dtype=getattr(torch, form)), TextCondition(embed, encodings)
    pack(stage.net, PACKED_WEIGHTS)
    for guidance in (1.0, 2.0):

        def theirs(guidance: float = guidance) -> object:
            return prior.p_sample_loop((2, 768), text_cond={"text_embed": embed, "text_encodings": encodings}, cond_scale=guidance, timesteps=64)

        def ours(guidance: float = guidance) -> object:
            # What was worked out for another prompt does not count.
            stage.nulls.answers.clear()
            plan, _ = stage.plan(64, Solver.DDIM)
            return walked(stage, stage.brief(text, guidance, plan), (768,), 64, 2, Solver.DDIM)

        yield f"LAION prior 12/12, 64 steps, 2 candidates, guidance {guidance:g}, {form}", theirs, ours


def random_base(folder: Path, form: str, steps: int = 2) -> Iterator[Pair]:
    """LAION's base unet, with random weights: some guided steps of one picture."""
    config = {"unets": [BASE], "image_sizes": [64], "timesteps": 1000, "learned_variance": False, "sample_timesteps": [steps]}
    decoder = DecoderConfig(**config).create().eval()
    torch.save({"model": decoder.state_dict(), "version": "1.15.6", "config": {"decoder": config}}, folder / "base.pth")
    [stage] = load_decoder(folder / "base.pth", dtype=getattr(torch, form)).stages
    embed = F.normalize(torch.randn(1, 768), dim=-1)

    def ours() -> object:
        plan, _ = stage.plan(steps, Solver.DDIM)
        return walked(stage, stage.brief(embed, None, 2.0, {}, plan), (3, 64, 64), steps, 1, Solver.DDIM)

    yield f"LAION base unet, 1 picture, guidance 2, {steps} steps, {form}", lambda: decoder.sample(image_embed=embed, cond_scale=2.0), ours


def people(count: int) -> Iterator[Pair]:
    """Eight people who ask at once, each for `count` pictures: in turn, and together."""
    loaded = Painter.from_config(MODEL / "picturebook.json", device="cpu", dtype="float32")

    def forgetful() -> Painter:
        """Remember nothing but how fast the networks are."""
        return Painter(loaded.parts, loaded.paces)

    requests = [Request(f"{PROMPT} {person}", seed=person, count=count) for person in range(8)]

    def in_turn() -> object:
        painter = forgetful()
        return [painter.paint(request, no_report) for request in requests]

    def together() -> object:
        company = forgetful().company()
        waiting = list(requests)
        while waiting or company:
            if waiting and company.has_room:
                company.join(waiting.pop(0), no_report)
            company.step()
        return None

    yield f"bundled model, 8 people at once, {count} picture{'s' * (count > 1)} each: together against in turn", in_turn, together


def previews() -> Iterator[Pair]:
    """A grid of four while somebody watches it grow, as often as the bot shows it, and while nobody does."""
    loaded = Painter.from_config(MODEL / "picturebook.json", device="cpu", dtype="float32")
    request = Request(PROMPT, seed=0, count=4)
    shares = []

    def watched() -> object:
        started = shown = time.perf_counter()
        taken = 0.0

        def report(progress: Progress) -> None:
            nonlocal shown, taken
            asked = time.perf_counter()
            if progress.preview is not None and asked - shown >= PREVIEW_EVERY_S:
                progress.preview()
                shown = time.perf_counter()
                taken += shown - asked

        painting = Painter(loaded.parts).paint(request, report)
        shares.append(taken / (time.perf_counter() - started))
        return painting

    yield (
        f"bundled model, grid of 4, a preview every {PREVIEW_EVERY_S:g} s against none",
        watched,
        lambda: Painter(loaded.parts).paint(request, no_report),
    )
    print(f"of its time in previews: {100 * statistics.median(shares):.1f} % ({100 * min(shares):.1f} to {100 * max(shares):.1f})")


def seconds(work: Callable[[], object]) -> float:
    """Time a piece of work."""
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def measured(pair: Pair, repeats: int) -> dict[str, Any]:
    """Let both do their work in turns, after a first time that does not count."""
    name, theirs, ours = pair
    seconds(theirs), seconds(ours)
    times = [(seconds(theirs), seconds(ours)) for _ in tqdm(range(repeats), desc=name, leave=False)]
    ratios = sorted(one / other for one, other in times)
    return {
        "what": name,
        "theirs_s": statistics.median(one for one, _ in times),
        "ours_s": statistics.median(other for _, other in times),
        "ratio": statistics.median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
        "repeats": repeats,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios and their spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    spread = [[row["ratio"] - row["least"] for row in rows], [row["most"] - row["ratio"] for row in rows]]
    axes.barh(places, [row["ratio"] for row in rows], xerr=spread, color="tab:blue", capsize=3)
    axes.set_yticks(places, [row["what"] for row in rows])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast (median, least and most)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["bundled", "defaults", "start", "previews", "prior", "base", "people", []], default=[])
    parser.add_argument("--first", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--format", choices=["float32", "bfloat16"], default="float32", help="of ours in `prior` and `base` (default float32)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    # The library's bars would be all that is to be seen.
    library.tqdm = lambda steps, **ignored: steps
    if options.first:
        return first(options.first)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Callable[[], Iterator[Pair]]] = {
            "bundled": bundled,
            "defaults": lambda: bundled(250),
            "start": start,
            "previews": previews,
            "prior": lambda: random_prior(Path(folder), options.format),
            "people": lambda: (pair for count in (1, 4) for pair in people(count)),
            "base": lambda: random_base(Path(folder), options.format),
        }
        for name, work in works.items():
            for pair in work() if name in options.parts or not options.parts else ():
                row = measured(pair, options.repeats)
                rows.append(row)
                print(
                    f"{row['what']}: {row['theirs_s']:.3f} s against {row['ours_s']:.3f} s, {row['ratio']:.2f} × "
                    f"({row['least']:.2f} to {row['most']:.2f}, {row['repeats']} times)",
                    flush=True,
                )
    facts = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
