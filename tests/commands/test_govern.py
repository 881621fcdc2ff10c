"""`hushtune budget`, `verify`, `revoke`, `releases`, `keys`, `retention` and `approve`."""

import json
import shutil

import pytest

from pipeline import cli
from pipeline.ledger import Ledger
from pipeline.policy import Lifetime


@pytest.fixture
def home(tmp_path):
    """A home whose ledger holds one closed run and one open one, in two budgets."""
    ledger = Ledger(tmp_path)
    for budget, run in (("default", "mail-1"), ("clinic", "notes-1")):
        claim = ledger.reserve(
            run=run,
            lifetime=Lifetime(budget=budget, epsilon=8, delta=1e-5),
            sampling_rate=0.01,
            noise_multiplier=1.0,
            steps=10,
            epsilon=1.0,
            delta=1e-5,
            policy_digest="0" * 64,
            unit="record",
        )
        if run == "mail-1":
            ledger.spend(claim, 1)
            ledger.close(claim, 4)
    return tmp_path


def answer(capsys, *argv: str):
    assert cli.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_budget_shows_every_budget_or_one(home, capsys):
    found = {one["budget"]: one for one in answer(capsys, "budget", "--home", str(home))}
    assert set(found) == {"default", "clinic"}
    assert found["default"]["epsilon_spent"] < found["clinic"]["epsilon_spent"]  # four steps against ten
    (one,) = answer(capsys, "budget", "show", "--budget", "clinic", "--home", str(home))
    assert one == found["clinic"]


def test_budget_history_says_what_is_charged_and_why(home, capsys):
    charges = {one["claim"]["run"]: one for one in answer(capsys, "budget", "history", "--home", str(home))}
    assert (charges["mail-1"]["charged"], charges["mail-1"]["closed"]) == (4, True)
    assert (charges["notes-1"]["charged"], charges["notes-1"]["closed"]) == (10, False)
    assert cli.main(["budget", "history", "--home", str(home)]) == 0
    assert "open: charged in full" in capsys.readouterr().out


def test_budget_verify_finds_an_edit(home, capsys):
    import sqlite3

    assert answer(capsys, "budget", "verify", "--home", str(home))["entries"] == 4
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("drop trigger if exists no_update")
        names = [row[0] for row in database.execute("select name from sqlite_master where type = 'trigger'")]
        for name in names:
            database.execute(f"drop trigger {name}")
        database.execute("update entries set steps = 3 where kind = 'close'")
    assert cli.main(["budget", "verify", "--home", str(home)]) == 1
    assert capsys.readouterr().err.startswith("hushtune: ")


@pytest.mark.parametrize("argv", [["budget"], ["budget", "history"], ["releases"], ["retention"]])
def test_a_home_without_anything_says_so_and_is_not_made(argv, tmp_path, capsys):
    home = tmp_path / "home"
    assert answer(capsys, *argv, "--home", str(home)) == []
    assert cli.main([*argv, "--home", str(home)]) == 0
    assert capsys.readouterr().out.startswith("No")
    assert not home.exists()


NAMED = (
    ["verify", "mail"],
    ["revoke", "mail", "--why", "Because."],
    ["approve", "mail-1", "--by", "Dana"],
    ["report", "mail-1"],
)


@pytest.mark.parametrize("argv", NAMED, ids=lambda argv: argv[0])
def test_what_does_not_exist_is_named_with_code_2(argv, tmp_path, capsys):
    assert cli.main([*argv, "--home", str(tmp_path)]) == 2
    assert argv[1] in capsys.readouterr().err


def test_a_key_is_made_once_and_a_release_can_be_verified_elsewhere_and_revoked(tmp_path, capsys, monkeypatch):
    from pipeline import release
    from tests.test_release import a_run

    monkeypatch.delenv("HUSHTUNE_SIGNING_KEY", raising=False)
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    home = ["--home", str(tmp_path)]
    public = answer(capsys, "keys", "new", *home)["public"]
    assert cli.main(["keys", "new", *home]) == 2
    assert "There is a key" in capsys.readouterr().err
    made = release.publish(**a_run(tmp_path))
    assert answer(capsys, "verify", "letters", *home)["verified"] is True
    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy)
    assert cli.main(["verify", str(copy), *home]) == 2  # nobody to trust
    assert "--key" in capsys.readouterr().err
    assert answer(capsys, "verify", str(copy), "--key", public, *home)["verified"] is True
    assert answer(capsys, "revoke", "letters/1", "--why", "It remembers a name.", *home)["version"] == "1"
    for call in (["letters"], [str(copy), "--key", public, "--revoked", str(tmp_path / "releases" / ".revoked.jsonl")]):
        assert cli.main(["verify", *call, *home]) == 1
        assert "It remembers a name." in capsys.readouterr().err


def test_retention_says_first_and_deletes_then(tmp_path, capsys, monkeypatch):
    from tests.test_retention import finished

    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    folder = finished(tmp_path, days=5000)
    shown = answer(capsys, "retention", "--dry-run", "--home", str(tmp_path))
    assert (folder / "corpus" / "records.jsonl").exists()
    assert answer(capsys, "retention", "--home", str(tmp_path)) == shown
    assert "corpus" in {one["path"] for one in shown}
    assert not (folder / "corpus" / "records.jsonl").exists()
