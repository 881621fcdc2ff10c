"""The noise: its size, its shape, its independence; the empty draw; the fixed divisor; no noise equals plain SGD."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.train.entropy import SYSTEM, normal, uniform
from pipeline.train.gradients import UnitGradients
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from tests import tiny
from tests.train.test_gradients import adapted, examples, trainable


def mechanism(noise: float = 1.7, norm: float = 0.5, batch: int = 1) -> Mechanism:
    return Mechanism.model_construct(
        unit="record", units=100, expected_batch=batch, steps=4, noise_multiplier=noise, clipping_norm=norm, delta=1e-5
    )


def optimizer(parameter: torch.nn.Parameter, run: Mechanism) -> UnitOptimizer:
    return UnitOptimizer(torch.optim.SGD([parameter], lr=1.0), run)


def test_noise_has_standard_deviation_sigma_times_the_norm_and_is_normal() -> None:
    parameter = torch.nn.Parameter(torch.zeros(200_000))
    optimizer(parameter, mechanism()).step()
    noise = -parameter.detach().numpy()
    assert abs(noise.std() / (1.7 * 0.5) - 1) < 0.01
    assert stats.kstest(noise / (1.7 * 0.5), "norm").pvalue > 1e-4


def test_a_wrong_noise_scale_would_be_seen() -> None:
    """Negative control of the test above: noise that is 3 % too small fails it."""
    parameter = torch.nn.Parameter(torch.zeros(200_000))
    optimizer(parameter, mechanism(noise=1.7 * 0.97)).step()
    noise = -parameter.detach().numpy()
    assert abs(noise.std() / (1.7 * 0.5) - 1) > 0.01
    assert stats.kstest(noise / (1.7 * 0.5), "norm").pvalue < 1e-4


def test_noise_is_independent_over_steps_and_coordinates_and_never_repeats() -> None:
    first, second = normal(100_000).numpy(), normal(100_000).numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:50_000], first[50_000:])[0, 1]) < 0.03
    torch.manual_seed(3)
    one = normal(8)
    torch.manual_seed(3)
    assert not torch.equal(one, normal(8))


def test_a_forked_process_draws_its_own_noise() -> None:
    """Negative control of sharing: the keystream object is the same in both, and its bytes are not."""
    SYSTEM(8)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, SYSTEM(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32) != SYSTEM(32)


def test_uniforms_cover_the_unit_interval() -> None:
    sample = uniform(100_000)
    assert 0 <= sample.min() < sample.max() < 1
    assert stats.kstest(sample, "uniform").pvalue > 1e-4
    assert uniform(4, lambda n: b"\xff" * n).max() < 1
    assert np.isfinite(normal(4, lambda n: b"\xff" * n)).all()


def test_an_empty_draw_is_a_step_of_noise_and_runs_the_accountants_hook() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1000))
    steps: list[int] = []
    dp = optimizer(parameter, mechanism())
    dp.attach_step_hook(lambda _: steps.append(1))
    dp.step()
    assert steps == [1]
    assert float(parameter.detach().std()) > 0.5


def test_without_noise_it_is_sgd_on_the_sum_over_the_expected_batch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    dp = optimizer(parameter, mechanism(noise=0.0, batch=4))
    for _ in range(2):
        parameter.summed_grad = torch.tensor([4.0, 8.0, -4.0])
        dp.step()
    assert torch.equal(parameter.detach(), torch.tensor([-2.0, -4.0, 2.0]))


def test_a_sum_is_used_once() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    dp = optimizer(parameter, mechanism(noise=0.0))
    parameter.summed_grad = torch.ones(3)
    dp.step()
    dp.step()
    assert torch.equal(parameter.detach(), -torch.ones(3))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_without_clipping_and_noise_every_step_is_plain_sgd(family: str) -> None:
    """σ = 0 and C = ∞ over the whole data is stochastic gradient descent on the mean loss, step by step."""
    ours, plain = adapted(family), adapted(family)
    records = examples([5, 17, 30, 9])
    dp = UnitOptimizer(torch.optim.SGD(trainable(ours), lr=0.5), mechanism(noise=1.0, batch=len(records)))
    dp.noise_multiplier = 0.0
    sgd = torch.optim.SGD(trainable(plain), lr=0.5)
    gradients = UnitGradients(ours, float("inf"), padding=1)
    for _ in range(3):
        with gradients.attached():
            gradients.add([[record] for record in records[:3]])
            gradients.add([[records[3]]])
        dp.step()
        sgd.zero_grad()
        for record in records:
            ids, labels = torch.tensor([record.input_ids]), torch.tensor([record.labels])
            (plain(input_ids=ids, labels=labels, use_cache=False).loss / len(records)).backward()
        sgd.step()
        for one, two in zip(trainable(ours), trainable(plain), strict=True):
            assert torch.allclose(one, two, atol=1e-5)
