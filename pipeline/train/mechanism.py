"""The mechanism of one training run, frozen: the sampler, the noise and the accountant are all built from it.

>>> run = Mechanism(unit="record", units=5000, expected_batch=64, steps=240, noise_multiplier=0.8,
...                 clipping_norm=1.0, delta=1e-5)
>>> round(run.sampling_rate, 4)
0.0128
>>> round(run.epsilon(), 2)
2.34
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, cast

import dp_accounting
from dp_accounting.mechanism_calibration import BracketInterval, NoBracketIntervalFoundError
from dp_accounting.pld import PLDAccountant, privacy_loss_distribution
from pydantic import Field, model_validator
from scipy import stats

from pipeline.composition import INTERVAL, repeated_epsilon
from pipeline.errors import InputError
from pipeline.folders import Value
from pipeline.policy import Policy
from pipeline.train import prv
from pipeline.train.schedule import schedule

# σ is rounded up to this step, so that the printed figure is the one that was used.
_RESOLUTION = 1e-4
# The grid of losses on which it is searched: pessimistic, never optimistic, and quick. Its errors add up over many steps, so
# where they leave less than this share of ε to be spent, the fine grid is searched.
_COARSE, _WASTEFUL = 1e-3, 0.98


class Mechanism(Value):
    """DP-SGD as a Poisson-subsampled Gaussian mechanism (Abadi et al. 2016; Mironov et al. 2019).

    Each of `units` privacy units enters a step independently with probability `sampling_rate`; its gradient is clipped to
    `clipping_norm`; Gaussian noise with standard deviation `noise_multiplier · clipping_norm` is added to the sum once.
    Adjacency: one unit is added or removed.
    """

    unit: Literal["record", "person"]
    units: int = Field(ge=1)
    expected_batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    noise_multiplier: float = Field(gt=0)
    clipping_norm: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"

    @model_validator(mode="after")
    def _is_a_rate(self) -> Mechanism:
        if self.expected_batch > self.units:
            raise ValueError(f"cannot expect {self.expected_batch} of {self.units} units in a step")
        return self

    @property
    def sampling_rate(self) -> float:
        """Probability that a unit enters a step."""
        return self.expected_batch / self.units

    def event(self, steps: int | None = None) -> dp_accounting.DpEvent:
        """The event of `steps` steps (all planned ones by default) for any dp_accounting accountant."""
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(self.sampling_rate, dp_accounting.GaussianDpEvent(self.noise_multiplier)),
            self.steps if steps is None else steps,
        )

    def epsilon(self, steps: int | None = None, *, grid: float = INTERVAL) -> float:
        """ε at `delta` after `steps` steps, by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022).

        `grid` is the spacing of the privacy losses: a coarser one is quicker and errs on the side of a larger ε.
        """
        return 0.0 if steps == 0 else _epsilon(cast(Any, self), self.steps if steps is None else steps, grid)

    def group_epsilon(self, size: int) -> float:
        """ε at `delta` for a group of `size` units together, infinite where none can be given.

        The loss of k units is that of the Gaussian mixture whose mean is the number of them in the draw, Bin(k, q): more than
        k times ε at the same δ. Source: dp_accounting's mixture of Gaussians (Choquette-Choo et al. 2024).
        """
        sensitivities = [float(count) for count in range(size + 1)]
        weights = [float(stats.binom.pmf(count, size, self.sampling_rate)) for count in range(size + 1)]
        one = privacy_loss_distribution.from_mixture_gaussian_mechanism(
            self.noise_multiplier, sensitivities, weights, value_discretization_interval=2e-2
        )
        return float(one.self_compose(self.steps).get_epsilon_for_delta(self.delta))

    def epsilon_prv(self, steps: int | None = None) -> float:
        """ε at `delta` by Opacus's PRV accountant (Gopi et al. 2021): an independent upper bound to cross-check PLD."""
        return prv.epsilon(
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps if steps is None else steps,
            delta=self.delta,
        )


@lru_cache(maxsize=256)
def _epsilon(run: Mechanism, steps: int, grid: float) -> float:
    """`Mechanism.epsilon`, computed once in a process: it is asked for by plan, statement, audit and report."""
    if grid == INTERVAL:  # the ledger's grid: one distribution serves the promise and the lifetime that it is charged to
        return repeated_epsilon(run.sampling_rate, run.noise_multiplier, steps, run.delta)
    return PLDAccountant(value_discretization_interval=grid).compose(run.event(steps)).get_epsilon(run.delta)


