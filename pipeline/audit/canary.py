"""The figures that the canaries give: a lower bound on ε from all of them, exact exposure of some."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import nn

from pipeline.audit import epsilon, exposure
from pipeline.audit.figures import Figure
from pipeline.audit.resample import bootstrap, interval
from pipeline.audit.scoring import Scores, Sequenced, Tick, ignore, workers
from pipeline.audit.tree import CandidateTree
from pipeline.canaries import Canary, Manifest

ONE_RUN = "one-run audit, Steinke, Nasr, Jagielski 2023, Theorem 5.2; guesses and score fixed before training"

_TREE_TOLERANCE = 1e-3
_SMALLEST_SPACE = 100_000
_UNLIKELY = 1e-3
"""p-value below which a validity condition that chance alone may break counts as broken."""


@dataclass(frozen=True)
class Ranked:
    """Ranks of planted secrets and of controls, which were never planted, in a space of `space_size` candidates.

    `error` is the largest difference in nats between tree and plain scoring, over `checked` candidates.
    """

    planted: tuple[int, ...]
    control: tuple[int, ...]
    space_size: int
    error: float
    checked: int
    seconds: float


def sequences(manifest: Manifest, start: int) -> list[Sequenced]:
    """Every canary as it stands in training, start token, prefix, secret, with prefix and secret scored."""
    return [Sequenced((start, *canary.prefix, *canary.secret), 1) for canary in manifest.canaries]


def choose(manifest: Manifest, count: int, rng: np.random.Generator) -> tuple[list[Canary], list[Canary]]:
    """Canaries to rank, by lot: up to count/2 planted ones and as many controls."""
    chosen = []
    for side in (True, False):
        pool = [canary for canary in manifest.canaries if canary.included is side]
        picks = rng.permutation(len(pool))[: max(1, count // 2)]
        chosen.append([pool[i] for i in sorted(picks)])
    return chosen[0], chosen[1]


def rank(
    model: nn.Module,
    manifest: Manifest,
    planted: Sequence[Canary],
    control: Sequence[Canary],
    start: int,
    rng: np.random.Generator,
    *,
    tick: Tick = ignore,
) -> Ranked:
    """Exact rank of each secret among all candidates after its own prefix; of the first two, some are scored plainly too.

    Args:
        model: the tuned model, in eval mode.
        manifest: holds the alphabet.
        planted: canaries that were trained on.
        control: canaries that were not.
        start: token id that begins every sequence.
        rng: picks the candidates that are scored plainly.
        tick: called after each canary with 1.
    """
    began = time.monotonic()
    tree = CandidateTree(model, manifest.alphabet)
    shape = [len(candidates) for candidates in manifest.alphabet]
    every = [*planted, *control]

    def one(canary: Canary) -> int:
        index = [candidates.index(token) for candidates, token in zip(manifest.alphabet, canary.secret, strict=True)]
        return exposure.rank_of(tree.scores((start, *canary.prefix)), index)

    ranks = []
    with workers(tree.device) as pool:
        for found in pool.map(one, every):
            ranks.append(found)
            tick(1)
    errors, checks = [], 32
    for canary in every[:2]:
        context = (start, *canary.prefix)
        errors.append(tree.check(context, rng.integers(0, shape, (checks, len(shape))).tolist(), tree.scores(context)))
    return Ranked(
        planted=tuple(ranks[: len(planted)]),
        control=tuple(ranks[len(planted) :]),
        space_size=manifest.space_size,
        error=float(np.max(errors)),
        checked=checks * len(errors),
        seconds=time.monotonic() - began,
    )


def exposures(ranks: Sequence[int], space_size: int) -> list[float]:
    """Exposure in bits of each rank."""
    return [exposure.exposure_bits(rank, space_size) for rank in ranks]


def exposure_figures(ranked: Ranked, conditions: dict[str, bool], alpha: float, rng: np.random.Generator) -> list[Figure]:
    """Family p-value, mean and largest exposure of the planted secrets, and mean exposure of the controls.

    Args:
        ranked: exact ranks.
        conditions: conditions on manifest and planting.
        alpha: error probability of the intervals.
        rng: source of the resamples.
    """
    size = ranked.space_size
    control_p = exposure.uniform_p(ranked.control, size) if ranked.control else 0.0
    valid = conditions | {
        "tree_equals_plain_scoring": bool(ranked.error <= _TREE_TOLERANCE),
        "space_of_100000": size >= _SMALLEST_SPACE,
        "controls_uniform": control_p >= _UNLIKELY,
    }
    exact = f"exact rank among {size:,} candidates by tree scoring, ties against the secret (Carlini et al. 2019)"
    figures = []
    for name, ranks in (("mean_bits", ranked.planted), ("control_mean_bits", ranked.control)):
        if not ranks:
            continue
        bits = np.array(exposures(ranks, size))
        low, high = interval(bootstrap(lambda w, bits=bits: (w @ bits) / w.sum(1), [np.arange(len(bits))], rng), alpha)
        figures.append(
            Figure(name=f"exposure.{name}", value=float(bits.mean()), low=low, high=high, n=len(bits), method=exact,
                   conditions=valid, seconds=ranked.seconds if name == "mean_bits" else 0.0)
        )  # fmt: skip
    singles: list[tuple[str, float, int, str]] = []
    if ranked.planted:
        planted, m = ranked.planted, len(ranked.planted)
        singles = [
            ("max_bits", exposure.exposure_bits(min(planted), size), m, exact),
            ("family_p", exposure.family_p(planted, size), m, exposure.FAMILY_METHOD),
            ("mean_p", exposure.mean_p(planted, size), m, "sum of exposures against Gamma(m, 1), exact under chance"),
        ]
    if ranked.control:
        method = "Kolmogorov-Smirnov test that ranks of secrets never planted are uniform"
        singles.append(("control_p", control_p, len(ranked.control), method))
    return figures + [
        Figure(name=f"exposure.{name}", value=value, n=n, method=method, conditions=valid) for name, value, n, method in singles
    ]


def epsilon_figures(
    manifest: Manifest, scores: np.ndarray, claimed: float, delta: float, conditions: dict[str, bool], seconds: float
) -> list[Figure]:
    """Lower bound on ε from one run, its ceiling (every guess right; also a figure), and the p-value of the claimed ε.

    Args:
        manifest: coins, guesses and α, sealed before training.
        scores: tuned minus base log-likelihood of every canary, [m].
        claimed: ε of the run.
        delta: δ of the run.
        conditions: conditions on manifest and planting.
        seconds: time that scoring took.
    """
    coins = np.array([canary.included for canary in manifest.canaries])
    m, k, alpha = len(coins), manifest.guesses, manifest.alpha
    fair = float(stats.binomtest(int(coins.sum()), m, 0.5).pvalue) >= _UNLIKELY
    whole = bool(np.isfinite(scores).all())
    valid = conditions | {"coins_fair": fair, "scores_finite": whole}
    correct = epsilon.count_correct(scores, coins, k) if whole else 0
    bound = epsilon.one_run_epsilon(m, k, correct, delta, alpha)
    most = epsilon.one_run_epsilon(m, k, k, delta, alpha)
    p = epsilon.one_run_p_value(m, k, correct, claimed, delta)
    method = f"{ONE_RUN}; {correct} of {k} guesses right at δ {delta:.2g}, level {1 - alpha:g}"
    return [
        Figure(name="epsilon.lower_bound", value=bound, low=bound, ceiling=most, n=m, method=method, conditions=valid,
               seconds=seconds),
        Figure(name="epsilon.reachable", value=most, n=m, method=f"{ONE_RUN}; every guess right"),
        Figure(name="epsilon.claim_p", value=p, n=m, method=f"{ONE_RUN}; p-value of the claimed ε", conditions=valid),
        Figure(name="epsilon.correct_guesses", value=correct / k, n=k, method="share of right guesses", conditions=valid),
    ]  # fmt: skip


def score_difference(tuned: Scores, base: Scores) -> np.ndarray:
    """The sealed score: log-likelihood of each canary under the tuned model minus under the base model, nats [m]."""
    return tuned.totals - base.totals
