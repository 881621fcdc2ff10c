"""Lower bounds on ε: what an attack proves about a mechanism that promised (ε, δ).

    >>> round(one_run_epsilon(canaries=256, guesses=256, correct=256, delta=0.0), 2)
    4.44
    >>> one_run_epsilon(canaries=256, guesses=128, correct=70, delta=1e-5)
    0.0

A bound of 0 proves nothing either way; what it could have proven at most is the same bound with every guess right.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, special
from scipy.stats import beta as beta_distribution


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Probability bound for at least `correct` right guesses against any (ε, δ)-DP mechanism, in one run.

    Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, Theorem 5.2 and Appendix D: with
    q = e^ε/(1+e^ε) and X ~ Bin(guesses, q), p = P[X ≥ v] + 2mδ · max over i in 1..v of P[v−i ≤ X < v]/i, at most 1.
    Holds for canaries that each enter by an own fair coin, one copy each, with score and number of guesses fixed beforehand.

    Args:
        canaries: m, all canaries whose coins were flipped.
        guesses: k, guesses made; the rest are abstentions.
        correct: v, right guesses.
        epsilon: ε ≥ 0 of the hypothesis.
        delta: δ in [0, 1) of the hypothesis.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_guesses(canaries, guesses, correct, delta)
    if not epsilon >= 0:
        raise ValueError("epsilon must be at least 0")
    return float(_p_values(canaries, guesses, correct, np.array([float(epsilon)]), delta)[0])


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, alpha: float = 0.05) -> float:
    """Lower confidence bound on ε at level 1 − α from one run: the ε up to which every p-value lies below α.

    Arguments are those of `one_run_p_value`. Where the p-value is not monotone in ε (large mδ) its first crossing of α is
    taken, which keeps the level. Accurate to 1e-9; 0 if even ε = 0 cannot be refuted.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_guesses(canaries, guesses, correct, delta)
    _check_level(alpha)
    # With every guess right and δ = 0 the bound solves q^k = α: no other outcome reaches beyond it.
    root = alpha ** (1 / guesses)
    low, high = 0.0, math.log(root / (1 - root))
    if high <= 0 or _p_values(canaries, guesses, correct, np.zeros(1), delta)[0] >= alpha:
        return 0.0
    while high - low > 1e-10 * max(1.0, high):
        grid = np.linspace(low, high, 33)
        above = np.flatnonzero(_p_values(canaries, guesses, correct, grid[:-1], delta) >= alpha)
        first = int(above[0]) if len(above) else len(grid) - 1
        low, high = float(grid[first - 1]), float(grid[first])
    return low


def count_correct(scores: np.ndarray, included: np.ndarray, guesses: int) -> int:
    """Right guesses when the highest half of `guesses` scores are guessed in and the lowest half out.

    Ties are broken by position, which the coins do not depend on.

    Args:
        scores: [m], higher = more likely in.
        included: bool [m], the coins.
        guesses: number of guesses fixed beforehand, at most m; the odd one is guessed in.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    coins = np.asarray(included, bool)[order]
    out = guesses // 2
    return int(coins[: guesses - out].sum() + (~coins[len(coins) - out :]).sum())


def clopper_pearson_epsilon(tp: int, fn: int, fp: int, tn: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Lower bound ln((TPR_low − δ)/FPR_high), both by Clopper–Pearson at α/2 (Jagielski, Ullman, Oprea 2020); at least 0.

    Assumes that every trial is an independent run of the mechanism: inside one run it is descriptive only.

    Raises:
        ValueError: a count is negative, or δ or α is out of range.
    """
    if min(tp, fn, fp, tn) < 0:
        raise ValueError("counts must be at least 0")
    if not 0 <= delta < 1:
        raise ValueError("delta must lie in [0, 1)")
    _check_level(alpha)
    low = float(beta_distribution.ppf(alpha / 2, tp, fn + 1)) if tp else 0.0
    high = float(beta_distribution.ppf(1 - alpha / 2, fp + 1, tn)) if tn else 1.0
    if low <= delta:
        return 0.0
    return max(0.0, math.log((low - delta) / high))


def gdp_epsilon(mu: float, delta: float) -> float:
    """ε of μ-Gaussian DP at δ: the root of δ = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2), at least 0.

    Dong, Roth, Su, "Gaussian Differential Privacy", 2022, Corollary 2.13. Infinite at δ = 0 unless μ is 0.

    Raises:
        ValueError: μ is negative or δ is outside [0, 1).
    """
    if not 0 <= mu < math.inf or not 0 <= delta < 1:
        raise ValueError("mu must be at least 0 and finite, and delta must lie in [0, 1)")
    if mu == 0:
        return 0.0
    if delta == 0:
        return math.inf

    def excess(epsilon: float) -> float:
        first = special.log_ndtr(-epsilon / mu + mu / 2)
        second = epsilon + special.log_ndtr(-epsilon / mu - mu / 2)
        return float(np.exp(first) * -np.expm1(second - first)) - delta  # no cancellation, no overflow of e^ε

    if excess(0.0) <= 0:
        return 0.0
    ceiling = mu * (mu / 2 - float(special.ndtri(delta)))  # drops the second term, so it lies above the root
    return float(optimize.brentq(excess, 0.0, ceiling + 1e-9, xtol=1e-12))  # type: ignore[arg-type]


def _p_values(canaries: int, guesses: int, correct: int, epsilons: np.ndarray, delta: float) -> np.ndarray:
    """One-run p-values for several ε at once, [E]."""
    tail = special.betainc(correct, guesses - correct + 1, special.expit(epsilons)) if correct else np.ones(len(epsilons))
    if delta == 0 or correct == 0:
        return np.minimum(tail, 1.0)
    hits = np.arange(correct - 1, -1, -1)  # X = v−1, v−2, …, 0
    choose = special.gammaln(guesses + 1) - special.gammaln(hits + 1) - special.gammaln(guesses - hits + 1)
    right, wrong = special.log_expit(epsilons)[:, None], special.log_expit(-epsilons)[:, None]
    masses = np.exp(choose + hits * right + (guesses - hits) * wrong)
    worst = (np.cumsum(masses, axis=1) / np.arange(1, correct + 1)).max(axis=1)
    return np.minimum(tail + 2 * canaries * delta * worst, 1.0)


def _check_guesses(canaries: int, guesses: int, correct: int, delta: float) -> None:
    if not (1 <= guesses <= canaries and 0 <= correct <= guesses):
        raise ValueError("needs 1 ≤ guesses ≤ canaries and 0 ≤ correct ≤ guesses")
    if not 0 <= delta < 1:
        raise ValueError("delta must lie in [0, 1)")


def _check_level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError("alpha must lie in (0, 1)")
