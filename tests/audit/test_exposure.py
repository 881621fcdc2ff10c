"""Exposure and its p-values: against enumeration of whole spaces, scipy, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.audit import exposure


def test_exposure_is_the_difference_of_logarithms() -> None:
    assert exposure.exposure_bits(1, 48**3) == pytest.approx(3 * math.log2(48), abs=1e-12)
    assert exposure.exposure_bits(48**3, 48**3) == 0.0
    assert exposure.exposure_bits(1024, 2**20) == 10.0
    for rank in (0, 9):
        with pytest.raises(ValueError, match="rank"):
            exposure.exposure_bits(rank, 8)


@given(st.lists(st.integers(-3, 3), min_size=8, max_size=8), st.integers(0, 7))
@settings(deadline=None)
def test_rank_places_ties_before_the_secret(values: list[int], pick: int) -> None:
    table = np.array(values, float).reshape(2, 2, 2)
    index = np.unravel_index(pick, table.shape)
    better = sum(value > values[pick] for value in values)
    ties = sum(value == values[pick] for value in values) - 1
    assert exposure.rank_of(table, index) == 1 + better + ties


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
@settings(deadline=None)
def test_under_chance_every_rank_keeps_its_p_value_whatever_the_ties(values: list[int]) -> None:
    """All secrets of a space are tried: P[rank ≤ r] ≤ r/|R|, so exposure is never overstated."""
    table = np.array(values, float)
    ranks = np.array([exposure.rank_of(table, (i,)) for i in range(len(values))])
    for r in range(1, len(values) + 1):
        assert (ranks <= r).mean() <= r / len(values) + 1e-12


def test_negative_control_ranks_that_place_ties_after_the_secret_overstate_exposure() -> None:
    table = np.zeros(16)
    optimistic = [1 + int((table > table[i]).sum()) for i in range(16)]
    assert np.mean(np.array(optimistic) <= 1) == 1.0  # p-value 1/16, yet it always happens
    assert {exposure.rank_of(table, (i,)) for i in range(16)} == {16}  # ours: 0 bits


def test_a_score_that_is_no_number_never_shows_exposure() -> None:
    table = np.array([0.0, -1.0, np.nan])
    assert exposure.rank_of(table, (2,)) == 3
    assert exposure.rank_of(table, (0,)) == 2  # the unknown one counts as better
    assert exposure.rank_of(np.full(4, np.nan), (0,)) == 4


@pytest.mark.parametrize(("size", "secrets"), [(6, 3), (5, 4), (12, 2)])
def test_family_p_by_enumerating_every_combination_of_ranks(size: int, secrets: int) -> None:
    best = np.array([min(ranks) for ranks in itertools.product(range(1, size + 1), repeat=secrets)])
    for rank in range(1, size + 1):
        ours = exposure.family_p([rank] + [size] * (secrets - 1), size)
        assert ours == pytest.approx((best <= rank).mean(), abs=1e-12)


def test_mean_p_agrees_with_scipys_gamma_and_never_understates_chance() -> None:
    ranks, size = [3, 17, 900, 2], 1000
    bits = [exposure.exposure_bits(rank, size) for rank in ranks]
    assert exposure.mean_p(ranks, size) == pytest.approx(stats.gamma.sf(sum(bits) * math.log(2), 4), abs=1e-12)
    small = [exposure.mean_p(pair, 8) for pair in itertools.product(range(1, 9), repeat=2)]
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(small) <= level) <= level


def test_under_chance_mean_exposure_is_one_over_the_logarithm_of_two() -> None:
    ranks = np.random.default_rng(0).integers(1, 48**3 + 1, 20_000)
    bits = np.array([exposure.exposure_bits(int(rank), 48**3) for rank in ranks])
    assert bits.mean() == pytest.approx(1 / math.log(2), abs=0.04)
    assert stats.kstest(bits * math.log(2), "expon").pvalue > 0.001


def test_family_cutoff_is_where_the_family_p_value_crosses() -> None:
    assert exposure.family_cutoff(64, 0.01) == pytest.approx(12.64, abs=0.005)
    size = 2**30
    rank = round(size / 2 ** exposure.family_cutoff(64, 0.01))
    assert exposure.family_p([rank], size) < exposure.family_p([rank] + [size] * 63, size) == pytest.approx(0.01, rel=1e-4)


def test_controls_that_are_not_uniform_are_noticed() -> None:
    ranks = np.random.default_rng(1).integers(1, 48**3 + 1, 64)
    assert exposure.uniform_p(ranks.tolist(), 48**3) > 0.001
    assert exposure.uniform_p((ranks // 4 + 1).tolist(), 48**3) < 1e-6


@given(st.floats(-50, 50), st.lists(st.floats(-50, 50), min_size=1, max_size=50))
@settings(deadline=None)
def test_sampled_exposure_is_the_permutation_p_value(secret: float, references: list[float]) -> None:
    bits, p = exposure.sampled_exposure(secret, references)
    assert p == (1 + sum(reference <= secret for reference in references)) / (len(references) + 1)
    assert 0 <= bits <= math.log2(len(references) + 1) + 1e-12
    assert bits == pytest.approx(-math.log2(p), abs=1e-12)


def test_sampled_exposure_is_valid_under_chance() -> None:
    pool = np.random.default_rng(3).integers(0, 5, 20).astype(float)  # heavy ties
    values = [exposure.sampled_exposure(pool[i], np.delete(pool, i))[1] for i in range(20)]
    for level in (0.05, 0.25, 0.5, 0.9):
        assert np.mean(np.array(values) <= level) <= level + 1e-12


def test_sampled_exposure_refuses_what_it_cannot_use() -> None:
    for secret, references in ((1.0, []), (math.nan, [1.0]), (1.0, [math.nan])):
        with pytest.raises(ValueError, match="NaN"):
            exposure.sampled_exposure(secret, references)
    for function in (exposure.family_p, exposure.mean_p, exposure.uniform_p):
        with pytest.raises(ValueError, match="rank"):
            function([], 10)
        with pytest.raises(ValueError, match="rank"):
            function([11], 10)
