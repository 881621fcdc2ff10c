"""The interrupted run of the same name, policy and data is found; one that is being worked on is not taken up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import policy, resume, runs
from pipeline.errors import UsageError
from pipeline.ledger import Ledger
from pipeline.resume import Identity
from pipeline.runs import Run

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from pipeline import runs
runs.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def wanted(data: Path) -> Identity:
    return resume.identity("mail", policy.load("default"), data)


def begun(home: Path, wanted: Identity) -> Run:
    """A run whose process has died."""
    job = resume.begin(home, wanted)
    runs.let_go(job.folder)
    return job


@pytest.fixture
def other() -> Iterator[list[subprocess.Popen]]:
    """Processes that hold a run, killed at the end."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def held_by(processes: list[subprocess.Popen], folder: Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, text=True, **pipes)
    processes.append(process)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_same_name_policy_and_data_is_the_same_run(home: Path, wanted: Identity) -> None:
    job = begun(home, wanted)
    assert resume.take_up(home, wanted) == job
    runs.let_go(job.folder)


@pytest.mark.parametrize("changed", ["name", "policy", "data"])
def test_another_name_policy_or_data_is_another_run(home: Path, wanted: Identity, data: Path, changed: str) -> None:
    begun(home, wanted)
    data.write_text('{"text": "b"}\n')
    fresh = resume.identity("letters", policy.load("default").override(train__steps=7), data)
    assert resume.take_up(home, wanted.model_copy(update={changed: getattr(fresh, changed)})) is None


def test_a_run_with_an_outcome_has_ended(home: Path, wanted: Identity) -> None:
    (begun(home, wanted).folder / "outcome.json").write_text("{}")
    assert resume.take_up(home, wanted) is None


def test_the_newest_comes_first(home: Path, wanted: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["mail-20260101-000000-aaaa", "mail-20260103-000000-0000", "mail-20260102-000000-ffff"])
    monkeypatch.setattr(runs, "new_id", lambda name: next(ids))
    for _ in range(3):
        begun(home, wanted)
    job = resume.take_up(home, wanted)
    assert job is not None
    assert job.id == "mail-20260103-000000-0000"
    runs.let_go(job.folder)


def test_a_run_that_a_live_process_holds_is_refused_until_that_dies(
    home: Path, wanted: Identity, other: list[subprocess.Popen]
) -> None:
    job = begun(home, wanted)
    process = held_by(other, job.folder)
    with pytest.raises(UsageError, match=f"{job.id} is being worked on by another process"):
        resume.take_up(home, wanted)
    assert resume.leave(home, wanted, "records") == []  # nor is it left for good behind the other's back
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert resume.take_up(home, wanted) == job
    runs.let_go(job.folder)


def test_a_child_that_outlives_its_process_does_not_hold_the_run(home: Path, wanted: Identity) -> None:
    job = resume.begin(home, wanted)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # lives until the pipe closes
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    runs.let_go(job.folder)
    taken = subprocess.run(
        [sys.executable, "-c", HOLD, str(job.folder)], cwd=ROOT, input="", text=True, capture_output=True, check=False
    )
    os.close(write)
    os.waitpid(child, 0)
    assert taken.returncode == 0, taken.stderr


def test_a_run_may_be_held_twice_by_its_own_process(home: Path, wanted: Identity) -> None:
    job = resume.begin(home, wanted)
    runs.hold(job.folder)
    runs.let_go(job.folder)


def test_leaving_a_run_says_what_it_stays_charged_for(home: Path, wanted: Identity) -> None:
    poor, paid = begun(home, wanted), begun(home, wanted)
    ledger = Ledger(home)
    claim = ledger.reserve(
        run=paid.id, lifetime=policy.Lifetime(budget="b", epsilon=32, delta=1e-5), sampling_rate=0.1, noise_multiplier=2.0,
        steps=9, epsilon=8, delta=1e-5, policy_digest="p", unit="record",
    )  # fmt: skip
    ledger.spend(claim, 1)
    assert resume.stands(paid, "b") == "1 of its 9 steps are charged to budget b"
    assert resume.stands(poor, "b") == "nothing is done yet"
    words = sorted(resume.leave(home, wanted, "b"))
    assert any(poor.id in one and "reserved nothing" in one for one in words)
    assert any(
        paid.id in one and "all 9 steps that it reserved stay charged to budget b (1 were taken)" in one for one in words
    )
    assert resume.take_up(home, wanted) is None  # neither comes back by itself
