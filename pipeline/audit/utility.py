"""Utility: what training bought, on records that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.audit import resample
from pipeline.audit.figures import Figure
from pipeline.audit.resample import bootstrap, interval

if TYPE_CHECKING:
    from pipeline.audit.scoring import Scores

FEWEST = 20
"""Held-out records below which utility is not resolvable; so it is where they are of fewer than ten units."""


def measure(base: Scores, tuned: Scores, groups: np.ndarray, *, alpha: float, rng: np.random.Generator) -> list[Figure]:
    """Perplexity per token and next-token accuracy before and after, and the ratio of perplexities, tuned over base.

    Intervals are percentile bootstraps by unit (2,000 draws), with both models on the same draw.

    Args:
        base: scores of the held-out records under the base model.
        tuned: scores of the same records under the tuned model.
        groups: unit of each record, [n].
        alpha: error probability of the two-sided intervals.
        rng: source of the resamples.
    """
    columns = np.stack([base.tokens, base.totals, tuned.totals, base.hits, tuned.hits], axis=1).astype(float)

    def five(weights: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # a model that diverged; `figures.finite` marks what comes of it
            tokens, before, after, hits_before, hits_after = (weights @ columns).T
            ratio = np.exp((before - after) / tokens)
            perplexities = np.exp(-before / tokens), np.exp(-after / tokens)
            return np.stack([*perplexities, ratio, hits_before / tokens, hits_after / tokens], axis=1)

    values = five(np.ones((1, len(columns))))[0]
    samples = bootstrap(five, [groups], rng)
    enough = len(columns) >= FEWEST and resample.enough(groups)
    figures = []
    for column, (name, method) in enumerate(_FIGURES.items()):
        low, high = interval(samples[:, column], alpha, resample.fewest(groups))
        figures.append(
            Figure(name=f"utility.{name}", value=float(values[column]), low=low, high=high, n=len(columns),
                   method=f"{method} on held-out records; bootstrap by their {len(np.unique(groups)):,} units",
                   resolvable=enough)
        )  # fmt: skip
    return figures


_FIGURES = {
    "base_perplexity": "perplexity per token of the base model",
    "perplexity": "perplexity per token of the tuned model",
    "perplexity_ratio": "perplexity of the tuned model over that of the base model",
    "base_accuracy": "share of tokens that the base model ranks first",
    "accuracy": "share of tokens that the tuned model ranks first",
}
