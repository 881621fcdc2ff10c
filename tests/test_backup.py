"""A ledger that is lost comes back from a backup, or is charged again in full: never with less than was spent."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from pipeline import _journal, anchors, backup, cli, signing
from pipeline.cohorts import Units
from pipeline.errors import BudgetExhausted, HushtuneError, IntegrityError, StageError, UsageError
from pipeline.folders import write_json, write_text
from pipeline.ledger import Ledger
from pipeline.policy import Lifetime, load
from pipeline.rebuild import rebuild
from pipeline.release import publish, revoke
from tests import postgres
from tests.test_anchors import spend
from tests.test_ledger import LIFETIME, _edit, plan, postgresql  # noqa: F401 - a fixture
from tests.test_release import a_run

WORD = {"by": "A. Officer", "why": "The disk broke at night."}


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    for name in ("HUSHTUNE_LEDGER_URL", "HUSHTUNE_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


def people(*numbers: int) -> Units:
    return Units("person", "k", np.array(sorted(numbers), dtype=np.uint64))


def attesting(arguments: dict, runs: int) -> dict:
    """A run whose report says that budget people then held so many runs."""
    path = arguments["report_folder"] / "report.json"
    report = json.loads(path.read_text())
    report["budget"] |= {"name": "people", "runs": runs}
    path.write_text(json.dumps(report))
    return arguments


@pytest.fixture
def home(tmp_path) -> Path:
    """run-1 was released, run-2 rejected; run-3 is open and has taken 3 of its 10 steps."""
    home = tmp_path / "home"
    arguments = attesting(a_run(home), runs=1)
    spend(home, "run-1")
    made = publish(**arguments)
    revoke(made.folder, home, "It remembers a name.")
    spend(home, "run-2")
    ledger = Ledger(home)
    claim = ledger.reserve(**plan("run-3", steps=10, units=people(1, 2, 3)))
    ledger.spend(claim, 3)
    (home / "runs" / "run-3").mkdir()
    write_json(home / "runs" / "run-3" / "claim.json", claim.model_dump(mode="json"))
    lifetime = load("default").override(privacy__lifetime__budget="people", privacy__unit="person")
    for run in ("run-1", "run-2", "run-3", "run-9"):
        (home / "runs" / run).mkdir(exist_ok=True)
        write_text(home / "runs" / run / "policy.json", json.dumps(lifetime.model_dump(mode="json")))
    return home


def lose(home: Path) -> None:
    for path in home.glob("ledger.db*"):
        path.unlink()


def spent(where: Path | str, budget: str = "people") -> float:
    return Ledger(where).standing(budget).epsilon_spent


def test_a_backup_is_one_private_file_and_holds_everything(home, tmp_path):
    file = tmp_path / "ledger.backup"
    head = backup.write(Ledger(home), file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"home", "ledger.backup"}
    assert head == Ledger(home).head() == Ledger(f"sqlite:///{file}").verify()
    with pytest.raises(UsageError, match="a name of its own"):
        backup.write(Ledger(home), file)


def test_a_lost_ledger_comes_back_whole(home, tmp_path):
    file, before, charged = tmp_path / "ledger.backup", Ledger(home).history("people"), spent(home)
    backup.write(Ledger(home), file)
    lose(home)
    with pytest.raises(IntegrityError, match="hushtune budget restore"):  # the control: without it the home is locked
        anchors.expect(home, Ledger(home))
    kept = file.read_bytes()
    backup.restore(home, file)
    ledger = Ledger(home)
    assert ledger.history("people")[: len(before)] == before
    assert spent(home) == pytest.approx(charged)  # an open claim was charged in full before, too
    anchors.check(home, ledger)
    assert file.read_bytes() == kept
    with pytest.raises(UsageError, match="nothing to restore"):
        backup.restore(home, file)


def test_a_claim_that_was_open_takes_no_more_steps_after_a_restore(home, tmp_path):
    """Steps may have been taken since the backup: going on from its count would take more than is charged."""
    file, ledger = tmp_path / "ledger.backup", Ledger(home)
    (claim,) = [one for one in ledger.claims().values() if one.run == "run-3"]
    backup.write(ledger, file)
    for step in range(4, 11):
        ledger.spend(claim, step)
    lose(home)
    backup.restore(home, file)
    ledger = Ledger(home)
    with pytest.raises(StageError, match="is closed"):
        ledger.spend(claim, 4)
    again = ledger.reserve(**plan("run-3", steps=10, units=people(1, 2, 3)))
    assert (again, ledger.taken(again)) == (claim, 10)


def test_a_backup_older_than_the_home_is_refused(home, tmp_path):
    file = tmp_path / "ledger.backup"
    backup.write(Ledger(home), file)
    spend(home, "run-4")
    before = spent(home)
    lose(home)
    with pytest.raises(IntegrityError, match="older than what this home shows"):
        backup.restore(home, file)
    shutil.rmtree(home / "runs" / "run-4")  # not even where the run's folder is gone
    with pytest.raises(IntegrityError, match="run-4"):
        backup.restore(home, file)
    assert not Ledger(home).head().entries
    rebuild(home, file=file, **WORD)
    assert spent(home) >= before
    anchors.check(home, Ledger(home))
    (home / "reservations.jsonl").unlink()  # the control: it was this that showed it
    shutil.rmtree(home / "runs" / "run-3")
    lose(home)
    backup.restore(home, file, **WORD)


def test_a_release_elsewhere_shows_that_a_backup_is_old(home, tmp_path):
    file, copy = tmp_path / "ledger.backup", tmp_path / "copy"
    empty = tmp_path / "before.backup"
    early = Ledger(f"sqlite:///{tmp_path / 'early' / 'ledger.db'}")
    early.reserve(**plan("run-0", steps=1))
    backup.write(early, empty)
    backup.write(Ledger(home), file)
    shutil.copytree(home / "releases" / "letters" / "1", copy)
    keys = signing.trusted_keys(home)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(IntegrityError, match="older than"):
        backup.restore(bare, empty, copies=[copy], keys=keys, **WORD)
    backup.restore(bare, file, copies=[copy], keys=keys, **WORD)


def test_a_home_without_a_record_takes_a_persons_word(home, tmp_path):
    file, bare = tmp_path / "ledger.backup", tmp_path / "bare"
    backup.write(Ledger(home), file)
    bare.mkdir()
    with pytest.raises(UsageError, match="--by NAME --why TEXT"):
        backup.restore(bare, file)
    backup.restore(bare, file, **WORD)
    (note,) = Ledger(bare).notes("restored")
    assert note.detail["by"] == "A. Officer"


def test_an_edited_backup_or_no_backup_is_refused(home, tmp_path):
    file = tmp_path / "ledger.backup"
    with pytest.raises(UsageError, match="There is no backup"):
        backup.restore(home, file)
    with pytest.raises(UsageError, match="in use"):
        backup.restore(home, home / "ledger.db")
    backup.write(Ledger(home), file)
    _edit(file, "UPDATE entries SET steps = 1 WHERE kind = 'close'")
    for path in file.parent.glob("ledger.backup-*"):
        path.unlink()
    lose(home)
    with pytest.raises(IntegrityError, match="was changed"):
        backup.restore(home, file)
    file.write_bytes(b"no database " * 100)
    with pytest.raises(IntegrityError, match="cannot be read"):
        backup.restore(home, file)


def test_a_ledger_that_is_another_one_is_left_alone(home, tmp_path, monkeypatch):
    file = tmp_path / "ledger.backup"
    backup.write(Ledger(home), file)
    monkeypatch.setenv("HUSHTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'team' / 'ledger.db'}")
    Ledger(tmp_path).reserve(**plan("theirs", steps=1))
    before = Ledger(tmp_path).head()
    with pytest.raises(IntegrityError, match="two ledgers are not joined"):
        backup.restore(home, file)
    assert Ledger(tmp_path).head() == before
    rebuild(home, **WORD)  # but a home's own runs can be charged to it
    assert {charge.claim.run for charge in Ledger(home).charges("people")} == {"theirs", "run-1", "run-2", "run-3"}
    anchors.check(home, Ledger(home))


def test_a_ledger_moves_to_postgresql_and_back(home, tmp_path, monkeypatch, postgresql):  # noqa: F811
    file, again = tmp_path / "ledger.backup", tmp_path / "again.backup"
    backup.write(Ledger(home), file)
    chain = Ledger(f"sqlite:///{file}").history("people")
    url = postgres.database(postgresql)
    monkeypatch.setenv("HUSHTUNE_LEDGER_URL", url)
    backup.restore(home, file)
    assert Ledger(url).history("people")[: len(chain)] == chain
    anchors.check(home, Ledger(home))
    spend(home, "run-4", steps=2)
    head = backup.write(Ledger(home), again)
    assert head == Ledger(url).head()
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL")
    with pytest.raises(IntegrityError):  # the old one has fallen behind, and the home says so
        anchors.expect(home, Ledger(home))
    lose(home)
    backup.restore(home, again)
    assert Ledger(home).charges("people") == Ledger(url).charges("people")


# Rebuilt where there is no backup.


def test_a_home_whose_ledger_is_lost_is_charged_again_in_full(home):
    before = spent(home)
    lose(home)
    with pytest.raises(IntegrityError):
        anchors.expect(home, Ledger(home))
    assert {one.run for one in rebuild(home, **WORD)} == {"run-1", "run-2", "run-3"}
    ledger = Ledger(home)
    anchors.check(home, ledger)
    assert spent(home) >= before
    assert all(charge.charged == charge.claim.mechanism.steps for charge in ledger.charges("people"))
    (note,) = ledger.notes("rebuilt")
    assert (note.detail["by"], note.detail["why"]) == (WORD["by"], WORD["why"])
    assert len(ledger.notes("revocation")) == 1
    with pytest.raises(UsageError, match="nothing to rebuild"):
        rebuild(home, **WORD)
    lose(home)  # and again, from what the rebuilding left
    rebuild(home, **WORD)
    assert spent(home) >= before
    anchors.check(home, Ledger(home))


@pytest.mark.parametrize("left", ["journal", "claims", "release"])
def test_each_source_alone_is_enough_for_what_it_shows(home, left, tmp_path):
    lose(home)
    if left != "journal":
        (home / "reservations.jsonl").unlink()
    if left != "claims":
        for path in (home / "runs").glob("*/claim.json"):
            path.unlink()
    runs = {one.run for one in rebuild(home, **WORD)}
    assert runs == ({"run-1"} if left == "release" else {"run-1", "run-2", "run-3"})
    if left == "release":
        (charge,) = Ledger(home).charges("people")
        attested = anchors.attested(home / "releases" / "letters" / "1", signing.trusted_keys(home))[1]
        assert charge.charged == attested["mechanism"]["steps"]
    anchors.expect(home, Ledger(home))


def test_what_is_rebuilt_counts_for_everybody_in_every_budget(home):
    """Whom a lost run was about is not known: its people under another budget's name must not come cheap."""
    lose(home)
    rebuild(home, **WORD)
    ledger = Ledger(home)
    other = Lifetime(budget="other", epsilon=1.3, delta=1e-5)
    rest = plan("new", steps=80, lifetime=other, units=people(1, 2, 3, 4))
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**rest)
    loose = Lifetime(budget="other", epsilon=30, delta=1e-5)
    with pytest.raises(BudgetExhausted, match="Budget people"):  # the cap of the budget that was lost holds, too
        ledger.reserve(**rest | {"lifetime": loose})
    claim = ledger.reserve(**rest | {"steps": 5, "lifetime": loose})
    assert ledger.standing("other").epsilon_spent > ledger.standing("people").epsilon_spent - 1e-9
    assert claim.mechanism.steps == 5
    fresh = Ledger(f"sqlite:///{home / 'fresh' / 'ledger.db'}")  # the control: it would have been granted
    fresh.reserve(**rest)


