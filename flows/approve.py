"""The approval flow: publish a run that awaits a person's yes, from Prefect's page."""

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


@flow(name="approve", retries=0, persist_result=False, log_prints=False)
def approve(job: Approval) -> State:
    """Approve a run and release it.

    Args:
        job: the run that awaits approval, and who approves; where the policy asks for four eyes, another than the submitter.

    Returns:
        Completed "Released".
    """
    made = publish(job)
    endings.emit("released", job.run, name=made.name, version=made.version)
    return Completed(name="Released", message=f"{made.name} {made.version}, approved by {approval.approver(made)}", data=made)
