"""Approval by a person: keep what was audited, and publish exactly those bytes when somebody says yes in time.

    RUN/candidate/     the files of the release to be; their manifest says who submitted it and until when it can be approved

The ledger notes the manifest's digest when the candidate is kept, so that neither the bytes nor the dates can be exchanged
before somebody approves. Names are taken as they are given: whoever can run the command can say a name, so four eyes keep
out mistakes, and access to the home folder and its key keeps out everything else.
"""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from datetime import datetime, timedelta
from getpass import getuser
from pathlib import Path

from pipeline import _manifest
from pipeline import policy as policies
from pipeline._manifest import MANIFEST, Approval, Manifest
from pipeline._shelf import (
    ADAPTER,
    Adapter,
    Files,
    Release,
    check_name,
    earlier_version,
    expect,
    fill,
    now,
    put,
    seal,
    told,
)
from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import digest_file, digest_folder, private_folder
from pipeline.ledger import Ledger
from pipeline.policy import Policy

__all__ = ["approve", "approver", "hold"]


def submitter() -> str:
    """Who submits runs here: HUSHTUNE_USER, or the name of the account."""
    return os.environ.get("HUSHTUNE_USER", "").strip() or getuser()


def hold(run: Path, name: str, trained: Adapter, report_folder: Path, policy: Policy, card: str) -> Path:
    """Keep what `approve` will publish in RUN/candidate, for a run whose verdict is `awaiting_approval`.

    Arguments and errors are those of `release.publish`; `run` is HOME/runs/RUN. Returns the candidate's folder.
    """
    check_name(name)
    expect(run, "awaiting_approval")
    candidate, partial = run / "candidate", run / "candidate.partial"
    ledger = Ledger(run.parents[1])
    expires = ledger.now() + timedelta(days=policy.release.approval_days)
    with told(f"The candidate of run {run.name}"):
        shutil.rmtree(partial, ignore_errors=True)
        private_folder(partial)
        files = fill(partial, trained, report_folder, policy, card)
        manifest = Manifest(
            name=name,
            run=run.name,
            adapter=trained.adapter_digest,
            policy=policy.digest,
            submitter=submitter(),
            expires=expires.isoformat(timespec="seconds"),
            files=files,
        )
        seal(partial, manifest)
        held = {"candidate": digest_file(partial / MANIFEST), "submitter": manifest.submitter, "expires": manifest.expires}
        ledger.note(run.name, "hold", held)  # first: a candidate that can be seen can be approved
        shutil.rmtree(candidate, ignore_errors=True)
        os.rename(partial, candidate)
        _manifest.sync_folder(run)
    return candidate


def approve(run: Path, by: str, home: Path | None = None) -> Release:
    """Publish the candidate of a run that awaits approval: exactly the bytes that were audited.

    Args:
        run: the run's folder, HOME/runs/RUN.
        by: who approves; stands in the manifest and in the attestation.
        home: HUSHTUNE_HOME; the folder above `runs` by default.

    Returns:
        The new release, or the one that was made by an earlier approval of the same candidate.

    Raises:
        UsageError: `by` is empty, holds control characters, or is the submitter where the policy asks for four eyes.
        StageError: the run does not await approval, or no longer.
        IntegrityError: the candidate, or the adapter, was changed since the audit.
    """
    by = " ".join(by.split()) if by.isprintable() else ""
    if not by or len(by) > 200:
        raise UsageError("An approval needs the approver's name in at most 200 printable characters: give it by --by.")
    expect(run, "awaiting_approval")
    candidate = run / "candidate"
    if not candidate.is_dir():
        raise StageError(f"Run {run.name} has no candidate to approve: run it again, so that it ends by keeping one.")
    home = home or run.parents[1]
    held = _manifest.read(candidate)
    _manifest.check(candidate, held)
    _same_as_audited(run, held)
    _as_it_was_kept(home, run, candidate)
    if earlier_version(home / "releases" / held.name, held) is None:
        _in_time(run, held, Ledger(home).now())
        _by_another(candidate, held, by)

    def copied(folder: Path) -> Files:
        files = {name: _manifest.add_copy(folder, candidate / name) for name in held.files}
        if files != held.files:
            raise IntegrityError(f"The candidate of run {run.name} changed while it was approved: find out why, try again.")
        return files

    return put(home, held.model_copy(update={"approval": Approval(by=by, at=now())}), copied)


def approver(made: Release) -> str:
    """Who approved a release, by its manifest: another than who asks now, where it was published before."""
    approval = _manifest.read(made.folder).approval
    return approval.by if approval else ""


def _in_time(run: Path, held: Manifest, now: datetime) -> None:
    if now > datetime.fromisoformat(held.expires):
        raise StageError(
            f"Run {run.name} could be approved until {held.expires[:10]}: run it again, or raise release.approval_days first."
        )


def _by_another(candidate: Path, held: Manifest, by: str) -> None:
    rules = policies.load(candidate / "policy.json")
    if rules.release.four_eyes and _person(by) == _person(held.submitter):
        raise UsageError(
            f"{by} submitted run {held.run}, and policy {rules.name} asks for another pair of eyes: have somebody else approve "
            "it."
        )


def _person(name: str) -> str:
    """A name without what does not make another person: case, blanks, and forms of the same letters."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _as_it_was_kept(home: Path, run: Path, candidate: Path) -> None:
    """The candidate's manifest is one that the ledger noted when it was kept."""
    kept = {entry.detail["candidate"] for entry in Ledger(home).notes("hold", run.name)}
    if digest_file(candidate / MANIFEST) not in kept:
        raise IntegrityError(f"{candidate / MANIFEST} is not the one that was kept for approval: run again, and find out why.")


def _same_as_audited(run: Path, held: Manifest) -> None:
    """The candidate holds the adapter of the training stage, whose digest the audit checked."""
    trained, adapter = run / "trained" / "stage.json", run / "trained" / "adapter"
    try:
        audited = json.loads(trained.read_bytes())["value"]["adapter_digest"]
        same = {digest_file(adapter / name) == held.files[name].sha256 for name in ADAPTER}
        same |= {held.adapter == audited, digest_folder(adapter) == audited}
    except (OSError, ValueError, LookupError, TypeError):
        same = {False}
    if same != {True}:
        raise IntegrityError(f"The candidate of run {run.name} is not the adapter that was audited: run again.")