def test_a_spend_past_the_cap_is_still_charged(home, tmp_path):
    ledger = Ledger(home)
    before = spent(home)
    lose(home)
    tight = Lifetime(budget="people", epsilon=0.1, delta=1e-5)
    lines = [one.model_copy(update={"cap": _journal.Cap(epsilon=tight.epsilon, delta=tight.delta)})
             for one in _journal.read(home)]  # fmt: skip
    write_text(home / "reservations.jsonl", "".join(one.model_dump_json() + "\n" for one in lines))
    rebuild(home, **WORD)
    standing = Ledger(home).standing("people")
    assert standing.epsilon_spent >= before > standing.epsilon_cap
    assert ledger.name == Ledger(home).name


def test_a_release_that_attests_more_runs_keeps_the_home_locked(home):
    arguments = attesting(a_run(home, run="run-9"), runs=7)
    spend(home, "run-9", steps=2)
    publish(**arguments | {"name": "others"})
    lose(home)
    assert len(rebuild(home, **WORD)) == 4
    with pytest.raises(IntegrityError, match="fewer runs to budget people than the 7"):
        anchors.expect(home, Ledger(home))


def test_rebuilding_needs_a_name_and_a_reason_and_is_shown(home, capsys):
    call = ["budget", "rebuild", "--home", str(home)]
    lose(home)
    assert cli.main(call) == 2
    assert "--by NAME --why TEXT" in capsys.readouterr().err
    assert cli.main([*call, "--by", WORD["by"], "--why", WORD["why"]]) == 0
    assert "run-2" in capsys.readouterr().out
    assert cli.main(["budget", "verify", "--home", str(home)]) == 0
    assert "rebuilt on" in (out := capsys.readouterr().out)
    assert WORD["why"] in out


