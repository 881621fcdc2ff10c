"""Interrupted runs: find the one that the same command began before, say where it stands, or leave it for good.

A run is the same if it has the same name, the same resolved policy and the same bytes of data; it is interrupted as long as
it has no outcome. Of a drop folder, it is the same if the files that it began with are still there; those that have come since
wait for the next one. Taking it up spends nothing twice: finished stages are found by their inputs, the ledger gives the same
claim back, and training goes on from its checkpoint with what it reserved.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline import intake as intakes
from pipeline import runs
from pipeline.errors import InputError, UsageError
from pipeline.folders import Value, write_json, write_text
from pipeline.intake import Intake
from pipeline.ledger import Charge, Ledger
from pipeline.policy import Policy, load
from pipeline.runs import Run

_STAGES = (
    ("report", "its report is written"),
    ("evidence", "it is audited"),
    ("trained", "it is trained"),
    ("planted", "its canaries are planted and nothing is reserved"),
    ("scrubbed", "its data is scrubbed"),
    ("corpus", "its data is read"),
)


class Identity(Value):
    """What makes two runs the same: the name of their releases, the digest of their policy, that of their data."""

    name: str
    policy: str
    data: str


class Opened(Value):
    """A run to work on, held by this process; what it reads; and what its user should be told of others."""

    run: Run
    intake: Intake
    said: tuple[str, ...] = ()


def open_run(
    home: Path, name: str, policy: Policy, data: Path, *, new: bool = False, incremental: bool = False
) -> Opened | None:
    """The interrupted run of the same name, policy and data, or a new one.

    Args:
        home: folder of all state.
        name: what the release is called.
        policy: the resolved policy.
        data: a file, or a drop folder.
        new: leave interrupted runs for good and begin another one.
        incremental: of a folder, read only the files that are in no released run of this name.

    Returns:
        None where an incremental run finds nothing new: then nothing was made.

    Raises:
        InputError: the data cannot be read, or the folder holds no file.
        BusyError: another process works on the run.
    """
    runs.check_name(name)
    budget = policy.privacy.lifetime.budget
    there = intakes.of(data)
    if incremental and not there.is_folder:
        raise UsageError(f"{there.path} is a file, and only a folder can be read incrementally: give a folder.")
    there = there.model_copy(update={"incremental": incremental})
    said: list[str] = []
    if new:
        said = leave(home, identity(name, policy, there), budget, there)
    elif (job := take_up(home, identity(name, policy, there), there)) is not None:
        where = stands(job, budget)
        words = f"Taking up run {job.id}, interrupted: {where} (--new starts another one instead)."
        began = intakes.kept(job.folder) if there.is_folder else None
        if began is None:
            intakes.keep(job.folder, there)
        return Opened(run=job, intake=began or there, said=(words,))
    wanted = there.without(intakes.released(home, name)) if incremental else there
    if not wanted.files and incremental:
        return None
    if not wanted.files:
        raise InputError(f"The folder {there.path} holds no data file: put files there, or give another folder.")
    return Opened(run=begin(home, identity(name, policy, wanted), wanted), intake=wanted, said=tuple(said))


def identity(name: str, policy: Policy, data: Path | Intake) -> Identity:
    """The identity of a run of `policy` on `data`."""
    intake = data if isinstance(data, Intake) else intakes.of(data)
    return Identity(name=name, policy=policy.digest, data=intake.digest)


def begin(home: Path, wanted: Identity, intake: Intake | None = None) -> Run:
    """Make the folder of a new run, held by this process, which a later process can find by its identity."""
    job = runs.start(home, wanted.name)
    runs.hold(job.folder)
    if intake is not None:
        intakes.keep(job.folder, intake)
    write_json(job.folder / "run.json", wanted.model_dump(mode="json"))
    return job


def take_up(home: Path, wanted: Identity, there: Intake | None = None) -> Run | None:
    """The newest interrupted run of this identity, held by this process, or None.

    Raises:
        BusyError: another process works on it.
    """
    for folder in interrupted(home, wanted, there):
        runs.hold(folder)
        if _ended(folder):  # while we looked
            runs.let_go(folder)
            continue
        return runs.start(home, wanted.name, folder.name)
    return None


def leave(home: Path, wanted: Identity, budget: str, there: Intake | None = None) -> list[str]:
    """Mark the interrupted runs of this identity, so that none is taken up again; says of each what it stays charged for.

    Runs that another process works on are left alone.
    """
    sentences = []
    for folder in interrupted(home, wanted, there):
        try:
            runs.hold(folder)
        except UsageError:
            continue
        write_text(folder / "abandoned", "")
        sentences.append(f"Left run {folder.name}, interrupted: {_price(charge(home, folder.name, budget))}.")
        runs.let_go(folder)
    return sentences


def interrupted(home: Path, wanted: Identity, there: Intake | None = None) -> list[Path]:
    """Folders of the runs of this identity that have no outcome and were not left, newest first.

    Of a drop folder that holds `there`, also those that began when it held fewer files.
    """
    found = []
    for path in (home.expanduser().absolute() / "runs").glob("*/run.json"):
        if not _ended(path.parent) and _is_same(path, wanted, there):
            found.append(path.parent)
    return sorted(found, key=lambda folder: folder.name[-20:], reverse=True)


def _is_same(path: Path, wanted: Identity, there: Intake | None) -> bool:
    noted = Identity.model_validate_json(path.read_bytes())
    if there is None or not there.is_folder:
        return noted == wanted
    began = intakes.kept(path.parent)
    if began is None or (noted.name, noted.policy) != (wanted.name, wanted.policy):
        return False
    same = (began.path, began.is_folder, began.incremental) == (there.path, there.is_folder, there.incremental)
    return same and set(began.files) <= set(there.files)


def _ended(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("outcome.json", "abandoned"))


def stands(run: Run, budget: str) -> str:
    """Where an interrupted run stands, in words."""
    reached = next(((name, words) for name, words in _STAGES if _finished(run.folder / name)), ("", "nothing is done yet"))
    claimed = charge(run.home, run.id, budget)
    if claimed is None or reached[0] in ("report", "evidence", "trained"):
        return reached[1]
    return f"{claimed.taken} of its {claimed.claim.mechanism.steps} steps are charged to budget {budget}"


def charge(home: Path, run: str, budget: str) -> Charge | None:
    """What a run has reserved in the ledger, which knows it from before the run's folder does; None for nothing."""
    if not (home / "ledger.db").exists() and not os.environ.get("HUSHTUNE_LEDGER_URL"):
        return None
    mine = [charge for charge in Ledger(home).charges(budget) if charge.claim.run == run]
    return mine[-1] if mine else None


def _price(claimed: Charge | None) -> str:
    if claimed is None:
        return "it had reserved nothing"
    where = f"budget {claimed.claim.budget} ({claimed.taken} were taken)"
    return f"all {claimed.charged} steps that it reserved stay charged to {where}"


def _finished(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("stage.json", "report.html"))


def has_reserved(job: Run) -> bool:
    """Whether the run has taken anything out of a budget; the ledger knows it before the run's folder does."""
    if (job.folder / "claim.json").exists():
        return True
    policy = job.folder / "policy.json"
    return policy.exists() and charge(job.home, job.id, load(policy).privacy.lifetime.budget) is not None


def forget(job: Run) -> bool:
    """Remove the folder of a run that has reserved nothing; says whether it did."""
    if has_reserved(job):
        return False
    shutil.rmtree(job.folder, ignore_errors=True)
    return True
