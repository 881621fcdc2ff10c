"""Adapted layers while per-unit gradients are taken: what each computes, what it keeps, and what it gives to the tape.

A LoRA layer computes y = W x + s·B A x with W frozen. The gradient of one example is then only r·(d + p) numbers for a
d → p layer of rank r, so it is formed directly in the layer's own backward (no ghost norms, no batch gradient):

    dh = s·dy B,   g_B = s·dyᵀ h,   g_A = dhᵀ x,   dx = dy W + dh A      with h = x Aᵀ

Layers that read the same input (query, key and value; gate and up) are computed together, so that their thin products run
as one. A gated MLP keeps its two inner projections only and computes the rest of its inner states again on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.train.tape import Tape

_silu_backward = torch.ops.aten.silu_backward
_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class AdaptedLayers:
    """Every LoRA layer of a model, routed through this module's forward and backward while `attached`."""

    def __init__(self, model: PeftModel) -> None:
        """The layers must be covered (`gradients.uncovered` is empty)."""
        self._groups: list[_Group] = []
        self._forwards: dict[nn.Module, Callable[..., Tensor]] = {}
        for parent in model.modules():
            children = {name: child for name, child in parent.named_children() if isinstance(child, LoraLayer)}
            self._take(parent, children)
        self.parameters = [parameter for group in self._groups for parameter in group.parameters]

    def _take(self, parent: nn.Module, children: dict[str, Any]) -> None:
        groups: dict[tuple[str, ...], _Group] = {}
        together = [names for names in _SIBLINGS if set(names) <= set(children)]
        alone = [(name,) for name in children if not any(name in names for names in together)]
        for names in (*together, *alone):
            group = groups[names] = _Group([_Layer(children[name]) for name in names])
            for index, name in enumerate(names):
                self._forwards[children[name]] = partial(group.forward, index)
        self._groups += groups.values()
        pair, down = groups.get(_SIBLINGS[1]), groups.get(("down_proj",))
        if pair and down and _is_gated(parent, pair, down):
            self._forwards[parent] = _Gated(pair, down).forward

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, the adapted layers compute per-unit gradients and nothing else does."""
        for module, forward in self._forwards.items():
            module.forward = forward  # an instance attribute shadows the class's forward
        try:
            yield
        finally:
            for module in self._forwards:
                del module.forward
            self.record(None)

    def compute_in(self, precision: torch.dtype) -> None:
        """Multiply by the frozen weights in this precision from now on: float32, or a lower one that keeps copies of them."""
        for group in self._groups:
            for layer in group.layers:
                layer.compute_in(precision)

    def record(self, tape: Tape | None) -> None:
        """Give the gradients of the next backward pass to `tape`."""
        for group in self._groups:
            group.start(tape)


class _Layer:
    """One adapted linear layer: frozen `base`, and trained `a` [r, d] and `b` [p, r]."""

    def __init__(self, module: LoraLayer) -> None:
        name = module.active_adapters[0]
        self.base: Any = module.get_base_layer()
        self.a: Any = module.lora_A[name].weight
        self.b: Any = module.lora_B[name].weight
        self.scaling = float(module.scaling[name])
        self.compute_in(torch.float32)

    def compute_in(self, precision: torch.dtype) -> None:
        weight, bias = self.base.weight, getattr(self.base, "bias", None)
        weight = weight.T if isinstance(self.base, Conv1D) else weight  # [p, d]; GPT-2's Conv1D holds [d, p]
        self.weight = weight.to(precision)
        self._bias = None if bias is None else bias.to(precision)

    def merges(self, x: Tensor) -> bool:
        """Whether adding B A to W costs less than running x [B, T, d] through B and A as well.

        Never below float32: what training has moved would be lost in the rounding of the sum.
        """
        return x.dtype is torch.float32 and x.shape[0] * x.shape[1] > min(self.weight.shape)

    def merged(self) -> Tensor:
        """W + s·B A, made when it is needed and kept nowhere."""
        return torch.addmm(self.weight, self.b, self.a, alpha=self.scaling)

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        """The layer's output [B, T, p], in the precision of x."""
        if self.merges(x):
            return nn.functional.linear(x, self.merged(), self._bias)
        y = self.base(x) if x.dtype is torch.float32 else nn.functional.linear(x, self.weight, self._bias)
        y.flatten(0, 1).addmm_(h, self.b.to(x.dtype).T, alpha=self.scaling)
        return y


