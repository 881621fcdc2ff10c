"""The approval flow: publish a run that awaits a person's yes, from Prefect's page."""

import json

from prefect import flow, task
from prefect.states import Completed, State

from flows import endings, stages
from flows.parameters import Approval
from pipeline import approval, runs
from pipeline.release import Release


@task(name="approve", **stages.BARE)
def publish(job: Approval) -> Release:
    """Publish exactly the bytes that were audited."""
    return stages.clean("approve", None, lambda: approval.approve(runs.find(job.folder, job.run), job.by))


def _epsilon(made: Release) -> float:
    """What the release promises, by its report."""
    return json.loads((made.folder / "report.json").read_text(encoding="utf-8"))["promise"]["epsilon"]


@flow(name="approve", retries=0, persist_result=False, log_prints=False)
def approve(job: Approval) -> State:
    """Approve a run and release it.

    Args:
        job: the run that awaits approval, and who approves; where the policy asks for four eyes, another than the submitter.

    Returns:
        Completed "Released".
    """
    made = publish(job)
    endings.emit("released", job.run, name=made.name, version=made.version, epsilon=_epsilon(made))
    return Completed(name="Released", message=f"{made.name} {made.version}, approved by {approval.approver(made)}", data=made)
