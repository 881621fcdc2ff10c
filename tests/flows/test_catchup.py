"""Of the runs that a schedule missed exactly the latest works, whatever order they start in; the others open nothing."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from flows.parameters import Finetune, Reaudit, Retention

WORKS = "works"


class Schedule:
    """A deployment on the tests' server, with runs as its schedule makes them and a worker takes them up."""

    def __init__(self, home, client):
        from prefect import flow

        from flows import catchup

        @flow(name="asks", persist_result=False)
        def asks(what: str) -> str:
            due = catchup.overtaken()
            return due.isoformat() if due else WORKS

        self.home, self.client, self.flow = home, client, asks
        flow_id = client.create_flow(asks)
        self.deployment, self.other = (
            client.create_deployment(flow_id, name=f"{name}-{time.time_ns()}") for name in ("weekly", "other")
        )

    def due(self, when, *, by_hand=False, what="letters", deployment=None):
        from prefect.states import Scheduled

        made = self.client.create_flow_run_from_deployment(
            deployment or self.deployment, parameters={"what": what}, state=Scheduled(scheduled_time=when)
        ).id
        if not by_hand:  # only the server's scheduler sets this
            with closing(sqlite3.connect(self.home / "prefect.db", timeout=60)) as database, database:
                changed = database.execute("update flow_run set auto_scheduled = 1 where id = ?", (str(made),))
                assert changed.rowcount == 1
        return made

    def set(self, run, state):
        from prefect.states import State

        assert isinstance(state, State)
        assert self.client.set_flow_run_state(run, state).status.value == "ACCEPT"

    def take_up(self, run):
        from prefect.states import Pending

        self.set(run, Pending())

    def answer(self, run):
        from prefect.flow_engine import run_flow

        found = self.client.read_flow_run(run)
        return run_flow(self.flow, flow_run=found, parameters=found.parameters)


@pytest.fixture
def schedule(prefect_home):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield Schedule(prefect_home, client)


def ago(**time) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_of_the_missed_runs_that_start_at_once_exactly_the_latest_works(schedule, order):
    days = [ago(days=21), ago(days=14), ago(days=7)]
    runs = [schedule.due(when) for when in days]
    for run in runs:
        schedule.take_up(run)
    answers = {index: schedule.answer(runs[index]) for index in order}
    assert [answers[index] for index in range(3)] == [days[2].isoformat(), days[2].isoformat(), WORKS]


def test_missed_runs_that_start_one_after_the_other_do_the_same(schedule):
    runs = [schedule.due(ago(days=days)) for days in (21, 14, 7)]
    answers = []
    for run in runs:
        schedule.take_up(run)
        answers.append(schedule.answer(run) == WORKS)
    assert answers == [False, False, True]


def test_two_that_were_due_in_the_same_second_are_told_apart(schedule):
    when = ago(hours=1)
    runs = [schedule.due(when) for _ in range(2)]
    for run in runs:
        schedule.take_up(run)
    assert [schedule.answer(run) for run in runs].count(WORKS) == 1


def test_a_run_that_is_slow_to_start_does_not_wait_for_the_next(schedule):
    run = schedule.due(ago(seconds=5))
    schedule.take_up(run)
    time.sleep(0.01)
    later = schedule.due(datetime.now(UTC))
    time.sleep(0.01)
    assert schedule.answer(run) == WORKS
    schedule.take_up(later)
    assert schedule.answer(later) == WORKS


def test_what_a_person_starts_neither_overtakes_nor_is_overtaken(schedule):
    hand, cron, hand_later = schedule.due(ago(days=3), by_hand=True), schedule.due(ago(days=2)), None
    hand_later = schedule.due(ago(days=1), by_hand=True)
    for run in (hand, cron, hand_later):
        schedule.take_up(run)
        assert schedule.answer(run) == WORKS


