"""Lower bounds on ε: against the paper's program, exact enumeration, an independent accountant, and simulation."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.audit import epsilon


def papers_p_value(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """Steinke, Nasr, Jagielski 2023, Appendix D, as a loop over the windows below v."""
    q = 1 / (1 + math.exp(-eps))
    masses = stats.binom.pmf(np.arange(r + 1), r, q).tolist()
    beta = stats.binom.sf(v - 1, r, q)
    alpha, total = 0.0, 0.0
    for i in range(1, v + 1):
        total += masses[v - i]
        alpha = max(alpha, total / i)
    return min(1.0, beta + alpha * delta * 2 * m)


def papers_epsilon(m: int, r: int, v: int, delta: float, alpha: float) -> float:
    if papers_p_value(m, r, v, 0.0, delta) >= alpha:
        return 0.0
    low, high = 0.0, 1.0
    while papers_p_value(m, r, v, high, delta) < alpha:
        high += 1
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if papers_p_value(m, r, v, middle, delta) < alpha else (low, middle)
    return low


@pytest.mark.parametrize("delta", [0.0, 1e-7, 1e-5, 1e-3, 0.05])
@pytest.mark.parametrize(("m", "k"), [(16, 2), (64, 64), (256, 128), (600, 300)])
def test_one_run_agrees_with_the_papers_program(m: int, k: int, delta: float) -> None:
    for v in sorted({0, 1, k // 2, round(0.6 * k), round(0.75 * k), k - 1, k}):
        for eps in (0.0, 0.5, 2.0, 8.0, 40.0):
            ours = epsilon.one_run_p_value(m, k, v, eps, delta)
            assert ours == pytest.approx(papers_p_value(m, k, v, eps, delta), abs=1e-9, rel=1e-6)
        assert epsilon.one_run_epsilon(m, k, v, delta) == pytest.approx(papers_epsilon(m, k, v, delta, 0.05), abs=1e-6)
        assert epsilon.one_run_epsilon(m, k, v, delta, 0.01) == pytest.approx(papers_epsilon(m, k, v, delta, 0.01), abs=1e-6)


def test_one_run_p_value_by_enumerating_every_outcome() -> None:
    k, eps, delta, m = 8, 1.3, 0.002, 20
    q = math.exp(eps) / (1 + math.exp(eps))
    mass = np.zeros(k + 1)
    for outcome in itertools.product((0, 1), repeat=k):
        mass[sum(outcome)] += q ** sum(outcome) * (1 - q) ** (k - sum(outcome))
    for v in range(k + 1):
        worst = max((mass[v - i : v].sum() / i for i in range(1, v + 1)), default=0.0)
        expected = min(1.0, mass[v:].sum() + 2 * m * delta * worst)
        assert epsilon.one_run_p_value(m, k, v, eps, delta) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("guesses", "bound"), [(64, 3.04), (256, 4.44), (512, 5.14), (1000, 5.81)])
def test_the_reachable_bound_is_the_published_one(guesses: int, bound: float) -> None:
    assert epsilon.one_run_epsilon(guesses, guesses, guesses, 0.0) == pytest.approx(bound, abs=0.005)


@given(st.integers(1, 200), st.integers(0, 100), st.data(), st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]))
@settings(max_examples=60, deadline=None)
def test_bound_is_consistent_with_its_p_value_and_monotone(k: int, more: int, data: st.DataObject, delta: float) -> None:
    m, v = k + more, data.draw(st.integers(0, k))
    bound = epsilon.one_run_epsilon(m, k, v, delta)
    assert bound >= 0
    if bound > 0:
        below = [epsilon.one_run_p_value(m, k, v, bound * share, delta) for share in (0.0, 0.5, 0.999)]
        assert max(below) < 0.05
        assert epsilon.one_run_p_value(m, k, v, bound + 1e-6, delta) >= 0.05 - 1e-9
    assert bound >= epsilon.one_run_epsilon(m, k, v, min(0.5, 10 * delta + 1e-9))
    if v < k:
        assert epsilon.one_run_epsilon(m, k, v + 1, delta) >= bound


TRIALS, CANARIES = 2000, 256


def randomised_response(true: float, delta: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fair coins and what an (ε, δ)-DP mechanism tells about each: bool and float scores, both [trials, canaries].

    Every canary's coin is put out by ε-randomised response; with probability δ it is put out as it is, in a score of ±9.
    """
    shape = TRIALS, CANARIES
    coins = rng.random(shape) < 0.5
    honest = rng.random(shape) < math.exp(true) / (1 + math.exp(true))
    outputs = np.where(coins == honest, 1.0, -1.0) + rng.normal(0, 0.01, shape)  # the noise orders equal outputs
    return coins, np.where(rng.random(shape) < delta, np.where(coins, 9.0, -9.0), outputs)


