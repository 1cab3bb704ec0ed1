"""Training that starts from a checkpoint: of today's release or of an old one, whose networks compute otherwise.

What a checkpoint of an old release knows is lost in the library's networks of today, so it is trained in ours, which compute as that release did, and
is written as one of that release. Wherever today's networks can hold it, they do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import Misconfigured
from engine.unclip.checkpoints import differences
from engine.unclip.dialects import LATEST, Release
from engine.unclip.loading import load_decoder, load_prior
from engine.unclip.prior import PriorNetwork
from engine.unclip.unet import Unet

PRIORS_OF_TODAY, DECODERS_OF_TODAY = Release(1, 10, 0), Release(1, 12, 0)
"""From these on a network's answers are those of 1.15.6."""


def dropped(batch: int, probability: float, device: torch.device) -> Tensor:
    """Draw which samples go without a condition, (B,) bool."""
    return torch.rand(batch, device=device) < probability


def by_drops(drop_image: Tensor, drop_text: Tensor, answer: Callable[[Tensor, bool, bool], Tensor]) -> Tensor:
    """Ask a network, which drops conditions for all samples or none, once for each kind of sample; `answer` is given the rows of one kind."""
    rows, parts = [], []
    for image in (False, True):
        for text in (False, True):
            own = ((drop_image == image) & (drop_text == text)).nonzero()[:, 0]
            if len(own):
                rows.append(own)
                parts.append(answer(own, image, text))
    return torch.cat(parts)[torch.cat(rows).argsort()]


def picked(rows: Tensor, **values: Tensor | None) -> dict[str, Tensor | None]:
    """Return the rows of every tensor that is there."""
    return {name: None if value is None else value[rows] for name, value in values.items()}


class OldUnet(nn.Module):
    """An unet of an old release, called as the library's losses call theirs."""

    def __init__(self, net: Unet) -> None:
        super().__init__()
        self.net = net
        self.self_cond, self.cond_on_image_embeds, self.cond_on_text_encodings = net.self_cond, net.cond_on_image_embeds, net.cond_on_text_encodings

    def forward(
        self,
        x: Tensor,
        times: Tensor,
        *,
        image_embed: Tensor | None = None,
        text_encodings: Tensor | None = None,
        lowres_cond_img: Tensor | None = None,
        lowres_noise_level: Tensor | None = None,
        self_cond: Tensor | None = None,
        image_cond_drop_prob: float = 0.0,
        text_cond_drop_prob: float = 0.0,
    ) -> Tensor:
        """Answer; shapes are those of `Unet.predict`, each sample going without its conditions as probable as is said."""
        told = {"lowres_cond_img": lowres_cond_img, "lowres_noise_level": lowres_noise_level, "self_cond": self_cond}
        mask = None if text_encodings is None else (text_encodings != 0).any(dim=-1)

        def answer(rows: Tensor, drop_image: bool, drop_text: bool) -> Tensor:
            given = picked(rows, image_embed=image_embed, text_encodings=text_encodings, text_mask=mask)
            condition = self.net.condition(**given, batch=len(rows), drop_image=drop_image, drop_text=drop_text)
            return self.net.predict(x[rows], times[rows], condition, **picked(rows, **told))

        return by_drops(dropped(len(x), image_cond_drop_prob, x.device), dropped(len(x), text_cond_drop_prob, x.device), answer)


class OldPrior(nn.Module):
    """A prior's network of an old release, called as the library's losses call theirs."""

    def __init__(self, net: PriorNetwork) -> None:
        super().__init__()
        self.net = net
        self.self_cond = net.self_cond

    def forward(
        self,
        image_embed: Tensor,
        times: Tensor,
        *,
        text_embed: Tensor,
        text_encodings: Tensor | None = None,
        self_cond: Tensor | None = None,
        text_cond_drop_prob: float = 0.0,
        image_cond_drop_prob: float = 0.0,
    ) -> Tensor:
        """Answer; shapes are those of `PriorNetwork.predict`."""

        def answer(rows: Tensor, drop_image: bool, drop_text: bool) -> Tensor:
            encodings = None if text_encodings is None else text_encodings[rows]
            condition = self.net.condition(text_embed[rows], encodings, drop_text=drop_text, drop_image=drop_image)
            return self.net.predict(image_embed[rows], times[rows], condition, None if self_cond is None else self_cond[rows])

        device = times.device
        return by_drops(dropped(len(times), image_cond_drop_prob, device), dropped(len(times), text_cond_drop_prob, device), answer)


def fill_decoder(decoder: Any, path: Path, config: Path | None) -> Release:
    """Fill the library's cascade from a checkpoint, and return the release that the result is one of.

    Raises:
        Misconfigured: it cannot be read, or is of another cascade.
    """
    loaded = load_decoder(path, config, strict=False)
    if len(loaded.stages) != len(decoder.unets):
        raise Misconfigured(f"Weights {path} are those of {len(loaded.stages)} unets; the config describes {len(decoder.unets)}.")
    release = LATEST
    for index, stage in enumerate(loaded.stages):
        if stage.release >= DECODERS_OF_TODAY:
            fill(decoder.unets[index], stage.unet, path, f"unet {index + 1}")
        else:
            decoder.unets[index], release = OldUnet(stage.unet.train().requires_grad_(True)), stage.release
    return release


def fill_prior(prior: Any, path: Path, config: Path | None) -> Release:
    """Fill the library's prior from a checkpoint, and return the release that the result is one of.

    Raises:
        Misconfigured: it cannot be read, or is of another prior.
    """
    loaded = load_prior(path, config, strict=False)
    if loaded.net.dim != prior.image_embed_dim:
        raise Misconfigured(f"Weights {path} are those of a prior {loaded.net.dim} wide; the config's is {prior.image_embed_dim}.")
    if loaded.release >= PRIORS_OF_TODAY:
        fill(prior.net, loaded.net, path, "prior")
        return LATEST
    prior.net = OldPrior(loaded.net.train().requires_grad_(True))
    return loaded.release


def fill(net: nn.Module, loaded: nn.Module, path: Path, name: str) -> None:
    """Fill a network of the library's from one of ours.

    Raises:
        Misconfigured: the config describes another one.
    """
    weights, wanted = loaded.state_dict(), {key: tuple(value.shape) for key, value in net.state_dict().items()}
    if findings := differences(wanted, weights, strict=True):
        raise Misconfigured(f"Weights {path} do not fit the config's {name}: {findings}.")
    net.load_state_dict(weights)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return what is to be written of a prior or cascade, under the names that its release has for it."""
    inner = [f"{name}." for name, part in module.named_modules() if isinstance(part, OldUnet | OldPrior)]
    weights = {}
    for key, value in module.state_dict().items():
        prefix = next((prefix for prefix in inner if key.startswith(prefix)), None)
        weights[key if prefix is None else prefix + key.removeprefix(f"{prefix}net.")] = value
    return weights
