"""Retention: delete a run's private files when its policy says so, with proof of deletion in the ledger.

What is kept for how long, counted from when it was last written:

    retention.raw_days          corpus/ and probes.jsonl        text as it was read
    retention.scrubbed_days     scrubbed/ and planted/          text as it was trained on
    retention.checkpoint_days   *.partial/                      unfinished stages, a training's checkpoint among them
    retention.review_days       review*, audits/*/*.html, traceback.txt, trained/losses.jsonl
    release.quarantine_days     trained/adapter/, candidate/    weights of a run that was not released, or not approved in time

The proof is two notes: what will be deleted, with the digest of every file, before the first is touched, and that it is gone.
A deletion that was interrupted is finished by the next one. What is deleted is unlinked, not overwritten: on a disk that keeps
old blocks, encrypt the disk. The values that stages handed on, the report, the release and the ledger stay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline import policy as policies
from pipeline import runs
from pipeline._manifest import sync_folder
from pipeline.errors import StageError
from pipeline.folders import Value, digest, digest_file
from pipeline.gates import Verdict
from pipeline.ledger import Ledger
from pipeline.policy import Policy

_KINDS: Mapping[str, tuple[str, ...]] = {
    "raw": ("corpus", "probes.jsonl"),
    "scrubbed": ("scrubbed", "planted"),
    "checkpoint": ("*.partial",),
    "review": ("review*", "audits/*/*.html", "traceback.txt", "trained/losses.jsonl"),
}
_KEPT = "stage.json"  # a stage's value holds paths, digests and counts: the report can be written again without the text
_AUDITED = ("corpus", "scrubbed", "planted", "trained/adapter")
_WEIGHTS = ("trained/adapter", "candidate")


class Deletion(Value):
    """One thing that is due or was deleted: `path` relative to the run's folder; `digest` is over its files' digests."""

    run: str
    path: str
    why: str
    files: int
    bytes: int
    digest: str


def due(home: Path, ledger: Ledger, now: datetime | None = None) -> list[Deletion]:
    """What is past its time in all runs of a home, by run and path; deletes nothing.

    A run that was released keeps its adapter, whose release can then be audited again. One that another process works on keeps
    everything until that process ends: without its text it could only fail, after it has spent.

    Raises:
        PolicyError: the policy of a run cannot be read.
    """
    now = now or datetime.now(UTC)
    released = {entry.run for entry in ledger.notes("release")}
    found: list[Deletion] = []
    for run in sorted((home / "runs").glob("*")):
        if (run / "policy.json").is_file() and not _is_at_work(run):
            found += _due(run, policies.load(run / "policy.json"), run.name in released, now)
    return found


def sweep(home: Path, ledger: Ledger, now: datetime | None = None) -> list[Deletion]:
    """Finish interrupted deletions, then delete everything that is due; returns what was deleted.

    Raises:
        PolicyError: the policy of a run cannot be read.
        StageError: a file cannot be deleted; what was deleted until then is noted.
    """
    done = {entry.detail["digest"] for entry in ledger.notes("deleted")}
    pending = [
        Deletion(run=entry.run, **{key: entry.detail[key] for key in Deletion.model_fields if key != "run"})
        for entry in ledger.notes("delete")
        if entry.detail["digest"] not in done
        and (home / "runs" / entry.run).is_dir()  # of a run elsewhere that the same ledger serves, nothing can be said here
    ]
    for one in pending:
        _remove(home / "runs" / one.run, one, ledger)
    return [*pending, *_delete(home, due(home, ledger, now), ledger)]


def missing(run: Path, ledger: Ledger) -> tuple[str, ...]:
    """Which of the folders that an audit reads are deleted, as the ledger notes."""
    noted = {entry.detail["path"] for entry in ledger.notes("delete", run.name)}
    return tuple(path for path in _AUDITED if any(one == path or one.startswith(f"{path}/") for one in noted))


def _is_at_work(run: Path) -> bool:
    """Whether another process works on a run that has no outcome yet."""
    return not (run / "outcome.json").exists() and runs.is_held(run)


def discard(run: Path, policy: Policy, ledger: Ledger) -> list[Deletion]:
    """Delete the weights of a run that is not released; none of them while the policy keeps them in quarantine."""
    if policy.release.quarantine_days:
        return []
    return _delete(run.parents[1], _weights(run, "the run was not released"), ledger)


def _due(run: Path, policy: Policy, released: bool, now: datetime) -> Iterable[Deletion]:
    days = {kind: getattr(policy.retention, f"{kind}_days") for kind in _KINDS}
    for kind, patterns in _KINDS.items():
        for path in (path for pattern in patterns for path in sorted(run.glob(pattern))):
            if days[kind] is not None and _written(path) <= now - timedelta(days=days[kind]):
                yield from _described(run, path, f"retention.{kind}_days is {days[kind]}")
    verdict = run / "verdict.json"
    if verdict.is_file():
        yield from _weights_due(run, policy, Verdict.model_validate_json(verdict.read_bytes()).status, released, now)


def _weights_due(run: Path, policy: Policy, status: str, released: bool, now: datetime) -> Iterable[Deletion]:
    kept = timedelta(days=policy.release.quarantine_days)
    if status in ("rejected", "inconclusive") and _written(run / "verdict.json") + kept <= now:
        yield from _weights(run, f"the run was not released and release.quarantine_days is {kept.days}")
    manifest = run / "candidate" / "manifest.json"
    if status == "awaiting_approval" and manifest.is_file():
        expires = datetime.fromisoformat(json.loads(manifest.read_bytes())["expires"])
        if released:
            yield from _described(run, run / "candidate", "the run was approved and its release is made")
        elif expires + kept <= now:
            yield from _weights(run, f"nobody approved the run until {expires:%Y-%m-%d}")


def _weights(run: Path, why: str) -> list[Deletion]:
    return [one for name in _WEIGHTS for one in _described(run, run / name, why)]


def _described(run: Path, path: Path, why: str) -> list[Deletion]:
    files = _files(path)
    if not files:
        return []
    found = {file.relative_to(run).as_posix(): digest_file(file) for file in files}
    size = sum(file.stat().st_size for file in files)
    name = path.relative_to(run).as_posix()
    # The run stands in what is digested: the same bytes in two runs are two deletions.
    return [Deletion(run=run.name, path=name, why=why, files=len(files), bytes=size, digest=digest([run.name, found]))]


def _files(path: Path) -> list[Path]:
    """The files to delete: all of them but a stage's value, in the path's order."""
    if path.is_symlink() or path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file != path / _KEPT)


def _delete(home: Path, found: Iterable[Deletion], ledger: Ledger) -> list[Deletion]:
    done = []
    for one in found:
        ledger.note(one.run, "delete", one.model_dump(mode="json", exclude={"run"}))
        _remove(home / "runs" / one.run, one, ledger)
        done.append(one)
    return done


def _remove(run: Path, one: Deletion, ledger: Ledger) -> None:
    path = run / one.path
    try:
        for file in _files(path):
            file.unlink()
        if path.is_dir():
            for folder in sorted((folder for folder in path.rglob("*") if folder.is_dir()), reverse=True):
                shutil.rmtree(folder)
            if not any(path.iterdir()):
                path.rmdir()
        if path.parent.is_dir():
            sync_folder(path.parent)
    except OSError as error:
        raise StageError(f"{path} could not be deleted ({error.strerror}): give the rights to, and try again.") from None
    ledger.note(one.run, "deleted", {"path": one.path, "digest": one.digest})


def _written(path: Path) -> datetime:
    """When something was last written: the newest of its files."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return datetime.fromtimestamp(max(file.lstat().st_mtime for file in files), UTC)
