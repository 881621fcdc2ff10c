"""The noise: its size, its shape, its independence; the empty draw; the fixed divisor; no noise equals plain SGD."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.train.entropy import _CHUNK, SYSTEM, Entropy, add_normal, normal, uniform
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


def drawn(count: int) -> bytes:
    buffer = bytearray(count)
    SYSTEM(memoryview(buffer))
    return bytes(buffer)


def test_a_forked_process_draws_its_own_noise() -> None:
    """Negative control of sharing: the keystream object is the same in both, and its bytes are not."""
    drawn(8)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, drawn(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32) != drawn(32)


def test_threads_draw_at_once_and_never_the_same() -> None:
    """Two trainings in one process: a keystream that they shared would refuse one of them in the middle of a step."""
    with ThreadPoolExecutor(4) as pool:
        draws = list(pool.map(drawn, [200_000] * 64))
    assert len(set(draws)) == 64


def test_uniforms_cover_the_unit_interval() -> None:
    sample = uniform(100_000)
    assert 0 <= sample.min() < sample.max() < 1
    assert stats.kstest(sample, "uniform").pvalue > 1e-4
    for byte in (0x00, 0xFF):
        extreme = lambda buffer, byte=byte: buffer.__setitem__(slice(None), bytes([byte]) * len(buffer))  # noqa: E731
        assert 0 <= uniform(4, extreme).min() <= uniform(4, extreme).max() < 1
        assert np.isfinite(normal(4, extreme)).all()


@pytest.mark.parametrize("count", [1, 5, _CHUNK, _CHUNK + 3])
def test_a_normal_is_half_the_sum_of_four_box_muller_normals(count: int) -> None:
    """Against the formula written out in numpy, one chunk at a time, on the same bytes."""
    again = np.random.default_rng(0)
    made = normal(count, repeatable())
    expected = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        uniforms = (np.frombuffer(again.bytes(32 * size), np.uint64) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
        radius = np.sqrt(-2 * np.log(uniforms[: 2 * size] + 2.0**-53))
        angle = 2 * np.pi * uniforms[2 * size :]
        cosines, sines = (part.reshape(2, size).sum(0) for part in (radius * np.cos(angle), radius * np.sin(angle)))
        expected.append((cosines + np.roll(sines, 1)) / 2)
    np.testing.assert_allclose(made.numpy(), np.concatenate(expected), rtol=1e-12, atol=1e-14)


def repeatable() -> Entropy:
    generator = np.random.default_rng(0)
    return lambda buffer: buffer.__setitem__(slice(None), generator.bytes(len(buffer)))


def test_a_sum_and_its_noise_are_rounded_once() -> None:
    """Bit for bit the float64 sum, rounded; the control, noise that is rounded before it is added, gives other bits."""
    total = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    noise = normal(4096, repeatable()) * 0.37
    once = (total.double() + noise).float()
    assert torch.equal(add_normal(total.clone(), 0.37, repeatable()), once)
    assert not torch.equal(total + noise.float(), once)


@pytest.mark.parametrize("length", [1, 14, 15, 16, 17, 4096])
def test_a_buffer_of_any_length_is_filled_and_never_twice_alike(length: int) -> None:
    draws = [drawn(length) for _ in range(64)]
    assert all(any(draw[place] for draw in draws) for place in range(length))
    assert length < 8 or len(set(draws)) == len(draws)


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
