"""The splitter check: can words alone, without any model, tell members from non-members?

If they can, the two groups differ by more than membership, and a membership attack that succeeds shows nothing (Duan et al.
2024; Das, Zhang, Tramèr 2024, "Blind Baselines Beat Membership Inference Attacks"). Members and non-members of hushtune are
split by chance, so the check should find nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse

TOLERANCE = 0.55
"""A lower bound of the blind AUC above this voids the membership figures."""

METHOD = "naive Bayes on words, five folds by unit, no model (Das, Zhang, Tramer 2024)"

_BUCKETS = 1 << 15
_FOLDS = 5
_WORD = re.compile(r"\w+")


def blind_scores(texts: Sequence[str], member: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log-odds of membership of each text, from a naive Bayes classifier that never saw a record of the same unit.

    Args:
        texts: records, [n].
        member: bool [n].
        groups: unit of each record, [n]; whole units go to one of five folds.
        rng: deals the folds.

    Returns:
        Float64 [n], higher = member; mean log-odds per distinct word, so that long records weigh no more than short ones.
    """
    words = _presence(texts)
    _, unit = np.unique(groups, return_inverse=True)
    fold = rng.permutation(np.arange(unit.max() + 1) % _FOLDS)[unit]
    lengths = np.maximum(np.asarray(words.sum(1)).ravel(), 1)
    scores = np.zeros(len(texts))
    for held in range(_FOLDS):
        rates = [_rates(words[(fold != held) & (member == side)]) for side in (True, False)]
        rows = fold == held
        scores[rows] = (words[rows] @ np.log(rates[0] / rates[1])) / lengths[rows]
    return scores


def _rates(words: sparse.csr_array) -> np.ndarray:
    """Smoothed share of texts that hold each word, [buckets]."""
    texts = np.diff(words.indptr).size
    return (np.asarray(words.sum(0)).ravel() + 1) / (texts + 2)


def _presence(texts: Sequence[str]) -> sparse.csr_array:
    """Which hashed words a text holds: 0/1, [n, buckets]."""
    rows = [sorted({zlib.crc32(word.encode()) % _BUCKETS for word in _WORD.findall(text.lower())}) for text in texts]
    starts = np.cumsum([0, *map(len, rows)])
    columns = np.array([column for row in rows for column in row], np.int64)
    return sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(texts), _BUCKETS))
