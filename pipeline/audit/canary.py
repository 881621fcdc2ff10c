"""The figures that the canaries give: bounds on ε from the random ones, exposure of both families."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from pipeline.audit import epsilon, exposure, one_run_fdp, shares
from pipeline.audit.figures import Figure, Series
from pipeline.audit.ranking import TOLERANCE, Ranked
from pipeline.audit.resample import FEWEST_UNITS, bootstrap, interval
from pipeline.audit.scoring import Scores, Sequenced
from pipeline.canaries import Canary, Manifest
from pipeline.train.mechanism import Mechanism

ONE_RUN = "one-run audit, Steinke, Nasr, Jagielski 2023, Theorem 5.2; guesses and score fixed before training"
FDP = "one-run audit of a trade-off curve, Mahloujifar, Melis, Chaudhuri 2025, Algorithm 3; same guesses"
OUTCOMES = {-1: "violated", 0: "inconclusive", 1: "consistent"}
"""Words for what a bound says of a claim, and their values.

violated: all conditions hold, and what was claimed is refuted at the level.
consistent: all conditions hold, it is not refuted, and an attack with every guess right would have refuted it.
inconclusive: a condition fails, or no outcome could have refuted it.
"""

_SMALLEST_SPACE = 100_000
_UNUSUAL = 0.01
_SUM = "sum of exposures against Gamma(m, 1), exact under chance"
_UNLIKELY = 1e-3
"""p-value below which a validity condition that chance alone may break counts as broken."""


def sequences(canaries: Sequence[Canary], start: int) -> list[Sequenced]:
    """Every canary as it stands in training, start token, prefix, secret, with prefix and secret scored."""
    return [Sequenced((start, *canary.prefix, *canary.secret), 1) for canary in canaries]


def choose(canaries: Sequence[Canary], count: int, rng: np.random.Generator) -> tuple[list[Canary], list[Canary]]:
    """Canaries to rank, by lot: up to count/2 planted ones and as many controls."""
    chosen = []
    for side in (True, False):
        pool = [canary for canary in canaries if canary.included is side]
        picks = rng.permutation(len(pool))[: max(1, count // 2)]
        chosen.append([pool[i] for i in sorted(picks)])
    return chosen[0], chosen[1]


def exposures(ranks: Sequence[int], space_size: int) -> list[float]:
    """Exposure in bits of each rank."""
    return [exposure.exposure_bits(rank, space_size) for rank in ranks]


def _valid(ranked: Ranked, conditions: dict[str, bool], *, family: bool) -> dict[str, bool]:
    """The conditions with those on the ranks; `family`: the best of all planted secrets is judged, not rung by rung."""
    control_p = exposure.uniform_p(ranked.control, ranked.space_size) if ranked.control else 0.0
    # What the best of them could have shown: a family p-value that cannot fall below the usual limit shows nothing.
    able = bool(ranked.planted) and exposure.family_p([1] * len(ranked.planted), ranked.space_size) <= _UNUSUAL
    space = (
        {"tree_equals_plain_scoring": bool(ranked.error <= TOLERANCE), "space_of_100000": ranked.space_size >= _SMALLEST_SPACE}
        if ranked.exact
        else {"references_resolve_the_family": able}
        if family
        else {}
    )
    return conditions | space | {"controls_uniform": control_p >= _UNLIKELY}


def exposure_figures(ranked: Ranked, conditions: dict[str, bool], alpha: float, rng: np.random.Generator) -> list[Figure]:
    """Family p-value and cutoff, mean and largest exposure of the planted secrets, and mean exposure of the controls.

    Args:
        ranked: ranks of the random canaries.
        conditions: conditions on manifest and planting.
        alpha: error probability of the intervals.
        rng: source of the resamples.
    """
    size, valid = ranked.space_size, _valid(ranked, conditions, family=True)
    figures = [
        _mean(f"exposure.{name}", ranks, ranked, valid, alpha, rng)
        for name, ranks in (("mean_bits", ranked.planted), ("control_mean_bits", ranked.control))
        if ranks
    ]
    singles: list[tuple[str, float, int, str, float | None]] = []
    if ranked.planted:
        planted, m = ranked.planted, len(ranked.planted)
        cutoff = f"exposure that the best of {m} secrets reaches by chance with probability {_UNUSUAL:g} (Sidak 1967)"
        singles = [
            ("max_bits", exposure.exposure_bits(min(planted), size), m, ranked.method, None),
            ("family_p", exposure.family_p(planted, size), m, exposure.FAMILY_METHOD, exposure.family_p([1] * m, size)),
            ("family_cutoff", exposure.family_cutoff(m, _UNUSUAL), m, cutoff, None),
            ("mean_p", exposure.mean_p(planted, size), m, _SUM, exposure.mean_p([1] * m, size)),
        ]
    if ranked.control:
        method = "Kolmogorov-Smirnov test that ranks of secrets never planted are uniform"
        control_p = exposure.uniform_p(ranked.control, size)
        singles.append(("control_p", control_p, len(ranked.control), method, None))
    return figures + [
        Figure(name=f"exposure.{name}", value=value, floor=floor, n=n, method=method, conditions=valid)
        for name, value, n, method, floor in singles
    ]


def ladder_figures(
    ranked: Ranked, limits: dict[int, float], conditions: dict[str, bool], alpha: float, rng: np.random.Generator
) -> list[Figure]:
    """Exposure of the personal-data-shaped canaries at each number of copies, with what the promise allows; share ranked first.

    Args:
        ranked: ranks of the personal canaries.
        limits: ε of a secret's copies together, for each number of copies; infinite where there is none.
        conditions: conditions on manifest and planting.
        alpha: error probability of the intervals.
        rng: source of the resamples.
    """
    size, valid = ranked.space_size, _valid(ranked, conditions, family=False)
    figures = []
    for times in sorted(set(ranked.copies)):
        ranks = [rank for rank, copies in zip(ranked.planted, ranked.copies, strict=True) if copies == times]
        name = f"exposure.copies_{times}"
        figures.append(_mean(f"{name}.mean_bits", ranks, ranked, valid, alpha, rng))
        p, least = exposure.mean_p(ranks, size), exposure.mean_p([1] * len(ranks), size)
        figures.append(Figure(name=f"{name}.mean_p", value=p, floor=least, n=len(ranks), method=_SUM, conditions=valid))
        if math.isfinite(limits.get(times, math.inf)):
            bits = limits[times] / math.log(2)
            method = f"ε of {times} copies together, over ln 2: bits by which exposure may rise, but for a probability of δ"
            if bits >= math.log2(size):
                method += f"; more than the {math.log2(size):.2f} bits that there are, so no exposure could contradict it"
            figures.append(Figure(name=f"{name}.dp_bits", value=bits, n=times, method=method))
    if ranked.control:
        figures.append(_mean("exposure.copies_0.mean_bits", ranked.control, ranked, valid, alpha, rng))
    first, control = ((sum(rank == 1 for rank in ranks), len(ranks)) for ranks in (ranked.planted, ranked.control))
    method = f"the model's first choice of {size:,} at its place: personal secrets, whatever their number of copies"
    return figures + shares.figures("exposure.first", first, control, method, valid, alpha)


def ladder_series(ranked: Ranked) -> Series:
    """The exposures behind the means of `ladder_figures`, by number of copies; 0 for those never planted."""
    found = {times: [] for times in (0, *ranked.copies)}
    for rank, times in [*zip(ranked.planted, ranked.copies, strict=True), *((rank, 0) for rank in ranked.control)]:
        found[times].append(rank)
    size = ranked.space_size
    return {f"exposure.copies_{times}": sorted(exposures(ranks, size), reverse=True) for times, ranks in found.items()}


def _mean(
    name: str, ranks: Sequence[int], ranked: Ranked, valid: dict[str, bool], alpha: float, rng: np.random.Generator
) -> Figure:
    """Mean exposure of some ranks with its interval; `ceiling` is that of a secret which stands first."""
    bits, most = np.array(exposures(ranks, ranked.space_size)), math.log2(ranked.space_size)
    low, high, way = mean_interval(bits, most, alpha, rng)
    return Figure(
        name=name, value=float(bits.mean()), low=low, high=high, ceiling=most, n=len(bits),
        method=f"{ranked.method}; {way}", conditions=valid, seconds=ranked.seconds,
    )  # fmt: skip


def mean_interval(bits: np.ndarray, most: float, alpha: float, rng: np.random.Generator) -> tuple[float, float, str]:
    """Interval of the mean of some exposures between 0 and `most`, and its name: a bootstrap where there are ten or more.

    A rung of the ladder holds a few secrets, and a bootstrap of four covers three times in four: fewer than ten have the
    interval of Hoeffding 1963 (Theorem 2), which is wide, and holds.
    """
    if len(bits) < FEWEST_UNITS:
        reach = most * math.sqrt(math.log(2 / alpha) / (2 * len(bits)))
        return max(0.0, float(bits.mean()) - reach), min(most, float(bits.mean()) + reach), "Hoeffding interval"
    drawn = bootstrap(lambda w: (w @ bits) / w.sum(1), [np.arange(len(bits))], rng)
    return *interval(drawn, alpha, len(bits)), "bootstrap"


def epsilon_figures(
    manifest: Manifest,
    scores: np.ndarray,
    claimed: float | None,
    delta: float,
    conditions: dict[str, bool],
    seconds: float,
    mechanism: tuple[Mechanism, int] | None = None,
) -> list[Figure]:
    """Lower bounds on ε from one run, what they could have reached, and what they say of the claim.

    Args:
        manifest: coins, guesses and α, sealed before training.
        scores: tuned minus base log-likelihood of every random canary, [m].
        claimed: ε of the run; None where nothing is claimed.
        delta: δ of the run.
        conditions: conditions on manifest and planting.
        seconds: time that scoring took.
        mechanism: the mechanism as it was run and its steps: its trade-off curve is tested as a whole.
    """
    some = manifest.of("random")
    coins = np.array([canary.included for canary in some])
    m, k, alpha = len(coins), manifest.guesses, manifest.alpha
    whole = bool(np.isfinite(scores).all())
    valid = conditions | {
        "coins_fair": float(stats.binomtest(int(coins.sum()), m, 0.5).pvalue) >= _UNLIKELY,
        "scores_finite": whole,
        "one_copy_each": all(canary.copies == 1 for canary in some),
    }
    correct = epsilon.count_correct(scores, coins, k) if whole else 0
    bound = epsilon.one_run_epsilon(m, k, correct, delta, alpha)
    most = epsilon.one_run_epsilon(m, k, k, delta, alpha)
    fdp, fdp_most = (one_run_fdp.gaussian_epsilon(m, k, v, delta, alpha) for v in (correct, k))
    level = f"{correct} of {k} guesses right at δ {delta:.2g}, level {1 - alpha:g}"
    gaussian = f"{FDP}; {level}; assumes a Gaussian trade-off curve"
    figures = [
        Figure(name="epsilon.lower_bound", value=bound, low=bound, ceiling=most, n=m, method=f"{ONE_RUN}; {level}",
               conditions=valid, seconds=seconds),
        Figure(name="epsilon.reachable", value=most, n=m, method=f"{ONE_RUN}; every guess right"),
        Figure(name="epsilon.correct_guesses", value=correct / k, n=k, method="share of right guesses", conditions=valid),
        Figure(name="epsilon.fdp_lower_bound", value=fdp, low=fdp, ceiling=fdp_most, n=m, method=gaussian, conditions=valid),
    ]  # fmt: skip
    if claimed is not None:
        p, least = (epsilon.one_run_p_value(m, k, v, claimed, delta) for v in (correct, k))
        method = f"{ONE_RUN}; p-value of the claimed ε"
        figures.append(Figure(name="epsilon.claim_p", value=p, floor=least, n=m, method=method, conditions=valid))
        figures.append(_outcome("epsilon.outcome", bound > claimed, most > claimed, valid, m, "its lower bound"))
    if mechanism is not None:
        curve = one_run_fdp.of_mechanism(*mechanism)
        p, least = (one_run_fdp.p_value(curve, m, k, v) for v in (correct, k))
        method = f"{FDP}; p-value of the mechanism's own curve; every guess right would give {least:.2g}"
        figures.append(Figure(name="epsilon.fdp_claim_p", value=p, floor=least, n=m, method=method, conditions=valid))
        figures.append(_outcome("epsilon.fdp_outcome", p < alpha, least < alpha, valid, m, "the p-value of its own curve"))
    return figures


def _outcome(name: str, refuted: bool, refutable: bool, valid: dict[str, bool], n: int, by: str) -> Figure:
    value = 0 if not all(valid.values()) else -1 if refuted else int(refutable)
    method = f"what the claim is, by {by}: violated (-1), inconclusive (0: it could not have been refuted) or consistent (1)"
    return Figure(name=name, value=float(value), n=n, method=method, conditions=valid, word=OUTCOMES[value])


def score_difference(tuned: Scores, base: Scores) -> np.ndarray:
    """The sealed score: log-likelihood of each canary under the tuned model minus under the base model, nats [m]."""
    return tuned.totals - base.totals
