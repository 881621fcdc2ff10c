"""What a membership attack scores a record by: one number for each record, higher = member.

Every signal is made from the one pass that each model takes over the records.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.audit.scoring import MEAN, SPREAD, Scores

METHODS = {
    "loss": "log-likelihood per token under the tuned model (Yeom et al. 2018)",
    "ratio": "log-likelihood per token, tuned minus base (Carlini et al. 2021; Mireshghallah et al. 2022)",
    "zlib": "log-likelihood over compressed size in bits (Carlini et al. 2021)",
    "min_k": "mean log-likelihood of the 20 % least likely tokens (Shi et al. 2024, Min-K%)",
    "min_k_plus": "the same, each token normalised over the vocabulary (Zhang et al. 2024, Min-K%++)",
    "rmia": "share of held-out records whose likelihood ratio is no larger (Zarifzadeh, Liu, Shokri 2024, offline, γ 1, "
    "a 0.99; assumes that the base model stands for models trained without the record)",
}
"""What each attack scores, with its source."""

_LEAST = 0.2
_GAMMA, _A = 1.0, 0.99  # with a = 1 it would order records as the ratio does, with a small one as the loss does
_SURE = 1e-6
"""Spread of log-probabilities below which a token says nothing, since the model is certain of it."""


def signals(tuned: Scores, base: Scores, members: int, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The scores of every attack of METHODS, each float64 [n].

    Args:
        tuned: scores of the records under the tuned model, with details, members first.
        base: scores of the same records under the base model.
        members: how many of them are members; the others are the population that RMIA compares with.
        texts: what was scored of each record, [n].
    """
    return {
        "loss": tuned.means,
        "ratio": tuned.means - base.means,
        "zlib": tuned.totals / compressed_bits(texts),
        "min_k": np.array([least(values) for values in tuned.log_probs]),
        "min_k_plus": np.array([least(normalised(*pair)) for pair in zip(tuned.log_probs, tuned.details, strict=True)]),
        "rmia": rmia(tuned.means, base.means, members),
    }


def compressed_bits(texts: Iterable[str]) -> np.ndarray:
    """Size of each text after zlib, in bits, float64 [n]."""
    return np.array([8.0 * len(zlib.compress(text.encode("utf-8", "replace"))) for text in texts])


def least(values: np.ndarray) -> float:
    """Mean of the 20 % smallest of some numbers, at least one of them; 0 where there are none."""
    if not len(values):
        return 0.0
    count = max(1, int(_LEAST * len(values)))
    return float(np.partition(values.astype(np.float64), count - 1)[:count].mean())


def normalised(log_probs: np.ndarray, details: np.ndarray) -> np.ndarray:
    """Log-probability of each token in standard deviations from its mean over the vocabulary; 0 where the model is certain.

    Args:
        log_probs: of the tokens of a record, [tokens].
        details: of the same tokens, [tokens, 4], as in `Scores.details`.
    """
    mean, spread = details[:, MEAN].astype(np.float64), details[:, SPREAD].astype(np.float64)
    return np.where(spread < _SURE, 0.0, (log_probs - mean) / np.maximum(spread, _SURE))


def rmia(tuned: np.ndarray, base: np.ndarray, members: int) -> np.ndarray:
    """Share of the population z with LR(x)/LR(z) ≥ γ, where LR(x) = p(x) / ½((1 + a)·p_base(x) + 1 − a); Algorithm 1.

    p is the geometric mean probability of a token, since products over records of different length do not compare. The
    population is the non-members; one of them is never compared with itself.

    Args:
        tuned: log-likelihood per token under the tuned model, members first, [n].
        base: the same under the base model, [n].
        members: how many are members.

    Returns:
        Float64 [n], each in [0, 1].
    """
    ratio = tuned - np.log(((1 + _A) * np.exp(base) + 1 - _A) / 2)
    population = np.sort(ratio[members:])
    below = np.searchsorted(population, ratio - np.log(_GAMMA), "right").astype(np.float64)
    outside = np.arange(len(ratio)) >= members
    others = len(population) - outside
    return np.where(np.isnan(ratio), np.nan, (below - outside) / np.maximum(others, 1))
