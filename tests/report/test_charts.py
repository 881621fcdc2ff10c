"""The pictures: well-formed, without links, and absent rather than wrong where nothing was measured."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from pipeline.report import render
from pipeline.report.charts import pictures
from tests.report import sample
from tests.report.page import Page

KEYS = ("entities", "identity", "course", "budget", "exposure", "ladder", "epsilon", "roc", "perplexity", "answers")


def every(made):
    return [*made["gates"], *(made[key] for key in KEYS if made[key])]


@pytest.mark.parametrize("make", [sample.released, sample.rejected, sample.bare, sample.asked])
def test_well_formed_and_small(make):
    for picture in every(pictures(make())):
        root = ElementTree.fromstring(str(picture))
        assert root.tag == "svg"
        assert "xlink" not in picture
        assert len(picture) < 30_000
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))


def test_what_was_not_measured_is_not_drawn():
    made = pictures(sample.bare())
    assert [key for key in KEYS if made[key] is None] == [
        "entities",
        "identity",
        "course",
        "exposure",
        "ladder",
        "roc",
        "perplexity",
        "answers",
    ]


def test_mark_of_a_gate_sits_where_its_value_is():
    content = sample.released()
    gate = content["verdict"]["gates"][3]
    picture = str(pictures(content)["gates"][3])
    mark = float(re.search(r'<use [^>]*x="([\d.]+)"', picture)[1])
    start, end = gate["axis"]
    assert mark == pytest.approx(5 + 250 * (gate["value"] - start) / (end - start), abs=0.01)


def test_a_failed_gate_has_another_shape_and_colour():
    passed, failed = (str(pictures(make())["gates"][3]) for make in (sample.released, sample.rejected))
    assert "var(--good)" in passed
    assert "var(--bad)" in failed
    outline = re.compile(r'<path id="[^"]*" d="([^"]*)"')
    assert outline.search(passed)[1] != outline.search(failed)[1]


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    pictures(sample.released())
    assert dict(matplotlib.rcParams) == before


def test_extreme_values_stay_in_the_picture():
    values = sample.stages()
    gate = values["verdict"]["gates"][5]
    gate |= {"value": 1e6, "bound": 1e6, "passed": False}
    values["evidence"]["series"]["exposure.planted"] = [16.75] * 64
    values["standing"]["epsilon_spent"] = 90.0
    for picture in every(pictures(sample.released(**values))):
        assert not re.search(r"nan|inf(?!o)", re.sub(r"<(title|desc).*?</\1>", "", str(picture)))


def test_a_spend_is_rounded_up_in_the_picture_as_in_the_words():
    content = sample.released()
    stated = [drawn.text for drawn in Page(render(content)).drawn if "/budget/past/" in drawn.attributes["data-at"]]
    assert [words.split()[0] for words in stated] == ["8.31", "10.1", "11.5"]
