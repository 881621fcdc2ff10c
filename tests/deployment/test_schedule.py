"""A fresh home on a schedule: cron fires by itself, every end is seen by its name, no private text gets out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.ledger import Ledger
from pipeline.release import verify
from tests.deployment import sites
from tests.deployment.browser import CHROMIUM, Browser
from tests.deployment.harness import EVERY_MINUTE, Client, Station, until
from tests.flows import line
from tests.flows.line import ADDRESS, SENTINEL, holding

pytestmark = pytest.mark.slow

PLANTED = "zqplantedword"  # for the control of the search
PRIVATE = {"corpus", "scrubbed", "planted", "evidence", "traceback.txt"}  # in a run's folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return sites.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def station(site):
    made = Station(site / "station", site / "home", site / "data.jsonl", site / "open.yaml", cron=EVERY_MINUTE)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def fired(station):
    """The runs that cron started by itself, once there are two and one has released; then the schedule is paused."""

    def seen() -> bool:
        started = [run for run in station.runs() if run["auto_scheduled"] and run["start_time"]]
        return len(started) >= 2 and any(run["state"]["name"] == "Released" for run in started)

    try:
        until("two runs that cron started, and a release", seen, pause=2)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{station.story()}") from None
    station.schedule(False)
    started = [run["id"] for run in station.runs() if run["auto_scheduled"] and run["start_time"]]
    return [station.end_of(run) for run in started]


@pytest.fixture(scope="module")
def launched(station, site, fired):
    """Runs that end in other ways, all under way at once; ended, by name."""
    data = {"asking": "data.jsonl", "broke": "data.jsonl", "leaking": "leaking.jsonl", "sound": "sound.jsonl"}
    ids = {}
    for name, file in data.items():
        ids[name] = station.launch(name=name, policy=str(site / f"{name}.yaml"), data=str(site / file))
    return {name: station.end_of(run) for name, run in ids.items()}


@pytest.fixture(scope="module")
def approved(station, launched):
    """The end of the run of `approve` for the run that awaited it."""
    (folder,) = (station.home / "runs").glob("asking-*")
    return station.end_of(station.launch("approve", run=folder.name, by="Ann Other"))


def test_the_deployments_are_there(station):
    found = station.deployments()
    assert set(found) == {"finetune-weekly", "audit-nightly", "retention-daily", "approve"}
    assert all(one["enforce_parameter_schema"] for one in found.values())


def test_cron_fires_by_itself_and_releases(station, fired):
    assert len(fired) >= 2
    assert all(run["auto_scheduled"] for run in fired)
    names = [run["state"]["name"] for run in fired]
    assert set(names) <= {"Released", "AtWork"}  # on a slow machine a minute is too short
    made = sites.versions(station.home, "line")
    assert made == [str(1 + at) for at in range(names.count("Released"))]
    for version in made:
        verify(station.home / "releases" / "line" / version)


def test_a_run_that_learns_by_heart_is_rejected_and_its_sound_twin_is_not(station, launched):
    leaking, sound = (found(station, name) for name in ("leaking", "sound"))
    assert (launched["leaking"]["state"]["name"], launched["leaking"]["state"]["type"]) == ("Rejected", "FAILED")
    assert leaking.auc > 0.7
    assert "membership" in leaking.failed
    assert leaking.failed <= {"membership", "guesses", "epsilon_bound"}  # one attack or another proves it, too
    assert sites.versions(station.home, "leaking") == []
    assert not list((station.home / "runs").glob("leaking-*/trained/adapter/adapter_model.safetensors"))
    assert sound.auc < 0.7
    if sound.valid:  # a split that is uneven by chance, once in twenty, rightly voids the figure
        assert launched["sound"]["state"]["name"] == "Released"


class Found(NamedTuple):
    """What the audit of a run found: the strongest attack's AUC, whether it is valid, and the gates that failed."""

    auc: float
    valid: bool
    failed: set[str]


def found(station: Station, name: str) -> Found:
    (folder,) = (station.home / "runs").glob(f"{name}-*")
    figure = json.loads((folder / "evidence" / "evidence.json").read_text())["figures"]["membership.worst.auc"]
    gates = json.loads((folder / "verdict.json").read_text())["gates"]
    failed = {gate["name"] for gate in gates if not gate["passed"]}
    return Found(figure["value"], all(figure["conditions"].values()), failed)


