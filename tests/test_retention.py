"""Retention: what is due when, proof in the ledger, and deletions that a crash interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import policy as policies
from pipeline import retention
from pipeline.folders import digest, digest_file
from pipeline.ledger import Ledger
from pipeline.retention import discard, due, sweep
from tests.test_release import a_run, held, verdict

NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)
DEFAULT = policies.load("default")
PRIVATE = {
    "corpus/records.jsonl": 90,
    "probes.jsonl": 90,
    "scrubbed/records.jsonl": 90,
    "planted/train.jsonl": 90,
    "trained.partial/checkpoint.pt": 14,
    "traceback.txt": 30,
    "trained/losses.jsonl": 30,
    "review/page.html": 30,
}
KEPT = ["policy.json", "report/report.html", "corpus/stage.json", "trained/stage.json", "trained/privacy.json", "verdict.json"]


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    return Ledger(tmp_path)


def finished(home: Path, status: str = "released", run: str = "run-1", policy=DEFAULT, days: float = 0) -> Path:
    """A finished run with text in it, last written some days ago."""
    folder = a_run(home, status, run)["run"]
    for name in [*PRIVATE, *KEPT]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"{run} {name}")
    (folder / "policy.json").write_text(json.dumps(policy.model_dump(mode="json")))
    (folder / "verdict.json").write_text(json.dumps(verdict(status)))
    then = (NOW - timedelta(days=days)).timestamp()
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))
    return folder


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("days", [0, 13, 15, 31, 89, 91])
def test_text_goes_when_the_policy_says_and_what_is_public_stays(tmp_path, ledger, days):
    folder = finished(tmp_path, days=days)
    expected = {name for name, limit in PRIVATE.items() if days >= limit}
    before = there(folder)
    assert due(tmp_path, ledger, NOW) == due(tmp_path, ledger, NOW)
    assert there(folder) == before  # a look deletes nothing
    done = sweep(tmp_path, ledger, NOW)
    assert before - there(folder) == expected
    assert set(KEPT) <= there(folder)
    assert sum(one.files for one in done) == len(expected)
    assert sweep(tmp_path, ledger, NOW) == []


def test_the_proof_names_every_file_by_its_digest_and_holds_no_text(tmp_path, ledger):
    folder = finished(tmp_path, days=91)
    digests = {name: digest_file(folder / name) for name in PRIVATE}
    sweep(tmp_path, ledger, NOW)
    notes = ledger.notes("delete", "run-1")
    proof = {entry.detail["path"]: entry.detail for entry in notes}
    assert proof["corpus"]["digest"] == digest(["run-1", {"corpus/records.jsonl": digests["corpus/records.jsonl"]}])
    assert proof["corpus"]["why"] == "retention.raw_days is 90"
    assert {entry.detail["digest"] for entry in ledger.notes("deleted")} == {entry.detail["digest"] for entry in notes}
    ledger.verify()
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert b"run-1 corpus/records.jsonl" not in raw


def test_no_end_means_no_deletion(tmp_path, ledger):
    rules = DEFAULT.override(retention__review_days=1)
    forever = rules.model_copy(
        update={"retention": policies.Retention(raw_days=None, scrubbed_days=None, checkpoint_days=None, review_days=None)}
    )
    finished(tmp_path, policy=forever, days=10_000)
    assert due(tmp_path, ledger, NOW) == []


@pytest.mark.parametrize("status", ["rejected", "inconclusive"])
def test_weights_of_a_run_that_is_not_released_are_deleted(tmp_path, ledger, status):
    folder = finished(tmp_path, status)
    done = discard(folder, DEFAULT, ledger)
    assert [one.path for one in done] == ["trained/adapter"]
    assert not list(folder.rglob("*.safetensors"))
    assert set(KEPT) <= there(folder)
    assert len(ledger.notes("deleted", "run-1")) == 1


def test_quarantine_keeps_them_for_a_while(tmp_path, ledger):
    rules = DEFAULT.override(release__quarantine_days=5)
    young, old = (finished(tmp_path, "rejected", f"run-{days}", rules, days=days) for days in (4, 6))
    assert discard(young, rules, ledger) == []
    sweep(tmp_path, ledger, NOW)
    assert list(young.rglob("*.safetensors"))
    assert not list(old.rglob("*.safetensors"))


def test_a_candidate_goes_when_nobody_can_approve_it_any_more(tmp_path, ledger):
    strict = policies.load("strict")
    arguments = a_run(tmp_path, "awaiting_approval")
    held(arguments)
    folder = arguments["run"]
    (folder / "policy.json").write_text(json.dumps(strict.model_dump(mode="json")))
    now = datetime.now(UTC)
    assert sweep(tmp_path, ledger, now + timedelta(days=13)) == []
    assert [one.path for one in sweep(tmp_path, ledger, now + timedelta(days=15))] == ["trained/adapter", "candidate"]


def test_a_released_run_keeps_its_adapter_for_another_audit(tmp_path, ledger):
    folder = finished(tmp_path, days=1000)
    sweep(tmp_path, ledger, NOW)
    assert (folder / "trained" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("after", range(3))
def test_an_interrupted_deletion_is_finished_by_the_next(tmp_path, ledger, monkeypatch, after):
    folder = finished(tmp_path, days=91)
    (folder / "corpus" / "more.jsonl").write_text("more")
    os.utime(folder / "corpus" / "more.jsonl", (0, 0))
    left = [after]
    real = Path.unlink

    def unlink(path, **more):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(retention.Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, ledger, NOW)
    sweep(tmp_path, ledger, NOW)
    assert not there(folder) & set(PRIVATE)
    assert {entry.detail["digest"] for entry in ledger.notes("delete")} == {
        entry.detail["digest"] for entry in ledger.notes("deleted")
    }


def test_a_run_that_another_process_works_on_keeps_its_text_until_that_ends(tmp_path, ledger):
    """Retention of no day at all must not make a run fail that has already spent."""
    rules = DEFAULT.override(retention__raw_days=0)
    working, ended, left = (finished(tmp_path, run=f"run-{k}", policy=rules, days=1) for k in range(3))
    (ended / "outcome.json").write_text("{}")
    hold = "import sys, pathlib; from pipeline import runs; [runs.hold(pathlib.Path(path)) for path in sys.argv[1:]]"
    command = [sys.executable, "-c", f"{hold}; print(flush=True); input()", str(working), str(ended)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        sweep(tmp_path, ledger, NOW)
        assert (working / "corpus" / "records.jsonl").exists()
        for folder in (ended, left):
            assert not (folder / "corpus" / "records.jsonl").exists()
        other.communicate(b"\n")
    sweep(tmp_path, ledger, NOW)
    assert not (working / "corpus" / "records.jsonl").exists()


def test_a_home_proves_no_deletion_of_another_that_shares_its_ledger(tmp_path, ledger, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    folder = finished(one, days=91)
    finished(other, run="run-2", days=91)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep(one, ledger, NOW)
    assert [entry.run for entry in ledger.notes("delete")] == ["run-1"]
    assert {gone.run for gone in sweep(other, ledger, NOW)} == {"run-2"}
    assert ledger.notes("deleted", "run-1") == []
    assert there(folder) & set(PRIVATE)
    sweep(one, ledger, NOW)  # the control: where the files are, the deletion is finished
    assert ledger.notes("deleted", "run-1")
    assert not there(folder) & set(PRIVATE)