def test_what_a_person_starts_again_works(schedule):
    from prefect.states import Completed, Scheduled

    run = schedule.due(ago(days=2))
    schedule.due(ago(days=1))
    schedule.take_up(run)
    assert schedule.answer(run) != WORKS
    schedule.set(run, Completed(name="Superseded"))
    schedule.set(run, Scheduled(scheduled_time=ago(seconds=1)))
    schedule.take_up(run)
    assert schedule.answer(run) == WORKS


@pytest.mark.parametrize("why", ["cancelled", "other work", "other deployment"])
def test_a_later_run_that_does_not_do_the_same_work_overtakes_nothing(schedule, why):
    from prefect.states import Cancelled

    run = schedule.due(ago(days=2))
    changes = {"cancelled": {}, "other work": {"what": "notes"}, "other deployment": {"deployment": schedule.other}}
    later = schedule.due(ago(days=1), **changes[why])
    if why == "cancelled":
        schedule.set(later, Cancelled())
    schedule.take_up(run)
    assert schedule.answer(run) == WORKS


def test_a_run_does_not_fail_for_want_of_an_answer(schedule, monkeypatch, caplog):
    from flows import catchup

    run = schedule.due(ago(days=2))
    schedule.due(ago(days=1))
    schedule.take_up(run)

    def refuse(**_):
        raise ConnectionError("a private word")

    with monkeypatch.context() as patch:
        patch.setattr(catchup, "get_client", refuse)
        assert schedule.answer(run) == WORKS
    assert "not answered (ConnectionError)" in caplog.text
    assert "a private word" not in caplog.text


def test_outside_of_a_deployment_nothing_is_asked(prefect_home, monkeypatch):
    from prefect import flow

    from flows import catchup

    monkeypatch.setattr(catchup, "get_client", lambda **_: pytest.fail("it asked"))
    assert catchup.overtaken() is None
    assert flow(lambda: str(catchup.overtaken()), name="alone", persist_result=False)() == "None"


@pytest.mark.parametrize("name", ["finetune", "reaudit", "retention"])
def test_an_overtaken_run_of_every_schedule_ends_before_it_opens_anything(prefect_home, tmp_path, monkeypatch, name):
    import importlib

    from flows import catchup

    home = tmp_path / "home"
    jobs = {
        "finetune": Finetune(home=str(home), data=str(tmp_path / "none.jsonl")),
        "reaudit": Reaudit(home=str(home), target="letters"),
        "retention": Retention(home=str(home)),
    }
    monkeypatch.setattr(catchup, "overtaken", lambda: datetime(2025, 1, 5, 2, 17, tzinfo=UTC))
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    state = flow(jobs[name], return_state=True)
    assert (state.name, state.type.value) == ("Superseded", "COMPLETED")
    assert "2025-01-05 02:17 UTC" in state.message
    assert not home.exists()


def test_deploying_again_leaves_what_was_missed_to_be_caught_up_with(schedule):
    """So nothing has to be made up: a run more would do, and spend, the same once more."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    flow_id, name = schedule.client.create_flow(schedule.flow), f"again-{time.time_ns()}"
    cron = [DeploymentScheduleCreate(schedule=CronSchedule(cron="17 2 * * 0", timezone="UTC"), active=True)]
    made = schedule.client.create_deployment(flow_id, name=name, schedules=cron)
    missed, to_come = (schedule.due(ago(days=days), deployment=made) for days in (7, -7))
    assert schedule.client.create_deployment(flow_id, name=name, schedules=cron) == made
    left = {run.id for run in schedule.client.read_flow_runs() if run.deployment_id == made}
    assert missed in left
    assert to_come not in left  # the control: deploying does take runs back


def test_every_deployment_with_a_schedule_asks():
    """The control of the list above: a schedule that is added later must be in it."""
    import yaml

    from flows import deploy

    content = yaml.safe_load((deploy.resources.files("flows") / "prefect.yaml").read_text())
    scheduled = {one["entrypoint"].rpartition(".")[2] for one in content["deployments"] if one.get("schedules")}
    assert scheduled == {"finetune", "reaudit", "retention"}
