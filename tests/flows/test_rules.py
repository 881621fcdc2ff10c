"""What is tried again: only what costs no privacy, and only after a fault that may pass."""

import errno
import sqlite3

import pytest
from prefect import flow

from flows import stages
from flows.rules import RULES
from pipeline import runs
from pipeline.errors import BudgetExhausted, InputError, PolicyError, StageError, TransientError

SPENDS_OR_DRAWS = {"probe", "plant", "reserve", "train"}


def test_nothing_that_spends_or_draws_is_tried_again():
    from flows import tasks

    found = {value.name: value for value in vars(tasks).values() if type(value).__name__ == "Task"}
    assert set(found) == {"open", *RULES}
    assert {name for name, task in found.items() if task.retries} == set(RULES) - SPENDS_OR_DRAWS
    for name, task in found.items():
        assert (task.retry_condition_fn is not None) == bool(task.retries)
        assert name == "open" or 3600 <= task.timeout_seconds == RULES[name].hours * 3600


FAULTS = {
    "network": (ConnectionResetError(errno.ECONNRESET, "reset"), True),
    "disk": (OSError(errno.EIO, "i/o"), True),
    "database": (sqlite3.OperationalError("database is locked"), True),
    "ledger": (TransientError("The ledger is locked."), True),
    "full disk": (OSError(errno.ENOSPC, "full"), False),
    "missing file": (FileNotFoundError(errno.ENOENT, "gone"), False),
    "rights": (PermissionError(errno.EACCES, "no"), False),
    "input": (InputError("Wrong."), False),
    "policy": (PolicyError("Wrong."), False),
    "budget": (BudgetExhausted("Spent."), False),
    "stage": (StageError("Broken."), False),
    "bug": (ValueError("bug"), False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_only_what_may_pass_is_called_transient(name, tmp_path):
    error, passes = FAULTS[name]

    def work():
        raise error

    with pytest.raises(StageError if type(error) not in (InputError, PolicyError, BudgetExhausted) else type(error)) as caught:
        stages.clean("read", tmp_path, work)
    assert isinstance(caught.value, TransientError) == passes


def test_a_stage_is_tried_again_until_its_fault_passes_and_no_longer(prefect_home, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "DELAYS", [0])
    monkeypatch.setattr(stages.facts, "took", lambda *_: None)
    job, calls = runs.start(tmp_path, "mail"), []

    def failing(name: str, faults: list[Exception]):
        @stages.stage(name)
        def work(line, run):
            calls.append(name)
            if faults:
                raise faults.pop(0)
            return "done"

        return work

    reset, wrong = ConnectionResetError(errno.ECONNRESET, "reset"), InputError("Wrong.")
    passing, lasting = failing("read", [reset, reset]), failing("scrub", [reset] * 9)
    refused, spending = failing("audit", [wrong]), failing("train", [reset])

    @flow
    def line():
        assert passing(job) == "done"
        for broken in (lasting, refused, spending):
            with pytest.raises((StageError, InputError)):
                broken(job)
        return "ended"

    assert line() == "ended"
    assert [calls.count(name) for name in ("read", "scrub", "audit", "train")] == [3, 3, 1, 1]
