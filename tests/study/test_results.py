"""What cells say together, and the page: pooled by hand, every figure from the JSON, nothing loaded."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import product

import numpy as np
import pytest

from pipeline.report.formats import show
from pipeline.report.render import resolve
from pipeline.study import page, results
from pipeline.study.spec import Point, parse
from tests.report.browser import chromium
from tests.report.page import Page, strings, tokens
from tests.study import fake

SPEC = {
    "name": "sizes",
    "description": "Two sizes, made up.",
    "models": [{"name": "large", "ref": "nano"}, {"name": "small", "ref": "nano"}],
    "epsilons": ["none", 8, 3],
    "seeds": [0, 1],
}
PLAIN_LEAKS = {"large": 10.0, "small": 2.0}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    points = [Point(model=m, epsilon=e, seed=s) for m, e, s in product(("large", "small"), (None, 8.0, 3.0), (0, 1))]
    return {p: fake.cell(p, leaks=PLAIN_LEAKS[p.model] if p.epsilon is None else 0.0) for p in points}


@pytest.fixture(scope="module")
def content(cells, tmp_path_factory):
    found = results.content(parse(SPEC, "the test", tmp_path_factory.mktemp("spec")), cells)
    return json.loads(json.dumps(found, allow_nan=False))


def test_groups_pool_the_seeds(content, cells):
    assert [(g["model"], g["label"]) for g in content["groups"]] == [
        ("small", "no DP"), ("small", "ε 8"), ("small", "ε 3"), ("large", "no DP"), ("large", "ε 8"), ("large", "ε 3"),
    ]  # fmt: skip
    mine = [cells[Point(model="large", epsilon=None, seed=seed)] for seed in (0, 1)]
    group = content["groups"][3]
    bits = [one for cell in mine for one in cell.exposure["16"]]
    assert group["exposure"]["16"]["value"] == pytest.approx(np.mean(bits))
    assert group["exposure"]["16"]["n"] == 12
    assert group["exposure"]["16"]["low"] < np.mean(bits) < group["exposure"]["16"]["high"]
    assert (group["first"]["hits"], group["first"]["n"]) == (4, 40)
    assert group["first"]["low"] < 0.1 < group["first"]["high"]
    assert group["extraction"]["high"] == pytest.approx(1 - 0.025 ** (1 / 200))  # nothing of two hundred
    assert group["kept"] == 1
    gains = [np.log(cell.figures["utility.base_perplexity"].value / 60) for cell in
             (cells[Point(model="large", epsilon=8.0, seed=seed)] for seed in (0, 1))]  # fmt: skip
    assert content["groups"][4]["kept"] == pytest.approx(np.mean(gains) / group["gain"]["value"])
    assert group["watt_hours"] == pytest.approx(group["busy_seconds"] * 10 / 3600)
    assert group["spent"] is None
    assert content["groups"][4]["spent"] == pytest.approx(7.99)


def test_a_difference_is_seen_where_there_is_one_and_not_where_there_is_none(content):
    plain, private = (next(c for c in content["contrasts"] if c["copies"] == 16 and c["epsilon"] == e) for e in (None, 8))
    assert plain["low"] > 0
    assert "the larger model memorised more" in plain["sentence"]
    assert private["low"] < 0 < private["high"]
    assert "cannot be told apart" in private["sentence"]


def test_few_secrets_are_never_enough_to_tell_sizes_apart(cells, tmp_path):
    few = {point: cell for point, cell in cells.items() if point.seed == 0}
    found = results.content(parse(SPEC, "the test", tmp_path), few)
    plain = next(c for c in found["contrasts"] if c["copies"] == 16 and c["epsilon"] is None)
    assert plain["n"] == [6, 6]
    assert plain["high"] - plain["low"] > 20
    assert found["done"] == 6
    assert len(found["missing"]) == 6


def test_the_table_holds_the_groups(content):
    rows = list(csv.DictReader(io.StringIO(results.table(content))))
    assert [row["model"] for row in rows] == [group["model"] for group in content["groups"]]
    for row, group in zip(rows, content["groups"], strict=True):
        assert float(row["exposure_16"]) == group["exposure"]["16"]["value"]
        assert float(row["perplexity_high"]) == group["perplexity"]["high"]


def wrong(source: str, content: dict) -> list[str]:
    """Figures of the page that are not the JSON's."""
    return [
        figure.attributes["data-at"]
        for figure in Page(source).figures
        if figure.text != show(resolve(content, figure.attributes["data-at"]), figure.attributes["data-format"])
    ]


def test_every_figure_of_the_page_is_the_jsons_and_a_changed_one_is_caught(content):
    source = page.page(content)
    assert len(Page(source).figures) > 150
    assert wrong(source, content) == []
    forged = json.loads(json.dumps(content))
    forged["groups"][3]["exposure"]["16"]["value"] -= 1
    assert wrong(source, forged) == ["/groups/3/exposure/16/value"]


def test_no_other_number_stands_on_the_page(content):
    known = {token for text in strings(content) for token in tokens(text)} | {str(times) for times in content["copies"]}
    strangers = [token for text in Page(page.page(content)).words for token in tokens(text) if token not in known]
    assert [token for token in strangers if not re.fullmatch(r"\d+\.\d|\d+", token)] == []  # sizes under pictures


def test_the_files_are_written_and_load_nothing(content, tmp_path):
    made = page.write(content, tmp_path / "out")
    assert {path.name for path in made.parent.iterdir()} == set(page.NAMES)
    source = made.read_text()
    assert not re.search(r"<script|src=|@import|url\((?!#)", source)
    assert source.count("<svg") == 4
    assert page.page(content) == source


def test_a_study_of_one_size_and_no_finished_cell_can_be_drawn(cells, tmp_path):
    one = parse(SPEC | {"models": [{"name": "small", "ref": "nano"}]}, "the test", tmp_path)
    found = results.content(one, {point: cell for point, cell in cells.items() if point.model == "small"})
    assert found["contrasts"] == []
    assert "Two sizes are needed" in page.page(json.loads(json.dumps(found)))
    nothing = page.page(json.loads(json.dumps(results.content(one, {}))))
    assert "<svg" not in nothing


def test_the_page_fits_a_phone(content, tmp_path):
    made = page.write(content, tmp_path)
    with chromium() as browser:
        browser.show(made, 390, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.said == []
        assert [url for url in browser.asked if not url.startswith(("file:", "data:"))] == []
