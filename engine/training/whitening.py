"""Embeddings in other coordinates, in which they vary as much in every direction, so that a network learns from all of them as fast.

Embeddings of CLIP vary much in a few directions, such as backgrounds, and ten times less in others that matter as much, such as which of two animals
of one colour stands in front. A layer that reads them learns along a direction as fast as they vary in it. What is learnt in the other coordinates is
folded into the layer before it is written: whoever loads it tells it embeddings as they are.

Source: LeCun et al. 1998, "Efficient BackProp", section 4.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

READERS = ("image_to_tokens.0.weight", "to_image_hiddens.0.weight")
"""Weights of the layers of an unet that read embeddings, (…, D)."""
FLOOR = 0.0004
"""Of what a direction varies on average: directions that vary less are not made as loud as the others. Which of two objects is there is said in
directions that vary by a thousandth of the average; with 0.04, a decoder hardly hears them (`tests.benchmarks.probe --pairs --floor 0.04`)."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """A change of coordinates and the way back, (D, D) each, for rows from the right."""

    forth: Tensor
    back: Tensor

    @classmethod
    def of(cls, embeds: Tensor, floor: float = FLOOR) -> "Whitening":
        """Find the coordinates for embeddings like these, (N, D); they come out as long as they were on average."""
        embeds = embeds.double()
        spread, directions = torch.linalg.eigh(embeds.T @ embeds / len(embeds))
        gain = (spread + floor * spread.mean()).rsqrt()
        gain *= (spread.sum() / (spread * gain**2).sum()).sqrt()
        return cls(((directions * gain) @ directions.T).float(), ((directions / gain) @ directions.T).float())

    def __call__(self, embeds: Tensor) -> Tensor:
        """Change the coordinates of embeddings, (B, D)."""
        return embeds @ self.forth.to(embeds)

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights that were trained in these coordinates for embeddings as they are."""
        return {key: value @ self.forth.to(value) if key.endswith(READERS) else value for key, value in weights.items()}

    def unfold(self, module: nn.Module) -> None:
        """Turn weights that are for embeddings as they are into weights for these coordinates."""
        for key, weight in module.named_parameters():
            if key.endswith(READERS):
                with torch.no_grad():
                    weight.copy_(weight @ self.back.to(weight))
