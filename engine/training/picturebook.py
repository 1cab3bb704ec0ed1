"""The recipe of the bundled model: its world as shards, and what becomes of the trained networks.

Every line is `python -m engine.training …`; TRAIN stands for configs/training/picturebook:

    world runs/world
    clip --config TRAIN-clip.json --data runs/world --out runs/clip
    data runs/world runs/shards --config TRAIN.json --side 128 --shard-size 2000
    prior --config TRAIN-prior.json --out runs/prior
    export --clip TRAIN --prior runs/prior/best.safetensors
    drawn runs/shards runs/mixed --config configs/picturebook/picturebook.json
    decoder --config TRAIN-base.json --out runs/base
    decoder --config TRAIN-enlarger.json --out runs/enlarger
    decoder --config TRAIN-upsampler.json --out runs/upsampler
    export --unets runs/base/best.safetensors runs/enlarger/best.safetensors runs/upsampler/best.safetensors
    gallery

What the lines for CLIP and upsampler made lies in TRAIN/ already (the upsampler in float16), and they may be left out. CLIP is told confusable
captions, since a batch seldom holds two pictures that differ only in where things are: without them its embeddings said nothing of places, and no
decoder could learn any. It sees objects on backgrounds of any colour, and all colours a little off: with the ten that have a name alone, it did not
know an object on a background that it had never seen it on (`tests.benchmarks.probe`: 61 %, and now 95 %), nor could a decoder paint it.
The base paints 16 px, the enlarger 32 px, the upsampler 128 px; only the base is told the embedding. Each is trained by itself on true smaller
pictures, so the unet before it in a config only says how large those are.

The weights in the tree came there in stages, each from the one before, while the world and these configs grew to what they are now: CLIP in 1,000,
400, 600, 900, 900 and 1,400 steps, the prior in 1,000, 700, 600, 800 and 1,600, the base in 2,000 of 32 pictures and 1,330, 1,150, 1,000, 255, 560,
2,800, 2,400, 1,450, 1,425, 1,300 and 2,000 of 64 (the last ones compiled; where it says 1,425, 1,900 were planned), the enlarger in 1,500, 320 and
160, the upsampler in one run. The last stages of CLIP and the enlarger learnt from `world … --scenes 60000 --seed 4`, when captions named two objects
in any order; those of the prior and the base from seed 5. The base's stage of 1,450 steps had `embed_noise` 0.5 and CLIP's embeddings alone; the next
one had 0.2, and it and the one of 1,300 had two equal copies of one draw of the prior for each sample whose caption names the background. All before
the one of 1,300 whitened with a floor of 0.04: the directions that say which objects stand beside each other were quiet, and drowned in that noise.
The last one had one copy of the draws, and 40,000 more scenes of seed 6 (and a draw for each that names its background), 0.85 of them with two
objects instead of PAIR_SHARE: from true embeddings, the base before it had painted 86 % of 100 pairs as trained on, and 73 % of 100 held-out ones.
"""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from engine.errors import Misconfigured
from engine.jobs import Request
from engine.pictures import encode
from engine.training.data.writing import jpeg, write_plain
from engine.training.library import DERIVED
from engine.training.saving import write_tensors
from engine.training.sheets import contact_sheet
from engine.training.world import BACKGROUNDS, NAMES, draw_world, words
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.config import read_json
from engine.unclip.painter import Painter
from engine.unclip.train_config import without_none

log = logging.getLogger(__name__)

MODEL = Path(__file__).parents[2] / "configs" / "picturebook"
SHARD_SIZE = 2000
GALLERY_COLUMNS, GALLERY_TILE_PX = 8, 128


def write_world(folder: Path, count: int, seed: int) -> None:
    """Draw the world as shards that img2dataset could have written: pictures and captions, no embeddings yet."""
    scenes = tqdm(draw_world(count, seed), total=count, unit=" scenes", disable=None)
    write_plain(folder, ({"jpg": jpeg(Image.fromarray(picture)), "txt": caption.encode()} for picture, caption, _ in scenes), SHARD_SIZE)


