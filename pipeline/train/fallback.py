"""Per-unit gradients for models with parts that the direct path (`gradients`) does not cover.

`HookGradients` uses Opacus's own hooks: LoRA dropout, fully trained modules, scaled logits. `LoopGradients` takes one
unit at a time by plain autograd: slowest, and right for whatever can be differentiated (DoRA, whose magnitudes Opacus
has no grad sampler for). The weights of the loss, the clipping and the sums are the direct path's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from pipeline.errors import ModelError
from pipeline.train.coverage import uncovered
from pipeline.train.examples import IGNORED, Even, Example, pad
from pipeline.train.gradients import UnitGradients, autocast, precision_on, token_weights, unclipped
from pipeline.train.reuse import EntryStates
from pipeline.train.tape import Tape

Unit = Sequence[Example]


def gradients_for(
    model: PeftModel,
    clipping_norm: float,
    padding: int,
    states: EntryStates | None = None,
    even: Even | None = None,
) -> Gradients:
    """The fastest path that covers the model; its `path` says in words which one it is, and why.

    With `even` shapes, large products are done in the precision that the device has for them.
    """
    precision = precision_on(model.device) if even else torch.float32
    if not uncovered(model):
        return UnitGradients(model, clipping_norm, padding, states, precision, even)
    loras = [module for module in model.modules() if isinstance(module, LoraLayer)]
    if any(any(module.use_dora.values()) for module in loras):
        return LoopGradients(model, clipping_norm, padding, precision)
    return HookGradients(model, clipping_norm, padding)


class LoopGradients:
    """The same service as `gradients.UnitGradients`, one unit at a time by plain autograd."""

    even = None  # a unit alone has no neighbours that its rounding could depend on

    def __init__(self, model: PeftModel, clipping_norm: float, padding: int, precision: torch.dtype = torch.float32) -> None:
        self._model: Any = model
        self.compute_in(precision)
        self._trained: list[tuple[str, Any]] = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._norm = clipping_norm
        self._padding = padding
        self.lost = 0
        self.path = f"one unit at a time, for {_first(uncovered(model))}"

    def compute_in(self, precision: torch.dtype) -> None:
        """Do the large products in this precision from now on."""
        self.precision = precision

    @contextmanager
    def attached(self) -> Iterator[LoopGradients]:
        """While open, the model is in training mode (dropout is on)."""
        self._model.train()
        try:
            yield self
        finally:
            self._model.eval()

    def add(self, units: Sequence[Unit]) -> float:
        """Add the clipped gradients of some units to `summed_grad`; returns the sum of the units' losses."""
        return sum(self._add([unit]) for unit in units)

    def unclipped(self, units: Sequence[Unit]) -> torch.Tensor:
        """As `UnitGradients.unclipped`, with dropout set aside as well."""
        dropouts = [(module, module.p) for module in self._model.modules() if isinstance(module, torch.nn.Dropout)]
        for module, _ in dropouts:
            module.p = 0.0
        try:
            return unclipped(self, [parameter for _, parameter in self._trained], units)
        finally:
            for module, p in dropouts:
                module.p = p

    def _add(self, units: Sequence[Unit]) -> float:
        _, loss = self._backward(units)
        tape = Tape(torch.zeros(1, dtype=torch.int64, device=self._model.device), 1)  # backward has summed the unit's rows
        for _, parameter in self._trained:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            tape.add(parameter, gradient[None])
            parameter.grad = None
        self.lost += tape.clip(self._norm)
        return loss

    def _backward(self, units: Sequence[Unit]) -> tuple[Tape, float]:
        rows = [example for unit in units for example in unit]
        device = self._model.device
        owners = torch.tensor([index for index, unit in enumerate(units) for _ in unit], device=device)
        shares = torch.tensor([1 / len(unit) for unit in units for _ in unit], device=device)
        ids, labels = pad(rows, self._padding)
        with autocast(device, self.precision):
            logits = self._model(input_ids=ids.to(device), use_cache=False).logits[:, :-1].float()
        targets = labels[:, 1:].to(device)
        weights = token_weights(targets != IGNORED, shares)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        loss = (losses * weights).sum()
        loss.backward()
        return Tape(owners, len(units)), float(loss.detach())


class HookGradients(LoopGradients):
    """The same service as `gradients.UnitGradients`, through Opacus's hooks; always in float32."""

    def __init__(self, model: PeftModel, clipping_norm: float, padding: int) -> None:
        super().__init__(model, clipping_norm, padding)
        self.path = f"Opacus hooks, for {_first(uncovered(model))}"

    @contextmanager
    def attached(self) -> Iterator[HookGradients]:
        """While open, Opacus's hooks sit on the model and it is in training mode (dropout is on)."""
        hooks = GradSampleHooks(self._model, loss_reduction="sum", strict=False)
        try:
            with super().attached():
                yield self
        finally:
            hooks.remove_hooks()
            for _, parameter in self._trained:
                parameter.grad_sample = None

    def add(self, units: Sequence[Unit]) -> float:
        """Add the clipped gradients of some units to `summed_grad`; returns the sum of the units' losses.

        Raises:
            ModelError: Opacus takes no per-example gradient of one of the trained parameters.
        """
        tape, loss = self._backward(units)
        rows = sum(map(len, units))
        for name, parameter in self._trained:
            gradient = getattr(parameter, "grad_sample", None)
            if not isinstance(gradient, torch.Tensor) or len(gradient) != rows:
                raise ModelError(f"Opacus gives no per-example gradient of {name}: leave that module out of the trained ones.")
            tape.add(parameter, gradient)
            parameter.grad_sample = parameter.grad = None
        self.lost += tape.clip(self._norm)
        return loss


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "a check"


Gradients = UnitGradients | HookGradients | LoopGradients
