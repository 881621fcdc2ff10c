"""Per-unit gradients against a loop over single examples, and the sensitivity bound that the promise rests on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Phi3Config, Phi3ForCausalLM

from pipeline import models
from pipeline.errors import ModelError
from pipeline.policy import Lora
from pipeline.train import gradients as module
from pipeline.train.coverage import check_rows_are_independent, uncovered
from pipeline.train.examples import Example
from pipeline.train.fallback import HookGradients, LoopGradients
from pipeline.train.gradients import UnitGradients
from pipeline.train.plain import PlainGradients
from pipeline.train.tape import Tape, squared_norms
from tests import tiny


def adapted(family: str, seed: int = 0) -> PeftModel:
    """A tiny model with LoRA layers whose B is not zero, so that every gradient is."""
    model = tiny.FAMILIES[family](seed=seed).requires_grad_(False)
    peft = models.adapt(model, Lora(rank=4, alpha=8), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return peft


def examples(lengths: list[int], seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index, length in enumerate(lengths):
        ids = tuple(torch.randint(2, len(tiny.tokenizer()), (length,), generator=generator).tolist())
        labels = (-100, -100, *ids[2:]) if index % 2 else (-100, *ids[1:])
        made.append(Example(f"e{index}", f"u{index}", ids, labels))
    return made


def trainable(model: PeftModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def slow_gradient(model: PeftModel, unit: list[Example]) -> torch.Tensor:
    """The flat gradient of one unit by plain autograd, one example at a time, through Hugging Face's own loss."""
    total = torch.zeros(sum(p.numel() for p in trainable(model)))
    for example in unit:
        model.zero_grad()
        output = model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels]), use_cache=False)
        output.loss.backward()
        total += torch.cat([p.grad.flatten() for p in trainable(model)]) / len(unit)
    model.zero_grad()
    return total


def fast_sum(
    model: PeftModel,
    units: list[list[Example]],
    norm: float,
    split: int | None = None,
    kind: type[UnitGradients] = UnitGradients,
) -> torch.Tensor:
    """The flat clipped sum by `UnitGradients`, in micro-batches of `split` units."""
    for parameter in trainable(model):
        parameter.summed_grad = None
    gradients = kind(model, norm, padding=1)
    with gradients.attached():
        for start in range(0, len(units), split or len(units)):
            gradients.add(units[start : start + (split or len(units))])
    return torch.cat([p.summed_grad.flatten() for p in trainable(model)])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_gradient_equals_a_loop_over_single_examples(family: str) -> None:
    model = adapted(family)
    for example in examples([5, 17, 30, 9]):
        # A neighbour of another length in the same micro-batch, clipped to nothing, must not matter: take them one by one.
        fast = fast_sum(model, [[example]], norm=1e9)
        assert relative(fast, slow_gradient(model, [example])) < 1e-5


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("split", [1, 2, 5])
def test_clipped_sum_equals_the_loop_for_any_split(family: str, split: int) -> None:
    model = adapted(family)
    records = examples([5, 17, 30, 9, 12, 3, 25])
    units = [records[:1], records[1:4], records[4:5], records[5:]]
    norm = float(slow_gradient(model, units[0]).norm()) * 0.7
    slow = sum(
        gradient * min(1.0, norm / (float(gradient.norm()) + 1e-6))
        for gradient in (slow_gradient(model, unit) for unit in units)
    )
    assert relative(fast_sum(model, units, norm, split), slow) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 24), min_size=2, max_size=5),
    extra=st.integers(3, 40),
    norm=st.floats(1e-3, 10),
    records=st.integers(1, 3),
)
def test_adding_a_unit_moves_the_clipped_sum_by_at_most_the_norm(
    lengths: list[int], extra: int, norm: float, records: int
) -> None:
    model = adapted("llama")
    units = [[example] for example in examples(lengths)]
    newcomer = examples([extra] * records, seed=9)
    moved = fast_sum(model, [*units, newcomer], norm) - fast_sum(model, units, norm)
    assert float(moved.norm()) <= norm * (1 + 1e-4)


