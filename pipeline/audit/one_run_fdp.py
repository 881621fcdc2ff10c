"""The one-run audit of a whole trade-off curve: tighter than a single (ε, δ), for whoever knows the curve.

    >>> round(gaussian_epsilon(canaries=256, guesses=128, correct=128, delta=1e-5), 2)
    7.59

Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025 (arXiv 2410.22235). Of m canaries with
fair, independent coins, k are guessed and C guesses are right. With f̄(x) = 1 − f(x) for the trade-off curve f,

    E[C; C ≥ i]/m ≤ f̄( E[k − C; C ≥ i − 1]/m )   for every i in 1..k,

so that a large P[C ≥ v] forces probability onto fewer and fewer right guesses, until more than 1 would be needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from pipeline.audit.epsilon import gdp_epsilon

if TYPE_CHECKING:
    from pipeline.train.mechanism import Mechanism

Curve = Callable[[float], float]
"""`curve(r)` is f̄⁻¹(r): the least false positive rate at which a true positive rate r in [0, 1] is allowed; at most r."""


def gaussian(mu: float) -> Curve:
    """The curve of μ-Gaussian DP, Φ(Φ⁻¹(r) − μ) (Dong, Roth, Su 2022)."""
    return lambda rate: float(special.ndtr(special.ndtri(min(max(rate, 0.0), 1.0)) - mu)) if rate > 0 else 0.0


def approximate(epsilons: np.ndarray, deltas: np.ndarray) -> Curve:
    """The curve of a mechanism that is (ε_i, δ_i)-DP for every i: the least that all of them allow together, [n] each."""
    shrink, grow = np.exp(-epsilons), np.exp(np.minimum(epsilons, 700.0))
    return lambda rate: max(0.0, float((shrink * (rate - deltas)).max()), float((1 - deltas - grow * (1 - rate)).max()))


def of_mechanism(mechanism: Mechanism, steps: int) -> Curve:
    """The curve of the subsampled Gaussian mechanism after some steps, from its privacy loss distribution (never above it)."""
    return approximate(*_profile(mechanism.noise_multiplier, mechanism.sampling_rate, steps))


def total_variation(mechanism: Mechanism, steps: int) -> float:
    """Total variation distance between the outputs with and without a unit, δ at ε = 0 (never below it)."""
    return float(_profile(mechanism.noise_multiplier, mechanism.sampling_rate, steps)[1][0])


@lru_cache(maxsize=8)
def _profile(noise_multiplier: float, sampling_rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """ε from 0 on, and δ at each, both rounded to the side of less privacy."""
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=1e-3
    )
    every = one.self_compose(steps)
    epsilons = np.concatenate([np.arange(0.0, 12.0, 0.02), np.geomspace(12.0, 200.0, 200)])
    return epsilons, np.array(every.get_delta_for_epsilon(epsilons.tolist()))


def least_total(curve: Curve, canaries: int, guesses: int, correct: int, tail: float) -> float:
    """Least sum of P[C = 0], …, P[C = k] that a curve leaves where P[C ≥ correct] = `tail`: above 1, the curve is refuted.

    The paper's Algorithm 3, from the highest count down: all of the tail sits on `correct`, and each lower count takes the
    least that the inequality above asks for.

    Args:
        curve: the hypothesis.
        canaries: m, all canaries whose coins were flipped.
        guesses: k, guesses made.
        correct: v, right guesses.
        tail: in [0, 1].
    """
    right = tail * correct / canaries
    wrong = tail * (guesses - correct) / canaries
    for count in range(correct - 1, -1, -1):
        needed = max(wrong, curve(min(right, 1.0)))
        if needed == wrong:
            break  # neither moves again
        right += count / (guesses - count) * (needed - wrong)
        wrong = needed
    return (right + wrong) * canaries / guesses


def p_value(curve: Curve, canaries: int, guesses: int, correct: int) -> float:
    """Largest probability of at least `correct` right guesses that a curve allows, to 1e-9."""
    _check(canaries, guesses, correct)
    if correct == 0 or least_total(curve, canaries, guesses, correct, 1.0) <= 1:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-9 * max(high, 1e-3):
        middle = (low + high) / 2
        low, high = (middle, high) if least_total(curve, canaries, guesses, correct, middle) <= 1 else (low, middle)
    return high


def gaussian_epsilon(canaries: int, guesses: int, correct: int, delta: float, alpha: float = 0.05) -> float:
    """Lower bound on ε at δ and level 1 − α of a mechanism whose trade-off curve is Gaussian: the largest that is refuted.

    Raises:
        ValueError: an argument is out of range, or δ is 0, where no Gaussian curve has an ε.
    """
    _check(canaries, guesses, correct)
    if not 0 < delta < 1 or not 0 < alpha < 1:
        raise ValueError("delta and alpha must lie in (0, 1)")

    def refuted(mu: float) -> bool:
        return least_total(gaussian(mu), canaries, guesses, correct, alpha) > 1

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return gdp_epsilon(low, delta)


def expected_correct(canaries: int, guesses: int, mu: float) -> int:
    """Right guesses of the best attack on a mechanism that is μ-Gaussian DP and no better, half of `guesses` in, half out.

    A score is then N(μ/2, 1) where the canary is in and N(−μ/2, 1) where it is out. The highest share k/2m of all scores
    lies above some threshold t, and of those Φ(μ/2 − t) to Φ(−μ/2 − t) are in.
    """
    share = guesses / (2 * canaries)
    low, high = -40.0 - mu, 40.0 + mu
    for _ in range(100):
        middle = (low + high) / 2
        above = (special.ndtr(mu / 2 - middle) + special.ndtr(-mu / 2 - middle)) / 2
        low, high = (middle, high) if above > share else (low, middle)
    inside, outside = special.ndtr(mu / 2 - low), special.ndtr(-mu / 2 - low)
    return math.floor(guesses * float(inside / (inside + outside)))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """μ of the Gaussian curve whose ε at δ is `epsilon`, to 1e-9."""
    low, high = 0.0, 1.0
    while gdp_epsilon(high, delta) < epsilon:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gdp_epsilon(middle, delta) < epsilon else (low, middle)
    return low


def _check(canaries: int, guesses: int, correct: int) -> None:
    if not (1 <= guesses <= canaries and 0 <= correct <= guesses):
        raise ValueError("needs 1 ≤ guesses ≤ canaries and 0 ≤ correct ≤ guesses")
