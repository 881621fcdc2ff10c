"""Membership statistics against brute force and scipy; intervals against explicit resampling; the splitter check."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.audit import membership, records
from pipeline.audit.membership import Sample, auc, tpr_at_fpr
from pipeline.audit.resample import bootstrap, expanded, fewest, interval
from pipeline.audit.splitter import TOLERANCE, blind_scores
from tests import tiny

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=25)


def by_hand(members: list[float], others: list[float], fpr: float) -> float:
    """Best true positive rate over every threshold, tried one by one."""
    best = 0.0
    for threshold in [-np.inf, *members, *others]:
        if sum(score > threshold for score in others) <= fpr * len(others) + 1e-9:
            best = max(best, sum(score > threshold for score in members) / len(members))
    return best


@given(SCORES, SCORES)
@settings(deadline=None)
def test_auc_agrees_with_mann_whitney(members: list[float], others: list[float]) -> None:
    expected = stats.mannwhitneyu(members, others).statistic / (len(members) * len(others))
    assert auc(members, others) == pytest.approx(expected, abs=1e-12)
    assert auc(members, others) + auc(others, members) == pytest.approx(1, abs=1e-12)


@given(SCORES, SCORES, st.sampled_from([0.0, 0.001, 0.01, 0.1, 1 / 3, 0.5, 1.0]))
@settings(deadline=None, max_examples=200)
def test_tpr_at_fpr_is_the_best_of_all_thresholds(members: list[float], others: list[float], fpr: float) -> None:
    assert tpr_at_fpr(members, others, fpr) == pytest.approx(by_hand(members, others, fpr), abs=1e-12)


def test_shares_that_fall_on_a_whole_record_are_allowed() -> None:
    others = [float(i) for i in range(100)]
    assert tpr_at_fpr([98.5, 99.5], others, 0.01) == 1.0
    assert tpr_at_fpr([98.5, 99.5], others, 0.0099) == 0.5
    assert tpr_at_fpr([0.0], [5.0], 1.0) == 1.0


def test_scores_that_are_no_numbers_are_refused() -> None:
    for members, others in (([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.nan])):
        with pytest.raises(ValueError, match="NaN"):
            auc(members, others)
        with pytest.raises(ValueError, match="NaN"):
            tpr_at_fpr(members, others, 0.1)
    with pytest.raises(ValueError, match="fpr"):
        tpr_at_fpr([1.0], [1.0], 1.1)


@given(SCORES, SCORES, st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_weighted_statistics_equal_those_of_repeated_records(members: list[float], others: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    w1, w2 = rng.integers(0, 3, len(members)), rng.integers(0, 3, len(others))
    w1[0], w2[0] = 1, 1
    first, second = np.repeat(members, w1), np.repeat(others, w2)
    weights = w1[None].astype(float), w2[None].astype(float)
    area = membership._Area(np.array(members), np.array(others))(*weights)
    rates = membership._Rates(np.array(members), np.array(others), np.array([0.01, 0.3]))(*weights)
    assert area[0] == pytest.approx(auc(first, second), abs=1e-12)
    assert rates[0] == pytest.approx([tpr_at_fpr(first, second, 0.01), tpr_at_fpr(first, second, 0.3)], abs=1e-12)


def drawn(n: int, shift: float, rng: np.random.Generator, per_unit: int = 1) -> tuple[Sample, Sample]:
    """Members and non-members; records of a unit share their score."""
    sides = []
    for offset in (shift, 0.0):
        units = rng.normal(offset, 1, n // per_unit)
        sides.append(Sample(np.repeat(units, per_unit) + rng.normal(0, 1e-3, n), np.repeat(np.arange(n // per_unit), per_unit)))
    return sides[0], sides[1]


def auc_interval(pair: tuple[Sample, Sample], seed: int) -> tuple[float, float]:
    area = membership._Area(pair[0].scores, pair[1].scores)
    groups = [side.groups for side in pair]
    return interval(bootstrap(area, groups, np.random.default_rng(seed), 400), 0.05, fewest(*groups))


@pytest.mark.parametrize("units", [3, 4, 10, 500])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_an_interval_of_few_units_is_as_wide_as_students(units: int, alpha: float) -> None:
    """A bootstrap of a mean has standard deviation s √((n − 1)/n)/√n: at the expanded level it gives the t interval."""
    values = np.random.default_rng(units).normal(3, 2, units)
    level = expanded(alpha, units)
    high = stats.norm.isf(level / 2, values.mean(), values.std() / np.sqrt(units))
    assert high == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(1 - alpha).high, rel=1e-9)
    assert level < alpha
    assert expanded(alpha, 1) == 0.0
    samples = np.linspace(0, 1, 2001)
    assert interval(samples, alpha, units) == pytest.approx((level / 2, 1 - level / 2), abs=1e-9)
    assert interval(samples, alpha, 1) == (0.0, 1.0)


def test_every_interval_is_as_wide_as_its_few_units_ask_for() -> None:
    """Ten units of many records each: each figure's bounds lie outside the plain percentiles of the same draws."""
    pair = drawn(400, 0.5, np.random.default_rng(0), per_unit=40)
    found = membership.measure("loss", *pair, conditions={}, alpha=0.05, rng=np.random.default_rng(1), method="m")[0]
    area = membership._Area(pair[0].scores, pair[1].scores)
    samples = bootstrap(area, [side.groups for side in pair], np.random.default_rng(1))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert found.low < low < high < found.high
    worst = membership.strongest({"loss": pair}, {"loss": found}, alpha=0.05, rng=np.random.default_rng(1))
    assert (worst.low, worst.high) == (found.low, found.high)


