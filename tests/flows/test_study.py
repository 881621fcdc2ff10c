"""The study flow: each cell once, a crash loses the cell at work alone, private data is refused before Prefect hears of it."""

from __future__ import annotations

import json

import pytest

from flows import study_command
from pipeline import cli
from pipeline.errors import StageError
from pipeline.study import cell, grid
from tests.study import fake
from tests.study.conftest import SENTINEL, content, make


@pytest.fixture
def hushtune(prefect_home, monkeypatch):
    monkeypatch.setattr(cli, "_plugin", lambda name: getattr(study_command, name))
    return cli.main


def test_a_crash_loses_only_the_cell_at_work(hushtune, tmp_path, monkeypatch, capsys, prefect_home):
    spec, home = make(tmp_path, seeds=[0, 1], parallel=2), tmp_path / "home"
    tried: list[str] = []

    def work(spec, point, folder, home):
        tried.append(point.name)
        if tried.count("tiny, ε 8, seed 1") == 1 and point.name == "tiny, ε 8, seed 1":
            raise StageError(f"The cell {point.name} failed: its process ended with code -9.")
        key = cell.inputs(spec, point, grid.base(spec, "tiny", folder, home), cell.digest_file(cell.source(spec)))
        cell.keep(folder, fake.cell(point, key))

    monkeypatch.setattr(grid, "work", work)
    command = ["study", str(spec), "--home", str(home), "--json"]
    assert hushtune(command) == 1
    assert "code -9" in capsys.readouterr().err
    page = home / "studies" / "small" / "study.html"
    assert "Not done yet" in page.read_text()  # the others are shown
    assert sorted(tried) == ["tiny, no DP, seed 0", "tiny, no DP, seed 1", "tiny, ε 8, seed 0", "tiny, ε 8, seed 1"]

    assert hushtune([*command, "--output", str(tmp_path / "out")]) == 0
    assert tried[4:] == ["tiny, ε 8, seed 1"]
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["planned"], said["done"]) == (4, 4)
    assert said["page"] == str(tmp_path / "out" / "study.html")
    assert hushtune(command) == 0
    assert len(tried) == 5
    held = b"".join(path.read_bytes() for path in prefect_home.rglob("*.db*"))
    assert SENTINEL.encode() not in held
    assert b"tiny" in held  # the control: this is where Prefect keeps what it is told


def test_private_data_is_refused_before_anything_is_made(hushtune, tmp_path, capsys):
    data = content(tmp_path)["data"] | {"public": False, "declared_by": None}
    spec = make(tmp_path, data=data, epsilons=[8])
    assert hushtune(["study", str(spec), "--home", str(tmp_path / "home")]) == 2
    assert "nobody has declared public" in capsys.readouterr().err
    assert not (tmp_path / "home").exists() or not (tmp_path / "home" / "studies").exists()


def test_a_failing_process_is_one_sentence(tmp_path):
    from pipeline.study import spec as specs

    spec = specs.load(make(tmp_path, canaries={"count": 16, "guesses": 8, "prefix_tokens": 4, "repeated": 90}))
    folder = grid.start(spec, tmp_path / "home")
    with pytest.raises(StageError, match=r"The cell tiny, no DP, seed 0 failed: .* privacy units"):
        grid.work(spec, spec.points()[0], folder, tmp_path / "home")


@pytest.mark.slow
def test_a_whole_study_in_processes_of_its_own(hushtune, tmp_path, capsys):
    spec, home = make(tmp_path), tmp_path / "home"
    assert hushtune(["study", str(spec), "--home", str(home), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["done"] == said["planned"] == 2
    assert not list((home / "studies" / "small" / "work").iterdir())
    assert all(group["peak_megabytes"] > 100 for group in said["groups"])
