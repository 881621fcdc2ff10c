"""The retention flow: delete what the policies of the runs keep no longer, once a day."""

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, State

from flows import catchup, endings, stages
from flows.parameters import Retention
from pipeline import retention as retain
from pipeline import runs
from pipeline.ledger import Ledger
from pipeline.retention import Deletion


@task(name="sweep", **stages.BARE)
def sweep(job: Retention) -> list[Deletion]:
    """Delete, and note each deletion in the ledger."""

    def work() -> list[Deletion]:
        home = runs.open_home(job.folder)
        return retain.sweep(home, Ledger(home)) if (home / "runs").is_dir() else []

    return stages.clean("sweep", None, work)


@flow(name="retention", retries=0, persist_result=False, log_prints=False)
def retention(job: Retention) -> State:
    """Delete what is past its time in every run of a home.

    Args:
        job: the home.

    Returns:
        Completed, with the deletions (names of runs and folders, counts and digests), or Completed "Superseded".
    """
    if due := catchup.overtaken():
        return endings.superseded("retention", "retention", due)
    done = sweep(job)
    if done:
        rows = [one.model_dump(mode="json") for one in done]
        stages.keep(create_table_artifact, key="hushtune-retention", table=rows, description="Deleted")
    return Completed(message=f"{len(done)} deletions", data=done)
