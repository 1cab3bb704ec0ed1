"""What each operation comes to: requests of people, checked, as samples for the painter to paint.

Dimensions: N several, D embedding width.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine import uploads
from engine.errors import InvalidRequest
from engine.jobs import CANDIDATES_LIMIT, FRAMES_LIMIT, LEAST_FRAMES, SEED_LIMIT, check_prompt, check_range
from engine.options import Options, Solver, check_ingredients
from engine.pictures import hash_of
from engine.unclip import sphere
from engine.unclip.commissions import (
    Canvas,
    Commission,
    Mixture,
    Sample,
    Trace,
    checked,
    samples_of,
    several_pictures,
    to_mask,
    to_samples,
)
from engine.unclip.sampling import noise_from_seeds
from engine.uploads import Frame, Framing

if TYPE_CHECKING:
    from engine.unclip.painter import Painter

NEIGHBOURS = 16
"""Everyday texts that are a picture's neighbourhood where no other is named."""
LEAST_NEIGHBOURS = 3
"""Fewer do not differ in two directions."""
DRIFT_STREAM = 300
"""Of noise, beyond those of prior and unets."""
RIGHT_ANGLE = math.pi / 2
LED, TURNED = 2.0, 0.6
"""An edit of half a strength goes as far as the prior says that its texts are from each other, and a background hardly ever changes yet. Without a
prior, one of full strength turns the meaning by 0.6 of the angle to the difference of the texts."""
EDIT_DRAWS = 6
"""Of each text: what one draw shows that no text says, such as a background, becomes little in the mean."""
EDIT_GUIDANCE = 0.8
"""Times its strength an edit is guided as usual: with none, nobody would see what it is to show now."""
SAME_TEXT = 1e-3
"""Between the embeddings of two texts that say the same."""


def dream(painter: "Painter", prompts: Sequence[str], how: Options) -> Commission:
    """Paint what prompts describe; see `Painter.dream`."""
    painter.needs("dream", clip=True, prior=True, decoder=True)
    wanted = [sample for prompt in checked(prompts) for sample in samples_of(prompt, how)]
    return in_drafts(painter, Commission(wanted, how, facts={"operation": "dream"}))


def in_drafts(painter: "Painter", commission: Commission) -> Commission:
    """Have CLIP choose among as many drafts as are usual or asked for."""
    drafts = painter.drafts(commission.how)
    return replace(commission, drafts=drafts, facts=commission.facts | {"drafts": drafts}) if drafts > 1 else commission


def variation(
    painter: "Painter",
    images: Sequence[bytes],
    prompt: str,
    framing: Framing,
    how: Options,
    strength: float | None = None,
    drift: float = 0.0,
) -> Commission:
    """Paint other pictures with the meaning of given ones; see `Painter.variation`."""
    painter.needs("variation", clip=True, decoder=True)
    check_range("drift", drift, 0, 1)
    far = 1.0 if strength is None else strength
    check_range("strength", far, 0, 1)
    is_traced = far < 1
    if is_traced:
        how = traceable(painter, how, far)
    if prompt:
        check_prompt(prompt)
    facts: dict[str, Any] = {"operation": "variation", "framing": framing}
    if is_traced:
        facts["strength"] = strength
    if drift:
        facts["drift"] = drift
    wanted = []
    for file, image in zip(images, several_pictures(images), strict=True):
        embed = painter.look([image], framing)[0]
        trace = Trace(square(painter, image, framing), embed, prompt, far) if is_traced else None
        for sample in samples_of(prompt, how):
            meant = drifted(embed, sample.seed, drift) if drift else embed
            wanted.append(replace(sample, embed=meant, trace=trace, facts={"sources": [hash_of(file)]}))
    commission = Commission(wanted, how, facts=facts)
    return commission if is_traced else in_drafts(painter, commission)


def drifted(embed: Tensor, seed: int, share: float) -> Tensor:
    """Turn an embedding, (D,), by a share of a right angle into a direction that a seed draws."""
    drawn = noise_from_seeds([seed], tuple(embed.shape), embed.device, DRIFT_STREAM)()[0].double()
    across = F.normalize(drawn - (drawn @ embed.double()) * embed.double(), dim=0)
    return sphere.exp(embed, share * RIGHT_ANGLE * across).to(embed.dtype)


def inpaint(painter: "Painter", image: bytes, mask: bytes | None, prompt: str, framing: Framing, how: Options) -> Commission:
    """Repaint a part of a picture; see `Painter.inpaint`."""
    painter.needs("inpaint", clip=True, prior=True, decoder=True)
    check_prompt(prompt)
    original = uploads.open_picture(image)
    repaint = uploads.read_mask(mask, original)
    frame = Frame(original.size, painter.side, framing)
    framed_mask = frame.apply_mask(repaint)
    canvas = Canvas(to_samples([frame.apply(original)]), to_mask(framed_mask).logical_not())
    sources = [hash_of(file) for file in (image, mask) if file is not None]
    facts = {"operation": "inpaint", "framing": framing, "resamples": how.resamples, "sources": sources}
    return Commission(samples_of(prompt, how), how, canvas=canvas, finish=partial(undone, frame, original, repaint), facts=facts)


