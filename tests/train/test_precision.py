"""Products in bfloat16, as on a GPU, tried on the processor: near enough, clipped exactly, and blind to neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from pipeline import models
from pipeline.errors import ModelError
from pipeline.policy import Lora
from pipeline.train import gradients as module
from pipeline.train.coverage import check_rows_are_independent
from pipeline.train.examples import Even, Example
from pipeline.train.fallback import LoopGradients, gradients_for
from pipeline.train.gradients import UnitGradients, precision_on
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.reuse import EntryStates
from pipeline.train.sampling import microbatches
from tests import tiny
from tests.train.test_gradients import adapted, examples, relative, slow_gradient, trainable
from tests.train.test_optimizer import mechanism

EVEN = Even(longest=128, tokens=512)


def low(model: PeftModel, norm: float = 1e9, states: EntryStates | None = None) -> UnitGradients:
    return UnitGradients(model, norm, 1, states, torch.bfloat16, EVEN)


def total(model: PeftModel, gradients: UnitGradients, units: list[list[Example]], even: Even | None = EVEN) -> torch.Tensor:
    for parameter in trainable(model):
        parameter.summed_grad = None
    with gradients.attached():
        for group in microbatches(units, 512, even):
            gradients.add(group)
    assert {parameter.summed_grad.dtype for parameter in trainable(model)} == {torch.float32}
    return torch.cat([parameter.summed_grad.flatten() for parameter in trainable(model)])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_gradient_is_that_of_float32_up_to_bfloat16(family: str) -> None:
    model = adapted(family)
    for example in examples([5, 17, 40]):
        distance = relative(total(model, low(model), [[example]]), slow_gradient(model, [example]))
        assert 1e-4 < distance < 3e-2  # the lower bound: the products are in bfloat16 indeed


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_people_and_micro_batches_are_taken_as_in_float32(family: str) -> None:
    model = adapted(family)
    records = examples([5, 17, 30, 9, 12, 3, 25, 70, 33])
    units = [records[:1], records[1:4], records[4:5], records[5:]]
    assert relative(total(model, low(model), units), sum(slow_gradient(model, unit) for unit in units)) < 3e-2


def test_what_is_clipped_is_what_is_summed() -> None:
    model = adapted("llama")
    for seed, norm in ((1, 0.01), (2, 0.1), (3, 0.003)):
        clipped = total(model, low(model, norm), [examples([20], seed=seed)])
        assert norm * 0.99 < float(clipped.norm()) <= norm * (1 + 1e-6)


def others_moved(model: PeftModel, even: Even | None) -> float:
    """How far the sum over 24 records moves, in clipping norms, by the presence of a longer one, less what that one adds."""
    units = [[example] for example in examples([7, 9, 11, 20, 31, 8] * 4)]
    newcomer = examples([43], seed=9)
    gradients = low(model, norm=0.01)
    if even is None:
        gradients._shape = lambda rows: (0, 0)  # the mistake: shapes as the draw has them
    sums = [total(model, gradients, drawn, even) for drawn in ([*units, newcomer], units, [newcomer])]
    return float((sums[0] - sums[1] - sums[2]).norm()) / 0.01


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_record_is_rounded_in_the_same_way_beside_any_neighbour(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(family)
    assert others_moved(model, EVEN) < 1e-5
    monkeypatch.setattr(module, "_product", lambda rows, matrix, count: (rows.to(matrix.dtype) @ matrix).float())
    assert others_moved(model, None) > 1e-3


def test_weights_and_optimizer_stay_float32() -> None:
    model = adapted("llama")
    gradients = low(model, 1.0)
    adam = torch.optim.Adam(trainable(model), lr=1e-3)
    total(model, gradients, [examples([9])])
    UnitOptimizer(adam, mechanism()).step()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {value.dtype for state in adam.state.values() for value in state.values()} == {torch.float32}


def test_the_check_of_independent_rows_runs_in_float32_and_then_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    add = UnitGradients.add

    def watched(self: UnitGradients, units: list[list[Example]]) -> float:
        seen.append(self.precision)
        return add(self, units)

    monkeypatch.setattr(UnitGradients, "add", watched)
    model = adapted("llama")
    gradients = low(model)
    with gradients.attached():
        check_rows_are_independent(gradients, 64, len(tiny.tokenizer()))
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert gradients.path == "direct, bfloat16 products"


def test_where_rounding_tells_of_neighbours_it_goes_on_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Even, "rows", lambda self, width: 1)  # as many rows as the draw has
    monkeypatch.setattr(Even, "width", lambda self, length: length)
    product = module._product

    def told(rows: torch.Tensor, matrix: torch.Tensor, count: int) -> torch.Tensor:
        return product(rows * (1 + 1e-3 * len(rows) * (matrix.dtype is torch.bfloat16)), matrix, count)

    monkeypatch.setattr(module, "_product", told)
    model = adapted("llama")
    gradients = low(model)
    with gradients.attached():
        check_rows_are_independent(gradients, 64, len(tiny.tokenizer()))
    assert gradients.precision is torch.float32
    assert gradients.path == "direct"


def test_low_products_need_even_shapes() -> None:
    with pytest.raises(ValueError, match="need even shapes"):
        UnitGradients(adapted("llama"), 1.0, 1, precision=torch.bfloat16)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_reused_states_serve_bfloat16(family: str, tmp_path: Path) -> None:
    model = models.adapt(tiny.FAMILIES[family](layers=4).requires_grad_(False), Lora(rank=4, layers="top_half"), 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable(model):
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    units = [[example] for example in examples([5, 40, 9])]
    states = EntryStates(model, tmp_path / "states", 64, 10**7, 3)
    whole = total(model, UnitGradients(model, 1e9, 1), units, None)
    for _ in range(2):
        assert relative(total(model, low(model, states=states), units), whole) < 3e-2
    assert states.hits == 3


def test_one_unit_at_a_time_serves_bfloat16_and_hooks_stay_in_float32() -> None:
    model = adapted("llama")
    unit = examples([9, 14])
    gradients = LoopGradients(model, 1e9, 1, torch.bfloat16)
    assert 1e-4 < relative(total(model, gradients, [unit], None), slow_gradient(model, unit)) < 3e-2


def test_a_processor_computes_in_float32() -> None:
    assert precision_on(torch.device("cpu")) is torch.float32
    gradients = gradients_for(adapted("llama"), 1.0, 1, None, EVEN)
    assert (gradients.precision, gradients.even) == (torch.float32, None)


def test_a_model_that_mixes_rows_is_refused_in_bfloat16_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "token_weights", lambda learned, shares: (learned / learned.sum()).float())
    gradients = low(adapted("llama"))
    with gradients.attached(), pytest.raises(ModelError, match="from its neighbours"):
        check_rows_are_independent(gradients, 64, len(tiny.tokenizer()))