def batch_average(learned: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The mistake: every token of the micro-batch weighs the same, as Hugging Face's `model(...).loss` has it."""
    return (learned / learned.sum()).float()


def moved_by_a_long_neighbour() -> float:
    """How far, in clipping norms, one long record moves the clipped sum of six short ones."""
    model = adapted("llama")
    short, long = examples([4], seed=3), examples([120], seed=4)
    norm = float(slow_gradient(model, short).norm()) / 6
    without = fast_sum(model, [short] * 6, norm)
    return float((fast_sum(model, [*[short] * 6, long], norm) - without).norm()) / norm


def test_a_loss_averaged_over_the_batch_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the neighbour test above fails for the loss that Hugging Face computes."""
    assert moved_by_a_long_neighbour() <= 1 + 1e-4
    monkeypatch.setattr(module, "token_weights", batch_average)
    assert moved_by_a_long_neighbour() > 3


def test_neighbours_do_not_change_a_gradient() -> None:
    model = adapted("llama")
    first, *others = examples([6, 40, 3])
    together = fast_sum(model, [[first], *[[other] for other in others]], norm=1e9)
    apart = fast_sum(model, [[other] for other in others], norm=1e9)
    assert relative(together - apart, slow_gradient(model, [first])) < 1e-4


@pytest.mark.parametrize("kind", [UnitGradients, HookGradients, LoopGradients])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_gradients_that_are_not_finite_contribute_zero_and_are_counted(kind: type, value: str) -> None:
    model = adapted("llama")
    good, bad = examples([8, 8])
    poisoned = len(tiny.tokenizer()) - 1
    with torch.no_grad():
        embedding = model.get_base_model().get_input_embeddings().weight
        model.get_base_model().lm_head.weight = torch.nn.Parameter(embedding.clone(), requires_grad=False)  # untie
        embedding[poisoned] = float(value)
    bad = Example("bad", "bad", (poisoned, *bad.input_ids[1:]), bad.labels)
    good = Example("good", "good", tuple(min(i, poisoned - 1) for i in good.input_ids), good.labels)
    gradients = kind(model, 1.0, padding=1)
    for parameter in trainable(model):
        parameter.summed_grad = None
    with gradients.attached():
        gradients.add([[good], [bad]])
    mixed = torch.cat([p.summed_grad.flatten() for p in trainable(model)])
    assert gradients.lost == 1
    assert torch.isfinite(mixed).all()
    assert relative(mixed, fast_sum(model, [[good]], 1.0)) < 1e-5


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_number_that_is_not_finite_voids_its_unit_alone(value: str) -> None:
    """Infinity times the coefficient that it makes, zero, would be NaN: the unit is zeroed, not scaled."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    tape = module.Tape(torch.arange(2), 2)
    tape.add(parameter, torch.tensor([[1.0, float(value), 0.0], [0.3, 0.4, 0.0]]))
    assert tape.clip(1.0) == 1
    assert parameter.summed_grad.tolist() == pytest.approx([0.3, 0.4, 0.0])


def test_what_the_direct_path_does_not_cover_is_named() -> None:
    def names(**options: object) -> list[str]:
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        return uncovered(get_peft_model(tiny.llama().requires_grad_(False), config))

    assert names() == []
    assert any("dropout" in name for name in names(lora_dropout=0.1))
    assert any("DoRA" in name for name in names(use_dora=True))
    assert any("lm_head" in name for name in names(modules_to_save=["lm_head"]))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", lora_dropout=0.1)
    model = get_peft_model(tiny.llama(), config)
    with pytest.raises(ValueError, match="not covered"):
        UnitGradients(model, 1.0, padding=1)


def test_layers_are_given_back_untouched() -> None:
    model = adapted("llama")
    example = examples([9])[0]
    before = model(input_ids=torch.tensor([example.input_ids])).logits
    fast_sum(model, [[example]], 1.0)
    assert torch.equal(model(input_ids=torch.tensor([example.input_ids])).logits, before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_plain_gradients_are_the_unclipped_sum(family: str) -> None:
    model = adapted(family)
    units = [[example] for example in examples([5, 17, 9])]
    slow = sum(slow_gradient(model, unit) for unit in units)
    assert relative(fast_sum(model, units, 0.1, kind=PlainGradients), slow) < 1e-5
    assert relative(fast_sum(model, units, 1e9), slow) < 1e-5


def shared_blocks(uses: int) -> PeftModel:
    """A Llama whose blocks are one and the same module."""
    model = tiny.llama(layers=uses).requires_grad_(False)
    block = model.model.layers[0]
    for index in range(1, uses):
        model.model.layers[index] = block
    peft = models.adapt(model, Lora(rank=4, alpha=8), 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable(peft):
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return peft


@pytest.mark.parametrize("uses", [2, 4])
def test_a_module_that_is_used_twice_is_clipped_once(uses: int) -> None:
    """The norm is that of the sum of both uses' gradients, not of the two side by side."""
    model = shared_blocks(uses)
    unit = examples([20])
    slow = slow_gradient(model, unit)
    assert relative(fast_sum(model, [unit], 1e9), slow) < 1e-5
    assert float(fast_sum(model, [unit], 0.01).norm()) <= 0.01 * (1 + 1e-4)


@pytest.mark.parametrize("kind", [UnitGradients, HookGradients, LoopGradients])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_sound_models_pass_the_check_of_independent_rows(family: str, kind: type) -> None:
    model = adapted(family)
    gradients = kind(model, 1.0, 1)
    with gradients.attached():
        check_rows_are_independent(gradients, 64, len(tiny.tokenizer()))
    assert all(getattr(p, "summed_grad", None) is None for p in trainable(model))


def test_a_model_that_mixes_the_rows_of_a_batch_is_refused() -> None:
    """Phi-3's long rotary embedding chooses its frequencies by the longest row: one record then moves all others."""
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = Phi3Config(
        vocab_size=len(tiny.tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, original_max_position_embeddings=32, rope_parameters=rope,
        pad_token_id=1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = models.adapt(Phi3ForCausalLM(config).eval().requires_grad_(False), Lora(rank=4, alpha=8), 0)
    gradients = UnitGradients(model, 1.0, 1)
    with gradients.attached(), pytest.raises(ModelError, match="from its neighbours"):
        check_rows_are_independent(gradients, 64, len(tiny.tokenizer()))


@pytest.mark.parametrize("numbers", ["equal", "random"])
def test_a_gradient_of_millions_of_numbers_is_clipped_to_the_norm(numbers: str) -> None:
    """A float32 sum of so many squares comes out too small, and what it clips too large."""
    parameter = torch.nn.Parameter(torch.zeros(12_000, 1_000))
    generator = torch.Generator().manual_seed(0)
    gradient = torch.full((1, 12_000, 1_000), 0.3) if numbers == "equal" else torch.randn(1, 12_000, 1_000, generator=generator)
    tape = Tape(torch.zeros(1, dtype=torch.long), 1)
    tape.add(parameter, gradient)
    tape.clip(1.0)
    assert float(parameter.summed_grad.double().norm()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 576), (3, 7, 13), (1, 1), (2, 4096, 5), (2, 3000, 1000)])
def test_squared_norms_are_those_of_float64(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = gradient.double().flatten(1).square().sum(1)
    assert torch.allclose(squared_norms(gradient), exact, rtol=1e-6)
    assert torch.isinf(squared_norms(torch.full(shape, float("inf")))).all()
    assert torch.isnan(squared_norms(torch.full(shape, float("nan")))).all()
