"""Utility: what training bought, on records that it never saw."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pipeline.audit import resample
from pipeline.audit.figures import Figure
from pipeline.audit.resample import bootstrap, interval

if TYPE_CHECKING:
    from pipeline.audit.scoring import Scores

FEWEST = 20
"""Held-out records below which utility is not resolvable; so it is where they are of fewer than ten units."""


def measure(
    base: Scores,
    tuned: Scores,
    groups: np.ndarray,
    *,
    alpha: float,
    rng: np.random.Generator,
    adapted: Scores | None = None,
) -> list[Figure]:
    """Perplexity per token and next-token accuracy before and after, and the ratio of perplexities, tuned over before.

    Intervals are percentile bootstraps by unit (2,000 draws), with all models on the same draw. Where the base model was
    trained on public text first, that is what the tuned one is held against, or the gain of public text would pass for what
    the private records bought.

    Args:
        base: scores of the held-out records under the base model.
        tuned: scores of the same records under the tuned model.
        groups: unit of each record, [n].
        alpha: error probability of the two-sided intervals.
        rng: source of the resamples.
        adapted: scores of the same records under the base model after continued pretraining on public text.
    """
    between = [] if adapted is None else [adapted]
    models = [base, *between, tuned]
    columns = np.stack([base.tokens, *(one.totals for one in models), *(one.hits for one in models)], axis=1).astype(float)
    methods = _METHODS if adapted is None else _WITH_PUBLIC

    def statistics(weights: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # a model that diverged; `figures.finite` marks what comes of it
            tokens, *sums = (weights @ columns).T
            totals, hits = sums[: len(models)], sums[len(models) :]
            ratios = [np.exp((before - after) / tokens) for before, after in itertools.pairwise(totals)]
            return np.stack([*(np.exp(-total / tokens) for total in totals), *ratios, *(hit / tokens for hit in hits)], axis=1)

    values = statistics(np.ones((1, len(columns))))[0]
    samples = bootstrap(statistics, [groups], rng)
    enough = len(columns) >= FEWEST and resample.enough(groups)
    figures = []
    for column, (name, method) in enumerate(methods.items()):
        low, high = interval(samples[:, column], alpha, resample.fewest(groups))
        figures.append(
            Figure(name=f"utility.{name}", value=float(values[column]), low=low, high=high, n=len(columns),
                   method=f"{method} on held-out records; bootstrap by their {len(np.unique(groups)):,} units",
                   resolvable=enough)
        )  # fmt: skip
    return figures


_METHODS = {
    "base_perplexity": "perplexity per token of the base model",
    "perplexity": "perplexity per token of the tuned model",
    "perplexity_ratio": "perplexity of the tuned model over that of the base model",
    "base_accuracy": "share of tokens that the base model ranks first",
    "accuracy": "share of tokens that the tuned model ranks first",
}
_PUBLIC = "the base model after continued pretraining on public text"
_WITH_PUBLIC = {
    "base_perplexity": _METHODS["base_perplexity"],
    "public_perplexity": f"perplexity per token of {_PUBLIC}",
    "perplexity": _METHODS["perplexity"],
    "public_ratio": f"perplexity of {_PUBLIC} over that of the base model",
    "perplexity_ratio": f"perplexity of the tuned model over that of {_PUBLIC}",
    "base_accuracy": _METHODS["base_accuracy"],
    "public_accuracy": f"share of tokens that {_PUBLIC} ranks first",
    "accuracy": _METHODS["accuracy"],
}