def test_a_run_waits_for_approval_and_is_approved(station, launched, approved):
    assert (launched["asking"]["state"]["name"], launched["asking"]["state"]["type"]) == ("AwaitingApproval", "COMPLETED")
    assert (approved["state"]["name"], approved["state"]["type"]) == ("Released", "COMPLETED")
    assert sites.versions(station.home, "asking") == ["1"]
    verify(station.home / "releases" / "asking" / "1")


def test_a_run_that_the_budget_does_not_hold_is_refused_and_charged_nothing(station, launched):
    state = launched["broke"]["state"]
    assert (state["name"], state["type"]) == ("BudgetExhausted", "FAILED")
    (folder,) = (station.home / "runs").glob("broke-*")
    assert not [row for row in sites.rows(station.home) if row["run"] == folder.name and row["kind"] != "note"]


@pytest.mark.parametrize(
    "wrong",
    [{"data": 7}, {"polcy": "default"}, {"processes": 0}, {"name": "../out"}, {"policy": "two\nlines"}, {"run": "a/b"}],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_a_wrong_parameter_is_refused_before_there_is_a_run(station, wrong):
    found = station.deployments()["finetune-weekly"]
    before = {run["id"] for run in station.runs() if not run["auto_scheduled"]}
    body = {"parameters": {"job": found["parameters"]["job"] | wrong}}
    status, answer = station.client.call("POST", f"/deployments/{found['id']}/create_flow_run", body)
    assert status in (409, 422), answer
    assert {run["id"] for run in station.runs() if not run["auto_scheduled"]} == before


def test_the_ledger_holds_every_step_that_touched_a_weight(station, launched, approved):
    entries = sites.rows(station.home)
    Ledger(station.home).verify()
    charged = sites.charged(entries)
    assert sum(charged.values()) == station.applied()
    assert charged == sites.taken(entries)


def test_the_page_asks_for_a_login_and_shows_every_end_by_its_name(station, launched, approved, tmp_path):
    if not CHROMIUM:
        pytest.skip("no Chromium here: install it, or name it by CHROMIUM")
    shots = Path(os.environ.get("HUSHTUNE_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    names = ("Released", "Rejected", "AwaitingApproval", "BudgetExhausted")
    with Browser(tmp_path / "browser") as browser:
        browser.open(f"http://127.0.0.1:{station.port}/runs")
        browser.log_in(station.client.login.read_text().strip())
        browser.open(f"http://127.0.0.1:{station.port}/runs")

        def shown() -> str | None:
            page = browser.page()
            spaced = page.replace("Awaiting Approval", "AwaitingApproval").replace("Budget Exhausted", "BudgetExhausted")
            return page if all(name in spaced for name in names) else None

        page = until("the runs on the page", shown, pause=2)
        browser.picture(shots / "runs.png")
    assert (shots / "runs.png").stat().st_size > 20_000
    assert SENTINEL not in page


def test_nobody_without_the_login_starts_or_sees_a_run(station, fired):
    found = station.deployments()["finetune-weekly"]
    login = station.client.login
    assert (login.stat().st_mode & 0o777, login.read_text().count("\n")) == (0o600, 1)
    stranger = Client(station.port, None)
    body = {"parameters": {"job": found["parameters"]["job"]}}
    assert stranger.call("POST", f"/deployments/{found['id']}/create_flow_run", body)[0] == 401
    assert stranger.call("POST", "/flow_runs/filter", {})[0] == 401
    assert stranger.call("GET", "/health")[0] == 200  # the control: it is there
    word = login.read_text().strip().partition(":")[2]
    held = line.holding(station.home, word) + line.holding(station.folder, word)
    assert {path.name for path in held} == {"login", "up.json"}


def test_private_text_is_in_run_folders_only(station, launched, approved, site):
    station.api("POST", "/artifacts/", {"key": "planted", "type": "markdown", "data": f"a {PLANTED} in the database"})
    found = until("the planted word in Prefect's database", lambda: holding(station.home, PLANTED))
    assert all(path.name.startswith("prefect.db") for path in found)  # so the search reads the database, and its log
    inside = {word: holding(station.home, word) for word in (SENTINEL, ADDRESS)}
    assert inside[SENTINEL]
    assert inside[ADDRESS]
    for path in {*inside[SENTINEL], *inside[ADDRESS]}:
        top, _run, *rest = path.relative_to(station.home).parts
        assert top == "runs", path
        assert rest[0] in PRIVATE, path
    assert {path.relative_to(station.home).parts[2] for path in inside[ADDRESS]} == {"corpus"}  # scrubbed everywhere else
    assert not holding(station.folder, SENTINEL)
    assert not any(path.stat().st_mode & 0o077 for path in (station.home / "runs").iterdir())
