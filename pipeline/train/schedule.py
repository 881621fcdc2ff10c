"""How many steps a private training takes and how large they are, where the policy leaves it open (`auto`).

    >>> propose(units=50_000, epsilon=8.0, delta=1e-5, epochs=3)
    (3061, 49)

At a fixed number of visits S = epochs · n, few large steps and many small ones cost the same time and the same ε, and differ
in what they learn. By the central limit theorem of subsampled Gaussians (Bu, Dong, Long, Su 2020, "Deep Learning with Gaussian
Differential Privacy", section 3) T steps of S/T visits with noise σ are μ-GDP with μ = (S/(n T)) √(T (e^{1/σ²} − 1)). Signal
over noise after T steps, √T · (S/T)/σ, then depends on σ alone: it is best for a large σ, which few steps have, and an adapter
learns more from many steps. So steps are as many as a σ of 0.6 bears, where a sweep found the best of both. The proposal only
chooses: what is promised is computed from the mechanism that comes of it. It rests on n, ε and δ, which are public.
"""

from __future__ import annotations

import math

from scipy import optimize, special

from pipeline.policy import Train

_NOISE = 0.6  # σ down to which more steps are worth their noise: swept on public data, see tests/benchmarks/RESULTS.md
_FEWEST, _MOST = 20, 200  # steps: fewer get nowhere from a fresh adapter, more change nothing in what is learned
_SMALLEST = 256  # units of a step, where there are twice as many: the noise is divided by it


def schedule(train: Train, units: int, epsilon: float, delta: float) -> tuple[int, int]:
    """Expected batch and steps of a policy's section `train`, with numbers for `auto`."""
    batch, steps = train.expected_batch, train.steps
    if isinstance(batch, int) and isinstance(steps, int):
        return batch, steps
    if isinstance(batch, int):
        return batch, max(1, round(train.epochs * units / batch))
    if isinstance(steps, int):
        return _batch(units, train.epochs, steps), steps
    return propose(units, epsilon, delta, train.epochs)


def propose(units: int, epsilon: float, delta: float, epochs: float) -> tuple[int, int]:
    """Expected batch and steps for about `epochs` expected visits of each of `units` units at (ε, δ).

    Returns:
        Batch and steps; the batch is at most half of the units, and at least 256 where that allows it.
    """
    borne = math.expm1(1 / _NOISE**2) * (epochs / gdp_mu(epsilon, delta)) ** 2
    steps = round(min(max(borne, 2 * epochs, _FEWEST), _MOST))
    return _batch(units, epochs, steps), steps


def _batch(units: int, epochs: float, steps: int) -> int:
    return max(1, min(max(round(epochs * units / steps), _SMALLEST), units // 2))


def gdp_mu(epsilon: float, delta: float) -> float:
    """μ of the Gaussian mechanism that is (ε, δ)-private: δ = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2) (Dong, Roth, Su 2022)."""

    def excess(mu: float) -> float:
        second = math.exp(epsilon + float(special.log_ndtr(-epsilon / mu - mu / 2)))
        return float(special.ndtr(-epsilon / mu + mu / 2)) - second - delta

    return float(optimize.brentq(excess, 1e-3, 100.0))  # type: ignore[arg-type]