def export_clip(folder: Path) -> None:
    """Put a trained CLIP into the bundled model, in float16."""
    place = MODEL / "clip"
    place.mkdir(parents=True, exist_ok=True)
    write_half(load_file(folder / "open_clip_model.safetensors"), place / "open_clip_model.safetensors")
    config = read_json(folder / "open_clip_config.json")
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = "merges.txt.gz"
    (place / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (MODEL / "words.txt").write_text("\n".join(words()) + "\n")


def export_prior(path: Path) -> None:
    """Put a trained prior into the bundled model, in float16."""
    trained = read_checkpoint(path)
    write_half(trained.weights, MODEL / "prior.safetensors")
    write_config("prior", trained.config, MODEL)


def export_decoder(paths: Sequence[Path]) -> None:
    """Put unets that were trained one by one together, from small to large, and into the bundled model, in float16.

    Raises:
        Misconfigured: a file is not what `decoder` writes when it trains one unet.
    """
    parts: dict[str, Tensor] = {}
    decoders, places = [], []
    for number, path in enumerate(paths):
        trained = read_checkpoint(path)
        config = trained.config or {}
        mask = config.get("train", {}).get("unet_training_mask", ())
        if sum(mask) != 1:
            raise Misconfigured(f"{path} is no run that trained one unet. Name what `decoder` wrote, one for each unet.")
        decoders.append(config["decoder"])
        places.append(mask.index(True))
        prefix = f"unets.{places[-1]}."
        parts |= {f"unets.{number}.{key.removeprefix(prefix)}": value for key, value in trained.weights.items() if key.startswith(prefix)}
    write_half(parts, MODEL / "decoder.safetensors")
    write_config("decoder", {"decoder": joined(decoders, places)}, MODEL)


def joined(decoders: Sequence[Mapping[str, Any]], places: Sequence[int]) -> dict[str, Any]:
    """Describe the cascade of one unet of each config; what is said once for all unets is said by the last one."""

    def own(key: str, decoder: Mapping[str, Any], place: int) -> Any:
        value = decoder[key]
        return value[place] if isinstance(value, list) and len(value) == len(decoder["unets"]) else value

    last = decoders[-1]
    each = {key for decoder in decoders for key, value in decoder.items() if isinstance(value, list) and len(value) == len(decoder["unets"])}
    return {key: [own(key, *one) for one in zip(decoders, places, strict=True)] if key in each else last[key] for key in last}


def write_config(part: str, config: dict[str, Any] | None, folder: Path) -> None:
    """Put what a checkpoint says of its network beside the weights."""
    content = {part: without_none((config or {})[part])}
    content[part].pop("clip", None)
    (folder / f"{part}.json").write_text(json.dumps(content, indent=2) + "\n")


def write_half(weights: dict[str, Tensor], path: Path) -> None:
    """Write weights in float16, without what follows from the config."""
    write_tensors(path, {key: value.to(torch.float16) for key, value in weights.items() if not key.startswith(DERIVED)})
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def gallery() -> None:
    """Paint every object on one background after the other, the first picture of each, none chosen; and one sheet of the other operations."""
    painter = Painter.from_config(MODEL / "picturebook.json")
    prompts = [f"{name} on a {list(BACKGROUNDS)[index % len(BACKGROUNDS)]} background" for index, name in enumerate(NAMES)]
    painted = [painter.paint(Request(prompt, seed=0, count=1), lambda progress: None).pictures[0] for prompt in prompts]
    pictures = [Image.open(io.BytesIO(picture.png)) for picture in painted]
    contact_sheet(pictures, GALLERY_COLUMNS, GALLERY_TILE_PX).save(MODEL / "gallery.png", optimize=True)

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
    contact_sheet(images, 4, GALLERY_TILE_PX).save(MODEL / "operations.png", optimize=True)
