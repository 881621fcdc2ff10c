from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.composition import Spend, composed_epsilon, composition_key

QUICK = Spend(sampling_rate=0.2, noise_multiplier=6.0, steps=40)
spends = st.lists(
    st.builds(
        Spend,
        sampling_rate=st.sampled_from([0.1, 0.2]),
        noise_multiplier=st.sampled_from([6.0, 9.0]),
        steps=st.integers(0, 60),
    ),
    max_size=4,
)


def independent(history: list[Spend], delta: float) -> float:
    """The same question put to dp_accounting's accountant, one run after the other."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for spend in history:
        if spend.steps:
            step = dp_accounting.PoissonSampledDpEvent(
                spend.sampling_rate, dp_accounting.GaussianDpEvent(spend.noise_multiplier)
            )
            accountant.compose(dp_accounting.SelfComposedDpEvent(step, spend.steps))
    return accountant.get_epsilon(delta)


@given(history=spends, delta=st.sampled_from([1e-4, 1e-6]))
@settings(max_examples=8, deadline=None)
def test_agrees_with_the_accountant_in_any_order(history, delta):
    expected = independent(history, delta)
    assert composed_epsilon(history, delta) == pytest.approx(expected, abs=1e-6)
    assert composed_epsilon(history[::-1], delta) == pytest.approx(expected, abs=1e-6)
    assert composition_key(history, delta) == composition_key(history[::-1], delta)


@given(history=spends, more=st.integers(1, 40))
@settings(max_examples=8, deadline=None)
def test_more_steps_never_cost_less_and_never_more_than_the_sum(history, more):
    extra = QUICK.of(more)
    before, after = composed_epsilon(history, 1e-5), composed_epsilon([*history, extra], 1e-5)
    assert after >= before - 1e-9
    # Basic composition: (ε1 + ε2, δ1 + δ2).
    assert after <= composed_epsilon(history, 5e-6) + composed_epsilon([extra], 5e-6) + 1e-3


def gaussian_delta(epsilon: float, mu: float) -> float:
    """δ of Gaussian noise at signal-to-noise ratio μ (Balle and Wang 2018): Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    return normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal(-mu / 2 - epsilon / mu)


@given(st.lists(st.tuples(st.sampled_from([4.0, 6.0, 9.0]), st.integers(1, 6)), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_gaussians_against_their_closed_form(parts):
    """Without subsampling, Gaussians compose to one with μ² = Σ steps/σ² (Dong et al. 2022)."""
    history = [Spend(sampling_rate=1.0, noise_multiplier=noise, steps=steps) for noise, steps in parts]
    mu = math.sqrt(sum(steps / noise**2 for noise, steps in parts))
    epsilon = composed_epsilon(history, 1e-4)
    assert gaussian_delta(epsilon, mu) <= 1e-4 * (1 + 1e-6)  # never less than the truth
    assert gaussian_delta(epsilon, mu) == pytest.approx(1e-4, rel=0.01)


def test_never_above_renyi():
    """The bound by Rényi divergences (Mironov et al. 2019) is looser, and computed in another way."""
    history = [QUICK, Spend(sampling_rate=0.1, noise_multiplier=4.0, steps=30)]
    accountant = RdpAccountant()
    for spend in history:
        step = dp_accounting.PoissonSampledDpEvent(spend.sampling_rate, dp_accounting.GaussianDpEvent(spend.noise_multiplier))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, spend.steps))
    renyi = accountant.get_epsilon(1e-5)
    assert 0.8 * renyi < composed_epsilon(history, 1e-5) < renyi


def test_keys_tell_histories_apart():
    assert composition_key([QUICK], 1e-5) != composition_key([QUICK.of(41)], 1e-5)
    assert composition_key([QUICK], 1e-5) != composition_key([QUICK], 1e-6)
    assert composition_key([QUICK.of(10), QUICK.of(30)], 1e-5) == composition_key([QUICK], 1e-5)


def test_nothing_spent_is_nothing():
    assert composed_epsilon([], 1e-5) == 0
    assert composed_epsilon([QUICK.of(0)], 1e-5) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"sampling_rate": math.nan},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"steps": -1},
        {"steps": 2.5},
    ],
)
def test_a_mechanism_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        Spend(**{**QUICK.model_dump(), **wrong})
