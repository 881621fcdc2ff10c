"""Shares of cases in which an attack succeeded, against those of cases that were never trained on.

    >>> round(above(0, 300), 6), round(1 - 0.05 ** (1 / 300), 6)   # nothing found
    (0.009936, 0.009936)
    >>> [round(number, 3) for number in excess((9, 100), (2, 100))]   # value, lower and upper bound
    [0.07, 0.011, 0.134]

All bounds are one-sided. The cases are drawn by lot from all there are, so the binomial bound of their share holds (it is a
little wide, since they are drawn without putting back).
"""

from __future__ import annotations

import math

from scipy.stats import beta

from pipeline.audit.figures import Figure

Count = tuple[int, int]
"""Hits, and cases in all."""

METHOD = "Clopper-Pearson, one-sided"
DIFFERENCE = "difference by Newcombe 1998, method 10, on one-sided Clopper-Pearson bounds"


def below(hits: int, cases: int, alpha: float = 0.05) -> float:
    """Lower bound of a share at level 1 − α (Clopper, Pearson 1934)."""
    return float(beta.ppf(alpha, hits, cases - hits + 1)) if hits else 0.0


def above(hits: int, cases: int, alpha: float = 0.05) -> float:
    """Upper bound of a share at level 1 − α (Clopper, Pearson 1934); 1 − α^(1/n) where nothing was found."""
    return float(beta.ppf(1 - alpha, hits + 1, cases - hits)) if hits < cases else 1.0


def excess(first: Count, second: Count, alpha: float = 0.05) -> tuple[float, float, float]:
    """Difference of two independent shares, first minus second, and its lower and upper bound, each at level 1 − α."""
    p, q = first[0] / first[1], second[0] / second[1]
    down = math.hypot(p - below(*first, alpha), above(*second, alpha) - q)
    up = math.hypot(above(*first, alpha) - p, q - below(*second, alpha))
    return p - q, max(-1.0, p - q - down), min(1.0, p - q + up)


def figures(name: str, first: Count, second: Count, method: str, conditions: dict[str, bool], alpha: float) -> list[Figure]:
    """Share of trained cases, of never-trained ones (`NAME_control`), and the difference (`NAME_excess`), with their bounds.

    A share without cases is absent, and without either side so is the difference: what was not measured passes no gate.
    """
    found = []
    for suffix, (hits, cases), what in (("", first, "trained on"), ("_control", second, "never trained on")):
        if cases:
            found.append(
                Figure(name=f"{name}{suffix}", value=hits / cases, low=below(hits, cases, alpha),
                       high=above(hits, cases, alpha), n=cases, method=f"{hits} of {cases:,} {what}: {method}; {METHOD}",
                       conditions=conditions)
            )  # fmt: skip
    if first[1] and second[1]:
        value, low, high = excess(first, second, alpha)
        found.append(
            Figure(name=f"{name}_excess", value=value, low=low, high=high, n=first[1] + second[1],
                   method=f"trained on minus never trained on: {method}; {DIFFERENCE}", conditions=conditions)
        )  # fmt: skip
    return found
