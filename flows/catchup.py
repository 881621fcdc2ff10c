"""One catch-up for all that a schedule missed, as systemd's Persistent= does it: only the latest of the missed runs works.

A worker that comes back starts every run that became due while it was away, and each would spend as much privacy as the last.
So every flow that has a schedule asks, before it opens anything, whether it is overtaken. Deploying again leaves missed runs
where they are, so that the same holds where the server was away, too.
"""

import logging
from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext

_TAKEN_BACK = [StateType.CANCELLED, StateType.CANCELLING]


def overtaken() -> datetime | None:
    """When the run was due that overtakes this flow run, or None where this one is to work.

    A run that a schedule started is overtaken if, at the moment a worker took it up, a later run of the same deployment with
    the same parameters was due. What became due after that moment does not count, so the answer is the same whenever it is
    asked, of any number of missed runs exactly the latest works, and a slow start never makes a run wait for the next. A run
    that was cancelled overtakes nothing. What a person started, or started again, is never overtaken.

    No run fails for want of an answer: then it works.
    """
    context = FlowRunContext.get()
    mine = context.flow_run if context else None
    if mine is None or mine.deployment_id is None or mine.expected_start_time is None or not mine.auto_scheduled:
        return None
    try:
        with get_client(sync_client=True) as client:
            return _latest_due(client, mine)
    except Exception as error:
        logging.getLogger(__name__).warning("Whether a later run is due was not answered (%s).", type(error).__name__)
        return None


def _latest_due(client: SyncPrefectClient, mine: FlowRun) -> datetime | None:
    states = client.read_flow_run_states(mine.id)
    taken_up = [state.timestamp for state in states if state.is_pending()]
    if not taken_up or any(state.is_final() for state in states):  # not from a worker, or started again by a person
        return None
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[mine.deployment_id]),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=mine.expected_start_time, before_=max(taken_up)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=_TAKEN_BACK)),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
    for run in found:  # the latest first; two due at once are told apart by their ids
        later = (run.expected_start_time, run.id) > (mine.expected_start_time, mine.id)
        if later and run.auto_scheduled and run.parameters == mine.parameters:
            return run.expected_start_time
    return None