class _Group:
    """Layers that read the same input. The first that is called computes them all; the others find their outputs waiting."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self.layers = layers
        self.parameters = [parameter for layer in layers for parameter in (layer.a, layer.b)]
        self._ranks = [len(layer.a) for layer in layers]
        self.start(None)

    def start(self, tape: Tape | None) -> None:
        self.tape = tape
        self._input: Tensor | None = None
        self._waiting: dict[int, Tensor] = {}

    def forward(self, index: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x is not self._input or index not in self._waiting:
            outputs = _Linears.apply(x, self, *self.parameters)
            self._input, self._waiting = x, dict(enumerate(outputs))
        output = self._waiting.pop(index)
        if not self._waiting:
            self._input = None
        return output

    def lowered(self, x: Tensor) -> Tensor:
        """The layers' input in the precision of their products."""
        return x.to(self.layers[0].weight.dtype)

    def project(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """H [N, r + r + …] and each layer's output [B, T, p] for x [B, T, d], N = B·T, all in the precision of x."""
        h = x.flatten(0, 1) @ self._a().to(x.dtype).T
        outputs = []
        for layer, part in zip(self.layers, h.split(self._ranks, 1), strict=True):
            outputs.append(layer.output(x, part))
        return h, outputs

    def pull(self, x: Tensor, h: Tensor, dys: Sequence[Tensor], *, onward: bool = True) -> Tensor | None:
        """Give the gradients of a and b, in float32, to the tape; returns the gradient of x if it goes `onward`."""
        tape: Any = self.tape
        rows, length = x.shape[:2]
        dys = [dy.flatten(0, 1) for dy in dys]
        dhs = []
        for layer, part, dy in zip(self.layers, h.float().split(self._ranks, 1), dys, strict=True):
            wide = dy.float()
            tape.product([layer.b], wide.view(rows, length, -1), (part * layer.scaling).view(rows, length, -1))
            dhs.append((wide @ layer.b).mul_(layer.scaling))
        dh = torch.cat(dhs, 1) if len(dhs) > 1 else dhs[0]
        tape.product([layer.a for layer in self.layers], dh.view(rows, length, -1), x.float())
        if not onward:
            return None
        if self.layers[0].merges(x):
            dx = dys[0] @ self.layers[0].merged()
            for layer, dy in zip(self.layers[1:], dys[1:], strict=True):
                dx.addmm_(dy, layer.merged())
            return dx.view_as(x)
        dx = dh.to(x.dtype) @ self._a().to(x.dtype)
        for layer, dy in zip(self.layers, dys, strict=True):
            dx.addmm_(dy, layer.weight)
        return dx.view_as(x)

    def _a(self) -> Tensor:
        return torch.cat([layer.a for layer in self.layers]) if len(self.layers) > 1 else self.layers[0].a


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: _Group, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.kind = group, x.dtype
        x = group.lowered(x)
        h, outputs = group.project(x)
        ctx.save_for_backward(x, h)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, h = ctx.saved_tensors
        dx = ctx.group.pull(x, h, dys, onward=ctx.needs_input_grad[0])
        return _as(dx, ctx.kind), None, *[None] * len(ctx.group.parameters)


def _as(gradient: Tensor | None, kind: torch.dtype) -> Tensor | None:
    return None if gradient is None else gradient.to(kind)


class _Gated:
    """A gated MLP, down(silu(gate(x))·up(x)), in one piece."""

    def __init__(self, pair: _Group, down: _Group) -> None:
        self.pair, self.down = pair, down
        self.parameters = [*pair.parameters, *down.parameters]

    def forward(self, x: Tensor) -> Tensor:
        return _GatedFunction.apply(x, self, *self.parameters)


class _GatedFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: _Gated, *parameters: Tensor) -> Tensor:
        ctx.mlp, ctx.kind = mlp, x.dtype
        x = mlp.pair.lowered(x)
        h, (gate, up) = mlp.pair.project(x)
        h_down, (y,) = mlp.down.project(nn.functional.silu(gate).mul_(up))
        ctx.save_for_backward(x, h, gate, up, h_down)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, h, gate, up, h_down = ctx.saved_tensors
        mlp = ctx.mlp
        silu = nn.functional.silu(gate)
        inner: Any = mlp.down.pull(silu * up, h_down, dys)
        d_up = silu.mul_(inner)
        d_gate = _silu_backward(inner.mul_(up), gate)
        dx = mlp.pair.pull(x, h, (d_gate, d_up), onward=ctx.needs_input_grad[0])
        return _as(dx, ctx.kind), None, *[None] * len(mlp.parameters)


@torch.no_grad()
def _is_gated(module: nn.Module, pair: _Group, down: _Group) -> bool:
    """Whether a module computes what `_Gated` does: tried on random numbers, since families differ in more than names."""
    weight = pair.layers[0].base.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, pair.layers[0].a.shape[1], generator=generator).to(weight)
    try:
        expected = module(x)
    except (TypeError, ValueError, RuntimeError):
        return False  # it takes more than its input
    ours = _Gated(pair, down).forward(x)
    return isinstance(expected, Tensor) and torch.allclose(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
