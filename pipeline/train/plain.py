"""Training without privacy, on the same kernels: for benchmarks, and for controls that are never released."""

from __future__ import annotations

import math

import torch
from peft import PeftModel
from torch import Tensor

from pipeline.train.coverage import uncovered
from pipeline.train.distributed import Alone
from pipeline.train.examples import Even
from pipeline.train.fallback import Gradients, gradients_for
from pipeline.train.gradients import UnitGradients, precision_on
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.reuse import EntryStates
from pipeline.train.tape import Sum, Tape


class PlainGradients(UnitGradients):
    """The unclipped sum of the units' gradients, formed for the batch at once. It protects nobody."""

    def _tape(self, owners: Tensor, units: int) -> Tape:
        return Sum(owners, units)


class Unprotected(Alone):
    """A training on the mechanism's schedule, draws and steps, with neither clipping nor noise. It protects nobody.

    For public data only: nothing can be charged for it.
    """

    promises = False

    def optimizer(self, inner: torch.optim.Optimizer, mechanism: Mechanism) -> UnitOptimizer:
        """The optimizer around `inner`, without noise."""
        made = super().optimizer(inner, mechanism)
        made.noise_multiplier = 0.0
        return made

    def gradients(
        self, model: PeftModel, clipping_norm: float, padding: int, states: EntryStates | None, even: Even
    ) -> Gradients:
        """What adds up the gradients of the units as they are."""
        if uncovered(model):
            return gradients_for(model, math.inf, padding, states, even)
        return PlainGradients(model, math.inf, padding, states, precision_on(model.device), even)
