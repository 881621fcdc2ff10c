"""The proposal for `auto`: its arithmetic, and that the noise it leads to is the noise it aims at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import policy
from pipeline.audit.epsilon import gdp_epsilon
from pipeline.train.mechanism import calibrate
from pipeline.train.schedule import gdp_mu, propose, schedule


@given(st.floats(0.1, 20), st.floats(1e-9, 1e-3))
def test_mu_is_the_inverse_of_the_gaussian_trade_off(epsilon: float, delta: float) -> None:
    assert gdp_epsilon(gdp_mu(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-6)


@given(st.integers(2, 10**7), st.floats(0.1, 20), st.floats(0.1, 100))
def test_a_proposal_can_be_sampled_and_makes_at_least_the_visits_asked_for(units: int, epsilon: float, epochs: float) -> None:
    batch, steps = propose(units, epsilon, 1 / (2 * units), epochs)
    assert 1 <= batch <= units // 2
    assert 20 <= steps <= 200
    if batch < units // 2 and steps < 200:
        assert batch * steps >= epochs * units - steps


@pytest.mark.parametrize(("units", "epsilon", "epochs"), [(20_000, 8.0, 3.0), (50_000, 8.0, 3.0), (100_000, 8.0, 3.0)])
def test_as_many_steps_are_taken_as_leave_the_noise_aimed_at(units: int, epsilon: float, epochs: float) -> None:
    """The limit theorem chooses the steps; PLD calibrates. Where no bound of the proposal binds, σ comes out near 0.6."""
    chosen = policy.load("default").override(privacy__epsilon=epsilon, train__epochs=epochs)
    run = calibrate(chosen, units)
    assert run.expected_batch * run.steps == pytest.approx(epochs * units, rel=0.02)
    assert run.noise_multiplier == pytest.approx(0.6, abs=0.1)


def test_twice_the_steps_would_lose_more_signal_than_half_of_them_would_gain() -> None:
    """Signal over noise at the same visits, with σ calibrated by PLD, is concave around the proposal."""

    def signal(steps: int) -> float:
        chosen = policy.load("default").override(train__steps=steps, train__epochs=3.0)
        run = calibrate(chosen, 20_000)
        return math.sqrt(steps) * run.expected_batch / run.noise_multiplier

    _, steps = propose(20_000, 8.0, 20_000**-1.1, 3.0)
    half, here, twice = (signal(count) for count in (steps // 2, steps, 2 * steps))
    assert half > here > twice
    assert (here - twice) / here > (half - here) / half


def test_what_the_policy_says_is_kept() -> None:
    train = policy.load("default").train
    assert schedule(train.model_copy(update={"expected_batch": 64, "steps": 7}), 5000, 8.0, 1e-5) == (64, 7)
    assert schedule(train.model_copy(update={"expected_batch": 500, "epochs": 3.0}), 5000, 8.0, 1e-5) == (500, 30)
    assert schedule(train.model_copy(update={"steps": 10, "epochs": 2.0}), 5000, 8.0, 1e-5) == (1000, 10)
