"""Adapted layers in company: siblings share their products, a gated MLP recomputes, and neither changes what is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.train import layers as module
from pipeline.train.layers import AdaptedLayers
from pipeline.train.tape import Tape
from tests import tiny
from tests.train.test_gradients import adapted, examples, fast_sum, relative, slow_gradient


def tape(rows: int) -> Tape:
    return Tape(torch.arange(rows), rows)


def attention(model: nn.Module) -> nn.Module:
    return model.get_base_model().model.layers[0].self_attn


@pytest.mark.parametrize("length", [3, 60])  # fewer tokens than the layers are wide, and more: B A apart, and added to W
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_are_the_same_however_the_layers_are_computed(family: str, length: int) -> None:
    model = adapted(family)
    unit = examples([length])
    assert relative(fast_sum(model, [unit], 1e9), slow_gradient(model, unit)) < 1e-5


def test_siblings_are_computed_at_once_and_each_is_given_its_own_output() -> None:
    model = adapted("llama")
    block, x = attention(model), torch.randn(2, 5, 32)
    expected = [projection(x) for projection in (block.q_proj, block.k_proj, block.v_proj)]
    layers = AdaptedLayers(model)
    with layers.attached():
        layers.record(tape(2))
        found = [projection(x) for projection in (block.q_proj, block.k_proj, block.v_proj)]
        other = torch.randn(2, 5, 32)
        crossed = block.k_proj(other)  # another input, as in cross-attention: nothing that waits is given to it
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert found[0].grad_fn is found[1].grad_fn is found[2].grad_fn
    assert torch.allclose(crossed, block.k_proj(other), atol=1e-6)


def test_nothing_waits_after_the_pass() -> None:
    model = adapted("llama")
    block, x = attention(model), torch.randn(1, 4, 32)
    layers = AdaptedLayers(model)
    with layers.attached():
        block.q_proj(x)  # its siblings are never called
    assert all(not group._waiting and group._input is None for group in layers._groups)


@pytest.mark.parametrize(("family", "gated"), [("llama", True), ("qwen", True), ("gpt2", False)])
def test_a_gated_mlp_is_known_by_what_it_computes(family: str, gated: bool) -> None:
    model = adapted(family)
    found = [name for name in AdaptedLayers(model)._forwards if hasattr(name, "act_fn")]
    assert bool(found) is gated


def test_an_mlp_with_another_activation_is_left_alone() -> None:
    model = adapted("llama")
    model.get_base_model().model.layers[0].mlp.act_fn = nn.GELU()
    taken = [name for name in AdaptedLayers(model)._forwards if hasattr(name, "act_fn")]
    assert len(taken) == 1  # of two blocks
    unit = examples([20])
    assert relative(fast_sum(model, [unit], 1e9), slow_gradient(model, unit)) < 1e-5


def test_a_wrong_slope_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the comparison with the loop fails where the recomputed MLP differentiates another activation."""
    model = adapted("llama")
    unit = examples([20])
    monkeypatch.setattr(module, "_silu_backward", lambda grad, gate: grad * torch.sigmoid(gate))
    assert relative(fast_sum(model, [unit], 1e9), slow_gradient(model, unit)) > 1e-3