def delta_for(policy: Policy, units: int) -> float:
    """The policy's δ; `auto` is 1/n^1.1, below one in the number of units.

    Raises:
        InputError: the policy's δ is not below 1/n, so a single unit could be published whole within the promise.
    """
    delta = policy.privacy.delta
    if isinstance(delta, str):
        return units**-1.1
    if delta >= 1 / units:
        raise InputError(f"privacy.delta is {delta:g} and must be below 1/n = {1 / units:.2g} for {units} units: use auto.")
    return delta


def calibrate(policy: Policy, units: int) -> Mechanism:
    """The mechanism with the least noise that keeps the policy's (ε, δ) for `units` privacy units, canaries among them.

    Raises:
        InputError: there are too few units for the policy's batch or its canaries, or no reasonable noise keeps the promise.
    """
    canaries = policy.canaries.units(policy.privacy.unit)
    real = units - canaries
    if real < canaries:
        raise InputError(
            f"There are {max(0, real)} privacy units to train on and {canaries} of canaries, which would drown them: add data, "
            "set canaries.preset to small, or lower canaries.count and canaries.repeated."
        )
    delta = delta_for(policy, units)
    target = policy.privacy.epsilon
    batch, steps = schedule(policy.train, units, target, delta)
    if units < 2 * batch:
        raise InputError(
            f"There are {units} privacy units to train on and train.expected_batch is {batch}: at least twice as many units "
            f"are needed, so add data or set train.expected_batch to at most {max(1, units // 2)}."
        )

    def mechanism(noise: float) -> Mechanism:
        return Mechanism(
            unit=policy.privacy.unit,
            units=units,
            expected_batch=batch,
            steps=steps,
            noise_multiplier=noise,
            clipping_norm=policy.train.clipping_norm,
            delta=delta,
        )

    def lightest(grid: float) -> Mechanism:
        noise = least_noise(lambda noise: mechanism(noise).event(), target, delta, grid=grid)
        return mechanism(round(math.ceil(noise / _RESOLUTION) * _RESOLUTION, 4))

    try:
        run = lightest(_COARSE)
        if run.epsilon() < _WASTEFUL * target:
            run = lightest(INTERVAL)
    except (NoBracketIntervalFoundError, ValueError) as error:
        raise InputError(
            f"No noise keeps privacy.epsilon = {target:g} for {units} units, a batch of {batch} and {steps} "
            "steps: raise epsilon, lower train.steps or add data."
        ) from error
    pld, other = run.epsilon(), run.epsilon_prv()
    if not accountants_agree(pld, other):
        raise InputError(
            f"The two accountants disagree on this mechanism (PLD {pld:.4g}, PRV {other:.4g}), so neither can be trusted: "
            "change train.steps, train.expected_batch or privacy.epsilon a little."
        )
    return run


def least_noise(
    event: Callable[[float], dp_accounting.DpEvent], epsilon: float, delta: float, *, grid: float = _COARSE
) -> float:
    """The noise multiplier, within 1e-4 above the least, whose `event` keeps (ε, δ) as far as a grid of losses can tell.

    A grid ten times coarser finds the place, where it can.

    Raises:
        NoBracketIntervalFoundError: no noise keeps it.
        ValueError: less than 0.2 does.
    """

    def search(spacing: float, where: BracketInterval, tolerance: float) -> float:
        def accountant() -> PLDAccountant:
            return PLDAccountant(value_discretization_interval=spacing)

        found = dp_accounting.calibrate_dp_mechanism(accountant, event, epsilon, delta, bracket_interval=where, tol=tolerance)
        return float(found)

    anywhere = dp_accounting.LowerEndpointAndGuess(0.2, 1.0)
    try:
        rough = search(10 * grid, anywhere, 10 * _RESOLUTION)
        near = dp_accounting.ExplicitBracketInterval(0.97 * rough, rough + 20 * _RESOLUTION)
        return search(grid, near, _RESOLUTION)
    except (NoBracketIntervalFoundError, ValueError):  # so coarse a grid hides a small ε over many steps
        return search(grid, anywhere, _RESOLUTION)


def accountants_agree(pld: float, prv: float) -> bool:
    """Whether ε by PLD and by PRV, both upper bounds, are as close as their discretisation allows."""
    return abs(pld - prv) <= 0.02 + 0.01 * pld
