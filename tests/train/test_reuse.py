"""Reused frozen layers give the gradients of the full forward pass, on any micro-batching and within any size cap."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GraniteConfig, GraniteForCausalLM

from pipeline import models
from pipeline.policy import Lora
from pipeline.train.gradients import UnitGradients
from pipeline.train.reuse import EntryStates, first_adapted
from tests import tiny
from tests.train.test_gradients import examples, fast_sum, relative, trainable


def top_half(family: str) -> PeftModel:
    model = tiny.FAMILIES[family](layers=4).requires_grad_(False)
    adapted = models.adapt(model, Lora(rank=4, alpha=8, layers="top_half"), 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable(adapted):
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return adapted


def reused(model: PeftModel, states: EntryStates, units: list, split: int) -> torch.Tensor:
    for parameter in trainable(model):
        parameter.summed_grad = None
    gradients = UnitGradients(model, 0.5, 1, states)
    with gradients.attached():
        for start in range(0, len(units), split):
            gradients.add(units[start : start + split])
    return torch.cat([p.summed_grad.flatten() for p in trainable(model)])


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("slots", [1, 3, 100])
def test_gradients_equal_the_full_forward_pass(family: str, slots: int, tmp_path: Path) -> None:
    model = top_half(family)
    records = examples([5, 17, 30, 9, 12, 3, 25])
    units = [records[:1], records[1:4], records[4:5], records[5:]]
    full = fast_sum(model, units, 0.5)
    states = EntryStates(model, tmp_path / "states", 30, slots * 30 * 32 * 4, len(records))
    for split in (4, 1, 2, 3):  # the first visit computes, later ones reuse, in other company
        assert relative(reused(model, states, units, split), full) < 1e-5
    assert states.hits + states.misses == 4 * 7
    if slots == 100:
        assert states.misses == 7
    assert (tmp_path / "states").stat().st_size <= slots * 30 * 32 * 4
    assert stat.S_IMODE((tmp_path / "states").stat().st_mode) == 0o600


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_model_is_whole_again_afterwards(family: str, tmp_path: Path) -> None:
    model = top_half(family)
    ids = torch.arange(2, 12)[None]
    before = model(input_ids=ids).logits
    states = EntryStates(model, tmp_path / "states", 30, 10**6, 7)
    reused(model, states, [[example] for example in examples([5, 9])], 2)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_first_adapted_block_is_found() -> None:
    assert first_adapted(top_half("llama")) == 2
    assert first_adapted(top_half("gpt2")) == 2
    assert first_adapted(models.adapt(tiny.llama(), Lora(), 0)) == 0


def test_states_of_changed_weights_would_be_seen(tmp_path: Path) -> None:
    """Negative control: states kept while a block below the adapters changes give other gradients than the full pass."""
    model = top_half("llama")
    units = [[example] for example in examples([5, 9])]
    states = EntryStates(model, tmp_path / "states", 30, 10**6, 7)
    reused(model, states, units, 2)
    model.get_base_model().model.layers[0].mlp.down_proj.weight.data += 0.5
    assert relative(reused(model, states, units, 2), fast_sum(model, units, 0.5)) > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_faithful_families_are_known_as_such(family: str, tmp_path: Path) -> None:
    assert EntryStates(top_half(family), tmp_path / "states", 30, 10**6, 7).faithful(len(tiny.tokenizer()))


def test_a_family_that_scales_its_embeddings_is_not_reused(tmp_path: Path) -> None:
    """Granite multiplies whatever embeddings it is given, so that entry states would be scaled once more."""
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=len(tiny.tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, embedding_multiplier=12.0, pad_token_id=1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = models.adapt(GraniteForCausalLM(config).eval().requires_grad_(False), Lora(rank=4, layers="top_half"), 0)
    assert not EntryStates(model, tmp_path / "states", 30, 10**6, 7).faithful(len(tiny.tokenizer()))


def test_two_trainings_never_share_a_file(tmp_path: Path) -> None:
    model, other = top_half("llama"), top_half("llama")
    units = [[example] for example in examples([5, 9])]
    states = EntryStates(model, tmp_path / "states", 30, 10**6, 2)
    reused(model, states, units, 2)
    intruder = EntryStates(other, tmp_path / "states", 30, 10**6, 2)
    reused(other, intruder, [[example] for example in examples([9, 5], seed=7)], 2)
    assert relative(reused(model, states, units, 2), fast_sum(model, units, 0.5)) < 1e-5


def test_what_was_seen_is_forgotten_on_demand(tmp_path: Path) -> None:
    """A made-up record of the checks must not lend its states to a record that bears the same id."""
    model = top_half("llama")
    record, made_up = examples([9]), examples([9], seed=7)
    states = EntryStates(model, tmp_path / "states", 30, 10**6, 2)
    reused(model, states, [made_up], 1)
    assert relative(reused(model, states, [record], 1), fast_sum(model, [record], 0.5)) > 1e-3
    states.forget()
    assert relative(reused(model, states, [record], 1), fast_sum(model, [record], 0.5)) < 1e-5
