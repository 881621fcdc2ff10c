"""The bootstrap by person: whole units are drawn again, so that records of one person do not pass for independent ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

DRAWS = 2000
FEWEST_UNITS = 10
"""Units on a side below which drawing them again is too narrow to bound anything (Cameron, Gelbach, Miller 2008)."""

_BLOCK_CELLS = 4_000_000


def bootstrap(
    statistic: Callable[..., np.ndarray], groups: Sequence[np.ndarray], rng: np.random.Generator, draws: int = DRAWS
) -> np.ndarray:
    """Stratified cluster bootstrap (Efron, Tibshirani 1993) of a statistic that takes weights.

    Args:
        statistic: given one weight matrix [D, n] for each stratum (how often each record was drawn), returns [D] or [D, …].
        groups: for each stratum, the unit of each record, [n].
        rng: source of the draws.
        draws: number of resamples.

    Returns:
        The statistic of every resample, [draws, …].
    """
    block = max(1, min(draws, _BLOCK_CELLS // max(len(stratum) for stratum in groups)))
    found = []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        found.append(statistic(*(_weights(stratum, size, rng) for stratum in groups)))
    return np.concatenate(found)


def fewest(*groups: np.ndarray) -> int:
    """Units of the stratum that holds the fewest; `groups` as in `bootstrap`."""
    return min(len(np.unique(stratum)) for stratum in groups)


def enough(*groups: np.ndarray) -> bool:
    """Whether each stratum holds units enough for its intervals to be worth something; `groups` as in `bootstrap`."""
    return fewest(*groups) >= FEWEST_UNITS


def expanded(alpha: float, units: int) -> float:
    """The error probability at which percentiles of few units hold α: a bootstrap of n of them is too narrow by itself.

    2 Φ(√(n/(n − 1)) · t(α/2, n − 1)), the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap"): the t interval, for the mean of normal values. 0, all that was drawn, where there is one unit.
    """
    if units < 2:
        return 0.0
    return float(2 * special.ndtr(math.sqrt(units / (units - 1)) * stats.t.ppf(alpha / 2, units - 1)))


def interval(samples: np.ndarray, alpha: float, units: int) -> tuple[float, float]:
    """Percentile interval at level 1 − α of bootstrapped values [draws], expanded as `units`, drawn again, are few.

    Resamples that show nothing (NaN) are left out.
    """
    known = samples[~np.isnan(samples)]
    if not len(known):
        return math.nan, math.nan
    alpha = expanded(alpha, units)
    with np.errstate(invalid="ignore"):  # infinite resamples of a model that diverged
        low, high = np.quantile(known, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _weights(stratum: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    _, unit = np.unique(stratum, return_inverse=True)
    units = int(unit.max()) + 1
    counts = rng.multinomial(units, np.full(units, 1 / units), size=draws)
    return counts[:, unit].astype(np.float64)
