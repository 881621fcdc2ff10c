"""Accounting: agreement of accountants, calibration, and that the event is the mechanism's own."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from pipeline import policy
from pipeline.errors import InputError
from pipeline.train.mechanism import Mechanism, calibrate, delta_for, least_noise

PUBLISHED = Mechanism(
    unit="record", units=5000, expected_batch=64, steps=240, noise_multiplier=0.8, clipping_norm=1.0, delta=1e-5
)


def test_three_accountants_agree_and_rdp_is_the_loosest() -> None:
    rdp = RdpAccountant().compose(PUBLISHED.event()).get_epsilon(1e-5)
    pld, prv = PUBLISHED.epsilon(), PUBLISHED.epsilon_prv()
    assert pld == pytest.approx(2.344, abs=2e-3)
    assert prv == pytest.approx(2.355, abs=5e-3)
    assert pld <= prv < rdp


def test_one_full_batch_step_is_the_gaussian_mechanism() -> None:
    """Without sampling and with one step, ε must satisfy the exact formula of Balle and Wang (2018, theorem 8)."""
    run = Mechanism(unit="record", units=10, expected_batch=10, steps=1, noise_multiplier=1.3, clipping_norm=1, delta=1e-3)
    epsilon, mu = run.epsilon(), 1 / 1.3

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    delta = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
    assert delta == pytest.approx(1e-3, rel=2e-2)
    assert delta <= 1e-3


def test_epsilon_grows_with_steps_and_is_zero_without() -> None:
    spent = [PUBLISHED.epsilon(steps) for steps in (0, 1, 10, 240)]
    assert spent[0] == 0
    assert spent == sorted(spent)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_calibration_keeps_the_promise_and_wastes_little(epsilon: float) -> None:
    chosen = policy.load("default").override(privacy__epsilon=epsilon)
    run = calibrate(chosen, 5000)
    assert run.epsilon() <= epsilon
    assert run.epsilon() > 0.98 * epsilon
    assert run.delta == pytest.approx(5000**-1.1)
    assert run.sampling_rate == 256 / 5000


def test_the_event_is_built_from_the_mechanism() -> None:
    event = PUBLISHED.event(7)
    assert isinstance(event, dp_accounting.SelfComposedDpEvent)
    assert event.count == 7
    assert event.event.sampling_probability == 64 / 5000
    assert event.event.event.noise_multiplier == 0.8


def test_too_few_units_are_refused_with_the_mend() -> None:
    with pytest.raises(InputError, match=r"train\.expected_batch to at most 600"):
        calibrate(policy.load("default").override(train__expected_batch=700), 1200)
    with pytest.raises(InputError, match=r"92 privacy units to train on and 508 of canaries.*canaries\.count"):
        calibrate(policy.load("default"), 600)


def test_a_delta_above_one_in_n_is_refused() -> None:
    chosen = policy.load("default").override(privacy__delta=5e-4)
    with pytest.raises(InputError, match="below 1/n"):
        delta_for(chosen, 5000)
    assert delta_for(chosen, 1000) == 5e-4


def test_a_coarse_grid_never_shows_less_than_was_spent() -> None:
    for steps in (1, 24, 240):
        assert PUBLISHED.epsilon(steps) <= PUBLISHED.epsilon(steps, grid=1e-2) < PUBLISHED.epsilon(steps) * 1.2 + 0.1


def test_a_group_loses_more_than_its_size_times_epsilon() -> None:
    run = Mechanism(unit="person", units=938, expected_batch=256, steps=20, noise_multiplier=1.1, clipping_norm=1.0, delta=5e-4)
    epsilon = run.epsilon()
    assert run.group_epsilon(1) == pytest.approx(epsilon, rel=2e-2)
    assert run.group_epsilon(2) > 2 * epsilon
    assert run.group_epsilon(4) > run.group_epsilon(2)


def test_a_group_that_is_always_drawn_is_one_unit_of_its_size() -> None:
    """Without sampling, k units together are one Gaussian with k times the sensitivity."""
    whole = Mechanism(unit="record", units=10, expected_batch=10, steps=3, noise_multiplier=6.0, clipping_norm=1, delta=1e-3)
    alone = whole.model_copy(update={"noise_multiplier": 2.0})
    assert whole.group_epsilon(3) == pytest.approx(alone.epsilon(), rel=1e-2)


def test_accountants_that_disagree_stop_the_run_before_anything_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mechanism, "epsilon_prv", lambda self, steps=None: 2 * self.epsilon())
    with pytest.raises(InputError, match="two accountants disagree"):
        calibrate(policy.load("default"), 5000)


def test_more_units_than_there_are_cannot_be_expected() -> None:
    with pytest.raises(ValueError, match="cannot expect 20 of 10 units"):
        Mechanism(unit="record", units=10, expected_batch=20, steps=1, noise_multiplier=1.0, clipping_norm=1.0, delta=1e-3)


@pytest.mark.parametrize(
    ("rate", "steps", "epsilon", "delta"), [(0.093, 20, 8.0, 1.6e-4), (0.01, 2_000, 1.0, 1e-6), (0.002, 20_000, 0.1, 1e-8)]
)
def test_two_grids_find_the_noise_that_one_finds(rate: float, steps: int, epsilon: float, delta: float) -> None:
    def event(noise: float) -> dp_accounting.DpEvent:
        sampled = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        return dp_accounting.SelfComposedDpEvent(sampled, steps)

    plain = dp_accounting.calibrate_dp_mechanism(
        lambda: PLDAccountant(value_discretization_interval=1e-3), event, epsilon, delta,
        bracket_interval=dp_accounting.LowerEndpointAndGuess(0.2, 1.0), tol=1e-4,
    )  # fmt: skip
    assert least_noise(event, epsilon, delta) == pytest.approx(plain, abs=2.1e-4)


def test_many_steps_at_a_small_epsilon_waste_little() -> None:
    """A grid of 1e-3 alone asks for four times the noise, and 0.03 of the 0.1 are spent."""
    chosen = policy.load("default").override(privacy__epsilon=0.1, train__steps=20_000, train__expected_batch=200)
    run = calibrate(chosen, 100_000)
    assert 0.098 < run.epsilon() <= 0.1
