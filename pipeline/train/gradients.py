"""Clipped per-unit gradients of LoRA adapters, from one forward and one backward pass.

The adapted layers (`layers`) form each unit's gradient in their own backward and give it to a `tape`; when all have, each
unit's gradient is scaled by min(1, C/‖g‖) and added to the sum. The loss is the mean over a record's own tokens and, for a
person, the mean over the records drawn: nothing that one unit holds changes another unit's gradient.

On a processor all is float32. On a GPU the large products (with W and with the head) are bfloat16, as under PyTorch's
autocast; adapters, per-unit gradients, norms and sums stay float32, so that what is clipped is what is summed. The shapes of
micro-batches are then `examples.Even`, so that a record is rounded in the same way beside whatever neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from pipeline.train.coverage import uncovered
from pipeline.train.examples import IGNORED, Even, Example, longest, pad
from pipeline.train.layers import AdaptedLayers
from pipeline.train.reuse import EntryStates
from pipeline.train.tape import Tape

_LOGITS = {"cpu": 2**21, "cuda": 2**26}  # that exist at one time in the loss: few enough for a cache, for a GPU's memory


class _FrozenHeadLoss(torch.autograd.Function):
    """Weighted cross-entropy against a frozen head; logits exist for a few rows at a time only.

    The gradient for the hidden rows is formed in the forward pass, where the softmax is at hand.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        losses = torch.empty_like(weights)
        gradient = torch.empty_like(hidden)
        count = max(1, _LOGITS[hidden.device.type] // len(head))
        for start in range(0, len(hidden), count):
            rows = slice(start, start + count)
            target = labels[rows, None]
            weight = weights[rows, None]
            logits = _product(hidden[rows], head.T, count)
            peak = logits.amax(1, keepdim=True)
            own = logits.gather(1, target) - peak
            scores = logits.sub_(peak).exp_()
            total = scores.sum(1, keepdim=True)
            losses[rows] = (total.log() - own)[:, 0]
            # d loss / d logits = weight · (softmax - one at the target), with softmax = scores / total
            scores.scatter_add_(1, target, -total)
            if head.dtype is gradient.dtype:
                torch.mm(scores, head, out=gradient[rows]).mul_(weight / total)
            else:
                gradient[rows] = _product(scores, head, count) * (weight / total)
        ctx.save_for_backward(gradient)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grads[0], None, None, None


def _product(rows: Tensor, matrix: Tensor, count: int) -> Tensor:
    """`rows @ matrix` in the precision of `matrix`, as float32; below float32 always computed for `count` rows (`Even`)."""
    if matrix.dtype is rows.dtype:
        return rows @ matrix
    whole = nn.functional.pad(rows.to(matrix.dtype), (0, 0, 0, count - len(rows)))
    return (whole @ matrix)[: len(rows)].float()


class UnitGradients:
    """Takes clipped per-unit gradients of a LoRA model and adds them to each parameter's `summed_grad`.

    Use it inside `with gradients.attached():`, which routes the adapted layers through it.

    Raises:
        ValueError: the model has a part that this path does not cover (`uncovered` names it).
    """

    def __init__(
        self,
        model: PeftModel,
        clipping_norm: float,
        padding: int,
        states: EntryStates | None = None,
        precision: torch.dtype = torch.float32,
        even: Even | None = None,
    ) -> None:
        """With `states`, the frozen blocks below the first adapted one are computed once for each record.

        A `precision` of the large products below float32 needs `even` shapes.
        """
        missing = uncovered(model)
        if missing:
            raise ValueError(f"per-unit gradients are not covered for: {missing}")
        self._model: Any = model.get_base_model()
        self._layers = AdaptedLayers(model)
        self._head = self._model.get_output_embeddings().weight
        self._device = self._head.device
        self._shapes = even
        self.compute_in(precision)
        self._norm = clipping_norm
        self._padding = padding
        self._states = states
        self.lost = 0

    @property
    def path(self) -> str:
        """How gradients are taken, in words."""
        parts = ("direct", self._states and "frozen layers reused", self.even and "bfloat16 products")
        return ", ".join(part for part in parts if part)

    @property
    def even(self) -> Even | None:
        """Shapes that `add` needs its units to be grouped by (`sampling.microbatches`)."""
        return None if self.precision is torch.float32 else self._shapes

    def compute_in(self, precision: torch.dtype) -> None:
        """Do the large products in this precision from now on."""
        if precision is not torch.float32 and self._shapes is None:
            raise ValueError("products below float32 need even shapes, or a record's rounding depends on its neighbours")
        self.precision = precision
        self._products = self._head.to(precision)
        self._layers.compute_in(precision)

    @contextmanager
    def attached(self) -> Iterator[UnitGradients]:
        """While open, the adapted layers compute per-unit gradients and nothing else does."""
        with self._layers.attached():
            yield self

    def add(self, units: Sequence[Sequence[Example]]) -> float:
        """Add the clipped gradients of some units to `summed_grad`; returns the sum of the units' losses (nats a token).

        That sum is outside the privacy guarantee: it stays in the run folder.
        """
        rows = [example for unit in units for example in unit]
        ids, labels = pad(rows, self._padding, *self._shape(rows))
        spare = len(ids) - len(rows)  # rows of padding: units of their own, with a gradient of zero
        owners = torch.tensor(
            [*(index for index, unit in enumerate(units) for _ in unit), *range(len(units), len(units) + spare)]
        )
        shares = torch.tensor([1 / len(unit) for unit in units for _ in unit] + [0.0] * spare)
        device = self._device
        tape = self._tape(owners.to(device), len(units) + spare)
        self._layers.record(tape)
        with autocast(device, self.precision):
            hidden = self._hidden(rows, ids.to(device))[:, :-1]
        targets = labels[:, 1:].to(device)
        learned = targets != IGNORED
        weights = token_weights(learned, shares.to(device))[learned]
        loss = _FrozenHeadLoss.apply(hidden[learned], self._products, targets[learned], weights)
        loss.backward()
        self.lost += tape.clip(self._norm)
        return float(loss.detach())

    def unclipped(self, units: Sequence[Sequence[Example]]) -> Tensor:
        """The flat sum of the units' gradients without clipping, for checks on made-up records; `summed_grad` is left empty."""
        return unclipped(self, self._layers.parameters, units)

    def _tape(self, owners: Tensor, units: int) -> Tape:
        return Tape(owners, units)

    def _shape(self, rows: Sequence[Example]) -> tuple[int, int]:
        if self.even is None:
            return 0, 0
        width = self.even.width(longest(rows))
        return self.even.rows(width), width

    def _hidden(self, rows: Sequence[Example], ids: Tensor) -> Tensor:
        """What the head reads, [B, T, d]."""
        if self._states is None:
            return self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        entering = self._states.entering(rows, self._padding, ids.device)
        spare = len(ids) - len(rows), ids.shape[1] - entering.shape[1]
        if any(spare):
            entering = nn.functional.pad(entering, (0, 0, 0, spare[1], 0, spare[0]))
        with self._states.above():
            return self._model.base_model(inputs_embeds=entering, use_cache=False).last_hidden_state


def precision_on(device: torch.device) -> torch.dtype:
    """Of the large products: bfloat16 on a GPU that has it, float32 on anything else."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """PyTorch's autocast to a lower precision; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def unclipped(gradients: Any, parameters: Sequence[Any], units: Sequence[Sequence[Example]]) -> Tensor:
    """The flat sum of units' gradients over `parameters` with the clipping norm set aside."""
    norm, gradients._norm = gradients._norm, float("inf")
    try:
        gradients.add(units)
    finally:
        gradients._norm = norm
    total = torch.cat([p.summed_grad.flatten() for p in parameters])
    for parameter in parameters:
        parameter.summed_grad = None
    return total


def token_weights(learned: Tensor, shares: Tensor) -> Tensor:
    """Weight of each token's loss, [B, T], from what is learned (bool [B, T]) and each record's share of its unit [B].

    A record's own tokens divide its share among themselves: no other record of the batch enters.
    """
    return (shares / learned.sum(1).clamp(min=1))[:, None].expand_as(learned)
