"""The approval flow: publish a run that awaits a person's yes, from Prefect's page or a schedule of one's own."""

from pathlib import Path

from prefect import flow, task
from prefect.states import Completed, State

from flows import stages
from pipeline import approval, runs
from pipeline.release import Release


@task(name="approve", **stages.BARE)
def publish(run: str, by: str, home: Path) -> Release:
    """Publish exactly the bytes that were audited."""
    return stages.clean("approve", None, lambda: approval.approve(runs.find(home.absolute(), run), by))


@flow(name="approve", retries=0, persist_result=False, log_prints=False)
def approve(run: str, by: str, home: Path = Path("hushtune-home")) -> State:
    """Approve a run and release it.

    Args:
        run: id of a run that awaits approval.
        by: who approves; where the policy asks for four eyes, another than the submitter.
        home: folder of all state.

    Returns:
        Completed "Released".
    """
    made = publish(run, by, home)
    return Completed(name="Released", message=f"{made.name} {made.version}, approved by {approval.approver(made)}", data=made)
