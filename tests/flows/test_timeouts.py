"""A stage that takes longer than its hours is stopped where it is; the next run goes on, and every step is paid for once."""

from __future__ import annotations

import time

import pytest

from flows.parameters import Finetune
from flows.rules import RULES
from pipeline.ledger import Ledger
from tests.deployment import sites
from tests.flows import line

STEPS, LIMIT = 16, 4


@pytest.fixture
def short(monkeypatch):
    """Shortens the hours of a stage, as flows/rules.py would."""

    def shorten(stage: str, seconds: float) -> None:
        from flows import tasks

        task = getattr(tasks, stage)
        assert task.timeout_seconds == RULES[stage].hours * 3600
        monkeypatch.setattr(tasks, stage, task.with_options(timeout_seconds=seconds))

    return shorten


@pytest.fixture
def applied(monkeypatch):
    """Steps that touched weights, each of which takes a while."""
    from pipeline.train.optimizer import UnitOptimizer

    real, done = UnitOptimizer.step, []

    def step(optimizer, *rest, **more):
        done.append(time.monotonic())
        time.sleep(0.5)
        return real(optimizer, *rest, **more)

    monkeypatch.setattr(UnitOptimizer, "step", step)
    return done


def test_a_training_without_an_end_is_stopped_and_gone_on_with(prefect_home, place, tmp_path, short, applied, monkeypatch):
    from flows.finetune import finetune

    policy = line.policy(place)
    rules = line.write(tmp_path / "paced.yaml", policy | {"name": "paced", "train": policy["train"] | {"steps": STEPS}})
    home = tmp_path / "home"
    job = Finetune(home=str(home), data=str(place / "data.jsonl"), policy=str(rules), name="endless")
    short("train", LIMIT)
    state = finetune(job, return_state=True)
    assert (state.name, state.type.value) == ("TimedOut", "FAILED")
    (folder,) = (home / "runs").iterdir()
    assert folder.name in state.message
    before = len(applied)
    assert 0 < before < STEPS
    entries = sites.rows(home)
    assert before <= sites.taken(entries)[folder.name] < STEPS
    assert sites.charged(entries) == {folder.name: STEPS}  # an open claim is charged in full
    assert sites.versions(home, "endless") == []
    monkeypatch.undo()
    state = finetune(job, return_state=True)
    assert state.name == "Released"
    assert list((home / "runs").iterdir()) == [folder]
    entries = sites.rows(home)
    assert [entry["kind"] for entry in entries].count("reserve") == 1
    assert sites.taken(entries) == {folder.name: STEPS}
    Ledger(home).verify()


def test_a_stage_that_ends_in_its_hours_is_not_stopped(prefect_home, place, tmp_path, short):
    """The control: it is the limit that stops the run above."""
    from flows.finetune import finetune

    short("train", 3600)
    job = Finetune(home=str(tmp_path / "home"), data=str(place / "data.jsonl"), policy=str(place / "open.yaml"), name="short")
    assert finetune(job, return_state=True).name == "Released"
