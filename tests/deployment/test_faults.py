"""What goes wrong at three in the morning: no network, the server dies, a database is locked, the disk is full.

Each ends in a state or a sentence that names it, nothing is lost, and the next run is right. Where the machine allows it (root
on Linux), the whole deployment has no network but its own loopback, and its home is a small disk of its own.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline.ledger import Ledger
from pipeline.release import verify
from tests.deployment import sites
from tests.deployment.harness import NEVER, Station, kill, namespace, until
from tests.flows import line

pytestmark = pytest.mark.slow

OFFLINE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
SIZE = 160  # MB of the small disk
EXPECTED = {"disk full": "No space left on device", "ledger locked": "free the database or the disk and try again"}


def can(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A folder that is a disk of its own, or None where we may not mount one."""
    place = tmp_path_factory.mktemp("disk")
    if not can("mount", "-t", "tmpfs", "-o", f"size={SIZE}m,mode=0700", "tmpfs", str(place)):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


@pytest.fixture(scope="module")
def station(tmp_path_factory, small_disk):
    site = sites.make(tmp_path_factory.mktemp("site"))
    home = (small_disk or site) / "home"
    prefix = OFFLINE if can(*OFFLINE, "true") else ()
    made = Station(site / "station", home, site / "data.jsonl", site / "light.yaml", cron=NEVER, prefix=prefix)
    try:
        made.start()
        made.client.inside = made.process.pid if prefix else None
        yield made
    finally:
        made.stop()


def launch(station: Station, name: str) -> str:
    """A run that is long enough to be met in training."""
    return station.launch(name=name, policy=str(station.folder.parent / "slow.yaml"))


def folder(station: Station, name: str) -> Path:
    """The folder of the run of this name, once it is there."""
    return until(f"the folder of run {name}", lambda: next((station.home / "runs").glob(f"{name}-*"), None), pause=0.02)


def is_right(station: Station, name: str) -> None:
    """The next run of this name releases, and all that touched a weight is in the ledger."""
    end = station.end_of(launch(station, name))
    assert end["state"]["name"] == "Released", end["state"]
    for version in sites.versions(station.home, name):
        verify(station.home / "releases" / name / version)
    Ledger(station.home).verify()
    assert station.applied() <= sum(sites.taken(sites.rows(station.home)).values())
    assert station.applied() <= sum(sites.charged(sites.rows(station.home)).values())


@contextmanager
def locked(database: Path):
    """Hold a database of SQLite's for ourselves alone."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as mine:
        mine.execute("BEGIN IMMEDIATE")
        yield


def full(place: Path) -> Path:
    """Take all that is left of a disk."""
    path = place / "filler"
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    return path


def test_without_a_network_a_run_releases(station):
    if station.client.inside is None:
        pytest.skip("a process without a network needs unshare and root")
    with namespace(station.client.inside), socket.socket() as probe, pytest.raises(OSError, match="unreachable"):
        probe.connect(("192.0.2.1", 80))  # so there is none
    assert station.end_of(launch(station, "offline"))["state"]["name"] == "Released"
    is_right(station, "offline")


def test_a_server_that_dies_is_started_again_and_nothing_is_lost(station):
    run = launch(station, "restarted")
    until("the run's training", lambda: (folder(station, "restarted") / "trained.partial").is_dir(), pause=0.02)
    server = station.part("server")
    kill([server])
    assert station.part("server").pid != server.pid
    until("the server's answer", lambda: station.client.call("GET", "/health")[0] == 200)
    until("the run's outcome", lambda: (folder(station, "restarted") / "outcome.json").exists())
    assert sites.versions(station.home, "restarted") == ["1"]
    assert "The server ended (killed by signal 9)" in station.log.read_text()
    assert station.end_of(run)["state"]["name"] == "Released"
    is_right(station, "restarted")


def test_prefect_database_locked_for_a_while_delays_and_loses_nothing(station):
    run = launch(station, "delayed")
    folder(station, "delayed")
    with locked(station.home / "prefect" / "prefect.db"):
        time.sleep(15)  # how long the hold lasts, not how long anything takes
    assert station.end_of(run)["state"]["name"] == "Released"
    is_right(station, "delayed")


def test_the_ledger_locked_for_good_ends_the_run_in_a_sentence_before_a_step_is_taken(station):
    before = station.applied()
    run = launch(station, "locked")
    until("the run's scrubbing", lambda: (folder(station, "locked") / "corpus" / "stage.json").exists(), pause=0.02)
    with locked(station.home / "ledger.db"):
        state = station.end_of(run)["state"]
        assert state["type"] == "FAILED"
        assert EXPECTED["ledger locked"] in state["message"]
        assert station.applied() == before
    is_right(station, "locked")
    assert len(list((station.home / "runs").glob("locked-*"))) == 1  # the same run went on


def test_a_full_disk_ends_the_run_and_nothing_is_lost(station, small_disk):
    if small_disk is None:
        pytest.skip("a small disk needs root on Linux")
    before = {name: sites.versions(station.home, name) for name in ("offline", "restarted")}
    run = launch(station, "full")
    until("the run's scrubbing", lambda: (folder(station, "full") / "corpus" / "stage.json").exists(), pause=0.02)
    filler = full(small_disk)
    try:
        until("the end of the run's process", lambda: not at_work(station))
        assert sites.versions(station.home, "full") == []
    finally:
        filler.unlink()
    assert {name: sites.versions(station.home, name) for name in ("offline", "restarted")} == before
    state = station.end_of(run)["state"]
    assert state["type"] in ("FAILED", "CRASHED")
    is_right(station, "full")
    assert len(list((station.home / "runs").glob("full-*"))) == 1


def at_work(station: Station) -> list:
    """Processes of flow runs."""
    return [process for process in station.part("worker").children() if process.is_running()]


def test_nothing_of_all_this_is_private_text_outside_of_run_folders(station):
    for word in (line.SENTINEL, line.ADDRESS):
        assert not [path for path in line.holding(station.home, word) if path.relative_to(station.home).parts[0] != "runs"]
    assert not os.path.exists(station.home / "filler")
