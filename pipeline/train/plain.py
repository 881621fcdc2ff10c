"""Gradients without privacy, on the same kernels: for benchmarks and for a control that is never released."""

from __future__ import annotations

from torch import Tensor

from pipeline.train.gradients import UnitGradients
from pipeline.train.tape import Sum, Tape


class PlainGradients(UnitGradients):
    """The unclipped sum of the units' gradients, formed for the batch at once. It protects nobody."""

    def _tape(self, owners: Tensor, units: int) -> Tape:
        return Sum(owners, units)
