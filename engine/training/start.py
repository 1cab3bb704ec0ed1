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


class OldNetwork(nn.Module):
    """A network of an old release, called as the library's losses call theirs: each sample goes without its conditions as probably as is said."""

    def __init__(self, net: Unet | PriorNetwork) -> None:
        super().__init__()
        self.net = net
        self.self_cond = net.self_cond

    def forward(
        self, x: Tensor, times: Tensor, *, image_cond_drop_prob: float = 0.0, text_cond_drop_prob: float = 0.0, **conditions: Tensor | None
    ) -> Tensor:
        """Answer; shapes and conditions are those of the network's own `forward`."""

        def answer(rows: Tensor, drop_image: bool, drop_text: bool) -> Tensor:
            own = {name: value[rows] for name, value in conditions.items() if value is not None}
            return self.net(x[rows], times[rows], image_cond_drop_prob=drop_image, text_cond_drop_prob=drop_text, **own)

        return by_drops(dropped(len(x), image_cond_drop_prob, x.device), dropped(len(x), text_cond_drop_prob, x.device), answer)


class OldUnet(OldNetwork):
    """An unet of an old release, which is told where its text ends: before 0.21.1 it does not read that off the encodings."""

    def __init__(self, net: Unet) -> None:
        super().__init__(net)
        self.cond_on_image_embeds, self.cond_on_text_encodings = net.cond_on_image_embeds, net.cond_on_text_encodings

    def forward(self, x: Tensor, times: Tensor, *, text_encodings: Tensor | None = None, **more: Any) -> Tensor:
        """Answer; shapes and conditions are those of `Unet.forward`."""
        mask = None if text_encodings is None else (text_encodings != 0).any(dim=-1)
        return super().forward(x, times, text_encodings=text_encodings, text_mask=mask, **more)


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
    prior.net = OldNetwork(loaded.net.train().requires_grad_(True))
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
    inner = [f"{name}." for name, part in module.named_modules() if isinstance(part, OldNetwork)]
    weights = {}
    for key, value in module.state_dict().items():
        prefix = next((prefix for prefix in inner if key.startswith(prefix)), None)
        weights[key if prefix is None else prefix + key.removeprefix(f"{prefix}net.")] = value
    return weights
