"""The walk against closed forms: for Gaussian data of spread s the best prediction is known, and so is where every start must end."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.unclip import sampling
from engine.unclip.sampling import Prediction, Predicts, Walk
from engine.unclip.schedule import BETAS, LEAST_NOISE, Step, alpha_bars, even_log_snr, every_time, spaced_times, spaced_times_of_prior, way_back

SPREAD = 0.5
CURVE = alpha_bars("cosine", 1000)
CPU = torch.device("cpu")


def exact(predicts: Predicts) -> sampling.Network[None]:
    """Return the best possible denoiser of Gaussian data."""

    def denoise(walk: Walk[None]) -> Prediction:
        alpha_bar = float(CURVE[walk.step.time])
        variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
        clean = math.sqrt(alpha_bar) * SPREAD**2 / variance * walk.x
        eps = math.sqrt(1 - alpha_bar) / variance * walk.x
        v = math.sqrt(alpha_bar) * eps - math.sqrt(1 - alpha_bar) * clean
        return Prediction({Predicts.X_0: clean, Predicts.EPS: eps, Predicts.V: v}[predicts])

    return lambda walks: [denoise(walk) for walk in walks]


def end_of(start: Tensor, plan: list[Step], rule: sampling.Rule, draw: sampling.Draw, predicts: Predicts, **rest: Any) -> Tensor:
    return sampling.walk_alone(Walk(None, start, plan, rule, draw, predicts=predicts, **rest), exact(predicts))


def no_noise() -> Tensor:
    pytest.fail("a deterministic walk drew noise")


@pytest.mark.parametrize("predicts", Predicts)
@pytest.mark.parametrize(("steps", "error"), [(20, 0.12), (80, 0.035), (320, 0.01)])
def test_ddim_approaches_the_exact_answer(steps: int, error: float, predicts: Predicts) -> None:
    plan = spaced_times(CURVE, steps)
    start = sampling.noise_from_seeds([1, 2], (3, 8, 8), CPU)().double()
    end = plan[-1].target
    expected = start * math.sqrt(end * SPREAD**2 + 1 - end) / math.sqrt(plan[0].source * SPREAD**2 + 1 - plan[0].source)
    got = end_of(start, plan, sampling.ddim(0.0), no_noise, predicts)
    assert ((got - expected).abs().max() / expected.abs().max()).item() < error


def exact_end(start: Tensor, plan: list[Step]) -> Tensor:
    """Where the probability flow of Gaussian data takes a start: its spread follows that of the noised data."""
    first, last = (math.sqrt(level * SPREAD**2 + 1 - level) for level in (plan[0].source, plan[-1].target))
    return start * last / first


def largest_error(steps: int, predicts: Predicts, rule: sampling.Rule) -> float:
    plan = even_log_snr(CURVE, steps)
    start = sampling.noise_from_seeds([1, 2], (3, 8, 8), CPU)().double()
    got = end_of(start, plan, rule, no_noise, predicts)
    return ((got - exact_end(start, plan)).abs().max() / start.abs().max()).item()


@pytest.mark.parametrize("predicts", Predicts)
def test_dpm_solver_is_of_second_order(predicts: Predicts) -> None:
    """Twice the steps, a quarter of the error; DDIM, on the same times, halves it."""
    errors = [largest_error(steps, predicts, sampling.dpm(0.0)) for steps in (20, 40, 80)]
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3 and errors[0] < 0.01
    ddim = [largest_error(steps, predicts, sampling.ddim(0.0)) for steps in (20, 40)]
    assert 1.7 < ddim[0] / ddim[1] < 2.4 and ddim[0] > 3 * errors[0]


level = st.floats(1e-4, 1 - 1e-4)


@given(levels=st.tuples(level, level, level), predicted=st.floats(-1, 1), noise=st.floats(-3, 3), eta=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("solver", [sampling.ddim, sampling.dpm])
def test_where_x_0_is_certain_every_step_is_exact(
    solver: Callable[[float], sampling.Rule], levels: tuple[float, float, float], predicted: float, noise: float, eta: float
) -> None:
    """Signal and noise come to what the target asks for, whatever the share of fresh noise and of the x_0 before."""
    first, source, target = sorted(levels)
    assume(source - first > 1e-3 and target - source > 1e-3)
    before, step = (Step(0, start, start, end, noisy=True) for start, end in ((first, source), (source, target)))
    update = solver(eta)(step, before)
    x = math.sqrt(source) * predicted + math.sqrt(1 - source) * noise
    kept = update.of_x * x + (update.of_x_0 + update.of_earlier) * predicted - math.sqrt(target) * predicted
    assert kept == pytest.approx(update.of_x * math.sqrt(1 - source) * noise, abs=1e-9)
    assert update.of_x**2 * (1 - source) + update.of_noise**2 == pytest.approx(1 - target, abs=1e-9)
    assert update.draws == (update.of_noise > 0)


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (every_time(CURVE), sampling.ddpm),
        (spaced_times(CURVE, 250), sampling.ddim(1.0)),
        (even_log_snr(CURVE, 60), sampling.dpm(1.0)),
        (even_log_snr(CURVE, 60), sampling.dpm(0.0)),
    ],
)
def test_noisy_walks_end_with_the_spread_of_the_data(plan: list, rule: sampling.Rule) -> None:
    draw = sampling.noise_from_seeds(range(4), (4096,), CPU)
    got = end_of(draw(), plan, rule, draw, Predicts.X_0)
    assert got.std().item() == pytest.approx(SPREAD, rel=0.04)
    assert got.mean().item() == pytest.approx(0, abs=0.02)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), st.integers(0, 8), st.integers(0, 3))
@settings(max_examples=30)
def test_a_seed_draws_the_same_noise_whatever_shares_its_batch(seeds: list[int], index: int, stream: int) -> None:
    index %= len(seeds)
    together, alone = (sampling.noise_from_seeds(batch, (3, 4), CPU, stream) for batch in (seeds, [seeds[index]]))
    for _ in range(3):
        assert torch.equal(together()[index], alone()[0])


def test_the_stages_of_one_seed_draw_different_noise() -> None:
    draws = [sampling.noise_from_seeds([5], (16,), CPU, stream)() for stream in range(3)]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


@given(times=st.integers(25, 1000), count=st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_ways_back_end_where_plans_begin_and_leave_no_gaps(times: int, count: int) -> None:
    curve = alpha_bars("cosine", times)
    for plan in (every_time(curve), spaced_times(curve, min(count, times - 1)), even_log_snr(curve, count)):
        back = way_back(plan)
        assert all(one.target == other.source for one, other in zip(back, back[1:], strict=False))
        assert all(step.source == step.alpha_bar == float(curve[step.time]) > step.target for step in back)
        if back:
            assert back[-1].target == plan[0].source and math.sqrt(1 - back[0].source) >= LEAST_NOISE
            skipped = [step.source for step in plan[1:] if step.source > back[0].source]
            assert all(math.sqrt(1 - level) < LEAST_NOISE for level in skipped)


@pytest.mark.parametrize("predicts", Predicts)
@pytest.mark.parametrize(("steps", "error"), [(20, 0.07), (80, 0.02), (320, 0.006)])
def test_the_way_back_approaches_the_noise_that_a_picture_comes_from(steps: int, error: float, predicts: Predicts) -> None:
    """Of Gaussian data: noise of unit spread, and each number in it belongs to one of the picture."""
    back = way_back(spaced_times(CURVE, steps))
    first, last = back[0].source, back[-1].target
    start = sampling.noise_from_seeds([1, 2], (3, 8, 8), CPU)().double() * math.sqrt(first * SPREAD**2 + 1 - first)
    got = end_of(start, back, sampling.ddim(0.0), no_noise, predicts)
    expected = exact_end(start, back)
    assert ((got - expected).abs().max() / expected.abs().max()).item() < error
    assert got.std().item() == pytest.approx(math.sqrt(last * SPREAD**2 + 1 - last), rel=0.1)


@pytest.mark.parametrize("predicts", Predicts)
@pytest.mark.parametrize(("steps", "error"), [(20, 0.13), (80, 0.04), (320, 0.011)])
def test_there_and_back_again_is_where_one_was(steps: int, error: float, predicts: Predicts) -> None:
    plan = spaced_times(CURVE, steps)
    back = way_back(plan)
    start = sampling.noise_from_seeds([1, 2], (3, 8, 8), CPU)().double() * SPREAD
    noise = end_of(start, back, sampling.ddim(0.0), no_noise, predicts)
    again = end_of(noise, [step for step in plan if step.source < back[0].source], sampling.ddim(0.0), no_noise, predicts)
    assert ((again - start).abs().max() / start.abs().max()).item() < error


@pytest.mark.parametrize("name", BETAS)
@given(times=st.integers(25, 1000))
@settings(max_examples=20, deadline=None)
def test_schedules_fall_from_nearly_clean_to_nearly_noise(name: str, times: int) -> None:
    curve = alpha_bars(name, times)
    assert curve.dtype == torch.float64
    assert (curve.diff() <= 0).all()
    assert 0.9 < curve[0] < 1
    assert 0 <= curve[-1] < 0.01


@given(times=st.integers(25, 1000), count=st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_plans_go_down_without_gaps(times: int, count: int) -> None:
    curve = alpha_bars("cosine", times)
    count = min(count, times - 1)
    for plan, last in (
        (every_time(curve), 1.0),
        (spaced_times(curve, count), float(curve[0])),
        (spaced_times_of_prior(curve, count + 1), 1.0),
        (even_log_snr(curve, count), float(curve[0])),
    ):
        assert len(plan) <= max(count + 1, times if plan[-1].target == 1 else 0)
        assert plan[-1].target == last
        assert not plan[-1].noisy
        assert all(later.time < earlier.time and later.source == earlier.target for earlier, later in zip(plan, plan[1:], strict=False))


def test_raising_in_a_report_stops_the_walk_between_two_steps() -> None:
    calls = []

    def stop(done: int, x_0: Tensor) -> None:
        calls.append(done)
        if done == 3:
            raise KeyError

    draw = sampling.noise_from_seeds([1], (4,), CPU)
    with pytest.raises(KeyError):
        end_of(draw(), spaced_times(CURVE, 10), sampling.ddim(0.0), draw, Predicts.V, on_step=stop)
    assert calls == [1, 2, 3]
