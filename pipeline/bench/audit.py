"""How fast the exact rank of a secret among all candidates is found, against scoring every candidate on its own.

Both ways score the same candidates of one canary and are timed in turn, round after round, in one process. Scoring each
candidate on its own takes minutes, so it is timed on a stated sample of whole batches and scaled up: every batch has the same
shape. The sample also shows that both ways give the same ranks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.audit import canary, ranking
from pipeline.audit.scoring import Sequenced, score
from pipeline.audit.tree import CandidateTree
from pipeline.bench.train import SHAPES
from pipeline.canaries import Canary, Space

ALPHABET, PLACES, PREFIX = 48, 3, 8
"""The standard secret: 48 candidates at each of 3 places, after a prefix of 8 tokens."""

BATCH = 64
COUNTS = (2, 4, 8, 16)

Secret = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens before a secret, and its index at each place of the alphabet."""


def run(
    shapes: Sequence[str], rounds: int, threads: int = 1, *, batches: int = 8, counts: Sequence[int] = COUNTS
) -> dict[str, Any]:
    """Time ranking on every shape.

    Args:
        shapes: names of `SHAPES`.
        rounds: timed rounds; each times every way once, in turn.
        threads: of torch.
        batches: batches of 64 candidates that are scored on their own in each round.
        counts: numbers of canaries whose attacks are timed, at least two.

    Returns:
        For each shape: median seconds of both ways, their ratio, agreement on the sample, and the seconds of the attacks at
        several numbers of canaries with the straight line through them; with the versions and threads used.
    """
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"threads": threads, "rounds": rounds}
    result["versions"] = {name: version(name) for name in ("torch", "transformers")}
    for name in shapes:
        torch.manual_seed(0)
        model = SHAPES[name].make().eval().requires_grad_(False)
        result[name] = _ranking(model, rounds, batches) | {"canaries": _canaries(model, rounds, counts)}
    return result


def _ranking(model: nn.Module, rounds: int, batches: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    alphabet, [(context, _)] = _secrets(model, 1, rng)
    tree = CandidateTree(model, alphabet)
    picks = rng.choice(ALPHABET**PLACES, batches * BATCH, replace=False)
    index = np.stack(np.unravel_index(picks, (ALPHABET,) * PLACES), 1)
    single = [Sequenced((*context, *(alphabet[place][i] for place, i in enumerate(row))), len(context)) for row in index]
    budget = BATCH * len(single[0].input_ids)
    found: dict[str, np.ndarray] = {}

    def packed() -> None:
        found["packed"] = tree.scores(context)

    def plain() -> None:
        found["plain"] = score(model, single, budget=budget).totals

    seconds = _timed({"packed": packed, "plain_sample": plain}, rounds)
    table = found["packed"].ravel()
    seconds["plain_all"] = seconds["plain_sample"] * table.size / len(single)
    mine, theirs = table[picks], found["plain"]
    return {
        "candidates": table.size,
        "tokens_of_a_candidate": len(single[0].input_ids),
        "sample": {"batches": batches, "batch": BATCH, "scaled_by": table.size / len(single)},
        "seconds": seconds,
        "ratio": seconds["plain_all"] / seconds["packed"],
        "agreement": {
            "largest_difference_nats": float(np.abs(mine - theirs).max()),
            "same_rank_in_sample": float(np.mean(mine.argsort().argsort() == theirs.argsort().argsort())),
            "largest_rank_difference_in_sample": int(np.abs(mine.argsort().argsort() - theirs.argsort().argsort()).max()),
        },
    }


def _canaries(model: nn.Module, rounds: int, counts: Sequence[int]) -> dict[str, Any]:
    """Seconds of scoring and ranking some canaries as the audit does, and the straight line through them (least squares)."""
    rng = np.random.default_rng(1)
    alphabet, secrets = _secrets(model, max(counts), rng)
    space = Space(slots=tuple(tuple((token,) for token in tokens) for tokens in alphabet))
    made = [
        Canary(
            id="",
            family="random",
            copies=1,
            prefix=context[1:],
            choice=index,
            secret=space.secret(index),
            text="",
            included=True,
        )
        for context, index in secrets
    ]

    def attack(count: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(2):  # under the base model and under the tuned one
                score(model, canary.sequences(made[:count], 0))
            ranking.rank(model, space, made[:count], [], 0, rng)

        return work

    attack(min(counts))()  # warms up
    seconds = _timed({str(count): attack(count) for count in counts}, rounds, warm=True)
    x, y = np.array(counts, float), np.array([seconds[str(count)] for count in counts])
    slope, intercept = np.polyfit(x, y, 1)
    left = float(np.square(y - slope * x - intercept).sum() / np.square(y - y.mean()).sum())
    return {"seconds": seconds, "seconds_a_canary": float(slope), "seconds_besides": float(intercept), "r_squared": 1 - left}


def _timed(ways: dict[str, Callable[[], None]], rounds: int, *, warm: bool = False) -> dict[str, float]:
    """Median seconds of each way, timed in turn; a round before the first warms up where nothing has."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(warm, rounds + 1):
        for way, work in ways.items():
            started = time.perf_counter()
            work()
            if turn:
                times[way].append(time.perf_counter() - started)
    return {way: statistics.median(values) for way, values in times.items()}


def _secrets(model: Any, count: int, rng: np.random.Generator) -> tuple[list[list[int]], list[Secret]]:
    """An alphabet, and canaries made of it, from a model's vocabulary."""
    vocabulary = int(model.config.vocab_size)
    alphabet = [sorted(rng.choice(np.arange(2, vocabulary), ALPHABET, replace=False).tolist()) for _ in range(PLACES)]
    return alphabet, [
        ((0, *rng.integers(2, vocabulary, PREFIX).tolist()), tuple(rng.integers(0, ALPHABET, PLACES).tolist()))
        for _ in range(count)
    ]
