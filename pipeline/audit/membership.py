"""Membership inference: can an attacker tell the records that were trained on from records of the same kind that were not?

    >>> auc([3.0, 2.0, 1.0], [0.0, 1.0])
    0.9166666666666666
    >>> tpr_at_fpr([3.0, 2.0, 1.0], [0.0, 1.0], 0.0)
    0.6666666666666666

Higher scores mean member. True positive rates at low false positive rates are what matters (Carlini et al. 2022, "Membership
Inference Attacks From First Principles"); the area under the curve is the average case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta as beta_distribution

from pipeline.audit import resample
from pipeline.audit.figures import Figure
from pipeline.audit.resample import bootstrap, interval

RATES = {"tpr_at_1": 0.01, "tpr_at_01": 0.001}
"""False positive rates of the figures: 1 % and 0.1 %."""

FEWEST = 50
"""Members, and non-members, below which an AUC is not resolvable; so it is where they are of fewer than ten units."""

_FEW_HITS = 10
Floats = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Sample:
    """Scores of some records [n] and the unit that each belongs to [n]."""

    scores: np.ndarray
    groups: np.ndarray


def auc(member_scores: Floats, non_member_scores: Floats) -> float:
    """Probability that a random member scores above a random non-member, ties counted half (Mann, Whitney 1947).

    Raises:
        ValueError: a side is empty or holds NaN.
    """
    members, others = _sides(member_scores, non_member_scores)
    others = np.sort(others)
    below = np.searchsorted(others, members, "left") + np.searchsorted(others, members, "right")
    return float(below.sum() / (2 * len(members) * len(others)))


def tpr_at_fpr(member_scores: Floats, non_member_scores: Floats, fpr: float) -> float:
    """Largest share of members above any threshold that at most a share `fpr` of the non-members lies above.

    Raises:
        ValueError: a side is empty or holds NaN, or fpr is not in [0, 1].
    """
    members, others = _sides(member_scores, non_member_scores)
    if not 0 <= fpr <= 1:
        raise ValueError("fpr must lie in [0, 1]")
    return float(_Rates(members, others, np.array([fpr]))(np.ones((1, len(members))), np.ones((1, len(others))))[0, 0])


def resolvable(non_members: int, fpr: float) -> bool:
    """Whether a false positive rate can be measured at all: at least three non-members must be expected above it."""
    return non_members * fpr >= 3 - 1e-9


def measure(
    attack: str,
    members: Sample,
    non_members: Sample,
    *,
    conditions: dict[str, bool],
    alpha: float,
    rng: np.random.Generator,
    method: str,
) -> list[Figure]:
    """AUC and TPR at 1 % and 0.1 % FPR of one attack, with stratified bootstrap intervals by unit (2,000 draws, expanded where
    units are few).

    Where fewer than ten members lie above a threshold the bootstrap is too narrow, and the Clopper–Pearson interval is
    joined to it. A rate that the number of non-members cannot resolve is marked so.

    Args:
        attack: name in the figures, `membership.ATTACK.auc` and so on.
        members: scores of trained records.
        non_members: scores of held-out records.
        conditions: validity conditions that hold for all of these figures.
        alpha: error probability of the two-sided intervals.
        rng: source of the resamples.
        method: what the score is.
    """
    inside, outside = _sides(members.scores, non_members.scores)
    size = len(inside) + len(outside)
    rates = np.array(list(RATES.values()))
    tpr = _Rates(inside, outside, rates)
    area = _Area(inside, outside)

    def both(w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
        return np.concatenate([area(w1, w2)[:, None], tpr(w1, w2)], axis=1)

    samples = bootstrap(both, [members.groups, non_members.groups], rng)
    units = resample.fewest(members.groups, non_members.groups)
    what = f"{method}; stratified bootstrap by unit" + (
        "" if units >= resample.FEWEST_UNITS else f"; fewer than {resample.FEWEST_UNITS} units on a side"
    )
    low, high = interval(samples[:, 0], alpha, units)
    enough = min(len(inside), len(outside)) >= FEWEST and units >= resample.FEWEST_UNITS
    figures = [
        Figure(name=f"membership.{attack}.auc", value=auc(inside, outside), low=low, high=high, n=size, method=what,
               conditions=conditions, resolvable=enough)
    ]  # fmt: skip
    for column, (name, fpr) in enumerate(RATES.items(), start=1):
        value = tpr_at_fpr(inside, outside, fpr)
        low, high = interval(samples[:, column], alpha, units)
        if (hits := round(value * len(inside))) < _FEW_HITS:
            exact = clopper_pearson(hits, len(inside), alpha)
            low, high = min(low, exact[0]), max(high, exact[1])
        figures.append(
            Figure(name=f"membership.{attack}.{name}", value=value, low=low, high=high, n=size, method=what,
                   conditions=conditions, resolvable=enough and resolvable(len(outside), fpr))
        )  # fmt: skip
    return figures


def strongest(
    attacks: Mapping[str, tuple[Sample, Sample]], areas: Mapping[str, Figure], *, alpha: float, rng: np.random.Generator
) -> Figure:
    """The AUC of the strongest of several attacks, with bounds that hold although it was picked afterwards.

    The attack with the largest true AUC is one of them, whichever it is, and its own upper bound holds: so the largest upper
    bound needs no correction. The largest lower bound does, since any of them could be too high: each is taken at level
    1 − α/k (Bonferroni).

    Args:
        attacks: scores of members and non-members by attack; the same records in the same order.
        areas: the figure `membership.ATTACK.auc` of each.
        alpha: error probability of the two-sided interval.
        rng: source of the resamples.
    """
    pairs = list(attacks.values())
    statistics = [_Area(*_sides(inside.scores, outside.scores)) for inside, outside in pairs]

    def every(w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
        return np.stack([area(w1, w2) for area in statistics], axis=1)

    samples = bootstrap(every, [side.groups for side in pairs[0]], rng)
    best = max(areas, key=lambda name: areas[name].value)
    highs = [figure.high for figure in areas.values() if figure.high is not None]
    units = resample.fewest(*(side.groups for side in pairs[0]))
    low = max(interval(samples[:, column], alpha / len(pairs), units)[0] for column in range(len(pairs)))
    return Figure(
        name="membership.worst.auc",
        value=areas[best].value,
        low=min(low, areas[best].value),
        high=max(highs),
        n=areas[best].n,
        method=f"the strongest of {len(pairs)} attacks, {best}: largest upper bound of all, largest lower bound at level "
        f"1 - {alpha:g}/{len(pairs)} (Bonferroni); stratified bootstrap by unit",
        conditions={name: all(area.conditions.get(name, True) for area in areas.values()) for name in areas[best].conditions},
        resolvable=all(area.resolvable for area in areas.values()),
    )


def roc_band(
    members: Sample, non_members: Sample, grid: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[list[float], list[float], list[float]]:
    """True positive rate at each false positive rate of `grid`, with its bootstrap band: value, low, high."""
    inside, outside = _sides(members.scores, non_members.scores)
    tpr = _Rates(inside, outside, grid)
    value = tpr(np.ones((1, len(inside))), np.ones((1, len(outside))))[0]
    samples = bootstrap(tpr, [members.groups, non_members.groups], rng, draws=400)
    alpha = resample.expanded(alpha, resample.fewest(members.groups, non_members.groups))
    low, high = np.quantile(samples, [alpha / 2, 1 - alpha / 2], axis=0)
    return value.tolist(), low.tolist(), high.tolist()


def clopper_pearson(hits: int, trials: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided interval at level 1 − α of a binomial share (Clopper, Pearson 1934)."""
    low = float(beta_distribution.ppf(alpha / 2, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta_distribution.ppf(1 - alpha / 2, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


class _Area:
    """AUC of weighted records, sorted once: weights [D, n] and [D, m] to [D]."""

    def __init__(self, members: np.ndarray, others: np.ndarray) -> None:
        self._order = np.argsort(others, kind="stable")
        ordered = others[self._order]
        self._left = np.searchsorted(ordered, members, "left")
        self._right = np.searchsorted(ordered, members, "right")

    def __call__(self, w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
        cumulated = _cumulated(w2[:, self._order])
        below = (cumulated[:, self._left] + cumulated[:, self._right]) / 2
        return (w1 * below).sum(1) / (w1.sum(1) * w2.sum(1))


class _Rates:
    """TPR of weighted records at given rates [R], sorted once: weights [D, n] and [D, m] to [D, R]."""

    def __init__(self, members: np.ndarray, others: np.ndarray, rates: np.ndarray) -> None:
        self._rates = rates
        self._falling = np.argsort(-others, kind="stable")
        self._rising = np.argsort(members, kind="stable")
        # members at or below the threshold, where the threshold is the i-th highest non-member, or below all of them
        ordered = np.searchsorted(members[self._rising], others[self._falling], "right")
        self._not_above = np.append(ordered, 0)

    def __call__(self, w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
        false = np.cumsum(w2[:, self._falling], axis=1)
        total = w1.sum(1, keepdims=True)
        above = (total - _cumulated(w1[:, self._rising])) / total
        columns = []
        for rate in self._rates:
            allowed = np.floor(rate * false[:, -1:] + 1e-9)
            threshold = (false <= allowed).sum(1)  # the first non-member that may not lie above
            columns.append(np.take_along_axis(above, self._not_above[threshold][:, None], axis=1)[:, 0])
        return np.stack(columns, axis=1)


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Running sums with a leading 0: [D, n] to [D, n + 1]."""
    return np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)


def _sides(member_scores: Floats, non_member_scores: Floats) -> tuple[np.ndarray, np.ndarray]:
    members, others = np.asarray(member_scores, float).ravel(), np.asarray(non_member_scores, float).ravel()
    if not len(members) or not len(others) or np.isnan(members).any() or np.isnan(others).any():
        raise ValueError("needs at least one score on each side, and no score may be NaN")
    return members, others
