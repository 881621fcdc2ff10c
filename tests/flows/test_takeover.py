"""A flow run whose process was killed is told dead by the one that takes its run up, and by no other."""

from __future__ import annotations

from uuid import uuid4

import pytest

from pipeline import runs


@pytest.fixture
def run(prefect_home, tmp_path):
    return runs.start(tmp_path / "home", "letters")


def flow_that(takes):
    from prefect import flow
    from prefect.runtime import flow_run

    from flows.takeover import take_over

    @flow(name="takes", persist_result=False)
    def work() -> str:
        if takes is not None:
            take_over(takes)
        return flow_run.get_id()

    return work


def state_of(number):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(number).state


def begun():
    """A flow run that is running as far as the server knows."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        return client.create_flow_run(flow_that(None), state=Running()).id


def test_a_killed_flow_run_is_told_dead(run):
    dead, other = begun(), begun()
    (run.folder / "flow-run").write_text(str(dead))
    number = flow_that(run)()
    assert state_of(dead).name == "Crashed"
    assert run.id in state_of(dead).message
    assert state_of(other).name == "Running"
    assert (run.folder / "flow-run").read_text() == number


def test_one_that_has_ended_stays_as_it_ended(run):
    first = flow_that(run)()
    assert (run.folder / "flow-run").read_text() == first
    flow_that(run)()
    assert state_of(first).name == "Completed"


def test_one_that_the_server_does_not_know_stops_nothing(run):
    (run.folder / "flow-run").write_text(str(uuid4()))
    assert flow_that(run)() == (run.folder / "flow-run").read_text()


def test_outside_of_a_flow_nothing_is_named(run):
    from flows.takeover import take_over

    take_over(run)
    assert not (run.folder / "flow-run").exists()
