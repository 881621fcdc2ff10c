"""The per-unit gradients of one micro-batch, from the moment a layer forms them until they are clipped and summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Tape:
    """Takes the gradients of each parameter while the backward pass runs; norms are taken as they come, still in cache."""

    def __init__(self, owners: Tensor, units: int) -> None:
        """`owners` int64 [B] gives the unit, in 0 … units-1, of each row of the micro-batch."""
        self._owners = None if len(owners) == units else owners
        self._units = units
        self._device = owners.device
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._squares: dict[nn.Parameter, Tensor] = {}

    def product(self, parameters: Sequence[nn.Parameter], left: Tensor, right: Tensor) -> None:
        """Take leftᵀ·right of each row as the gradients of parameters that stack to [m, n].

        Args:
            parameters: of shapes [m₁, n], [m₂, n], … with Σ mᵢ = m.
            left: [B, T, m].
            right: [B, T, n].
        """
        whole = torch.bmm(left.transpose(1, 2), right)
        for parameter, gradient in zip(parameters, whole.split([len(p) for p in parameters], 1), strict=True):
            self.add(parameter, gradient)

    def add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Take the per-row gradients [B, *parameter.shape] of one parameter."""
        if self._owners is not None:
            grouped = gradient.new_zeros(self._units, *parameter.shape)
            gradient = grouped.index_add_(0, self._owners, gradient)
        held = self._gradients.get(parameter)  # a module that is used twice has one gradient: the norm is of the sum
        gradient = gradient if held is None else held + gradient
        self._gradients[parameter] = gradient
        self._squares[parameter] = squared_norms(gradient)

    def clip(self, norm: float) -> int:
        """Scale each unit's gradient to at most `norm` (L2 over all parameters) and add the sum to `p.summed_grad`.

        A unit with a gradient that is not finite contributes zero (NaN times any coefficient would escape the clip).

        Returns:
            The number of such units.
        """
        squares = torch.zeros(self._units, dtype=torch.float64, device=self._device)
        for one in self._squares.values():
            squares += one
        finite = torch.isfinite(squares)
        scale = (norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        scale = torch.where(finite, scale, 0.0).float()
        lost = int((~finite).sum())
        for parameter, gradient in self._gradients.items():
            if lost:
                gradient[~finite] = 0.0
            accumulate(parameter, (scale @ gradient.flatten(1)).view_as(parameter))
        return lost


class Sum(Tape):
    """The unclipped sum of the batch, formed at once: what training without privacy needs. It protects nobody."""

    def product(self, parameters: Sequence[nn.Parameter], left: Tensor, right: Tensor) -> None:
        """Take the sum of leftᵀ·right over all rows."""
        whole = left.flatten(0, 1).T @ right.flatten(0, 1)
        for parameter, gradient in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            held = self._gradients.get(parameter)
            self._gradients[parameter] = gradient if held is None else held + gradient

    def clip(self, norm: float) -> int:
        """Add the sums to `summed_grad`; nothing is clipped."""
        for parameter, gradient in self._gradients.items():
            accumulate(parameter, gradient)
        return 0


def squared_norms(gradient: Tensor) -> Tensor:
    """Squared L2 norm of each row of [B, …], float64 [B], to float32's rounding whatever the size.

    A float32 sum over millions of squares comes out too small, and what it clips too large by more than a percent: so only
    pieces of at most 4,096 numbers are summed in float32, and the pieces in float64.
    """
    flat = gradient.flatten(1)
    size = flat.shape[1]
    piece = min(size & -size, 4096)  # a power of two that divides the size
    if piece < 64:
        return torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64).square_()
    pieces = torch.linalg.vector_norm(flat.reshape(len(flat), -1, piece), dim=2)
    return pieces.double().square_().sum(1)


def accumulate(parameter: nn.Parameter, total: Tensor) -> None:
    """Add to `parameter.summed_grad`, where Opacus's optimizer looks for the clipped sum."""
    held = getattr(parameter, "summed_grad", None)
    parameter.summed_grad = total if held is None else held.add_(total)  # type: ignore[attr-defined]
