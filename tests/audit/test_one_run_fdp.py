"""The one-run audit of a trade-off curve: against a linear program over all count distributions, scipy, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from pipeline.audit import epsilon, one_run_fdp
from pipeline.train.mechanism import Mechanism

TRIALS, CANARIES = 2000, 256


def largest_tail(epsilons: list[float], deltas: list[float], m: int, k: int, v: int) -> float:
    """Largest P[C ≥ v] over all distributions of C on 0..k that the paper's inequalities allow, as a linear program."""
    count = np.arange(k + 1)
    rows, limits = [], []
    for i in range(1, k + 1):
        right = np.where(count >= i, count / m, 0.0)
        wrong = np.where(count >= i - 1, (k - count) / m, 0.0)
        for e, d in zip(epsilons, deltas, strict=True):
            rows += [right - math.exp(e) * wrong, right - math.exp(-e) * wrong]
            limits += [d, 1 - math.exp(-e) * (1 - d)]
    found = optimize.linprog(-(count >= v).astype(float), rows, limits, np.ones((1, k + 1)), [1.0], bounds=(0, 1))
    assert found.success
    return -found.fun


@pytest.mark.parametrize(
    "curve", [((0.0,), (0.0,)), ((1.0,), (0.0,)), ((1.0,), (0.01,)), ((0.3, 1.0, 2.0), (0.2, 0.05, 0.001))]
)
@pytest.mark.parametrize(("m", "k"), [(12, 12), (30, 12), (16, 5)])
def test_p_values_are_the_optimum_of_a_linear_program(curve: tuple[list[float], list[float]], m: int, k: int) -> None:
    ours = one_run_fdp.approximate(*map(np.array, curve))
    for v in range(k + 1):
        assert one_run_fdp.p_value(ours, m, k, v) == pytest.approx(largest_tail(*curve, m, k, v), abs=1e-6)


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_the_gaussian_curve_is_scipys_and_the_least_of_its_own_tangents(mu: float) -> None:
    curve = one_run_fdp.gaussian(mu)
    rates = np.linspace(0.001, 0.999, 60)
    assert [curve(r) for r in rates] == pytest.approx(stats.norm.cdf(stats.norm.ppf(rates) - mu), abs=1e-9)
    epsilons = np.arange(0.0, 30.0, 0.005)
    deltas = stats.norm.cdf(-epsilons / mu + mu / 2) - np.exp(epsilons) * stats.norm.cdf(-epsilons / mu - mu / 2)
    tangents = one_run_fdp.approximate(epsilons, deltas)
    assert [tangents(r) for r in rates] == pytest.approx([curve(r) for r in rates], abs=1e-5)
    assert all(tangents(r) <= curve(r) + 1e-12 for r in rates)
    assert curve(0.0) == 0.0
    assert curve(1.0) == 1.0


def test_the_curve_of_a_mechanism_is_that_of_an_unsampled_gaussian_where_every_unit_is_drawn() -> None:
    mechanism = Mechanism(unit="record", units=8, expected_batch=8, steps=4, noise_multiplier=2.0, clipping_norm=1, delta=1e-5)
    curve, gaussian = one_run_fdp.of_mechanism(mechanism, 4), one_run_fdp.gaussian(math.sqrt(4) / 2)
    for rate in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert curve(rate) == pytest.approx(gaussian(rate), abs=2e-3)
        assert curve(rate) <= gaussian(rate) + 1e-9  # never above: a curve that allows too little would accuse the innocent