def undone(frame: Frame, original: Image.Image, mask: Image.Image, painted: Image.Image) -> Image.Image:
    """Put what was painted back into the picture."""
    return frame.undo(original, painted, mask)


def upscale(painter: "Painter", images: Sequence[bytes], prompt: str, framing: Framing, how: Options) -> Commission:
    """Enlarge pictures; see `Painter.upscale`."""
    painter.needs("upscale", decoder=True)
    if len(painter.parts.stages) < 2:
        raise InvalidRequest("model", "have an unet that enlarges pictures; this one has none")
    if prompt:
        check_prompt(prompt)
    base = painter.parts.stages[0].side
    wanted = []
    for file, image in zip(images, several_pictures(images), strict=True):
        smaller = to_samples([Frame(image.size, base, framing).apply(image)])[0]
        # No upsampler is told the embedding of what it enlarges.
        wanted += [replace(sample, smaller=smaller, embed=torch.zeros(0), facts={"sources": [hash_of(file)]}) for sample in samples_of(prompt, how)]
    return Commission(wanted, how, first=2, facts={"operation": "upscale", "framing": framing})


def blend(painter: "Painter", ingredients: Sequence[bytes | str], weights: Sequence[float] | None, framing: Framing, how: Options) -> Commission:
    """Paint what lies between pictures and prompts; see `Painter.blend`."""
    weights = check_ingredients(ingredients, weights)
    parts, facts = taken_in(painter, "blend", ingredients, framing)
    wanted = [replace(sample, embed=Mixture(parts, partial(sphere.mean, weights=weights))) for sample in samples_of("", how)]
    return Commission(wanted, how, facts=facts | {"weights": weights})


def morph(painter: "Painter", start: bytes | str, end: bytes | str, frames: int, framing: Framing, how: Options) -> Commission:
    """Paint the way from one picture or prompt to another; see `Painter.morph`."""
    check_range("frames", frames, LEAST_FRAMES, FRAMES_LIMIT)
    parts, facts = taken_in(painter, "morph", (start, end), framing)
    [sample] = samples_of("", replace(how, count=1, repeats=1))
    wanted = [
        replace(sample, embed=Mixture(parts, partial(between, share=frame / (frames - 1))), facts={"frame": frame + 1, "frames": frames})
        for frame in range(frames)
    ]
    return Commission(wanted, how, facts=facts)


def between(ends: Tensor, share: float) -> Tensor:
    """Return the embedding at a share of the way between two, (2, D)."""
    return sphere.slerp(ends[0], ends[1], share)


def taken_in(
    painter: "Painter", operation: str, ingredients: Sequence[bytes | str], framing: Framing
) -> tuple[tuple[Tensor | str, ...], dict[str, Any]]:
    """Look at pictures and check prompts: what an embedding is to be made of, and what a receipt says of it."""
    texts = [one for one in ingredients if isinstance(one, str)]
    files = [one for one in ingredients if not isinstance(one, str)]
    painter.needs(operation, clip=True, prior=bool(texts), decoder=True)
    for text in texts:
        check_prompt(text)
    images = [uploads.open_picture(file) for file in files]
    embeds = iter(painter.look(images, framing)) if images else iter(())
    facts: dict[str, Any] = {"operation": operation, "framing": framing}
    for number, one in enumerate(ingredients, start=1):
        facts |= {f"text_{number}": one} if isinstance(one, str) else {f"picture_{number}": hash_of(one)}
    return tuple(one if isinstance(one, str) else next(embeds) for one in ingredients), facts


