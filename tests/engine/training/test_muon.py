import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.training.loop import BETAS, Part, groups_of
from engine.training.muon import Muon, orthogonal


def step(optimizer: torch.optim.Optimizer, net: nn.Module, inputs: torch.Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    net(inputs).square().mean().backward()
    optimizer.step()


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(16, 80), columns=st.integers(16, 80), seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_matrix_is_made_nearly_orthogonal_whatever_its_shape_and_scale(rows: int, columns: int, seed: int, scale: float) -> None:
    """Against the singular value decomposition: same singular vectors, values near 1."""
    matrix = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    core = u.T @ orthogonal(matrix) @ v.T
    large = s > 0.05 * s[0]
    assert (core - core.diagonal().diag()).abs().max() < 1e-3
    assert core.diagonal()[large].min() > 0.6 and core.diagonal().max() < 1.3


def test_matrices_learn_as_with_torchs_muon() -> None:
    """Which orthogonalises in bfloat16: hence the tolerance."""
    torch.manual_seed(0)
    nets = [nn.Linear(24, 40, bias=False) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    start = nets[0].weight.detach().clone()
    ours = Muon(groups_of(Part(nets[0], 0.01, 0.1)), BETAS)
    theirs = torch.optim.Muon(nets[1].parameters(), weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(8):
        inputs = torch.randn(6, 24, generator=torch.Generator().manual_seed(seed))
        step(ours, nets[0], inputs, 0.01)
        step(theirs, nets[1], inputs, 0.01)
    moved = (nets[1].weight - start).norm()
    assert moved > 0.3 and (nets[0].weight - nets[1].weight).norm() < 0.06 * moved


def test_what_is_no_matrix_learns_as_with_adamw() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    groups = [groups_of(Part(net, 0.01, 0.1)) for net in nets]
    optimizers = Muon(groups[0], BETAS), torch.optim.AdamW(groups[1], betas=BETAS)
    for seed in range(12):
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        for optimizer, net in zip(optimizers, nets, strict=True):
            step(optimizer, net, inputs, 0.01)
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_kernel_learns_as_the_matrix_of_its_filters() -> None:
    torch.manual_seed(0)
    kernel, matrix = nn.Conv2d(16, 32, 3, bias=False), nn.Linear(16 * 9, 32, bias=False)
    matrix.weight.data = kernel.weight.data.flatten(1).clone()
    inputs = torch.randn(4, 16, 3, 3)
    optimizers = [Muon(groups_of(Part(net, 0.01, 0.1)), BETAS) for net in (kernel, matrix)]
    for _ in range(5):
        step(optimizers[0], kernel, inputs, 0.01)
        step(optimizers[1], matrix, inputs.flatten(1), 0.01)
    torch.testing.assert_close(kernel.weight.flatten(1), matrix.weight, rtol=0, atol=1e-5)


def test_parameters_are_sorted_once_even_where_modules_share_them() -> None:
    net = nn.Module()
    net.one, net.other = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
    net.other.weight = net.one.weight
    net.narrow, net.words, net.frozen = nn.Linear(16, 3), nn.Embedding(20, 16), nn.Linear(16, 16).requires_grad_(False)
    groups = groups_of(Part(net, 0.01, 0.1))
    assert sum(len(group["params"]) for group in groups) == 5
    [orthogonal_ones] = [group["params"] for group in groups if group["orthogonal"]]
    assert len(orthogonal_ones) == 1 and orthogonal_ones[0] is net.one.weight
    assert {value.ndim for group in groups if group["weight_decay"] == 0 for value in group["params"]} == {1}


@pytest.mark.parametrize("rows", [16, 64])
def test_a_gradient_of_nothing_moves_nothing(rows: int) -> None:
    net = nn.Linear(32, rows, bias=False)
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer = Muon(groups_of(Part(net, 0.01, 0.0)), BETAS)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    assert torch.equal(net.weight, before)
