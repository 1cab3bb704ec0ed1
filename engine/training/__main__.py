"""Data to train on, and the recipe of the bundled model.

    python -m engine.training data SOURCE OUT    # pictures with captions into shards; see its --help
    python -m engine.training clip         # first: prior and base decoder need its embeddings
    python -m engine.training prior
    python -m engine.training base
    python -m engine.training upsampler    # needs no CLIP, may run beside the first
    python -m engine.training export       # writes configs/picturebook/*.safetensors in float16
    python -m engine.training gallery      # paints the sheets of the README

Checkpoints lie in runs/; a stopped command goes on where it was.
"""

import argparse
import io
import json
import logging
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import Misconfigured
from engine.jobs import Request
from engine.pictures import encode
from engine.training.data import command as data
from engine.training.library import DERIVED, build_decoder, build_prior
from engine.training.loop import fit
from engine.training.world import BACKGROUNDS, OBJECTS, SIDE, Pages, caption, words
from engine.unclip.clip import OpenClip
from engine.unclip.painter import Painter

log = logging.getLogger(__name__)

MODEL = Path(__file__).parents[2] / "configs" / "picturebook"
RUNS = Path("runs")
PAGES = 24_000
STEPS = {"clip": 1_500, "prior": 3_000, "base": 4_000, "upsampler": 4_000}
INTERRUPTED = 130
GALLERY_COLUMNS, GALLERY_TILE, GALLERY_GAP = 8, 96, 4
NONSENSE_SHARE = 0.25
"""Share of captions with words that mean nothing, so that words never seen disturb little."""


def part_of_config(part: str) -> dict[str, Any]:
    """Read what the model is to be from its own config."""
    return json.loads((MODEL / f"{part}.json").read_text())[part]


def untrained_clip() -> OpenClip:
    """Build CLIP as its config describes it."""
    return OpenClip.from_config(json.loads((MODEL / "clip" / "open_clip_config.json").read_text()), MODEL / "clip")


def with_nonsense(text: str, rng: np.random.Generator) -> str:
    """Put one to three words of random letters into a caption, sometimes."""
    if rng.random() > NONSENSE_SHARE:
        return text
    words = text.split()
    for _ in range(rng.integers(1, 4)):
        word = "".join(rng.choice(list(string.ascii_lowercase), size=rng.integers(2, 9)))
        words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def train_clip() -> None:
    """Contrast pictures with captions; every caption that is true of a picture counts as its match."""
    pages, clip = Pages.draw(PAGES, seed=0), untrained_clip()

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        rows = rng.integers(PAGES, size=128)
        captions = [caption(pages.scenes[row], rng) for row in rows]
        tokens = clip.tokenize([with_nonsense(text, rng) for text, _ in captions])
        facts, named = pages.facts[rows], torch.tensor([named for _, named in captions])
        same = facts[:, None] == facts[None]
        true = (same[..., 0] & same[..., 2] & (same[..., 1] | ~named[None])).float()
        pictures = pages.pictures[rows] / 255 + 0.03 * torch.randn(len(rows), 3, 1, 1)
        logits = clip.model.logit_scale.exp() * clip.embed_image(pictures) @ clip.embed_text(tokens).embed.T
        by_picture = F.cross_entropy(logits, true / true.sum(1, keepdim=True))
        by_caption = F.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True))
        return (by_picture + by_caption) / 2

    fit(clip, loss_of_step, steps=STEPS["clip"], cycles=2, peak_rate=1e-3, checkpoint=RUNS / "clip.pt")


def trained_clip() -> OpenClip:
    """Load the CLIP of the first command."""
    clip = untrained_clip()
    clip.load_state_dict(torch.load(RUNS / "clip.pt", weights_only=True)["model"])
    return clip.eval().requires_grad_(False)


@torch.no_grad()
def embed_pages(clip: OpenClip, pages: Pages) -> Tensor:
    """Embed every picture: (N, D) float."""
    return torch.cat([clip.embed_image(part / 255) for part in pages.pictures.split(256)])


def train_prior() -> None:
    """Predict a picture's embedding from its caption."""
    pages, clip, prior = Pages.draw(PAGES, seed=0), trained_clip(), build_prior(part_of_config("prior"))
    embeds = embed_pages(clip, pages)

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        rows = rng.integers(PAGES, size=128)
        with torch.no_grad():
            text = clip.embed_text(clip.tokenize([with_nonsense(caption(pages.scenes[row], rng)[0], rng) for row in rows]))
        return prior(text_embed=text.embed, text_encodings=text.encodings, image_embed=embeds[rows].clone())

    fit(prior, loss_of_step, steps=STEPS["prior"], peak_rate=1e-3, checkpoint=RUNS / "prior.pt")


def train_base() -> None:
    """Paint pictures of the first size from their embeddings."""
    pages, clip, decoder = Pages.draw(PAGES, seed=0), trained_clip(), build_decoder(part_of_config("decoder"))
    embeds = embed_pages(clip, pages)
    small = torch.cat([shrink(part / 255, decoder.image_sizes[0]) for part in pages.pictures.split(256)])

    def loss_of_step(step: int) -> Tensor:
        rows = np.random.default_rng(step).integers(PAGES, size=64)
        scheduler = decoder.noise_schedulers[0]
        return decoder.p_losses(
            decoder.unets[0],
            small[rows],
            scheduler.sample_random_times(len(rows)),
            image_embed=embeds[rows],
            noise_scheduler=scheduler,
            predict_v=decoder.predict_v[0],
        )

    fit(decoder.unets[0], loss_of_step, steps=STEPS["base"], peak_rate=1.5e-3, checkpoint=RUNS / "base.pt")


