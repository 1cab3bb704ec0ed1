import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.jobs import Preset
from engine.options import DRAFTS_LIMIT, EFFORTS, LEAST_STEPS, Options


@given(usual=st.integers(1, 10_000), most=st.integers(1, 1000))
def test_presets_take_fewer_steps_as_many_or_more(usual: int, most: int) -> None:
    fast, balanced, best = (EFFORTS[preset].steps(usual, most) for preset in Preset)
    assert 1 <= fast <= balanced == usual <= best <= max(usual, most)
    assert fast >= min(usual, LEAST_STEPS)


def test_the_best_preset_chooses_between_draws_of_the_prior_unless_told_otherwise() -> None:
    assert Options().draws(1) == Options(preset=Preset.FAST).draws(8) == 1
    assert Options().draws(8) == Options(preset=Preset.BEST).draws(8) == 8
    assert Options(preset=Preset.BEST).draws(1) == EFFORTS[Preset.BEST].candidates > 1
    assert Options(preset=Preset.BEST, candidates=2).draws(8) == 2
    with pytest.raises(InvalidRequest, match="candidates must be 1 to 32"):
        Options(preset=Preset.BEST, candidates=0)


def test_drafts_are_the_models_unless_told_otherwise_or_in_haste() -> None:
    assert Options().drafted(4) == Options(preset=Preset.BEST).drafted(4) == Options(preset=Preset.FAST, drafts=4).drafted(2) == 4
    assert Options(preset=Preset.FAST).drafted(4) == Options(drafts=1).drafted(4) == 1
    for wrong in (0, DRAFTS_LIMIT + 1):
        with pytest.raises(InvalidRequest, match=f"drafts must be 1 to {DRAFTS_LIMIT}"):
            Options(drafts=wrong)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.5,), "guidance_interval must be two numbers"),
        ((0.6, 0.5), "guidance_interval must be 0.6 to 1, not 0.5"),
        ((-0.1, 1), "guidance_interval must be 0 to 1, not -0.1"),
        ((0, float("nan")), "guidance_interval must be 0 to 1, not nan"),
    ],
)
def test_an_interval_of_guidance_has_two_ends_in_order(interval: tuple[float, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Options(guidance_interval=interval)