@given(st.integers(1, 60), st.integers(0, 60), st.data(), st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_p_values_fall_with_right_guesses_and_rise_with_mu(k: int, more: int, data: st.DataObject, mu: float) -> None:
    m, v = k + more, data.draw(st.integers(0, k))
    p = one_run_fdp.p_value(one_run_fdp.gaussian(mu), m, k, v)
    assert 0 <= p <= 1
    assert one_run_fdp.p_value(one_run_fdp.gaussian(mu + 0.5), m, k, v) >= p - 1e-8
    if v < k:
        assert one_run_fdp.p_value(one_run_fdp.gaussian(mu), m, k, v + 1) <= p + 1e-8


@given(st.integers(2, 200), st.data(), st.floats(1e-6, 1e-2))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_where_the_p_value_crosses_the_level(k: int, data: st.DataObject, delta: float) -> None:
    v = data.draw(st.integers(0, k))
    bound = one_run_fdp.gaussian_epsilon(2 * k, k, v, delta)
    if bound > 0.01:
        mu = one_run_fdp.gaussian_mu(bound, delta)
        assert one_run_fdp.p_value(one_run_fdp.gaussian(mu * 0.999), 2 * k, k, v) <= 0.05 + 1e-6
        assert one_run_fdp.p_value(one_run_fdp.gaussian(mu * 1.001), 2 * k, k, v) >= 0.05 - 1e-6


def at_the_level(alarms: np.ndarray) -> bool:
    return bool(stats.binomtest(int(alarms.sum()), len(alarms), 0.05, alternative="greater").pvalue > 0.001)


def right_guesses(coins: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    return np.array([epsilon.count_correct(*trial, k) for trial in zip(scores, coins, strict=True)])


@pytest.mark.parametrize("true", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("k", [128, 256])
def test_false_alarms_on_randomised_response_stay_at_the_level(true: float, k: int) -> None:
    rng = np.random.default_rng([k, int(true)])
    coins = rng.random((TRIALS, CANARIES)) < 0.5
    kept = rng.random(coins.shape) < math.exp(true) / (1 + math.exp(true))
    scores = np.where(coins == kept, 1.0, -1.0) + rng.normal(0, 0.01, coins.shape)
    curve = one_run_fdp.approximate(np.array([true]), np.zeros(1))
    table = np.array([one_run_fdp.p_value(curve, CANARIES, k, v) for v in range(k + 1)])
    assert at_the_level(table[right_guesses(coins, scores, k)] < 0.05)
    tighter = one_run_fdp.approximate(np.array([true * 0.3]), np.zeros(1))
    if true and k < CANARIES:  # the control: a claim of a third of it is refuted
        table = np.array([one_run_fdp.p_value(tighter, CANARIES, k, v) for v in range(k + 1)])
        assert (table[right_guesses(coins, scores, k)] < 0.05).mean() > 0.9


@pytest.mark.parametrize("true", [1.0, 2.0, 4.0])
def test_false_alarms_on_the_gaussian_mechanism_stay_at_the_level(true: float) -> None:
    delta, k = 1e-4, 128
    mu = one_run_fdp.gaussian_mu(true, delta)
    rng = np.random.default_rng(int(true))
    coins = rng.random((TRIALS, CANARIES)) < 0.5
    right = right_guesses(coins, mu * coins + rng.normal(0, 1, coins.shape), k)
    table = np.array([one_run_fdp.gaussian_epsilon(CANARIES, k, v, delta) for v in range(k + 1)])
    plain = np.array([epsilon.one_run_epsilon(CANARIES, k, v, delta) for v in range(k + 1)])
    assert at_the_level(table[right] > true)
    assert np.median(table[right]) >= np.median(plain[right])  # what the curve is for
    assert abs(np.median(right) - one_run_fdp.expected_correct(CANARIES, k, mu)) <= 2


def test_gaussian_mu_goes_back() -> None:
    for eps in (0.1, 1.0, 8.0):
        assert epsilon.gdp_epsilon(one_run_fdp.gaussian_mu(eps, 1e-5), 1e-5) == pytest.approx(eps, abs=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: one_run_fdp.p_value(one_run_fdp.gaussian(1), 10, 11, 5),
        lambda: one_run_fdp.gaussian_epsilon(10, 5, 6, 0.1),
        lambda: one_run_fdp.gaussian_epsilon(10, 5, 5, 0.0),
        lambda: one_run_fdp.gaussian_epsilon(10, 5, 5, 0.1, alpha=1.0),
    ],
)
def test_arguments_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        call()  # type: ignore[operator]
