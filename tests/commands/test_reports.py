"""`hushtune report` beyond one run, and the page of all releases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.report.schema import schema
from tests.report import sample
from tests.report.test_compare import shelve


@pytest.fixture
def home(tmp_path: Path) -> Path:
    shelve(tmp_path, "1", sample.released())
    shelve(tmp_path, "2", sample.rejected())
    return tmp_path


def test_the_schema_is_printed(capsys):
    assert cli.main(["report", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_two_releases_side_by_side(home, tmp_path, capsys):
    page = tmp_path / "compare.html"
    compare = ["report", "--compare", "letters/1", "letters/2", "--home", str(home)]
    assert cli.main([*compare, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "≠  Verdict" in out
    assert out.splitlines()[-1] == str(page)
    assert "two releases side by side" in page.read_text()
    assert cli.main([*compare, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == ["letters/1", "letters/2"]


def test_the_page_of_all_releases(home, capsys):
    assert cli.main(["releases", "--html", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(home / "releases.html")
    assert "letters" in (home / "releases.html").read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "Say which run"),
        (["run-1", "--html", "x.html"], "--html is for --compare"),
        (["--compare", "letters/1", "letters/9"], "There is no run letters/9"),
    ],
)
def test_what_is_wrong_is_said(argv, said, home, capsys):
    assert cli.main(["report", *argv, "--home", str(home)]) == 2
    assert said in capsys.readouterr().err
