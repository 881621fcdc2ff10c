"""Poisson sampling: frequencies, independence, empty draws, whole units in micro-batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.train.examples import Example
from pipeline.train.mechanism import Mechanism
from pipeline.train.sampling import PoissonSampler, microbatches


def mechanism(units: int, batch: int, unit: str = "record") -> Mechanism:
    return Mechanism(
        unit=unit, units=units, expected_batch=batch, steps=10, noise_multiplier=1.0, clipping_norm=1.0, delta=1e-5
    )


def example(name: str, unit: str, length: int = 5) -> Example:
    return Example(name, unit, (0,) * length, (-100,) + (0,) * (length - 1))


def test_every_unit_is_drawn_with_the_sampling_rate() -> None:
    records = [example(f"r{i}", f"u{i}") for i in range(50)]
    sampler = PoissonSampler(records, mechanism(50, 5), 16)
    draws = 4000
    counts = np.zeros(50)
    sizes = []
    for _ in range(draws):
        units = sampler.draw()
        sizes.append(len(units))
        for (record,) in units:
            counts[int(record.id[1:])] += 1
    expected = draws * 0.1
    chi = ((counts - expected) ** 2 / (expected * 0.9)).sum()
    assert 1e-4 < stats.chi2.sf(chi, 50) < 1 - 1e-4  # nor may each unit come equally often, as in epochs
    # The size of a Poisson draw is Bin(50, 0.1): a fixed-size sampler would have no variance.
    assert np.var(sizes) == pytest.approx(50 * 0.1 * 0.9, rel=0.15)
    assert 0 in sizes


def repeats(draw: Callable[[], list[list[Example]]]) -> float:
    """p-value of how often a unit that was drawn is drawn again at the next step: Poisson draws do not remember."""
    draws = [{unit[0].id for unit in draw()} for _ in range(2000)]
    drawn = sum(map(len, draws[:-1]))
    again = sum(len(one & other) for one, other in itertools.pairwise(draws))
    return float(stats.binomtest(again, drawn, 0.1).pvalue)


def test_the_draws_of_two_steps_are_independent() -> None:
    sampler = PoissonSampler([example(f"r{i}", f"u{i}") for i in range(50)], mechanism(50, 5), 16)
    assert repeats(sampler.draw) > 1e-6
    # Negative control: units that come once an epoch, each at a step of its own, have the right rate and sizes.
    order = np.random.default_rng(0).integers(0, 10, 50)
    steps = itertools.count()
    assert repeats(lambda: [sampler._units[i] for i in np.flatnonzero(order == next(steps) % 10)]) < 1e-6


def test_a_person_is_drawn_whole_and_at_most_k_records() -> None:
    records = [example(f"r{i}", f"u{i % 4}") for i in range(40)]
    sampler = PoissonSampler(records, mechanism(4, 4, "person"), 3)
    seen: set[str] = set()
    for _ in range(50):
        for unit in sampler.draw():
            assert len({record.unit for record in unit}) == 1
            assert len({record.id for record in unit}) == 3
            seen |= {record.id for record in unit}
    assert len(seen) == 40  # which K of a person's records contribute is drawn anew each time


def test_units_without_records_are_counted_and_draw_nothing() -> None:
    records = [example(f"r{i}", f"u{i}") for i in range(30)]
    sampler = PoissonSampler(records, mechanism(40, 20), 1, absent=10)
    sizes = [len(sampler.draw()) for _ in range(500)]
    assert np.mean(sizes) == pytest.approx(15, abs=0.6)  # 30 of 40 units hold a record; each is drawn with q = 20/40
    with pytest.raises(ValueError, match="30 units were given"):
        PoissonSampler(records, mechanism(40, 20), 1)


def test_a_mechanism_calibrated_for_other_units_is_refused() -> None:
    records = [example(f"r{i}", f"u{i % 4}") for i in range(40)]
    with pytest.raises(ValueError, match="40 units were given"):
        PoissonSampler(records, mechanism(4, 2), 3)


@given(
    st.lists(st.lists(st.integers(2, 60), min_size=1, max_size=4), max_size=30),
    st.integers(64, 300),
)
def test_microbatches_hold_every_unit_once_and_whole(lengths: list[list[int]], tokens: int) -> None:
    units = [[example(f"{u}.{r}", f"u{u}", n) for r, n in enumerate(sizes)] for u, sizes in enumerate(lengths)]
    groups = list(microbatches(units, tokens))
    assert sorted(id(unit) for group in groups for unit in group) == sorted(map(id, units))
    for group in groups:
        rows = sum(map(len, group))
        width = max(len(record.input_ids) for unit in group for record in unit)
        assert len(group) == 1 or rows * width <= tokens


def test_an_empty_draw_has_no_microbatches() -> None:
    assert list(microbatches([], 64)) == []


def test_a_sampling_rate_that_is_off_by_three_percent_shows_in_the_total() -> None:
    """The number of draws over many steps is Bin(units · steps, q): a wrong q moves all units alike, which no unit shows."""

    def p_value(rate: float) -> float:
        sampler = PoissonSampler([example(f"r{i}", f"u{i}") for i in range(100)], mechanism(100, 50), 1)
        sampler._rate = rate
        total = sum(len(sampler.draw()) for _ in range(2000))
        return stats.binomtest(total, 100 * 2000, 0.5).pvalue

    assert p_value(0.5) > 1e-6
    assert p_value(0.5 * 1.03) < 1e-6
