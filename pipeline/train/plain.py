"""Gradients without privacy, on the same kernels: for benchmarks and for a control that is never released."""

from __future__ import annotations

from torch import Tensor

from pipeline.train.gradients import Tape, UnitGradients, _Layer


class PlainGradients(UnitGradients):
    """The unclipped sum of the units' gradients, formed for the batch at once. It protects nobody."""

    def _tape(self, owners: Tensor, units: int) -> Tape:
        return _Sum(owners, units)


class _Sum(Tape):
    def layer(self, layer: _Layer, x: Tensor, h: Tensor, dy: Tensor, dh: Tensor) -> None:
        for parameter, gradient in (
            (layer.b, (dy.flatten(0, 1).T @ h.flatten(0, 1)).mul_(layer.scaling)),
            (layer.a, dh.flatten(0, 1).T @ x.flatten(0, 1)),
        ):
            held = self.gradients.get(parameter)
            self.gradients[parameter] = gradient if held is None else held + gradient

    def clip(self, norm: float) -> int:
        """Add the sums to `summed_grad`; nothing is clipped."""
        for parameter, gradient in self.gradients.items():
            held = getattr(parameter, "summed_grad", None)
            parameter.summed_grad = gradient if held is None else held + gradient
        return 0
