"""What `hushtune run` leaves behind when it is stopped or refused."""

import pytest

from flows import commands
from pipeline import policy, resume, runs
from pipeline.ledger import Ledger


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
    assert {path.name for path in run.folder.iterdir()} == {"claim.json", "corpus", "scrubbed.partial", "trained.partial"}


def test_stopped_before_a_reservation_finished_work_stays(run):
    (run.folder / "corpus" / "stage.json").write_text("{}")
    sentence = commands._stopped(run)
    assert "no privacy was spent" in sentence
    assert "--new" in sentence
    assert run.folder.exists()


def test_a_reservation_that_only_the_ledger_knows_is_seen(run):
    """Killed between the ledger's commit and claim.json."""
    rules = policy.load("default")
    runs.keep_policy(run.folder, rules)
    assert "nothing of the run is left" in commands._stopped(run)  # the control
    run = runs.start(run.home, "mail")
    runs.keep_policy(run.folder, rules)
    Ledger(run.home).reserve(
        run=run.id, lifetime=rules.privacy.lifetime, sampling_rate=0.1, noise_multiplier=2.0, steps=3, epsilon=8, delta=1e-5,
        policy_digest=rules.digest, unit="record",
    )  # fmt: skip
    assert "charged in full" in commands._stopped(run)
    assert resume.forget(run) is False
    assert run.folder.exists()


def test_stopped_before_there_is_a_run(tmp_path):
    assert "nothing of the run is left" in commands._stopped(None)


def test_a_refused_run_that_has_reserved_is_kept(run):
    (run.folder / "claim.json").write_text("{}")
    assert resume.forget(run) is False
    assert run.folder.exists()
