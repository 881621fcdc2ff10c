"""The re-audit flow: attack a release again with seeds of its own, at night; a person decides what follows."""

import secrets
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.states import State

from flows import catchup, endings, stages
from flows.parameters import Reaudit
from pipeline import policy, retention, runs
from pipeline.commands.common import quiet
from pipeline.commands.evidence import again, audited_run, stored
from pipeline.commands.govern import release_folder
from pipeline.gates import Verdict
from pipeline.ledger import Ledger
from pipeline.train.loop import Trained


@task(name="find", **stages.BARE)
def find(job: Reaudit) -> Path | None:
    """The run's folder, whose release must verify; None where nothing of that name is released and no run is called so."""

    def work() -> Path | None:
        home = runs.open_home(job.folder)
        if release_folder(job.target, home) is None and not (home / "runs" / job.target / "policy.json").is_file():
            return None
        return audited_run(job.target, home)

    return stages.clean("find", None, work)


@task(name="gone", **stages.BARE)
def gone(folder: Path) -> tuple[str, ...]:
    """What retention has deleted of the run's files that an audit needs."""
    return stages.clean("gone", None, lambda: retention.missing(folder, Ledger(folder.parents[1])))


@task(name="audit again", **stages.BARE)
def attack(job: Reaudit, folder: Path) -> Verdict:
    """Attack the run's adapter with a fresh seed, which the ledger notes, and judge what is found."""

    def work() -> Verdict:
        quiet()
        rules = policy.load(job.policy or folder / "policy.json")
        trained = stored(folder, "trained", Trained)
        return again(folder, rules, folder.parents[1], trained, seed=secrets.randbits(64))[1]

    return stages.clean("audit again", folder, work)


@flow(name="reaudit", retries=0, persist_result=False, log_prints=False)
def reaudit(job: Reaudit) -> State:
    """Audit a release, or a run, again with fresh attack seeds, and judge the new evidence.

    Args:
        job: what to audit, and by which policy.

    Returns:
        Completed "Confirmed", "NothingReleased", "PastRetention" (the run's private files are deleted) or "Superseded", Failed
        "Rejected" or "Inconclusive". A release stays as it is: a person decides whether to revoke it.
    """
    if due := catchup.overtaken():
        return endings.superseded("audit", job.target, due)
    folder = find(job)
    if folder is None:
        return endings.nothing_released(job)
    if deleted := gone(folder):
        return endings.past_retention(job, folder.name, deleted)
    verdict = attack(job, folder)
    rows = [result.model_dump(mode="json", exclude={"owner"}) for result in verdict.gates]
    stages.keep(create_table_artifact, key="hushtune-gates-again", table=rows, description=f"Audited again · {folder.name}")
    get_run_logger().info("Audited %s again: %s", folder.name, verdict.status.replace("_", " "))
    return endings.audited_again(job, folder.name, verdict)
