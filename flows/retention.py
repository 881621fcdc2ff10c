"""The retention flow: delete what the policies of the runs keep no longer; serve it once a day.

from flows.retention import retention
retention.serve(name="retention", cron="17 3 * * *", parameters={"home": "/srv/hushtune-home"})
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, State

from flows import stages
from pipeline import retention as retain
from pipeline.ledger import Ledger
from pipeline.retention import Deletion


@task(name="sweep", **stages.BARE)
def sweep(home: Path) -> list[Deletion]:
    """Delete, and note each deletion in the ledger."""
    return stages.clean("sweep", None, lambda: retain.sweep(home.absolute(), Ledger(home.absolute())))


@flow(name="retention", retries=0, persist_result=False, log_prints=False)
def retention(home: Path = Path("hushtune-home")) -> State:
    """Delete what is past its time in every run of a home.

    Args:
        home: folder of all state.

    Returns:
        Completed, with the deletions: names of runs and folders, counts and digests.
    """
    done = sweep(home)
    if done:
        rows = [one.model_dump(mode="json") for one in done]
        stages.keep(create_table_artifact, key="hushtune-retention", table=rows, description="Deleted")
    return Completed(message=f"{len(done)} deletions", data=done)
