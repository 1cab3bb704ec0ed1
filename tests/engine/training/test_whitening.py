"""What is learnt in other coordinates is what is written for embeddings as they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.training.whitening import FLOOR, Whitening

WIDTH = 12


def embeddings(seed: int, falling: float, count: int = 4000) -> Tensor:
    """Unit vectors that vary less and less from one direction to the next."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    raw = torch.randn(count, WIDTH, generator=generator) * falling ** torch.arange(WIDTH)
    return nn.functional.normalize(raw @ turn, dim=-1)


@given(st.integers(0, 1000), st.floats(0.6, 1.0))
@settings(max_examples=20, deadline=None)
def test_embeddings_vary_alike_in_every_direction_and_stay_as_long(seed: int, falling: float) -> None:
    embeds = embeddings(seed, falling)
    white = Whitening.of(embeds)(embeds)
    before, after = (torch.linalg.eigvalsh(one.T @ one / len(one)) for one in (embeds, white))
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=1e-3)
    loud = before > 10 * FLOOR * before.mean()
    spread = after[-int(loud.sum()) :]
    assert (spread.max() / spread.min()).item() < 1.15
    assert after.max() / after.min() <= before.max() / before.min() * 1.01


def test_what_varies_by_a_thousandth_is_heard_unless_a_higher_floor_is_asked_for() -> None:
    embeds = torch.randn(4000, WIDTH, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0] * (WIDTH - 1) + [0.001**0.5])
    loudness = [
        white[:, -1].square().mean().item() / white[:, 0].square().mean().item()
        for white in (Whitening.of(embeds)(embeds), Whitening.of(embeds, 0.04)(embeds))
    ]
    assert loudness[0] > 0.6 and loudness[1] < 0.05


@given(st.integers(0, 1000), st.floats(0.3, 1.0))
@settings(max_examples=20, deadline=None)
def test_a_layer_says_the_same_folded_or_not(seed: int, falling: float) -> None:
    embeds = embeddings(seed, falling, count=200)
    whitening, unet = Whitening.of(embeds), nn.ModuleDict({"image_to_tokens": nn.Sequential(nn.Linear(WIDTH, 5)), "other": nn.Linear(WIDTH, 3)})
    layer = unet["image_to_tokens"]
    was = {key: value.clone() for key, value in unet.state_dict().items()}
    expected = layer(embeds)
    whitening.unfold(unet)
    assert torch.allclose(layer(whitening(embeds)), expected, atol=1e-4)
    folded = whitening.folded(unet.state_dict())
    assert folded.keys() == was.keys() and all(torch.allclose(folded[key], was[key], atol=1e-4) for key in was)
    assert torch.equal(folded["other.weight"], was["other.weight"])
