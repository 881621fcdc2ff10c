"""What nobody tells the server of: a run that vanished, runs that were missed, a stage without an end.

And what the server tells others: the alerts of flows/automations.yaml, filled in as its head says and fired for real.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.deploy import AUTOMATIONS
from pipeline.ledger import Ledger
from pipeline.release import verify
from tests.deployment import sites
from tests.deployment.harness import EVERY_MINUTE, ROOT, Station, kill, until
from tests.flows.line import ADDRESS, SENTINEL

pytestmark = pytest.mark.slow

BLOCKS = {"webhook": "00000000-0000-0000-0000-000000000001", "sendgrid-email": "00000000-0000-0000-0000-000000000002"}
MISSED = 3


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    """Cron every minute, paused; signs of life as often as Prefect allows, every 30 seconds."""
    site = sites.make(tmp_path_factory.mktemp("site"))
    often = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    made = Station(
        site / "station", site / "home", site / "data.jsonl", site / "slow.yaml", cron=EVERY_MINUTE, environment=often
    )
    try:
        made.start()
        made.schedule(False)
        until("the end of what cron had begun", lambda: not made.part("worker").children(), pause=2)
        yield made
    finally:
        made.stop()


# Alerts


@pytest.fixture
def receiver():
    """A web server that keeps what it is sent: its address, and the bodies."""
    got: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    there = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{there.server_port}/alerts", got
    there.shutdown()


def block(station: Station, slug: str, data: dict) -> str:
    """A block as a person makes it on Prefect's page; its id."""
    kind = station.api("GET", f"/block_types/slug/{slug}")["id"]
    schemas = station.api("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    content = {"name": "alerts", "data": data, "block_type_id": kind, "block_schema_id": schemas[0]["id"]}
    return station.api("POST", "/block_documents/", content)["id"]


def prefect(station: Station, *words: str) -> str:
    """Prefect's own command against the station's server."""
    environment = station.environment | {
        "PREFECT_API_URL": f"http://127.0.0.1:{station.port}/api",
        "PREFECT_API_AUTH_STRING": station.client.login.read_text().strip(),
        "PREFECT_HOME": str(station.folder / "client"),
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts_fire_once_for_a_refused_run_and_carry_no_private_text(station, receiver):
    url, got = receiver
    ids = {
        "webhook": block(station, "webhook", {"url": url, "method": "POST"}),
        "sendgrid-email": block(
            station, "sendgrid-email", {"api_key": "none", "sender_email": "a@b.example", "to_emails": ["c@d.example"]}
        ),
    }
    text = AUTOMATIONS.read_text()
    for slug, placeholder in BLOCKS.items():
        assert placeholder in text
        text = text.replace(placeholder, ids[slug])
    filled = station.folder / "automations.yaml"
    filled.write_text(text)
    prefect(station, "automation", "create", "--from-file", str(filled))
    names = {one["name"] for one in station.api("POST", "/automations/filter", {})}
    assert {"hushtune-webhook", "hushtune-mail", "hushtune-crashed", "hushtune-vanished"} == names
    policy = str(station.folder.parent / "broke.yaml")
    end = station.end_of(station.launch(name="broke", policy=policy))
    assert end["state"]["name"] == "BudgetExhausted"
    until("the alert", lambda: got)
    end = station.end_of(station.launch(name="fine"))  # the control: a run that nobody needs to hear of
    assert end["state"]["name"] == "Released"
    time.sleep(10)  # so that a second call would have come
    (only,) = got
    (folder,) = (station.home / "runs").glob("broke-*")
    told = json.loads(only)
    assert (told["event"], told["run"]) == ("hushtune.run.budget_exhausted", folder.name)
    assert set(told) == {"event", "run", "occurred"}
    assert SENTINEL not in only
    assert ADDRESS not in only


# Time limits


def test_a_stage_without_an_end_is_stopped_under_a_worker_and_the_next_run_goes_on(station):
    before = station.applied()
    station.pace.write_text(json.dumps({"step": 1, "limit": 8}))
    try:
        state = station.end_of(station.launch(name="endless"))["state"]
    finally:
        station.pace.unlink()
    assert (state["name"], state["type"]) == ("TimedOut", "FAILED")
    (folder,) = (station.home / "runs").glob("endless-*")
    applied = station.applied() - before
    assert 0 < applied < sites.STEPS
    entries = sites.rows(station.home)
    assert applied <= sites.taken(entries)[folder.name]
    assert sites.charged(entries)[folder.name] == sites.STEPS  # an open claim is charged in full
    assert station.end_of(station.launch(name="endless"))["state"]["name"] == "Released"
    assert list((station.home / "runs").glob("endless-*")) == [folder]
    entries = sites.rows(station.home)
    assert len([entry for entry in entries if entry["run"] == folder.name and entry["kind"] == "reserve"]) == 1
    assert station.applied() - before <= sites.taken(entries)[folder.name] == sites.STEPS


# Runs that vanish


def strike(station: Station, run: str, states: tuple[str, ...]) -> str:
    """kill -9 of the worker and all below it as soon as a run is in one of these states; the state."""
    found = until(
        f"the run in {states}",
        lambda: next(
            (one["state"]["name"] for one in station.runs(id={"any_": [run]}) if one["state"]["name"] in states), None
        ),
        pause=0.05,
    )
    station.kill_worker()
    return found


def test_a_run_that_vanishes_is_told_dead_and_one_that_lives_long_is_not(station):
    starting, begun = station.launch(name="starting"), None
    assert strike(station, starting, ("Pending",)) == "Pending"
    begun = station.launch(name="begun")
    strike(station, begun, ("Running",))
    assert not list((station.home / "runs").glob("starting-*"))
    station.pace.write_text(json.dumps({"step": 6}))  # some four minutes; a run is held for dead after two and a half
    try:
        alive = station.launch(name="alive")
        ends = {name: station.end_of(run)["state"] for name, run in (("starting", starting), ("begun", begun))}
    finally:
        station.pace.unlink()
    for state in ends.values():
        assert state["type"] == "CRASHED"
        assert "no sign of life" in state["message"]
    end = station.end_of(alive)
    assert end["state"]["name"] == "Released"
    assert end["total_run_time"] > 150
    history = station.api("GET", f"/flow_run_states/?flow_run_id={alive}")
    assert "CRASHED" not in {state["type"] for state in history}


# Runs that were missed


def taken_up(station: Station, run: str) -> str:
    """When a worker took up a run."""
    states = station.api("GET", f"/flow_run_states/?flow_run_id={run}")
    return next(state["timestamp"] for state in states if state["type"] == "PENDING")


def late(station: Station) -> list[dict]:
    """Runs of the schedule that are due and that nobody has taken up."""
    return station.runs(state={"name": {"any_": ["Late"]}})


def test_of_the_runs_that_a_schedule_missed_one_works_and_the_others_spend_nothing(station):
    station.schedule(True)
    claims = claimed(station)

    def missed() -> list[dict]:
        with contextlib.suppress(StopIteration):
            kill([next(process for process in station.family() if "worker" in process.cmdline())])
        return late(station) if len(late(station)) >= MISSED else []

    ids = [run["id"] for run in until("runs that cron made and nobody took up", missed)]
    until("their end", lambda: len(station.ends(id={"any_": ids})) == len(ids), pause=2)
    station.schedule(False)
    until("the end of what cron had begun", lambda: not station.part("worker").children(), pause=2)
    back = min(taken_up(station, run) for run in ids)
    first = min(run["expected_start_time"] for run in station.runs(id={"any_": ids}))
    due = [run for run in station.ends() if run["auto_scheduled"] and first <= run["expected_start_time"] <= back]
    names = [run["state"]["name"] for run in due]
    assert len(names) >= MISSED
    assert names == ["Superseded"] * (len(names) - 1) + ["Released"]
    assert not [run for run in due if run["name"].startswith("line-")][
        1:
    ]  # an overtaken run opened no folder to be called after
    assert len(claimed(station) - claims) <= 1 + len([run for run in station.ends() if run["expected_start_time"] > back])
    Ledger(station.home).verify()
    for version in sites.versions(station.home, "line"):
        verify(station.home / "releases" / "line" / version)


def claimed(station: Station) -> set[str]:
    """The runs that took something out of a budget."""
    return {entry["run"] for entry in sites.rows(station.home) if entry["kind"] == "reserve"}