def test_the_commands_back_up_and_restore(home, tmp_path, capsys):
    file = tmp_path / "ledger.backup"
    assert cli.main(["budget", "backup", str(file), "--home", str(home)]) == 0
    lose(home)
    assert cli.main(["budget", "backup", str(tmp_path / "empty"), "--home", str(home)]) == 1  # it would pass for a good one
    assert cli.main(["budget", "restore", str(file), "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["entries"] > 10
    assert cli.main(["budget", "restore", "--home", str(home)]) == 2
    assert cli.main(["budget", "show", str(file), "--home", str(home)]) == 2


# The home's own record of reservations.


def test_a_reservation_is_written_down_before_its_first_step(home):
    found = _journal.read(home)
    assert [one.claim.run for one in found] == ["run-1", "run-2", "run-3"]
    assert found[0].cap.epsilon == LIFETIME.epsilon
    assert all(Ledger(home).holds(one.head) for one in found)
    assert stat.S_IMODE((home / "reservations.jsonl").stat().st_mode) == 0o600
    with sqlite3.connect(home / "ledger.db") as database:
        kinds = [row[0] for row in database.execute("SELECT kind FROM entries WHERE run = 'run-3' ORDER BY seq")]
    assert kinds == ["reserve", "spend"]


def test_a_line_that_a_crash_cut_is_written_again_and_an_edited_one_is_found(home):
    path, ledger = home / "reservations.jsonl", Ledger(home)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    ledger.reserve(**plan("run-3", steps=10, units=people(1, 2, 3)))  # the run goes on
    assert path.read_bytes() == whole
    path.write_bytes(whole.replace(b'"run-2"', b'"run-7"'))
    with pytest.raises(IntegrityError, match="run-7"):
        anchors.expect(home, ledger)
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(HushtuneError, match="Line 1 of"):
        anchors.expect(home, ledger)
