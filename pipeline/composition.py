"""The composition of many runs' noise: one ε for a whole history of mechanisms, by privacy loss distributions.

    >>> week = Spend(sampling_rate=0.0128, noise_multiplier=0.8, steps=240)
    >>> round(composed_epsilon([week], 1e-5), 2)
    2.34
    >>> round(composed_epsilon([week, week], 1e-5), 2)  # a plain sum would say 4.69
    2.98

Distributions compose by convolution (Koskela et al. 2020; on the connect-the-dots grid of Doroshenko et al. 2022),
under adding or removing one unit. Each is built once in a process and kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.folders import Value, digest

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

INTERVAL = 1e-4
"""Spacing of the grid of losses, that of dp_accounting's own accountant: a coarser one is quicker and more pessimistic."""
# Less noise than this needs gigabytes on that grid and is worth more than ε 100 in one step.
LEAST_NOISE = 0.15
_KEPT = 8

Group = tuple[float, float, int]


class Spend(Value):
    """Steps of one Poisson-subsampled Gaussian mechanism: what a run takes from a budget.

    `sampling_rate` is the probability that a unit enters a step, `noise_multiplier` the standard deviation of the noise
    in clipping norms, `steps` a count.
    """

    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(ge=LEAST_NOISE, lt=1e6)
    steps: int = Field(ge=0)

    def of(self, steps: int) -> Spend:
        """The same mechanism with another number of steps."""
        return Spend(sampling_rate=self.sampling_rate, noise_multiplier=self.noise_multiplier, steps=steps)


def composed_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at `delta` of all the steps together, adaptively composed; 0 for none."""
    return _epsilon(_groups(spends), delta)


def repeated_epsilon(sampling_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """ε at `delta` of `steps` steps of one Poisson-subsampled Gaussian mechanism, as in `Spend` but with any noise; 0 for none.

    `sampling_rate` is a probability, `noise_multiplier` in clipping norms. The distribution is kept, for what is composed with
    it.
    """
    return _epsilon(((sampling_rate, noise_multiplier, steps),), delta)


def composition_key(spends: Iterable[Spend], delta: float) -> str:
    """A digest that is the same for histories whose composition is the same."""
    return digest({"spends": sorted(_groups(spends)), "delta": delta})


def _groups(spends: Iterable[Spend]) -> tuple[Group, ...]:
    """Steps added up by mechanism, in the order of first use, so that a history that grew keeps its beginning."""
    totals: dict[tuple[float, float], int] = {}
    for spend in spends:
        key = (spend.sampling_rate, spend.noise_multiplier)
        totals[key] = totals.get(key, 0) + spend.steps
    return tuple((rate, noise, steps) for (rate, noise), steps in totals.items() if steps > 0)


@lru_cache(maxsize=4096)
def _epsilon(groups: tuple[Group, ...], delta: float) -> float:
    if not groups:
        return 0.0
    return max(0.0, float(_distribution(groups).get_epsilon_for_delta(delta)))


_distributions: OrderedDict[tuple[Group, ...], PrivacyLossDistribution] = OrderedDict()


def _distribution(groups: tuple[Group, ...]) -> PrivacyLossDistribution:
    """The loss distribution of all groups, extended from the longest beginning that is still at hand."""
    known = next((size for size in range(len(groups), 0, -1) if groups[:size] in _distributions), 0)
    total = _distributions[groups[:known]] if known else None
    for rate, noise, steps in groups[known:]:
        part = _one_step(rate, noise).self_compose(steps)
        total = part if total is None else total.compose(part)
    assert total is not None  # there is at least one group
    _distributions[groups] = total
    _distributions.move_to_end(groups)
    while len(_distributions) > _KEPT:
        _distributions.popitem(last=False)
    return total


@lru_cache(maxsize=64)
def _one_step(rate: float, noise: float) -> PrivacyLossDistribution:
    from dp_accounting import NeighboringRelation  # half a second, and only those who compose need it
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=noise,
        value_discretization_interval=INTERVAL,
        sampling_prob=rate,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
