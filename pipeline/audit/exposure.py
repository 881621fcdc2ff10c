"""Exposure: how far up a planted secret stands among all the secrets it could have been.

    >>> exposure_bits(rank=4, space_size=2**17)
    15.0
    >>> sampled_exposure(3.5, [4.0, 5.0, 6.0])
    (2.0, 0.25)

Exposure is log2 |R| − log2 rank (Carlini et al. 2019, "The Secret Sharer", Definition 1). Ranks are exact. A candidate that
ties with the secret counts as better than it, so that P[rank ≤ r] ≤ r/|R| under chance whatever the ties: exposure is never
overstated and every p-value holds. A memorised secret loses nothing by it, because nothing ties with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

FAMILY_METHOD = "1 − (1 − best rank/|R|)^m over the planted secrets, exact under chance (Sidak 1967)"


def exposure_bits(rank: int, space_size: int) -> float:
    """Exposure in bits, between 0 and log2 of the space.

    Raises:
        ValueError: rank is not in 1..space_size.
    """
    if not 1 <= rank <= space_size:
        raise ValueError("rank must lie in 1..space_size")
    return math.log2(space_size) - math.log2(rank)


def rank_of(scores: np.ndarray, index: Sequence[int]) -> int:
    """Rank, from 1, of the candidate at `index`; candidates that tie with it are placed before it.

    Args:
        scores: log-likelihood of every candidate, [S0, S1, …], higher = more likely. Not-a-number counts as better, so
            that a broken model never shows exposure that is not there.
        index: position of the secret in `scores`.
    """
    return max(1, int(scores.size - np.count_nonzero(scores < scores[tuple(index)])))


def sampled_exposure(secret_score: float, reference_scores: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Exposure against references drawn at random, and its exact p-value; lower score = more likely.

    p = (1 + #{reference ≤ secret})/(n + 1) (Phipson, Smyth 2010); bits = −log2 p, so never negative and at most log2(n + 1).

    Raises:
        ValueError: no reference, or a score that is not a number.
    """
    references = np.asarray(reference_scores, float).ravel()
    if references.size == 0 or np.isnan(references).any() or math.isnan(secret_score):
        raise ValueError("needs at least one reference score, and no score may be NaN")
    as_likely = int(np.count_nonzero(references <= secret_score))
    p_value = (1 + as_likely) / (references.size + 1)
    return -math.log2(p_value) + 0.0, p_value


def family_p(ranks: Sequence[int], space_size: int) -> float:
    """Probability under chance that the best of these independent secrets ranks as high: 1 − (1 − min/|R|)^m.

    Raises:
        ValueError: there are no ranks, or one is not in 1..space_size.
    """
    _check(ranks, space_size)
    best = min(ranks) / space_size
    return 1.0 if best == 1 else -math.expm1(len(ranks) * math.log1p(-best))


def mean_p(ranks: Sequence[int], space_size: int) -> float:
    """Probability under chance of so high a mean exposure: exposure · ln 2 is at most Exp(1), so the sum is Gamma(m, 1).

    Raises:
        ValueError: there are no ranks, or one is not in 1..space_size.
    """
    _check(ranks, space_size)
    total = float(-np.log(np.asarray(ranks, float) / space_size).sum())
    return float(special.gammaincc(len(ranks), total))


def family_cutoff(secrets: int, alpha: float) -> float:
    """Exposure in bits that the best of `secrets` secrets exceeds by chance with probability α: −log2(1 − (1 − α)^(1/m))."""
    return -math.log2(-math.expm1(math.log1p(-alpha) / secrets))


def uniform_p(ranks: Sequence[int], space_size: int) -> float:
    """p-value of the Kolmogorov–Smirnov test that ranks of secrets that were never planted are uniform.

    Raises:
        ValueError: there are no ranks, or one is not in 1..space_size.
    """
    _check(ranks, space_size)
    return float(stats.kstest((np.asarray(ranks, float) - 0.5) / space_size, "uniform").pvalue)


def _check(ranks: Sequence[int], space_size: int) -> None:
    if len(ranks) == 0 or not 1 <= min(ranks) <= max(ranks) <= space_size:
        raise ValueError("needs at least one rank, each in 1..space_size")
