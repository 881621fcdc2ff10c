"""Two releases side by side, and the page of all: figures from report.json, trends by version, damage said."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import UsageError
from pipeline.report import compare
from pipeline.report.formats import show
from pipeline.report.render import resolve
from tests.report import sample
from tests.report.page import Page


def shelve(home, version, content, name="letters"):
    folder = home / "releases" / name / version
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(content))
    (folder / "manifest.json").write_text(json.dumps({"created": "2025-11-23T18:42:00+00:00", "approval": {"by": "Ada"}}))
    return folder


@pytest.fixture
def home(tmp_path):
    shelve(tmp_path, "1", sample.released())
    shelve(tmp_path, "2", sample.rejected())
    return tmp_path


def stated(path, content):
    figures = Page(path.read_text()).figures
    for figure in figures:
        value = resolve(content, figure.attributes["data-at"])
        assert figure.text == show(value, figure.attributes["data-format"])
    return figures


class TestComparison:
    def test_marks_what_differs(self, home, tmp_path):
        before, after = (compare.read(home / "releases" / "letters" / version) for version in "12")
        content = compare.comparison(before, after, ("letters/1", "letters/2"))
        changed = {row["title"] for row in [*content["rows"], *content["gates"]] if row["changed"]}
        assert changed == {"Verdict", "Membership attack, ratio to base (AUC)", "Personal values found by the scrubber"}
        path = compare.write_comparison(content, tmp_path / "compare.html")
        assert len(stated(path, content)) > 30
        marked = [row for row in compare.table(content) if row[0]]
        assert ("≠", "Verdict", "Released", "Rejected") in marked

    def test_same_reports_do_not_differ(self):
        content = compare.comparison(sample.released(), sample.released(), ("a", "b"))
        assert content["finding"] == "a and b do not differ in any figure that is compared."

    def test_a_gate_that_one_side_lacks(self):
        after = sample.released()
        after["verdict"]["gates"] = after["verdict"]["gates"][:-1]
        content = compare.comparison(sample.released(), after, ("a", "b"))
        assert content["gates"][-1]["after"] is None
        assert compare.table(content)[-1][3] == "no such gate"

    def test_no_report_is_said(self, tmp_path):
        with pytest.raises(UsageError, match=r"holds no report\.json"):
            compare.read(tmp_path)


class TestIndex:
    def test_versions_and_trends(self, home, tmp_path):
        content = compare.shelf(home)
        assert content["finding"] == "2 releases of 1 name."
        (shelf,) = content["shelves"]
        assert [made["version"] for made in shelf["versions"]] == ["1", "2"]
        assert shelf["versions"][0]["approved_by"] == "Ada"
        gate = next(gate for gate in shelf["gates"] if gate["name"] == "membership")
        assert [point["bound"] for point in gate["points"]] == [0.557, 0.697]
        path = compare.write_index(content, tmp_path / "releases.html")
        assert len(stated(path, content)) > 10
        page = path.read_text()
        assert "version 1 0.557, version 2 0.697" in page
        assert "var(--bad)" in page
        assert path.read_bytes() == compare.write_index(content, tmp_path / "again.html").read_bytes()

    def test_a_release_without_report_or_signature_is_shown_as_such(self, tmp_path):
        (tmp_path / "releases" / "letters" / "1").mkdir(parents=True)
        content = compare.shelf(tmp_path)
        made = content["shelves"][0]["versions"][0]
        assert made["verdict"] is None
        assert made["standing"] != "verified"
        assert "no report" in compare.write_index(content, tmp_path / "releases.html").read_text()

    def test_nothing_released(self, tmp_path):
        content = compare.shelf(tmp_path)
        assert content["finding"] == "Nothing was released yet."
        compare.write_index(content, tmp_path / "releases.html")
