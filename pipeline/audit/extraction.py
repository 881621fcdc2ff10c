"""Extraction: does the model go on with a training record word for word when it is given how the record begins?

Both attackers are judged exactly, from the one pass over the true tokens. Greedy decoding gives the next k tokens if and only
if each of them is ranked first after the true ones before it (k-extractible: Carlini et al. 2023, "Quantifying Memorization
Across Neural Language Models"). Sampling gives them with probability p_z, the product of their probabilities, so that n
queries give them at least once with probability 1 − (1 − p_z)^n ((n, p)-discoverable: Hayes et al. 2024, "Measuring
memorization in language models via probabilistic extraction").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.audit import shares
from pipeline.audit.figures import Figure
from pipeline.audit.scoring import FIRST, SAMPLED, TOP_K, Labelled, Scores
from pipeline.train.examples import IGNORED

QUERIES, CHANCE = 1000, 0.5
"""n and p of (n, p)-discoverable."""


class Reach(NamedTuple):
    """What the attackers reach of one record: greedy or not, and the largest log p_z of any of its windows."""

    greedy: bool
    log_chance: float

    @property
    def discoverable(self) -> bool:
        """Whether QUERIES samples hold it with probability CHANCE or more."""
        return self.log_chance >= needed(QUERIES, CHANCE)


def needed(queries: int, chance: float) -> float:
    """Smallest log p_z with 1 − (1 − p_z)^queries ≥ chance.

    >>> round(needed(1, 0.5), 6), round(needed(1000, 0.5), 6)
    (-0.693147, -7.274615)
    """
    return math.log(-math.expm1(math.log1p(-chance) / queries))


def reach(labels: Sequence[int], details: np.ndarray, prefix: int, suffix: int) -> Reach | None:
    """The best of all windows of `suffix` neighbouring learned tokens that at least `prefix` tokens stand before.

    Args:
        labels: of the record, -100 where a token is not learned; the first is the start token.
        details: of its learned tokens, [tokens, 4], as in `Scores.details`.
        prefix: tokens that the attacker knows at least, the start token not counted.
        suffix: tokens to extract.

    Returns:
        None if the record has no such window.
    """
    places = np.array([place for place, label in enumerate(labels) if place and label != IGNORED])
    if len(places) < suffix:
        return None
    fits = (places[suffix - 1 :] - places[: len(places) - suffix + 1] == suffix - 1) & (
        places[: len(places) - suffix + 1] > prefix
    )
    if not fits.any():
        return None
    first, sampled = (np.lib.stride_tricks.sliding_window_view(details[:, column], suffix) for column in (FIRST, SAMPLED))
    return Reach(bool((first.min(1)[fits] > 0).any()), float(sampled.sum(1, dtype=np.float64)[fits].max()))


def measure(
    members: tuple[Sequence[Labelled], Scores],
    held_out: tuple[Sequence[Labelled], Scores],
    *,
    prefix: int,
    suffix: int,
    alpha: float,
    note: str,
) -> list[Figure]:
    """Shares of records that are greedily extractible, discoverable, and either; of trained and of never-trained records.

    Args:
        members: trained records and their detailed scores under the tuned model.
        held_out: the same of records that were never trained on.
        prefix: tokens that the attacker knows at least.
        suffix: tokens to extract.
        alpha: error probability of each one-sided bound.
        note: how the records were chosen.
    """
    sides = [[reach(record.labels, found, prefix, suffix) for record, found in zip(records, scores.details, strict=True)]
             for records, scores in (members, held_out)]  # fmt: skip
    known = [[one for one in side if one is not None] for side in sides]
    conditions = {"scores_finite": not any(math.isnan(one.log_chance) for side in known for one in side)}
    what = f"{suffix} tokens after {prefix} or more of the record"
    ways = {
        "greedy": (f"{what}, by greedy decoding, exact (Carlini et al. 2023); {note}", lambda one: one.greedy),
        "discoverable": (
            f"{what}, with probability {CHANCE:g} or more in {QUERIES:,} samples of the {TOP_K} likeliest tokens, exact "
            f"(Hayes et al. 2024); {note}",
            lambda one: one.discoverable,
        ),
        "either": (f"{what}, greedily or by sampling; {note}", lambda one: one.greedy or one.discoverable),
    }
    figures: list[Figure] = []
    for name, (method, hit) in ways.items():
        first, second = ((sum(map(hit, side)), len(side)) for side in known)
        figures += shares.figures(f"extraction.{name}", first, second, method, conditions, alpha)
    return figures
