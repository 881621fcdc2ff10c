"""Opacus's DP optimizer, fed with sums that are clipped already and noised from a keystream that nobody can repeat."""

from __future__ import annotations

from typing import Any, cast

import torch
from opacus.optimizers import DPOptimizer

from pipeline.train.entropy import SYSTEM, Entropy, normal
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
        sizes = [parameter.numel() for parameter in parameters]
        count, device = sum(sizes), parameters[0].device
        noise = (
            normal(count, self._entropy, device).mul_(std) if std else torch.zeros(count, dtype=torch.float64, device=device)
        )
        for parameter, part in zip(parameters, noise.split(sizes), strict=True):
            # The sum is rounded once, after the noise: noise that was rounded first could betray what it is added to.
            noisy = parameter.summed_grad.double() + part.view_as(parameter)
            parameter.grad = noisy.to(parameter.dtype)
            parameter.summed_grad = None

    def pre_step(self, closure: object = None) -> bool:
        """Noise and scale the sums, then let the accountant's hook record the step before the weights move."""
        self.clip_and_accumulate()
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        self._is_last_step_skipped = False
        return True
