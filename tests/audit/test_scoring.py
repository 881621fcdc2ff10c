"""Log-likelihoods against a plain loop in float64, one sequence at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from pipeline.audit.scoring import Sequenced, batches, score
from pipeline.errors import ModelError
from pipeline.train.examples import IGNORED, Example
from tests import tiny


def examples(count: int = 23, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        ids = rng.integers(2, len(tiny.tokenizer()), rng.integers(1, 40)).tolist()
        labels = [token if rng.random() < 0.7 else IGNORED for token in ids]
        made.append(Example(f"r{i}", f"u{i}", (0, *ids), (IGNORED, *labels)))
    return made


def plainly(model: nn.Module, example: Example) -> tuple[list[float], int]:
    with torch.no_grad():
        logits = model(torch.tensor([example.input_ids])).logits[0].double()
    wanted = [(place, token) for place, token in enumerate(example.labels) if token != IGNORED]
    values = [torch.log_softmax(logits[place - 1], -1)[token].item() for place, token in wanted]
    return values, sum(int(logits[place - 1].argmax()) == token for place, token in wanted)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen"])
def test_scores_agree_with_a_plain_loop(family: str) -> None:
    model, records = tiny.FAMILIES[family](), examples()
    found = score(model, records, budget=100)
    for i, record in enumerate(records):
        values, hits = plainly(model, record)
        assert found.log_probs[i] == pytest.approx(values, abs=1e-4)
        assert found.totals[i] == pytest.approx(sum(values), abs=1e-3)
        assert (found.tokens[i], found.hits[i]) == (len(values), hits)
    assert found.means == pytest.approx(found.totals / np.maximum(found.tokens, 1))


def test_batching_threads_and_order_do_not_change_the_result() -> None:
    model, records = tiny.llama(), examples()
    before = torch.get_num_threads()
    one = score(model, records, budget=1)
    torch.set_num_threads(3)
    try:
        many = score(model, records[::-1], budget=10_000)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert many.totals[::-1] == pytest.approx(one.totals, abs=1e-4)
    assert one.pick([5, 2]).totals.tolist() == [one.totals[5], one.totals[2]]


def test_an_adapter_is_scored_on_and_off() -> None:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted, records = get_peft_model(tiny.llama(), config).eval(), examples(5)
    with adapted.disable_adapter():
        base = score(adapted, records)
    tuned = score(adapted, records)
    assert base.totals == pytest.approx(score(tiny.llama(), records).totals, abs=1e-4)
    assert not np.allclose(base.totals, tuned.totals, atol=0.01)
    adapted.merge_adapter()
    assert score(adapted, records).totals == pytest.approx(tuned.totals, abs=1e-3)
    assert tuned.totals[0] == pytest.approx(sum(plainly(adapted, records[0])[0]), abs=1e-3)


def test_nothing_labelled_scores_nothing() -> None:
    found = score(tiny.llama(), [Example("a", "a", (0, 5), (IGNORED, IGNORED)), Example("b", "b", (0,), (IGNORED,))])
    assert found.tokens.tolist() == [0, 0]
    assert found.means.tolist() == [0.0, 0.0]
    assert score(tiny.llama(), []).totals.tolist() == []


def test_a_context_is_read_and_not_scored() -> None:
    sequence = Sequenced((0, 7, 8, 9), unscored=2)
    assert sequence.labels == (IGNORED, IGNORED, 8, 9)
    assert score(tiny.llama(), [sequence]).tokens.tolist() == [2]


def test_progress_counts_every_token_once() -> None:
    seen: list[int] = []
    records = examples()
    score(tiny.llama(), records, budget=60, tick=seen.append)
    assert sum(seen) == sum(len(record.input_ids) for record in records)


def test_batches_hold_every_sequence_once_within_the_budget() -> None:
    lengths = [3, 50, 7, 7, 1, 20, 19, 0]
    made = list(batches(lengths, 40))
    assert sorted(row for batch in made for row in batch) == [0, 1, 2, 3, 4, 5, 6]
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 40 for batch in made)


def test_a_model_that_caps_its_logits_is_refused_rather_than_misread() -> None:
    config = Gemma2Config(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.01,
    )  # fmt: skip
    with pytest.raises(ModelError, match="Gemma2ForCausalLM"):
        score(Gemma2ForCausalLM(config).eval(), examples(1))
