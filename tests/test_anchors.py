"""An insider shortens, rewrites or exchanges the ledger; what was written down elsewhere shows it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from pipeline import anchors, cli, signing
from pipeline.errors import BudgetExhausted, IntegrityError, UsageError
from pipeline.folders import write_json
from pipeline.ledger import Ledger
from pipeline.release import publish, revoke
from tests.test_ledger import _edit, plan
from tests.test_release import a_run


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    for name in ("HUSHTUNE_LEDGER_URL", "HUSHTUNE_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


def spend(home: Path, run: str, steps: int = 10) -> None:
    """A run that reserves, spends and closes, and keeps its claim as the flow does."""
    ledger = Ledger(home)
    claim = ledger.reserve(**plan(run, steps=steps))
    ledger.spend(claim, 2)
    ledger.close(claim, steps)
    folder = home / "runs" / run
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "claim.json", claim.model_dump(mode="json"))


@pytest.fixture
def home(tmp_path) -> Path:
    """Entries 1 to 3 run-1, 4 its release; 5 to 7 run-2, which was rejected."""
    arguments = a_run(tmp_path)
    spend(tmp_path, "run-1")
    publish(**arguments)
    spend(tmp_path, "run-2")
    return tmp_path


def cut(home: Path, kept: int) -> None:
    """Shorten the chain to its first entries, and mend its head."""
    with sqlite3.connect(home / "ledger.db") as database:
        found = database.execute("SELECT hash FROM entries WHERE seq = ?", (kept,)).fetchone()
    database.close()
    end = found[0] if found else "0" * 64
    _edit(home / "ledger.db", f"DELETE FROM entries WHERE seq > {kept}", f"UPDATE head SET entries = {kept}, hash = '{end}'")


def test_what_was_written_down_lies_on_the_chain(home):
    head, held = anchors.check(home, Ledger(home))
    assert (head.entries, held) == (7, 3)
    anchors.expect(home, Ledger(home))


@pytest.mark.parametrize("kept", range(7))
def test_a_chain_whose_end_was_cut_is_found_or_charges_more(home, kept):
    before = Ledger(home).standing("people").epsilon_spent
    cut(home, kept)
    ledger = Ledger(home)
    ledger.verify()  # the control: in itself it is whole
    if kept >= 5:  # only the close of run-2 is lost, which then is charged for all that it reserved
        anchors.check(home, ledger)
        assert ledger.standing("people").epsilon_spent >= before
        return
    with pytest.raises(IntegrityError, match=r"its end was cut"):
        anchors.check(home, ledger)
    with pytest.raises(IntegrityError, match=r"its end was cut"):  # and nothing more is reserved on it
        anchors.expect(home, ledger)


def test_a_release_that_the_ledger_does_not_note_is_found(home):
    cut(home, 3)
    shutil.rmtree(home / "runs" / "run-2")
    with pytest.raises(IntegrityError, match="does not hold what run run-2 reserved"):  # the home's own record shows it
        anchors.expect(home, Ledger(home))
    (home / "reservations.jsonl").unlink()
    anchors.expect(home, Ledger(home))  # a crash after the rename looks the same, and the run that goes on notes it
    with pytest.raises(IntegrityError, match="does not note the release"):
        anchors.check(home, Ledger(home))


def test_a_copy_elsewhere_is_asked_where_the_home_was_cleaned(home, tmp_path_factory, capsys):
    copy = tmp_path_factory.mktemp("elsewhere") / "release"
    shutil.copytree(home / "releases" / "letters" / "1", copy)
    cut(home, 0)
    for folder in ("runs", "releases"):
        shutil.rmtree(home / folder)
    (home / "reservations.jsonl").unlink()
    call = ["budget", "verify", "--home", str(home)]
    assert cli.main(call) == 0  # the control: nothing here shows it
    assert cli.main([*call, "--release", str(copy)]) == 1
    assert f"does not hold entry 3 as {copy}" in capsys.readouterr().err
    (key,) = signing.trusted_keys(home)
    moved = key.rename(copy.parent / "organisation.pub")
    assert cli.main([*call, "--release", str(copy)]) == 2
    assert cli.main([*call, "--release", str(copy), "--key", str(moved)]) == 1


def test_another_ledger_does_not_serve_a_home_that_has_spent(home, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_LEDGER_URL", f"sqlite:///{home / 'fresh' / 'ledger.db'}")
    ledger = Ledger(home)
    for check in (anchors.check, anchors.expect):
        with pytest.raises(IntegrityError, match="another ledger"):
            check(home, ledger)
    ledger.reserve(**plan("more", steps=80))  # the control: the fresh one would bear it, and the home's would not
    with pytest.raises(BudgetExhausted):
        Ledger(f"sqlite:///{home / 'ledger.db'}").reserve(**plan("more", steps=80))


def test_a_ledger_that_is_gone_is_missed(home, capsys):
    call = ["budget", "verify", "--home", str(home), "--json"]
    assert cli.main(call) == 0
    assert json.loads(capsys.readouterr().out)["anchors"] == 3
    for path in home.glob("ledger.db*"):
        path.unlink()
    assert cli.main(call) == 1
    assert "its end was cut" in capsys.readouterr().err


def test_a_claim_that_was_changed_is_found(home):
    path = home / "runs" / "run-2" / "claim.json"
    content = json.loads(path.read_text())
    for changed in (content | {"id": "f" * 16}, content | {"run": "run-3"}, content | {"epsilon": 0.5}):
        write_json(path, changed)
        with pytest.raises(IntegrityError, match=r"claim\.json"):
            anchors.check(home, Ledger(home))
    path.write_text("{}")
    with pytest.raises(IntegrityError, match="not a claim"):
        anchors.check(home, Ledger(home))


def test_a_damaged_attestation_is_named_and_does_not_stop_the_next_run(home):
    path = home / "releases" / "letters" / "1" / "attestation.json"
    sound = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(sound[:200] + b"X" + sound[201:])
    with pytest.raises(IntegrityError, match=r"attestation\.json"):
        anchors.check(home, Ledger(home))
    anchors.expect(home, Ledger(home))
    path.unlink()
    with pytest.raises(IntegrityError, match=r"attestation\.json is missing"):
        anchors.check(home, Ledger(home))
    with pytest.raises(IntegrityError, match="is missing"):
        anchors.check(home, Ledger(home), [home])


def test_a_revocation_that_was_taken_off_the_list_is_missed(home):
    made = home / "releases" / "letters" / "1"
    revoke(made, home, "It remembers a name.")
    anchors.check(home, Ledger(home))
    (home / "releases" / ".revoked.jsonl").unlink()
    with pytest.raises(IntegrityError, match="lacks that of letters 1"):
        anchors.check(home, Ledger(home))


def test_a_copy_needs_a_key(home, tmp_path_factory):
    copy = tmp_path_factory.mktemp("elsewhere") / "release"
    shutil.copytree(home / "releases" / "letters" / "1", copy)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UsageError, match="no public key"):
        anchors.check(empty, Ledger(empty), [copy])


def test_homes_that_share_a_ledger_mind_their_own_revocations(tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'team' / 'ledger.db'}")
    one, other = tmp_path / "one", tmp_path / "other"
    for home, run in ((one, "run-1"), (other, "run-2")):
        arguments = a_run(home, run=run, weights=run.encode())
        spend(home, run)
        publish(**arguments)
    revoke(one / "releases" / "letters" / "1", one, "It remembers a name.")
    anchors.check(other, Ledger(other))
    anchors.check(one, Ledger(one))
    shutil.rmtree(one / "releases" / "letters")  # the list is still asked for what the home released once
    (one / "releases" / ".revoked.jsonl").unlink()
    with pytest.raises(IntegrityError, match="lacks that of letters 1"):
        anchors.check(one, Ledger(one))
    anchors.check(other, Ledger(other))


def test_what_was_copied_from_another_home_is_refused_with_what_to_do(home, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(home / "keys" / "release.key"))  # an organisation's key for both
    foreign = tmp_path_factory.mktemp("foreign")
    arguments = a_run(foreign, run="run-9")
    spend(foreign, "run-9")
    publish(**arguments | {"name": "theirs"})
    copy = home / "releases" / "theirs"
    shutil.copytree(foreign / "releases" / "theirs", copy)
    with pytest.raises(IntegrityError, match="a release of another home is kept outside"):
        anchors.expect(home, Ledger(home))
    shutil.rmtree(copy)
    shutil.copytree(foreign / "runs" / "run-9", home / "runs" / "run-9")
    with pytest.raises(IntegrityError, match="copied here from another home belongs back there"):
        anchors.expect(home, Ledger(home))
    shutil.rmtree(home / "runs" / "run-9")
    anchors.expect(home, Ledger(home))
