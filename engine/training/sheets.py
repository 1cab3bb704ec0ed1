"""Pictures of what a cascade in training can do by now, painted by `engine.unclip` and not by the library: what people will get."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.training.source import Batch
from engine.unclip.clip import TextCondition
from engine.unclip.commissions import to_images
from engine.unclip.dialects import Dialect, Release
from engine.unclip.loading import build_unet, part, schedule_of
from engine.unclip.sampling import Walk, noise_from_seeds, walk_alone
from engine.unclip.schedule import alpha_bars
from engine.unclip.stages import UnetStage
from engine.unclip.train_config import DecoderConfig, without_none

GAP_PX = 4


def stage_of(weights: Mapping[str, Tensor], config: DecoderConfig, release: Release, index: int) -> UnetStage:
    """Return unet `index` of a cascade in training as `engine.unclip` paints with it; the weights are shared."""
    with torch.device("meta"):
        unet = build_unet(config, index, Dialect(release))
    unet.load_state_dict(part(weights, f"unets.{index}."), assign=True)
    unet.eval().requires_grad_(False)
    return UnetStage.of(unet, release, config, index, alpha_bars(schedule_of(config, index, release), config.timesteps))


def sheet_of(
    weights: Mapping[str, Tensor],
    settings: dict[str, Any],
    release: Release,
    trained: list[int],
    batch: Batch,
    encodings: Tensor | None,
    *,
    steps: int,
) -> Image.Image:
    """Lay out originals and, below, what each trained unet paints: the first from their embeddings, others from true smaller pictures."""
    assert batch.pictures is not None
    config = DecoderConfig.model_validate(without_none(settings["decoder"]))
    count, device = len(batch.pictures), batch.pictures.device
    seeds = list(range(count))
    rows = [batch.pictures * 2 - 1]
    embeds = batch.embeds if batch.embeds is not None else torch.zeros(count, 1, device=device)
    text = None if encodings is None else TextCondition(embeds, encodings)
    for index in trained:
        stage = stage_of(weights, config, release, index)
        draw = noise_from_seeds(seeds, (3, stage.side, stage.side), device, stream=index + 1)
        lowres = {} if index == 0 else stage.enlarge(F.adaptive_avg_pool2d(rows[0], stage.from_side), draw)
        path, rule = stage.plan(min(steps, len(stage.curve)))
        walk = Walk(stage.brief(embeds, text, 1.0, lowres, path), draw(), path, rule, draw, predicts=stage.predicts, settle=stage.settle)
        rows.append(walk_alone(walk, stage.ask))
    images = [image for row in rows for image in to_images(row)]
    return contact_sheet(images, columns=count, tile_px=batch.pictures.shape[-1])


def contact_sheet(images: Sequence[Image.Image], columns: int, tile_px: int) -> Image.Image:
    """Lay pictures out in rows of equal tiles, with gaps between them."""
    pitch = tile_px + GAP_PX
    sheet = Image.new("RGB", (columns * pitch - GAP_PX, -(-len(images) // columns) * pitch - GAP_PX), "white")
    for index, image in enumerate(images):
        sheet.paste(image.resize((tile_px, tile_px), Image.Resampling.BICUBIC), (index % columns * pitch, index // columns * pitch))
    return sheet