def bounds_of(coins: np.ndarray, scores: np.ndarray, k: int, delta: float) -> np.ndarray:
    """The audit's bound for each trial, [trials]: guesses counted by the audit's own function, k fixed beforehand."""
    table = np.array([epsilon.one_run_epsilon(CANARIES, k, v, delta) for v in range(k + 1)])
    return table[[epsilon.count_correct(*trial, k) for trial in zip(scores, coins, strict=True)]]


def at_the_level(alarms: np.ndarray) -> bool:
    """Whether the share of alarms is 5 % at most, but for the chance of the simulation (one in 1,000)."""
    return bool(stats.binomtest(int(alarms.sum()), len(alarms), 0.05, alternative="greater").pvalue > 0.001)


@pytest.mark.parametrize("true", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("k", [64, 128, 256])
def test_false_alarms_on_randomised_response_stay_at_the_level(true: float, k: int) -> None:
    """A mechanism that is ε-DP must be accused of more than ε in at most 5 % of runs."""
    coins, scores = randomised_response(true, 0.0, np.random.default_rng([k, int(true)]))
    bounds = bounds_of(coins, scores, k, 0.0)
    assert at_the_level(bounds > true + 1e-9)
    if true and k < CANARIES:
        assert np.median(bounds) > 0.3 * true  # and the bound is worth something


@pytest.mark.parametrize("true", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("delta", [1e-4, 5e-4, 2e-3])
def test_false_alarms_stay_at_the_level_where_some_coins_are_revealed(true: float, delta: float) -> None:
    """(ε, δ)-DP with the worst use of δ: a canary's coin stands in the output with probability δ, and is guessed first."""
    coins, scores = randomised_response(true, delta, np.random.default_rng([int(1 / delta), int(true)]))
    assert at_the_level(bounds_of(coins, scores, 128, delta) > true + 1e-9)
    assert epsilon.one_run_epsilon(CANARIES, 128, 128, delta) > true  # an alarm is possible


def test_negative_control_revealed_coins_break_a_bound_that_does_not_count_delta() -> None:
    coins, scores = randomised_response(0.0, 0.05, np.random.default_rng(6))
    assert not at_the_level(bounds_of(coins, scores, 64, 0.0) > 1e-9)
    assert at_the_level(bounds_of(coins, scores, 64, 0.05) > 1e-9)


def test_negative_control_scores_that_tell_more_than_promised_are_accused() -> None:
    coins, scores = randomised_response(3.0, 0.0, np.random.default_rng(7))
    assert (bounds_of(coins, scores, 128, 0.0) > 1.0).mean() > 0.95


def test_negative_control_choosing_the_best_number_of_guesses_afterwards_raises_false_alarms() -> None:
    """The error that a fixed number of guesses prevents: on pure chance (ε 0), the best of a grid is wrong far too often."""
    coins, scores = randomised_response(0.0, 0.0, np.random.default_rng(5))
    alarms = np.array([bounds_of(coins, scores, k, 0.0) > 0 for k in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)])
    assert all(at_the_level(fixed) for fixed in alarms)
    assert alarms.any(axis=0).mean() > 0.10


def test_power_a_mechanism_without_privacy_reaches_the_most_that_can_be_shown() -> None:
    coins = np.random.default_rng(1).random(256) < 0.5
    scores = coins + np.random.default_rng(2).normal(0, 0.01, 256)
    right = epsilon.count_correct(scores, coins, 128)
    assert right == 128
    assert epsilon.one_run_epsilon(256, 128, right, 1e-5) == epsilon.one_run_epsilon(256, 128, 128, 1e-5) > 3.5


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40), st.data())
@settings(max_examples=100, deadline=None)
def test_count_correct_guesses_the_top_in_and_the_bottom_out(pairs: list[tuple[int, bool]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(pairs)))
    ranked = sorted(range(len(pairs)), key=lambda i: -pairs[i][0])  # stable: ties keep their order
    inside, outside = ranked[: k - k // 2], ranked[len(pairs) - k // 2 :]
    expected = sum(pairs[i][1] for i in inside) + sum(not pairs[i][1] for i in outside)
    scores, coins = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    assert epsilon.count_correct(scores, coins, k) == expected


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
@pytest.mark.parametrize("counts", [(90, 10, 5, 95), (50, 50, 50, 50), (100, 0, 0, 100), (0, 10, 0, 10), (3, 0, 7, 2)])
def test_clopper_pearson_agrees_with_scipys_exact_intervals(counts: tuple[int, int, int, int], delta: float) -> None:
    tp, fn, fp, tn = counts
    low = stats.binomtest(tp, tp + fn).proportion_ci(0.95, "exact").low
    high = stats.binomtest(fp, fp + tn).proportion_ci(0.95, "exact").high
    expected = max(0.0, math.log((low - delta) / high)) if low > delta else 0.0
    assert epsilon.clopper_pearson_epsilon(tp, fn, fp, tn, delta) == pytest.approx(expected, abs=1e-9)


def test_clopper_pearson_without_trials_shows_nothing() -> None:
    assert epsilon.clopper_pearson_epsilon(0, 0, 0, 0) == 0.0
    assert epsilon.clopper_pearson_epsilon(10, 0, 0, 0) == 0.0
    assert epsilon.clopper_pearson_epsilon(0, 0, 0, 10) == 0.0


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-6, 1e-3, 0.1])
def test_gdp_agrees_with_an_independent_accountant_and_its_own_definition(mu: float, delta: float) -> None:
    ours = epsilon.gdp_epsilon(mu, delta)
    assert ours == pytest.approx(get_epsilon_gaussian(1 / mu, delta, tol=1e-13), abs=1e-6)
    back = stats.norm.cdf(-ours / mu + mu / 2) - math.exp(ours) * stats.norm.cdf(-ours / mu - mu / 2)
    assert back == pytest.approx(delta, abs=1e-9) or (ours == 0 and back <= delta)


