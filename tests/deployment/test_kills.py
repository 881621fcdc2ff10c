"""kill -9 of the worker and of its flow run, inside scrubbing, training and publishing: the next scheduled run goes on.

One run is killed three times. Each time the supervisor brings a worker back, the next run that cron starts takes the killed one
up where it stood, and at no moment does the ledger hold fewer steps than have touched weights.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.ledger import Ledger
from pipeline.release import verify
from tests.deployment import sites
from tests.deployment.harness import EVERY_MINUTE, PATIENCE, Station, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    site = sites.make(tmp_path_factory.mktemp("site"))
    made = Station(site / "station", site / "home", site / "data.jsonl", site / "killed.yaml", cron=EVERY_MINUTE, name="killed")
    try:
        yield made.start()
    finally:
        made.stop()


def strike(station: Station, inside: Callable[[], bool]) -> None:
    """kill -9 of the worker and all below it, in the instant in which `inside` is seen."""
    end, looked, found = time.monotonic() + PATIENCE, 0.0, []
    while not inside():
        assert time.monotonic() < end, station.story()
        if time.monotonic() > looked + 0.5:  # known before it is needed, so that the blow falls at once
            worker = station.part("worker")
            found, looked = [worker, *worker.children(recursive=True)], time.monotonic()
        time.sleep(0.002)
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    until("the death of all of them", lambda: not any(is_alive(process.pid) for process in found))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def folder(station: Station) -> Path | None:
    """The folder of the one run there is."""
    found = list((station.home / "runs").glob("killed-*"))
    assert len(found) <= 1, found
    return found[0] if found else None


def within(station: Station, stage: str) -> bool:
    """Whether the run is inside of a stage."""
    run = folder(station)
    if run is None:
        return False
    if stage == "scrub":
        return (run / "scrubbed.partial").is_dir()
    if stage == "train":
        return (run / "trained.partial").is_dir() and 0 < sum(sites.taken(sites.rows(station.home)).values()) < sites.STEPS - 5
    return bool(staged(station))


def staged(station: Station) -> list[str]:
    shelf = station.home / "releases" / "killed"
    return [name for name in os.listdir(shelf) if name.startswith(".staging-")] if shelf.is_dir() else []


@pytest.fixture(scope="module")
def killed(station):
    """The flow runs that were killed, after the run that they worked on was released and all that cron had begun has ended."""
    found: list[str] = []
    first: Path | None = None
    for stage, made in {"scrub": "scrubbed", "train": "trained", "release": None}.items():
        strike(station, lambda stage=stage: within(station, stage))
        run, entries = folder(station), sites.rows(station.home) if (station.home / "ledger.db").exists() else []
        found.append((run / "flow-run").read_text())
        first = first or run
        assert run == first  # taken up, never begun again
        assert made is None or not (run / made / "stage.json").exists(), f"the kill missed {stage}"
        assert [name for name in sites.versions(station.home, "killed") if not name.startswith(".")] == []
        assert station.applied() <= sum(sites.taken(entries).values())
        assert station.applied() <= sum(sites.charged(entries).values())
        if stage == "train":
            assert 0 < station.applied()
            assert sites.charged(entries) == {run.name: sites.STEPS}  # an open claim is charged in full
    assert staged(station)  # half a release, that nobody sees as one
    until("the release", lambda: any(run["state"]["name"] == "Released" for run in station.ends()), pause=2)
    station.schedule(False)
    until("the end of what cron had begun", lambda: not station.part("worker").children(), pause=2)
    return found


def test_a_run_killed_in_every_phase_is_gone_on_with(station, killed):
    assert len(set(killed)) == 3
    released = [run for run in station.ends() if run["state"]["name"] == "Released"]
    assert all(run["auto_scheduled"] for run in released)
    run = sorted((station.home / "runs").glob("killed-*"))[0]
    assert (run / "outcome.json").exists()
    made = sites.versions(station.home, "killed")
    assert made == [str(1 + at) for at in range(len(released))]
    for version in made:
        verify(station.home / "releases" / "killed" / version)


def test_the_ledger_never_undercounts(station, killed):
    Ledger(station.home).verify()
    entries = sites.rows(station.home)
    run = sorted(path.name for path in (station.home / "runs").glob("killed-*"))[0]
    reserved = [entry for entry in entries if entry["run"] == run and entry["kind"] == "reserve"]
    assert len(reserved) == 1  # taken up three times, paid for once
    assert station.applied() <= sum(sites.charged(entries).values())
    assert sites.charged(entries)[run] == sites.STEPS
    totals = [entry["steps"] for entry in entries if entry["run"] == run and entry["kind"] == "spend"]
    assert totals == sorted(set(totals))


def test_the_killed_flow_runs_are_shown_as_crashed(station, killed):
    """One that nobody works on may not stand on Prefect's page as running for good."""
    shown = {run["id"]: run["state"]["type"] for run in station.runs(id={"any_": killed})}
    assert shown == dict.fromkeys(killed, "CRASHED")
