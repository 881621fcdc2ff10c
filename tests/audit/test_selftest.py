"""The self-test through the real step: every planted fault is caught, the correct step is not, and a p-value is one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.audit import one_run_fdp, selftest
from pipeline.train.mechanism import Mechanism


def entropy(seed: int):
    """Repeatable bytes, so that this test does not fail by luck."""
    generator = np.random.default_rng(seed)

    def fill(buffer: memoryview) -> None:
        buffer[:] = generator.bytes(len(buffer))

    return fill


@pytest.fixture(scope="module")
def found() -> dict[str, selftest.Tested]:
    return selftest.run(0, entropy=entropy(0))


@pytest.mark.parametrize("fault", selftest.FAULTS)
def test_a_planted_fault_is_caught(found: dict[str, selftest.Tested], fault: str) -> None:
    assert found[fault].flagged
    assert min(found[fault].p_values.values()) < selftest.ALPHA / len(selftest.CHECKS)


def test_the_correct_step_is_not_flagged(found: dict[str, selftest.Tested]) -> None:
    assert not found["correct"].flagged
    assert selftest.passed(found)
    assert tuple(found["correct"].p_values) == selftest.CHECKS


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_correct_step_is_not_flagged_with_other_seeds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_values = selftest._canaries(None, rng, entropy(seed)) | selftest._neighbours(None, rng, entropy(seed + 100))
    assert min(p_values.values()) >= selftest.ALPHA / len(selftest.CHECKS)


def test_a_missing_catch_or_a_false_alarm_fails_the_self_test(found: dict[str, selftest.Tested]) -> None:
    for name, tested in found.items():
        changed = tested.model_copy(update={"flagged": not tested.flagged})
        assert not selftest.passed(found | {name: changed})


def test_the_same_seed_and_bytes_give_the_same_p_values(found: dict[str, selftest.Tested]) -> None:
    again = selftest._canaries(None, np.random.default_rng(0), entropy(0))
    assert all(found["correct"].p_values[name] == value for name, value in again.items())


def test_the_total_variation_is_that_of_the_gaussian_where_all_are_drawn() -> None:
    mechanism = Mechanism(unit="record", units=4, expected_batch=4, steps=9, noise_multiplier=3.0, clipping_norm=1, delta=1e-5)
    exact = 2 * stats.norm.cdf(0.5) - 1
    assert exact <= one_run_fdp.total_variation(mechanism, 9) <= exact + 2e-3


def test_the_likelihood_attack_is_right_as_often_as_the_bound_says_and_no_more() -> None:
    """A simulation of the stated mechanism, one canary at a time, without the project's step."""
    rng = np.random.default_rng(3)
    rate, noise, steps, trials = 0.05, 0.9, 80, 4000
    mechanism = Mechanism(
        unit="record", units=100, expected_batch=5, steps=steps, noise_multiplier=noise, clipping_norm=1, delta=1e-5
    )
    coins = rng.random(trials) < 0.5
    seen = (rng.random((trials, steps)) < rate * coins[:, None]) + rng.normal(0, noise, (trials, steps))
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (seen - 0.5) / noise**2).sum(1)
    most = (1 + one_run_fdp.total_variation(mechanism, steps)) / 2
    assert abs(((ratio > 0) == coins).mean() - most) < 4 * math.sqrt(most * (1 - most) / trials)


def test_a_neighbour_changes_nothing_but_its_own_part_of_the_correct_sum() -> None:
    """Brute force behind the third check: with the fault, a long record takes most of the short ones' sum away."""
    model = selftest._model()
    rng = np.random.default_rng(0)
    short, long = selftest._example("a", 3, rng), selftest._example("b", 48, rng)

    def parts(fault: str | None, units: list) -> torch.Tensor:
        gradients = selftest._Crafted(model, 1e9, fault)  # type: ignore[arg-type]
        with gradients.attached():
            return gradients.unclipped(units)

    alone, both, own = (parts(None, units) for units in ([[short]], [[short], [long]], [[long]]))
    assert float((both - own - alone).norm()) < 1e-4 * float(both.norm())
    faulty = parts("batch-normalised loss", [[short], [long]])
    assert float((faulty - alone * 2 / 49 - own * 47 / 49).norm()) < 1e-4 * float(both.norm())
