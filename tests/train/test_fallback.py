"""Opacus's hooks and the loop give the same clipped sums as the direct path, and serve what it does not cover."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from pipeline import models
from pipeline.policy import Lora
from pipeline.train.fallback import HookGradients, LoopGradients, gradients_for
from tests import tiny
from tests.train.test_gradients import adapted, examples, fast_sum, relative, slow_gradient


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_paths_give_the_same_clipped_sum(family: str) -> None:
    model = adapted(family)
    records = examples([5, 17, 30, 9, 12])
    units = [records[:1], records[1:4], records[4:]]
    for norm in (0.5, 1e9):
        direct = fast_sum(model, units, norm)
        for kind in (HookGradients, LoopGradients):
            assert relative(fast_sum(model, units, norm, kind=kind), direct) < 1e-5


def lora(**options: object) -> PeftModel:
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
    return get_peft_model(tiny.qwen().requires_grad_(False), config)


def test_dropout_and_fully_trained_modules_are_served() -> None:
    units = [[example] for example in examples([6, 9])]
    dropped = lora(lora_dropout=0.5)
    assert float(fast_sum(dropped, units, 1.0, kind=HookGradients).norm()) > 0
    headed = lora(modules_to_save=["lm_head"])
    total = fast_sum(headed, units, 1.0, kind=HookGradients)
    assert float(total.norm()) <= 2 * (1 + 1e-4)
    assert any("lm_head" in name for name, p in headed.named_parameters() if p.requires_grad)


def test_the_hooks_are_taken_off_again() -> None:
    model = adapted("llama")
    fast_sum(model, [examples([6])], 1.0, kind=HookGradients)
    assert not model.training
    ids = torch.tensor([[0, 5, 6]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(getattr(p, "grad_sample", None) is None for p in model.parameters())


def test_dora_is_served_one_unit_at_a_time_and_bounded() -> None:
    model = lora(use_dora=True)
    units = [[example] for example in examples([6, 9])]
    total = fast_sum(model, units, 0.01, kind=gradients_for)
    assert 0 < float(total.norm()) <= 0.02 * (1 + 1e-4)


def test_the_path_is_chosen_by_what_the_model_needs_and_says_why() -> None:
    def path(**options: object) -> str:
        return gradients_for(lora(**options), 1.0, padding=1).path

    assert path() == "direct"
    assert path(lora_dropout=0.1).startswith("Opacus hooks, for ")
    assert path(modules_to_save=["lm_head"]).startswith("Opacus hooks, for ")
    assert path(use_dora=True).startswith("one unit at a time, for ")


class Scaled(LlamaForCausalLM):
    """A family that scales its logits under a name that nobody knows."""

    factor = 3.0

    def forward(self, *args: Any, **options: Any) -> CausalLMOutputWithPast:
        output = super().forward(*args, **options)
        return CausalLMOutputWithPast(logits=output.logits * self.factor)


def test_logits_that_are_not_the_heads_alone_leave_the_direct_path() -> None:
    model = models.adapt(Scaled(tiny.llama().config).eval().requires_grad_(False), Lora(rank=2), 0)
    assert gradients_for(model, 1.0, padding=1).path.startswith("Opacus hooks, for logits that are more than")
    Scaled.factor = 1.0  # the control: the same class, unscaled
    assert gradients_for(model, 1.0, padding=1).path == "direct"


@pytest.mark.parametrize("kind", ["lm_head", "model.norm", "model.embed_tokens", "layers.1.mlp.down_proj"])
def test_a_module_trained_whole_has_the_gradients_of_the_loop(kind: str) -> None:
    """An untied Qwen: Opacus's gradients of a head, a norm, an embedding and a linear layer, clipped with LoRA's."""
    model = models.adapt(tiny.qwen().requires_grad_(False), Lora(rank=2, also_train=(kind,)), 0)
    assert any(kind in name and "modules_to_save" in name for name, p in model.named_parameters() if p.requires_grad)
    records = examples([5, 17, 9, 12])
    units = [records[:1], records[1:3], records[3:]]
    for norm in (0.5, 1e9):
        hooked = fast_sum(model, units, norm, kind=HookGradients)
        slow = sum(
            gradient * min(1.0, norm / (float(gradient.norm()) + 1e-6))
            for gradient in (slow_gradient(model, unit) for unit in units)
        )
        assert relative(hooked, slow) < 1e-5
