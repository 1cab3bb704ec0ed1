"""The sphere against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.unclip import sphere

D = 6
EXACT = 1e-9


def unit(numbers: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(numbers, dtype=torch.float64), dim=0)


units = st.lists(st.floats(-1, 1), min_size=D, max_size=D).filter(lambda numbers: math.hypot(*numbers) > 0.1).map(unit)
near = st.tuples(units, st.lists(units, min_size=2, max_size=5)).map(
    # Within a right angle of one point, where the mean is unique.
    lambda found: torch.stack([sphere.slerp(found[0], other, 0.45) for other in found[1]])
)
weights = st.lists(st.floats(0.01, 10), min_size=5, max_size=5)
axes = torch.eye(D, dtype=torch.float64)


@given(units, units, st.floats(0, 1))
def test_ways_have_constant_speed_and_end_where_they_should(one: Tensor, other: Tensor, share: float) -> None:
    whole = float(sphere.angle(one, other))
    at = sphere.slerp(one, other, share)
    assert at.norm().item() == pytest.approx(1, abs=EXACT)
    assert float(sphere.angle(one, at)) == pytest.approx(share * whole, abs=1e-7)
    assert float(sphere.angle(at, other)) == pytest.approx((1 - share) * whole, abs=1e-7)
    assert (sphere.slerp(one, other, 1.0) - other).abs().max() < 1e-7


@given(units, units, st.floats(0.05, 0.95))
def test_a_way_is_that_of_the_sines(one: Tensor, other: Tensor, share: float) -> None:
    whole = math.acos(max(-1.0, min(1.0, float(one @ other))))
    if not 0.01 < whole < 3.1:
        return
    expected = (math.sin((1 - share) * whole) * one + math.sin(share * whole) * other) / math.sin(whole)
    assert (sphere.slerp(one, other, torch.tensor([share])) - expected).abs().max() < 1e-7


@given(units)
def test_opposite_and_equal_points_have_a_way_too(one: Tensor) -> None:
    middle = sphere.slerp(one, -one, 0.5)
    assert abs(float(middle @ one)) < EXACT and middle.norm().item() == pytest.approx(1)
    assert (sphere.slerp(one, -one, 1.0) + one).abs().max() < 1e-7
    assert (sphere.slerp(one, one, 0.3) - one).abs().max() < EXACT
    assert torch.isfinite(sphere.mean(torch.stack([one, -one]), [1, 1])).all()
    assert torch.equal(sphere.slerp(one, -one, 0.5), middle)


@given(units, units)
def test_tangents_are_as_long_as_the_way_and_lead_there(at: Tensor, to: Tensor) -> None:
    tangent = sphere.log(at, to[None])
    assert float(tangent[0] @ at) == pytest.approx(0, abs=1e-8)
    assert float(tangent.norm()) == pytest.approx(float(sphere.angle(at, to)), abs=1e-8)
    assert (sphere.exp(at, tangent)[0] - to).abs().max() < 1e-7


@given(units, units, st.floats(0.01, 10), st.floats(0.01, 10))
def test_the_mean_of_two_lies_between_them_by_weight(one: Tensor, other: Tensor, first: float, second: float) -> None:
    if float(sphere.angle(one, other)) > 3.0:
        return
    expected = sphere.slerp(one, other, second / (first + second))
    assert float(sphere.angle(sphere.mean(torch.stack([one, other]), [first, second]), expected)) < 1e-6


@given(near, weights)
@settings(deadline=None)
def test_at_the_mean_the_ways_to_all_points_cancel_out(points: Tensor, own: list[float]) -> None:
    found = sphere.mean(points, own[: len(points)])
    pull = torch.tensor(own[: len(points)], dtype=torch.float64) @ sphere.log(found, points)
    assert pull.norm() < 1e-6


@given(near, weights, st.integers(0, 99))
@settings(deadline=None)
def test_the_mean_turns_with_its_points_and_heeds_neither_order_nor_scale(points: Tensor, own: list[float], seed: int) -> None:
    own = own[: len(points)]
    turn, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    found = sphere.mean(points, own)
    for other in (sphere.mean(points @ turn, own) @ turn.T, sphere.mean(points.flip(0), own[::-1]), sphere.mean(points, [7 * one for one in own])):
        assert float(sphere.angle(found, other)) < 1e-6


def test_the_mean_of_a_ring_is_its_axis() -> None:
    turns = [2 * math.pi * part / 5 for part in range(5)]
    ring = torch.stack([0.8 * axes[0] + 0.6 * (math.cos(turn) * axes[1] + math.sin(turn) * axes[2]) for turn in turns])
    assert (sphere.mean(ring, [1] * 5) - axes[0]).abs().max() < 1e-7


@given(st.floats(0.05, 0.4), st.integers(0, 99))
@settings(deadline=None)
def test_directions_are_those_in_which_points_were_spread(spread: float, seed: int) -> None:
    turn, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    at, first, second = turn[:3]
    ways = [(3, 0), (-3, 0), (0, 1), (0, -1)]
    points = torch.stack([sphere.exp(at, spread * (a * first + b * second)) for a, b in ways])
    found = sphere.principal_directions(at, points, 3)
    assert abs(float(found[0] @ first)) == pytest.approx(1, abs=1e-6) and abs(float(found[1] @ second)) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(found @ found.T, torch.eye(3, dtype=torch.float64), atol=1e-8) and (found @ at).abs().max() < 1e-8
    assert (found.gather(1, found.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_points_that_lie_elsewhere_together_do_not_make_a_direction_of_where_they_lie() -> None:
    points = torch.stack([sphere.exp(axes[0], 0.9 * axes[1] + part * axes[2]) for part in (-0.2, 0.0, 0.2)])
    assert abs(float(sphere.principal_directions(axes[0], points, 1)[0] @ axes[2])) > 0.99


@pytest.mark.parametrize("points", [axes[:1].expand(3, -1), axes[1:2].expand(4, -1), -axes[:1].expand(3, -1)])
def test_points_that_do_not_differ_have_directions_all_the_same(points: Tensor) -> None:
    found = sphere.principal_directions(axes[0], points, 2)
    assert torch.allclose(found @ torch.vstack([axes[:1], found]).T, torch.tensor([[0, 1, 0], [0, 0, 1.0]], dtype=torch.float64), atol=1e-8)


def test_single_precision_comes_back_as_it_went_in() -> None:
    one, other = (axis.float() for axis in axes[:2])
    assert sphere.slerp(one, other, 0.5).dtype == sphere.mean(torch.stack([one, other]), [1, 2]).dtype == torch.float32
