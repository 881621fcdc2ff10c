"""Extraction: the finding follows the figures, bounds follow the counts, and what is missing is called missing."""

from __future__ import annotations

import pytest
from scipy import stats

from pipeline.report import render
from pipeline.report.leaks import above
from tests.report import sample


@pytest.mark.parametrize(("hits", "cases"), [(0, 300), (0, 1000), (3, 50), (7, 7)])
def test_upper_bound_is_clopper_pearson(hits, cases):
    expected = 1.0 if hits == cases else stats.beta.ppf(0.95, hits + 1, cases - hits)
    assert above(hits, cases) == pytest.approx(expected)
    assert above(0, 0) is None


def test_counts_by_kind_with_the_bound_where_nothing_was_found():
    person, url = sample.released()["extraction"]["kinds"]
    assert [(game["hits"], game["cases"]) for game in person["games"]] == [(2, 3144), (0, 26), (1, 26)]
    assert url["games"][0]["high"] == pytest.approx(1 - 0.05 ** (1 / 217))
    assert url["games"][1]["high"] is None
    assert "none played" in render(sample.released())


def test_finding_says_what_is_beyond_chance():
    assert sample.released()["extraction"]["finding"] == (
        "0.2\xa0% of 500 training records came out word for word; beyond chance it is at most 0.8\xa0% of them."
    )


def test_without_figures_it_was_not_attacked():
    extraction = sample.bare()["extraction"]
    assert extraction["finding"] == "Extraction was not attacked in this run."
    assert (extraction["attacks"], extraction["risk"]) == ([], [])
    page = render(sample.bare())
    assert "residual risk, the chance that a value is missed" in page


def test_a_figure_that_is_not_valid_finds_nothing():
    values = sample.stages()
    values["evidence"]["figures"]["extraction.either"]["conditions"] = {"scores_finite": False}
    assert sample.released(**values)["extraction"]["finding"] == "Extraction was attacked and is not valid."