def test_gdp_at_its_ends() -> None:
    assert epsilon.gdp_epsilon(0.0, 0.0) == 0.0
    assert epsilon.gdp_epsilon(1.0, 0.0) == math.inf
    assert epsilon.gdp_epsilon(1.0, 0.9) == 0.0
    assert 5000 < epsilon.gdp_epsilon(100.0, 1e-6) < 5500  # e^ε overflows, the root does not


@pytest.mark.parametrize(
    "call",
    [
        lambda: epsilon.one_run_p_value(10, 11, 5, 1.0, 0.0),
        lambda: epsilon.one_run_p_value(10, 5, 6, 1.0, 0.0),
        lambda: epsilon.one_run_p_value(10, 5, 3, -1.0, 0.0),
        lambda: epsilon.one_run_p_value(10, 5, 3, math.nan, 0.0),
        lambda: epsilon.one_run_epsilon(10, 0, 0, 0.0),
        lambda: epsilon.one_run_epsilon(10, 5, 3, 1.0),
        lambda: epsilon.one_run_epsilon(10, 5, 3, 0.0, alpha=0.0),
        lambda: epsilon.clopper_pearson_epsilon(-1, 1, 1, 1),
        lambda: epsilon.gdp_epsilon(-1.0, 0.1),
        lambda: epsilon.gdp_epsilon(1.0, 1.0),
    ],
)
def test_arguments_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        call()  # type: ignore[operator]


def test_statistics_do_not_wait_for_torch() -> None:
    """Planning reads the audit's power; it must not pay for a deep-learning library."""
    modules = "epsilon, exposure, figures, membership, utility"
    code = f"import sys; from pipeline.audit import {modules}, Evidence; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
