"""The home folder and the names of runs."""

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import runs
from pipeline.errors import UsageError


def test_a_run_has_a_private_folder_and_a_dated_id(tmp_path):
    run = runs.start(tmp_path / "home", "mail")
    assert re.fullmatch(r"mail-\d{8}-\d{6}-[0-9a-f]{4}", run.id)
    for folder in (run.folder, run.folder.parent, run.home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_run_can_be_taken_up_again(tmp_path):
    first = runs.start(tmp_path, "mail")
    (first.folder / "kept").touch()
    assert (runs.start(tmp_path, "mail", first.id).folder / "kept").exists()


def test_two_runs_of_a_second_differ(tmp_path):
    assert len({runs.start(tmp_path, "mail").id for _ in range(8)}) == 8


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "spaced name", "line\n"])
def test_a_name_that_could_leave_the_home_is_refused(name, tmp_path):
    with pytest.raises(UsageError):
        runs.start(tmp_path, name)
    with pytest.raises(UsageError):
        runs.start(tmp_path, "mail", name + "/x")


@given(st.text(min_size=1).filter(lambda name: "/" not in name and "\0" not in name))
def test_every_file_name_gives_a_valid_run_name(name):
    assert re.fullmatch(runs.NAME, runs.name_for(Path("folder") / f"{name}.jsonl.gz"))


def test_a_home_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UsageError, match="--home"):
        runs.start(path, "mail")


def test_find_names_the_latest_run_where_there_is_no_such_one(tmp_path):
    run = runs.start(tmp_path, "mail")
    (run.folder / "policy.json").write_text("{}")
    assert runs.find(tmp_path, run.id) == run.folder
    assert runs.find(tmp_path, str(run.folder)) == run.folder
    with pytest.raises(UsageError, match=run.id):
        runs.find(tmp_path, "other")