def edit(painter: "Painter", image: bytes, before: str, after: str, strength: float, framing: Framing, how: Options) -> Commission:
    """Change what a text says of a picture; see `Painter.edit`.

    Source: Ramesh et al. 2022, arXiv:2204.06125, section 3.3, which turns the picture's embedding towards the difference of the texts'. Pictures of
    two texts differ in another direction than the texts do: a prior, given the same noise for both, tells how.
    """
    painter.needs("edit", clip=True, decoder=True)
    check_range("strength", strength, 0, 1)
    check_prompt(before)
    check_prompt(after)
    how = traceable(painter, how, EDIT_GUIDANCE * strength)
    original = uploads.open_picture(image)
    of_before, of_after = painter.read([before, after]).embed.float()
    if (of_after - of_before).norm() < SAME_TEXT:
        raise InvalidRequest("after", "say something else than before")
    embed = painter.look([original], framing)[0]
    meant: Tensor | Mixture
    if painter.parts.prior is None:
        meant = sphere.slerp(embed.float(), F.normalize(of_after - of_before, dim=0), TURNED * strength)
    else:
        meant = Mixture((embed, before, after), partial(led, strength=strength), EDIT_DRAWS)
        # CLIP might choose draws of both texts that come from other noise.
        how = replace(how, candidates=how.candidates or 1)
    frame = Frame(original.size, painter.side, framing)
    trace = Trace(square(painter, original, framing), embed, before)
    everything = Image.new("L", original.size, 255)
    facts = {"operation": "edit", "before": before, "strength": strength, "framing": framing, "sources": [hash_of(image)]}
    wanted = [replace(sample, embed=meant, trace=trace) for sample in samples_of(after, how)]
    return Commission(wanted, how, finish=partial(undone, frame, original, everything), facts=facts)


def led(parts: Tensor, strength: float) -> Tensor:
    """Lead a picture's embedding from one text's draw in the direction of another's, (3, D) to (D,)."""
    picture, before, after = parts
    return F.normalize(picture + LED * strength * (after - before), dim=0)


def square(painter: "Painter", image: Image.Image, framing: Framing) -> Tensor:
    """Return a picture as the model paints, (C, S, S) float in [-1, 1]."""
    return to_samples([Frame(image.size, painter.side, framing).apply(image)])[0]


def traceable(painter: "Painter", how: Options, share: float) -> Options:
    """Return options with which a picture can be traced: without noise on the way, and guided by a share of what is usual where nothing is asked for.

    Guidance leads away from the picture: where it is to come out as it was, there is none.

    Raises:
        InvalidRequest: another solver is asked for.
    """
    if how.solver not in (None, Solver.DDIM):
        raise InvalidRequest("solver", "be {solver} where a picture is to stay as it is in parts", solver=Solver.DDIM)
    usual = [1 + (own.guidance - 1) * share for own in painter.parts.settings]
    return replace(how, solver=Solver.DDIM, guidance=usual if how.guidance is None else how.guidance)


def explore(painter: "Painter", centre: bytes | np.ndarray, step: float, neighbours: np.ndarray | None, framing: Framing, how: Options) -> Commission:
    """Paint a wheel of pictures around one; see `Painter.explore`."""
    painter.needs("explore", clip=True, decoder=True)
    check_range("step", step, 0, 1)
    facts: dict[str, Any] = {"operation": "explore", "step": step}
    if isinstance(centre, np.ndarray):
        at = embeddings(painter, "centre", centre[None], 1)[0]
    else:
        at = painter.look([uploads.open_picture(centre)], framing)[0].float()
        facts |= {"framing": framing, "sources": [hash_of(centre)]}
    if neighbours is None:
        texts = painter.read_everyday()
        near = texts[(texts @ at).topk(min(NEIGHBOURS, len(texts))).indices]
    else:
        near = embeddings(painter, "neighbours", neighbours, LEAST_NEIGHBOURS)
        facts["neighbours"] = len(near)
    across, down = sphere.principal_directions(at, near, 2)
    [sample] = samples_of("", replace(how, count=1, repeats=1))
    wanted = []
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            way = F.normalize(column * across + row * down, dim=0)
            embed = sphere.exp(at, step * RIGHT_ANGLE * way).to(at.dtype)
            wanted.append(replace(sample, embed=embed, facts={"column": column, "row": row}))
    return Commission(wanted, how, facts=facts)


def embeddings(painter: "Painter", name: str, values: np.ndarray, least: int) -> Tensor:
    """Read embeddings that somebody hands in, (N, D) float32 of unit length.

    Raises:
        InvalidRequest: they are too few, of another width, or no numbers.
    """
    clip = painter.parts.clip
    assert clip is not None
    read = torch.from_numpy(np.array(values, np.float32)).to(painter.parts.lodging.device)
    if read.ndim != 2 or len(read) < least or read.shape[1] != clip.width or not torch.isfinite(read).all() or not (read.norm(dim=1) > 0).all():
        raise InvalidRequest(name, "hold at least {least} embeddings, each of {width} numbers", least=least, width=clip.width)
    return F.normalize(read, dim=1)


def draws(painter: "Painter", prompt: str, number: int, how: Options) -> list[Sample]:
    """Draw several embeddings of a prompt; see `Painter.draws`."""
    painter.needs("draws", clip=True, prior=True)
    check_prompt(prompt)
    check_range("number", number, 1, CANDIDATES_LIMIT)
    first = how.seed if how.prior_seed is None else how.prior_seed
    seeds = [(first + index) % SEED_LIMIT for index in range(number)]
    return [Sample(prompt, seed, seed) for seed in seeds]