def train_upsampler() -> None:
    """Enlarge the first size to the second, on crops: its convolutions need not see the whole picture."""
    pages, decoder = Pages.draw(PAGES, seed=0), build_decoder(part_of_config("decoder"))
    small_side = decoder.image_sizes[0]
    scale, crop = SIDE // small_side, SIDE // 2
    conditioner = decoder.lowres_conds[1]

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        pictures = pages.pictures[rng.integers(PAGES, size=48)] / 255
        small = shrink(pictures, small_side)
        left, top = (int(v) * scale for v in rng.integers((SIDE - crop) // scale + 1, size=2))
        lowres = F.interpolate(small, SIDE)[..., top : top + crop, left : left + crop]
        levels = torch.randint(0, 150, (len(pictures),))
        lowres, levels = conditioner.noise_image(lowres, levels)
        scheduler = decoder.noise_schedulers[1]
        return decoder.p_losses(
            decoder.unets[1],
            pictures[..., top : top + crop, left : left + crop],
            scheduler.sample_random_times(len(pictures)),
            image_embed=None,
            lowres_cond_img=lowres,
            lowres_noise_level=levels,
            noise_scheduler=scheduler,
            predict_v=decoder.predict_v[1],
            predict_x_start=decoder.predict_x_start[1],
        )

    fit(decoder.unets[1], loss_of_step, steps=STEPS["upsampler"], cycles=2, peak_rate=1e-3, checkpoint=RUNS / "upsampler.pt")


def shrink(pictures: Tensor, side: int) -> Tensor:
    """Average pictures down to side × side: the library's nearest neighbour would drop fifteen of sixteen pixels."""
    return F.adaptive_avg_pool2d(pictures, side)


def export() -> None:
    """Write what the engine loads, in float16."""

    def trained(name: str, module: nn.Module) -> nn.Module:
        module.load_state_dict(torch.load(RUNS / f"{name}.pt", weights_only=True)["model"])
        return module

    def write(path: Path, module: nn.Module) -> None:
        weights = {key: value.half().contiguous() for key, value in module.state_dict().items() if not key.startswith(DERIVED)}
        save_file(weights, path)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)

    decoder = build_decoder(part_of_config("decoder"))
    trained("base", decoder.unets[0])
    trained("upsampler", decoder.unets[1])
    write(MODEL / "decoder.safetensors", decoder)
    write(MODEL / "prior.safetensors", trained("prior", build_prior(part_of_config("prior"))))
    write(MODEL / "clip" / "open_clip_model.safetensors", trained_clip().model)
    (MODEL / "words.txt").write_text("\n".join(words()) + "\n")


def gallery() -> None:
    """Paint every object on one background after the other, the first picture of each, none chosen; and one sheet of the other operations."""
    painter = Painter.from_config(MODEL / "picturebook.json")
    prompts = [f"{name} on a {list(BACKGROUNDS)[index % len(BACKGROUNDS)]} background" for index, name in enumerate(OBJECTS)]
    painted = [painter.paint(Request(prompt, seed=0, count=1), lambda progress: None).pictures[0] for prompt in prompts]
    contact_sheet([Image.open(io.BytesIO(picture.png)) for picture in painted], GALLERY_COLUMNS).save(MODEL / "gallery.png", optimize=True)

    [cat] = painter.dream(["a cat on a red background"], count=1, seed=7)
    variations = painter.variation([cat.picture.png], count=3, seed=7)
    side = cat.image.width
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 5, side // 5, side - 1, side - 1))
    repainted = [
        painter.inpaint(cat.picture.png, encode(mask), f"{name} on a red background", count=1, seed=7)[0] for name in ("a dog", "an apple", "a fox")
    ]
    seen = Image.composite(Image.new("RGB", mask.size, "white"), cat.image, mask)
    images = [one.image for one in (cat, *variations)] + [seen] + [one.image for one in repainted]
    contact_sheet(images, columns=4).save(MODEL / "operations.png", optimize=True)


def contact_sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """Lay pictures out in rows of equal tiles, with gaps between them."""
    pitch = GALLERY_TILE + GALLERY_GAP
    sheet = Image.new("RGB", (columns * pitch - GALLERY_GAP, -(-len(images) // columns) * pitch - GALLERY_GAP), "white")
    for index, image in enumerate(images):
        sheet.paste(image.resize((GALLERY_TILE, GALLERY_TILE), Image.Resampling.BICUBIC), (index % columns * pitch, index // columns * pitch))
    return sheet


COMMANDS: dict[str, Callable[[], None]] = {
    "clip": train_clip,
    "prior": train_prior,
    "base": train_base,
    "upsampler": train_upsampler,
    "export": export,
    "gallery": gallery,
}


def main() -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=f"data, {', '.join(COMMANDS)}")
    for name in ("data", *COMMANDS):
        command = commands.add_parser(name)
        command.add_argument("--threads", type=int, default=argparse.SUPPRESS, help="CPU threads of torch")
        if name == "data":
            data.add_arguments(command)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    if arguments.command in COMMANDS:
        COMMANDS[arguments.command]()
        return 0
    try:
        print(data.run(arguments))
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where it was.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
