"""Clipped per-unit gradients of LoRA adapters, from one forward and one backward pass.

The adapted layers (`layers`) form each unit's gradient in their own backward and give it to a `tape`; when all have, each
unit's gradient is scaled by min(1, C/‖g‖) and added to the sum. The loss is the mean over a record's own tokens and, for a
person, the mean over the records drawn: nothing that one unit holds changes another unit's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import ModelError
from pipeline.train.examples import IGNORED, Example, pad
from pipeline.train.layers import AdaptedLayers
from pipeline.train.reuse import EntryStates
from pipeline.train.tape import Tape

_LOGITS = 2**21  # logits that exist at one time in the loss: few enough to stay in a processor's cache


def check_rows_are_independent(gradients: Any, tokens: int, vocabulary: int) -> None:
    """Refuse a model in which a neighbour in the micro-batch changes a record's gradient, so that no clipping bounds it.

    Made on random tokens, before any private record is seen: the gradient of a short record alone against what it adds to a
    record of `tokens` tokens. Some rotary embeddings, for one, choose their frequencies by the longest row of the batch.

    Args:
        gradients: an attached `UnitGradients` or fallback, whose clipping norm is set aside for the check.
        tokens: length of the longest record that will be trained on.
        vocabulary: token ids are drawn below it.

    Raises:
        ModelError: the two differ.
    """
    generator = torch.Generator().manual_seed(0)

    def example(name: str, length: int) -> Example:
        ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
        return Example(name, name, ids, (IGNORED, *ids[1:]))

    short, long = example("check-short", max(3, tokens // 4)), example("check-long", tokens)
    alone, together, other = (gradients.unclipped(units) for units in ([[short]], [[short], [long]], [[long]]))
    if float((together - other - alone).norm()) > 1e-3 * float(together.norm() + alone.norm()):
        raise ModelError(
            "The base model computes a record's gradient from its neighbours in the batch too, so that no clipping bounds it: "
            "use another base model, or a smaller data.max_tokens."
        )


class _FrozenHeadLoss(torch.autograd.Function):
    """Weighted cross-entropy against a frozen head; logits exist for a few rows at a time only.

    The gradient for the hidden rows is formed in the forward pass, where the softmax is at hand.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        losses = torch.empty_like(weights)
        gradient = torch.empty_like(hidden)
        count = max(1, _LOGITS // len(head))
        for start in range(0, len(hidden), count):
            rows = slice(start, start + count)
            target = labels[rows, None]
            weight = weights[rows, None]
            logits = hidden[rows] @ head.T
            peak = logits.amax(1, keepdim=True)
            own = logits.gather(1, target) - peak
            scores = logits.sub_(peak).exp_()
            total = scores.sum(1, keepdim=True)
            losses[rows] = (total.log() - own)[:, 0]
            # d loss / d logits = weight · (softmax - one at the target), with softmax = scores / total
            scores.scatter_add_(1, target, -total)
            torch.mm(scores, head, out=gradient[rows]).mul_(weight / total)
        ctx.save_for_backward(gradient)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grads[0], None, None, None


class UnitGradients:
    """Takes clipped per-unit gradients of a LoRA model and adds them to each parameter's `summed_grad`.

    Use it inside `with gradients.attached():`, which routes the adapted layers through it.

    Raises:
        ValueError: the model has a part that this path does not cover (`uncovered` names it).
    """

    def __init__(self, model: PeftModel, clipping_norm: float, padding: int, states: EntryStates | None = None) -> None:
        """With `states`, the frozen blocks below the first adapted one are computed once for each record."""
        missing = uncovered(model)
        if missing:
            raise ValueError(f"per-unit gradients are not covered for: {missing}")
        self._model: Any = model.get_base_model()
        self._layers = AdaptedLayers(model)
        self._head = self._model.get_output_embeddings().weight
        self._norm = clipping_norm
        self._padding = padding
        self._states = states
        self.lost = 0
        self.path = "direct" if states is None else "direct, frozen layers reused"

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
        owners = torch.tensor([index for index, unit in enumerate(units) for _ in unit])
        shares = torch.tensor([1 / len(unit) for unit in units for _ in unit])
        ids, labels = pad(rows, self._padding)
        device = self._head.device
        tape = self._tape(owners.to(device), len(units))
        self._layers.record(tape)
        hidden = self._hidden(rows, ids.to(device))[:, :-1]
        targets = labels[:, 1:].to(device)
        learned = targets != IGNORED
        weights = token_weights(learned, shares.to(device))[learned]
        loss = _FrozenHeadLoss.apply(hidden[learned], self._head, targets[learned], weights)
        loss.backward()
        self.lost += tape.clip(self._norm)
        return float(loss.detach())

    def unclipped(self, units: Sequence[Sequence[Example]]) -> Tensor:
        """The flat sum of the units' gradients without clipping, for checks on made-up records; `summed_grad` is left empty."""
        return unclipped(self, self._layers.parameters, units)

    def _tape(self, owners: Tensor, units: int) -> Tape:
        return Tape(owners, units)

    def _hidden(self, rows: Sequence[Example], ids: Tensor) -> Tensor:
        """What the head reads, [B, T, d]."""
        if self._states is None:
            return self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        entering = self._states.entering(rows, self._padding, ids.device)
        with self._states.above():
            return self._model.base_model(inputs_embeds=entering, use_cache=False).last_hidden_state


def unclipped(gradients: Any, parameters: Sequence[nn.Parameter], units: Sequence[Sequence[Example]]) -> Tensor:
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


def uncovered(model: PeftModel) -> list[str]:
    """Names of what the direct path cannot differentiate per unit: other trained modules, dropout, DoRA, scaled logits."""
    names = []
    ours = set()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            adapter = module.active_adapters[0]
            ours |= {module.lora_A[adapter].weight, module.lora_B[adapter].weight} if adapter in module.lora_A else set()
            if not isinstance(module.get_base_layer(), (nn.Linear, Conv1D)):
                names.append(f"{name} (LoRA on {type(module.get_base_layer()).__name__})")
            if not isinstance(module.lora_dropout[adapter], nn.Identity):
                names.append(f"{name} (dropout)")
            if module.use_dora.get(adapter):
                names.append(f"{name} (DoRA)")
    names += [name for name, p in model.named_parameters() if p.requires_grad and p not in ours]
    config = model.get_base_model().config
    scaled = ("final_logit_softcapping", "logits_scaling", "logit_scale")
    names += [f"config.{key}" for key in scaled if getattr(config, key, None) not in (None, 0, 1, 1.0)]
    if getattr(model.get_base_model().get_output_embeddings(), "bias", None) is not None:
        names.append("a bias on the output layer")
    return names
