"""What `hushtune run` leaves behind when it is stopped or refused."""

import pytest

from flows import commands
from pipeline import runs


@pytest.fixture
def run(tmp_path):
    started = runs.start(tmp_path, "mail")
    for name in ("corpus", "scrubbed.partial", "trained.partial"):
        (started.folder / name).mkdir()
    return started


def test_stopped_before_a_reservation_nothing_is_left(run):
    assert "nothing of the run is left" in commands._stopped(run)
    assert not run.folder.exists()


def test_stopped_after_a_reservation_the_run_and_its_checkpoint_stay(run):
    (run.folder / "claim.json").write_text("{}")
    sentence = commands._stopped(run)
    assert "charged in full" in sentence
    assert run.id in sentence
    assert {path.name for path in run.folder.iterdir()} == {"claim.json", "corpus", "trained.partial"}


def test_stopped_before_there_is_a_run(tmp_path):
    assert "nothing of the run is left" in commands._stopped(None)


def test_a_refused_run_that_has_reserved_is_kept(run):
    (run.folder / "claim.json").write_text("{}")
    assert commands._forget(run) is False
    assert run.folder.exists()