def test_intervals_cover_the_true_auc_and_hold_for_records_of_one_person_only_by_unit() -> None:
    """Records of one person are nearly copies: by unit 95 % intervals cover, by record (the control) they do not."""
    truth = stats.norm.cdf(0.5 / np.sqrt(2))
    covered = {"unit": 0, "record": 0}
    for trial in range(80):
        pair = drawn(200, 0.5, np.random.default_rng(trial), per_unit=8)
        single = tuple(Sample(side.scores, np.arange(200)) for side in pair)
        for name, chosen in (("unit", pair), ("record", single)):
            low, high = auc_interval(chosen, trial)  # type: ignore[arg-type]
            covered[name] += low <= truth <= high
    assert covered["unit"] >= 68
    assert covered["record"] <= 56


def test_figures_name_value_interval_and_size() -> None:
    pair = drawn(400, 1.0, np.random.default_rng(0))
    found = membership.measure("ratio", *pair, conditions={"fine": True}, alpha=0.05, rng=np.random.default_rng(1), method="m")
    assert [figure.name for figure in found] == [
        "membership.ratio.auc", "membership.ratio.tpr_at_1", "membership.ratio.tpr_at_01",
    ]  # fmt: skip
    for figure in found:
        assert figure.low <= figure.value <= figure.high
        assert figure.n == 800
        assert figure.conditions == {"fine": True}
    assert found[0].value == auc(pair[0].scores, pair[1].scores)
    assert found[1].value == tpr_at_fpr(pair[0].scores, pair[1].scores, 0.01)


@pytest.mark.parametrize(("n", "expected"), [(40, [False] * 3), (299, [True, False, False]), (300, [True, True, False])])
def test_what_the_sample_cannot_resolve_is_marked(n: int, expected: list[bool]) -> None:
    pair = drawn(n, 0.2, np.random.default_rng(0))
    found = membership.measure("loss", *pair, conditions={}, alpha=0.05, rng=np.random.default_rng(1), method="m")
    assert [figure.resolvable for figure in found] == expected


def test_many_records_of_few_persons_resolve_nothing() -> None:
    for per_unit, enough in ((40, True), (50, False)):
        pair = drawn(400, 1.0, np.random.default_rng(0), per_unit)
        found = membership.measure("loss", *pair, conditions={}, alpha=0.05, rng=np.random.default_rng(1), method="m")
        assert found[0].resolvable is enough
        assert ("fewer than 10 units" in found[0].method) is not enough


def test_a_rate_of_one_in_a_thousand_needs_three_thousand_non_members() -> None:
    assert membership.resolvable(3000, 0.001)
    assert not membership.resolvable(2999, 0.001)


def test_no_hits_still_have_an_upper_bound() -> None:
    members, others = Sample(np.zeros(300), np.arange(300)), Sample(np.ones(300), np.arange(300))
    found = membership.measure("loss", members, others, conditions={}, alpha=0.05, rng=np.random.default_rng(1), method="m")
    assert found[1].value == 0.0
    assert found[1].high == pytest.approx(stats.binomtest(0, 300).proportion_ci(0.95, "exact").high, abs=1e-9)


def test_roc_band_encloses_the_curve() -> None:
    pair = drawn(300, 1.0, np.random.default_rng(0))
    grid = np.geomspace(1 / 300, 1, 20)
    value, low, high = membership.roc_band(*pair, grid, 0.05, np.random.default_rng(1))
    assert value == pytest.approx([tpr_at_fpr(pair[0].scores, pair[1].scores, fpr) for fpr in grid], abs=1e-12)
    assert value == sorted(value)
    assert value[-1] == 1.0
    assert all(lo <= hi for lo, hi in zip(low, high, strict=True))


def texts(count: int, seed: int) -> list[str]:
    return [tiny.sentence(seed * 10_000 + i, 12) for i in range(count)]


def blind(members: list[str], others: list[str]) -> tuple[float, float]:
    """AUC of the splitter check and its lower bound."""
    is_member = np.arange(len(members) + len(others)) < len(members)
    units = np.arange(len(is_member))
    scores = blind_scores([*members, *others], is_member, units, np.random.default_rng(0))
    pair = Sample(scores[is_member], units[is_member]), Sample(scores[~is_member], units[~is_member])
    figure = membership.measure(
        "splitter", *pair, conditions={}, alpha=0.05, rng=np.random.default_rng(1), method=records.METHOD
    )[0]
    assert figure.low is not None
    return figure.value, figure.low


def test_splitter_finds_nothing_in_a_random_split() -> None:
    value, low = blind(texts(300, 1), texts(300, 2))
    assert abs(value - 0.5) < 0.08
    assert low <= TOLERANCE


def test_splitter_sees_groups_that_differ_by_more_than_membership() -> None:
    """The negative control: non-members of another year would void every membership attack."""
    value, low = blind([f"{text} in 2001" for text in texts(300, 1)], [f"{text} in 2002" for text in texts(300, 2)])
    assert value > 0.95
    assert low > TOLERANCE
    subtle = [f"{text} may" if i % 2 else text for i, text in enumerate(texts(300, 3))]
    assert blind(subtle, texts(300, 4))[1] > TOLERANCE


def test_splitter_judges_a_unit_only_by_others() -> None:
    """A word that only one person uses, in all of their records, must not be learned from that person."""
    members = [f"{text} person{i // 30}" for i, text in enumerate(texts(300, 1))]
    others = [f"{text} person{10 + i // 30}" for i, text in enumerate(texts(300, 2))]
    is_member = np.arange(600) < 300
    by_unit = blind_scores([*members, *others], is_member, np.arange(600) // 30, np.random.default_rng(0))
    by_record = blind_scores([*members, *others], is_member, np.arange(600), np.random.default_rng(0))
    assert auc(by_unit[:300], by_unit[300:]) < 0.65
    assert auc(by_record[:300], by_record[300:]) > 0.9
