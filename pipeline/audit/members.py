"""Membership in one run: the splitter check, every signal on the drawn records, and the strongest of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit import membership, records
from pipeline.audit.figures import Figure, Series
from pipeline.audit.membership import Sample
from pipeline.audit.scoring import Scores
from pipeline.audit.signals import METHODS, signals
from pipeline.corpus import Record
from pipeline.train.examples import IGNORED, Example


@dataclass(frozen=True)
class Side:
    """Records of one side, members or held-out ones: their examples and scores under both models, tuned with details."""

    records: Sequence[Record]
    examples: Sequence[Example]
    tuned: Scores
    base: Scores

    def first(self, most: int) -> Side:
        """The first records in the order of the lot."""
        rows = range(min(most, len(self.records)))
        return Side(self.records[:most], self.examples[:most], self.tuned.pick(rows), self.base.pick(rows))

    def learned(self, decode: Callable[[list[int]], Any]) -> list[str]:
        """The text of each record that is learned from, as far as it is trained on."""
        return [decode([label for label in example.labels if label != IGNORED]) for example in self.examples]


def attack(
    inside: Side,
    outside: Side,
    decode: Callable[[list[int]], Any],
    *,
    repeated: int,
    alpha: float,
    rng: np.random.Generator,
) -> tuple[list[Figure], Series]:
    """The splitter check, AUC and TPR of each attack with intervals and ROC curves, and the strongest attack.

    Args:
        inside: trained records.
        outside: records that were never trained on.
        decode: token ids to text, for the attack that compresses it.
        repeated: records of repeated texts that were left out; stands in the method.
        alpha: error probability of the intervals.
        rng: source of folds and resamples.
    """
    if not inside.records or len(outside.records) < 2:
        return [], {}
    groups = [records.groups(side.records) for side in (inside, outside)]
    blind = records.blind(inside.records, outside.records, rng)
    check = membership.measure(
        "splitter", *_samples(blind, groups), conditions={}, alpha=alpha, rng=rng, method=records.METHOD
    )[0]
    figures, series = [check], Series()
    conditions = {"split_by_chance": check.low is not None and check.low <= records.TOLERANCE}
    tuned, base = inside.tuned.joined(outside.tuned), inside.base.joined(outside.base)
    found = signals(tuned, base, len(inside.records), [*inside.learned(decode), *outside.learned(decode)])
    if not all(np.isfinite(scores).all() for scores in found.values()):
        names = [f"{name}.auc" for name in (*found, "worst")]
        return [*figures, *(_broken(f"membership.{name}", len(blind)) for name in names)], {}
    pairs, areas = {}, {}
    grid = np.geomspace(1 / len(outside.records), 1, 40)
    for name, scores in found.items():
        pair = pairs[name] = _samples(scores, groups)
        method = f"{METHODS[name]}; {repeated:,} records of repeated texts left out"
        measured = membership.measure(name, *pair, conditions=conditions, alpha=alpha, rng=rng, method=method)
        areas[name] = measured[0]
        figures += measured
        value, low, high = membership.roc_band(*pair, grid, alpha, rng)
        series[f"membership.{name}.roc"] = [list(point) for point in zip(grid.tolist(), value, strict=True)]
        series[f"membership.{name}.roc_band"] = [list(p) for p in zip(grid.tolist(), low, high, strict=True)]
    return [*figures, membership.strongest(pairs, areas, alpha=alpha, rng=rng)], series


def _samples(scores: np.ndarray, groups: list[np.ndarray]) -> tuple[Sample, Sample]:
    first = len(groups[0])
    return Sample(scores[:first], groups[0]), Sample(scores[first:], groups[1])


def _broken(name: str, n: int) -> Figure:
    conditions = {"scores_finite": False}
    return Figure(name=name, value=0.0, n=n, method="not measured", conditions=conditions, resolvable=False)
