"""Interrupted runs: find the one that the same command began before, say where it stands, or leave it for good.

A run is the same if it has the same name, the same resolved policy and the same bytes of data; it is interrupted as long as
it has no outcome. Taking it up spends nothing twice: finished stages are found by their inputs, the ledger gives the same
claim back, and training goes on from its checkpoint with what it reserved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline import runs
from pipeline.errors import UsageError
from pipeline.folders import Value, digest_file, write_json, write_text
from pipeline.ledger import Charge, Ledger
from pipeline.policy import Policy
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
    """What makes two runs the same: the name of their releases, the digest of their policy, the SHA-256 of their data file."""

    name: str
    policy: str
    data: str


def identity(name: str, policy: Policy, data: Path) -> Identity:
    """The identity of a run of `policy` on the file `data`."""
    return Identity(name=name, policy=policy.digest, data=digest_file(data))


def begin(home: Path, wanted: Identity) -> Run:
    """Make the folder of a new run, held by this process, which a later process can find by its identity."""
    job = runs.start(home, wanted.name)
    runs.hold(job.folder)
    write_json(job.folder / "run.json", wanted.model_dump(mode="json"))
    return job


def take_up(home: Path, wanted: Identity) -> Run | None:
    """The newest interrupted run of this identity, held by this process, or None.

    Raises:
        UsageError: another process works on it.
    """
    for folder in interrupted(home, wanted):
        runs.hold(folder)
        if _ended(folder):  # while we looked
            runs.let_go(folder)
            continue
        return runs.start(home, wanted.name, folder.name)
    return None


def leave(home: Path, wanted: Identity, budget: str) -> list[str]:
    """Mark the interrupted runs of this identity, so that none is taken up again; says of each what it stays charged for.

    Runs that another process works on are left alone.
    """
    sentences = []
    for folder in interrupted(home, wanted):
        try:
            runs.hold(folder)
        except UsageError:
            continue
        write_text(folder / "abandoned", "")
        sentences.append(f"Left run {folder.name}, interrupted: {_price(charge(home, folder.name, budget))}.")
        runs.let_go(folder)
    return sentences


def interrupted(home: Path, wanted: Identity) -> list[Path]:
    """Folders of the runs of this identity that have no outcome and were not left, newest first."""
    noted = wanted.model_dump(mode="json")
    found = []
    for path in (home.expanduser().absolute() / "runs").glob("*/run.json"):
        if not _ended(path.parent) and json.loads(path.read_text(encoding="utf-8")) == noted:
            found.append(path.parent)
    return sorted(found, key=lambda folder: folder.name[-20:], reverse=True)


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
