"""`hushtune health` finds each thing that is broken, one at a time, and a sound home passes."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import cli, health, signing
from pipeline import policy as policies
from pipeline.folders import write_json, write_text
from tests.test_anchors import cut, spend
from tests.test_release import a_run, publish

DAY = 86_400


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    for name in (
        "HUSHTUNE_LEDGER_URL",
        "HUSHTUNE_SIGNING_KEY",
        "PREFECT_API_URL",
        "PREFECT_API_KEY",
        "PREFECT_API_AUTH_STRING",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path) -> Path:
    """A home with one released run, as a monitor would want it."""
    home = tmp_path / "home"
    arguments = a_run(home)
    home.chmod(0o700)
    spend(home, "run-1")
    publish(**arguments)
    (home / "keys" / "units.key").write_bytes(bytes(32))
    (home / "keys" / "units.key").chmod(0o600)
    folder = home / "runs" / "run-1"
    write_text(folder / "policy.json", json.dumps(policies.load("default").model_dump(mode="json")))
    write_json(folder / "facts.json", {"seconds": {"scrub": 1.5, "train": 20.0}})
    write_json(folder / "outcome.json", {"status": "released", "gates": {"utility": {"passed": True}}})
    return home


def wrong(home: Path, **options) -> dict[str, health.Check]:
    return {one.name: one for one in health.look(home, **options) if not one.well}


def test_a_sound_home_is_well(home, capsys):
    assert wrong(home) == {}
    assert cli.main(["health", "--home", str(home)]) == 0
    out = capsys.readouterr().out
    assert "✗" not in out
    assert "→" not in out
    assert cli.main(["health", "--home", str(home), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["well"]
    assert {one["name"] for one in answer["checks"]} >= {"home", "disk", "ledger", "signing key", "prefect", "last run"}


def no_key(home):
    (home / "keys" / "release.key").unlink()


def open_key(home):
    (home / "keys" / "release.key").chmod(0o644)


def no_units_key(home):
    (home / "keys" / "units.key").unlink()


def gone_ledger(home):
    for path in home.glob("ledger.db*"):
        path.unlink()


def broken_ledger(home):
    gone_ledger(home)
    (home / "ledger.db").write_bytes(b"not a database " * 100)


def short_ledger(home):
    cut(home, 2)


def open_home(home):
    home.chmod(0o750)


def interrupted(home):
    (home / "runs" / "run-1" / "outcome.json").unlink()


def garbled(home):
    (home / "runs" / "run-1" / "outcome.json").write_text("{")


def overdue(home):
    corpus = home / "runs" / "run-1" / "corpus"
    corpus.mkdir()
    (corpus / "records.jsonl").write_text("{}\n")
    for path in (corpus / "records.jsonl", corpus):
        os.utime(path, (0, 0))
    rules = policies.load("default").override(retention__raw_days=30)
    write_text(home / "runs" / "run-1" / "policy.json", json.dumps(rules.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("break_it", "name", "mend"),
    [
        (no_key, "signing key", "hushtune keys new"),
        (open_key, "signing key", "chmod 600"),
        (no_units_key, "units key", "backup"),
        (gone_ledger, "ledger", "hushtune budget restore"),
        (broken_ledger, "ledger", "move it away"),
        (short_ledger, "ledger", "hushtune budget rebuild"),
        (open_home, "home", "chmod 700"),
        (interrupted, "last run", "same command"),
        (garbled, "last run", "restore it"),
        (overdue, "retention", "hushtune retention"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_broken_is_named_with_its_mend(break_it, name, mend, home, capsys):
    break_it(home)
    there = sorted(path.relative_to(home) for path in home.rglob("*") if "ledger.db-" not in path.name)
    found = wrong(home)
    assert name in found
    assert mend in found[name].mend
    assert cli.main(["health", "--home", str(home)]) == 1
    out = capsys.readouterr().out
    assert f"✗ {name}" in out
    assert mend in out
    assert there == sorted(path.relative_to(home) for path in home.rglob("*") if "ledger.db-" not in path.name)


def test_a_full_disk_and_a_missing_model_are_named(home, monkeypatch):
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    path = home.parent / "ours.yaml"
    path.write_text("extends: default\nname: ours\nmodel: smollm2-135m\n")
    found = wrong(home, policy=str(path))
    assert set(found) == {"disk", "model"}
    assert "hushtune models pull smollm2-135m" in found["model"].mend


def test_the_last_run_may_be_too_long_ago(home):
    path = home / "runs" / "run-1" / "outcome.json"
    os.utime(path, (time.time() - 9 * DAY,) * 2)
    assert wrong(home) == {}
    found = wrong(home, oldest=8)
    assert "9 days ago" in found["last run"].found
    assert wrong(home, oldest=10) == {}


def test_a_home_that_is_not_there_is_not_made(tmp_path):
    found = wrong(tmp_path / "home")
    assert {"home", "signing key"} == set(found)
    assert not (tmp_path / "home").exists()


@pytest.fixture
def server():
    """What Prefect's API answers to the three questions of the check."""
    workers: list[dict] = []
    logins: list[str] = []  # in the words of the header; none asks for none

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.say(True)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(workers if "workers" in self.path else [{"name": "hushtune"}])

        def say(self, content):
            body = json.dumps(content).encode()
            refused = logins and not self.path.endswith("/health") and self.headers["Authorization"] not in logins
            self.send_response(401 if refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    there = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{there.server_port}/api", workers, logins
    there.shutdown()


def test_a_server_without_a_worker_is_named(home, server, monkeypatch):
    url, workers, _ = server
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert "0 of 0 workers" in wrong(home)["prefect"].found
    workers.append({"name": "one", "status": "OFFLINE"})
    assert "prefect worker start --pool hushtune" in wrong(home)["prefect"].mend
    workers.append({"name": "two", "status": "ONLINE"})
    assert wrong(home) == {}
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert "does not answer" in wrong(home)["prefect"].found


def test_the_server_of_deploy_up_is_found_with_its_login(home, server, monkeypatch):
    url, workers, logins = server
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    workers.append({"name": "one", "status": "ONLINE"})
    logins.append("Basic bWU6bWluZQ==")
    (home / "prefect").mkdir(exist_ok=True)
    noted = home / "prefect" / "up.json"
    noted.write_text(json.dumps({"url": url, "login": "me:mine"}))
    found = {check.name: check for check in health.look(home)}["prefect"]
    assert found.well
    assert url in found.found
    monkeypatch.setenv("PREFECT_API_URL", url)  # named by hand, it is the same
    assert wrong(home) == {}
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:wrong")
    assert "PREFECT_API_AUTH_STRING" in wrong(home)["prefect"].mend
    monkeypatch.delenv("PREFECT_API_URL")
    noted.write_text(json.dumps({"url": "http://127.0.0.1:9/api", "login": None}))  # what a killed one leaves behind
    assert wrong(home) == {}


def test_a_key_that_the_organisation_names_is_looked_at(home, monkeypatch):
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(home / "nowhere.key"))
    assert "unset HUSHTUNE_SIGNING_KEY" in wrong(home)["signing key"].mend
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(home / "keys" / "release.key"))
    (public,) = signing.trusted_keys(home)
    (found,) = [one for one in health.look(home) if one.name == "signing key"]
    assert public.stem in found.found
