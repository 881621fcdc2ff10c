"""Opacus's DP optimizer, fed with sums that are clipped already and noised from a keystream that nobody can repeat."""

from __future__ import annotations

from typing import Any, cast

import torch
from opacus.optimizers import DPOptimizer

from pipeline.train.entropy import SYSTEM, Entropy, add_normal
from pipeline.train.mechanism import Mechanism


class UnitOptimizer(DPOptimizer):
    """`step` adds noise of standard deviation σ·C once to every parameter's `summed_grad`, divides by the expected batch,
    and steps the wrapped optimizer. An empty draw leaves the sum at zero: the step is then noise alone, and it counts.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, mechanism: Mechanism, entropy: Entropy = SYSTEM) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clipping_norm,
            expected_batch_size=mechanism.expected_batch,
            loss_reduction="mean",
        )
        self._entropy = entropy

    @property
    def accumulated_iterations(self) -> int:
        """One: a logical step divides by the expected batch once, however many micro-batches it was split into."""
        return 1

    def clip_and_accumulate(self) -> None:
        """The sums are clipped as they are made (`gradients.Tape.clip`); a parameter without one drew no unit."""
        for parameter in cast(list[Any], self.params):
            if getattr(parameter, "summed_grad", None) is None:
                parameter.summed_grad = torch.zeros_like(parameter)

    def add_noise(self) -> None:
        """Write `summed_grad` plus Gaussian noise into `grad`, for all parameters from one draw of entropy."""
        std = self.noise_multiplier * self.max_grad_norm
        parameters = cast(list[Any], self.params)
        total = torch.cat([parameter.summed_grad.flatten() for parameter in parameters])
        if std:
            add_normal(total, std, self._entropy)
        parts = total.to(parameters[0].dtype).split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad, parameter.summed_grad = part.view_as(parameter), None

    def pre_step(self, closure: object = None) -> bool:
        """Noise and scale the sums, then let the accountant's hook record the step before the weights move."""
        self.clip_and_accumulate()
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        self._is_last_step_skipped = False
        return True
