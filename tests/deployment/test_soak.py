"""Many runs of a tiny model on one server and one worker: nothing grows, and every run is accounted for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from pipeline.ledger import Ledger
from tests.deployment import sites
from tests.deployment.growth import Sample, growth, sample
from tests.deployment.harness import NEVER, Station, until
from tests.flows import line

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("HUSHTUNE_SOAK_RUNS", "50"))
# Names of releases. One run of each is under way at a time: two would meet at work, and three runs fill two cores.
NAMES = ("first", "second", "third")
PRIVATE = ("corpus/records.jsonl", "scrubbed/records.jsonl", "planted/train.jsonl", "probes.jsonl")

# Takes a megabyte and a file at each line that it reads, and says so.
LEAK = """
import sys
kept = []
for line in sys.stdin:
    kept.append((bytearray(b"x" * 1_000_000), open("/dev/null")) if sys.argv[1] == "leak" else None)
    print(flush=True)
"""


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    site = sites.make(tmp_path_factory.mktemp("site"))
    made = Station(site / "station", site / "home", site / "data.jsonl", site / "light.yaml", cron=NEVER)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.parametrize("kind", ["leak", "none"])
def test_a_leak_would_be_seen(kind):
    process = subprocess.Popen([sys.executable, "-c", LEAK, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    samples = []
    for _ in range(20):
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        samples.append(sample(psutil.Process(process.pid)))
    process.communicate()
    assert growth(samples, 5).flat is (kind == "none")


def test_many_runs_leave_memory_and_files_flat_and_are_all_accounted_for(station, capsys):
    site, began = station.folder.parent, time.monotonic()
    server, worker = station.part("server"), station.part("worker")
    samples: dict[str, list[Sample]] = {"server": [], "worker": []}
    under_way: dict[str, str] = {}  # names of releases, by run
    ends: dict[str, dict] = {}

    def collect() -> bool:
        if not under_way:
            return True
        for run in station.ends(id={"any_": list(under_way)}):
            del under_way[run["id"]]
            ends[run["id"]] = run
            said = [f"{len(ends):3} {run['state']['name']:16} {time.monotonic() - began:6.0f} s"]
            for name, process in (("server", server), ("worker", worker)):
                samples[name].append(sample(process))
                said.append(f"{name} {samples[name][-1].memory:.0f} MB {samples[name][-1].files:.0f} files")
            with capsys.disabled():
                print(*said, sep="  ", flush=True)
        return len(under_way) < len(NAMES)

    for at in range(RUNS):
        until("the end of a run", collect, pause=1)
        policy = "broke" if at % 10 == 9 else "light"
        name = next(name for name in NAMES if name not in under_way.values())
        under_way[station.launch(name=name, policy=str(site / f"{policy}.yaml"))] = name
    until("the end of the last run", lambda: collect() and not under_way, pause=1)

    names = [run["state"]["name"] for run in ends.values()]
    refused = RUNS // 10
    assert len(ends) == RUNS
    assert (names.count("Released"), names.count("BudgetExhausted")) == (RUNS - refused, refused), names

    entries = sites.rows(station.home)
    Ledger(station.home).verify()
    charged = sites.charged(entries)
    assert len(charged) == RUNS - refused
    assert set(charged.values()) == {3}
    assert sum(charged.values()) == station.applied()
    kinds = Counter(entry["kind"] for entry in entries)
    assert {kind: kinds[kind] / (RUNS - refused) for kind in ("reserve", "spend", "close")} == {
        "reserve": 1,
        "spend": 3,
        "close": 1,
    }
    made = {name: sites.versions(station.home, name) for name in NAMES}
    assert sum(map(len, made.values())) == RUNS - refused
    assert all(found == [str(1 + at) for at in range(len(found))] for found in made.values())

    assert any((station.home / "runs").glob("*/corpus/records.jsonl"))
    swept = station.end_of(station.launch("retention-daily"))
    assert swept["state"]["type"] == "COMPLETED", swept["state"]
    folders = {run.name for run in (station.home / "runs").iterdir()}
    assert set(charged) <= folders
    assert len(folders - set(charged)) <= refused  # a refused run is taken up by the next of its name
    assert not [path for run in (station.home / "runs").iterdir() for name in PRIVATE for path in run.glob(name)]
    assert not line.holding(station.home, line.SENTINEL)

    assert (server.pid, worker.pid) == (station.part("server").pid, station.part("worker").pid)  # neither was started again
    found = {name: growth(held, max(4, RUNS // 5)) for name, held in samples.items()}
    with capsys.disabled():
        print(f"{RUNS} runs in {time.monotonic() - began:.0f} s; a run adds",
              *(f"{name}: {one.memory:+.3f} MB, {one.files:+.3f} files;" for name, one in found.items()))  # fmt: skip
    assert all(one.flat for one in found.values()), found
