"""Projections whose weights lie otherwise answer the same."""

import pytest
import torch

from engine.unclip.dialects import LATEST, Dialect
from engine.unclip.packing import Linear, pack
from engine.unclip.prior import PriorNetwork

WIDTH = 512


def network() -> PriorNetwork:
    torch.manual_seed(0)
    return PriorNetwork(WIDTH, dialect=Dialect(LATEST), depth=2, heads=4, num_timesteps=10, max_text_len=8).eval().requires_grad_(False)


@torch.inference_mode()
def answer(net: PriorNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noised, embed, encodings = (torch.randn(shape, generator=generator) for shape in ((3, WIDTH), (3, WIDTH), (3, 8, WIDTH)))
    return net.answer(noised, net.moments(torch.tensor([1, 5, 9])), net.condition(embed, encodings))


def test_a_packed_prior_answers_as_before_and_keeps_its_weights_once() -> None:
    net, packed = network(), network()
    pack(packed, 2**18)
    projections = [module for module in packed.modules() if isinstance(module, Linear)]
    sizes = [module.in_features * module.out_features for module in projections]
    assert min(sizes) < 2**18 <= max(sizes)
    for module, size in zip(projections, sizes, strict=True):
        assert (module.packed is None) == (size < 2**18) == hasattr(module, "weight")
    exact = answer(net)
    assert (answer(packed) - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("shape", [(1, 1), (6, 1), (2, 3), (40, 2)])
def test_any_number_of_rows_is_multiplied(shape: tuple[int, int]) -> None:
    linear = Linear(96, 160).requires_grad_(False)
    x = torch.randn(*shape, 96)
    exact = linear(x)
    linear.pack()
    assert linear.packed is not None and torch.allclose(linear(x), exact, atol=1e-5)
    # Rows that do not lie side by side too.
    assert torch.allclose(linear(x.transpose(0, 1)), exact.transpose(0, 1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_packed_where_torch_can(dtype: torch.dtype) -> None:
    linear, x = Linear(8, 8).to(dtype).requires_grad_(False), torch.randn(2, 1, 8).to(dtype)
    exact = linear(x)
    pack(linear)
    assert hasattr(linear, "weight") == (linear.packed is None) and torch.allclose(linear(x), exact, atol=0.02)
