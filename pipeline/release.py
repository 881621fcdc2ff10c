"""Releases: whole or not there, immutable, and checkable to the last byte.

    HOME/releases/NAME/1/         adapter, report, policy, model card (README.md) and manifest.json
    HOME/releases/NAME/latest     a symbolic link to the newest version
    HOME/releases/.versions/      the highest version that each name ever had, so that none is used twice

A release is put together in a hidden folder beside its place, every file synced, its manifest written last, verified there
and moved by one rename. A crash at any point leaves no release or a whole one; the next publication sweeps the hidden
folder. A run that awaits approval keeps the same files in RUN/candidate, and `approve` publishes exactly those.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from pipeline import _manifest
from pipeline._manifest import MANIFEST, Approval, File, Manifest
from pipeline.errors import HushtuneError, IntegrityError, StageError, UsageError
from pipeline.folders import Value, digest, digest_file, digest_folder, private_folder, write_text
from pipeline.gates import Status, Verdict
from pipeline.policy import Policy
from pipeline.runs import NAME

__all__ = ["Approval", "File", "Manifest", "Release", "approve", "hold", "publish", "releases", "verify"]

_ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
_REPORT = ("report.html", "report.json")
_VERSION = re.compile(r"[1-9][0-9]*")
_STAGING = ".staging-"

Files = dict[str, File]


class Adapter(Protocol):
    """What a release takes from training: the adapter's folder, and the `folders.digest_folder` of what was audited."""

    @property
    def adapter(self) -> Path: ...

    @property
    def adapter_digest(self) -> str: ...


class Release(Value):
    """One published version; `manifest_digest` is the SHA-256 of its manifest.json, empty where that is missing."""

    name: str
    version: str
    folder: Path
    manifest_digest: str


def publish(run: Path, name: str, trained: Adapter, report_folder: Path, policy: Policy, home: Path, card: str) -> Release:
    """Publish a run whose verdict is `released`, as the next version of `name`; a run is published once.

    Args:
        run: the run's folder, which holds verdict.json.
        name: the release's name.
        trained: the audited adapter.
        report_folder: holds report.html and report.json.
        policy: the run's resolved policy.
        home: HUSHTUNE_HOME.
        card: text of the model card, README.md.

    Returns:
        The new release, or the one that was made of the same run and bytes before.

    Raises:
        UsageError: the name holds other characters than letters, digits, dots, dashes and underscores.
        StageError: the run was not released by its gates, a file is missing, or the release cannot be written.
        IntegrityError: the adapter's bytes are not those that were audited.
    """
    _check_name(name)
    _expect(run, "released")
    if policy.release.approval == "required":
        raise IntegrityError(
            f"Policy {policy.name} asks for approval and run {run.name} has none: run again under this policy."
        )
    manifest = Manifest(name=name, run=run.name, adapter=trained.adapter_digest, policy=policy.digest, files={})
    return _release(home, manifest, lambda folder: _fill(folder, trained, report_folder, policy, card))


def hold(run: Path, name: str, trained: Adapter, report_folder: Path, policy: Policy, card: str) -> Path:
    """Keep what `approve` will publish in RUN/candidate, for a run whose verdict is `awaiting_approval`.

    Arguments and errors are those of `publish`. Returns the candidate's folder.
    """
    _check_name(name)
    _expect(run, "awaiting_approval")
    candidate, partial = run / "candidate", run / "candidate.partial"
    with _told(f"The candidate of run {run.name}"):
        shutil.rmtree(partial, ignore_errors=True)
        private_folder(partial)
        files = _fill(partial, trained, report_folder, policy, card)
        manifest = Manifest(name=name, run=run.name, adapter=trained.adapter_digest, policy=policy.digest, files=files)
        _seal(partial, manifest)
        shutil.rmtree(candidate, ignore_errors=True)
        os.rename(partial, candidate)
        _manifest.sync_folder(run)
    return candidate


def approve(run: Path, by: str, home: Path | None = None) -> Release:
    """Publish the candidate of a run that awaits approval: exactly the bytes that were audited.

    Args:
        run: the run's folder, HOME/runs/RUN.
        by: who approves; stands in the manifest.
        home: HUSHTUNE_HOME; the folder above `runs` by default.

    Returns:
        The new release, or the one that was made by an earlier approval of the same candidate.

    Raises:
        UsageError: `by` is empty or holds control characters.
        StageError: the run does not await approval.
        IntegrityError: the candidate, or the adapter, was changed since the audit.
    """
    by = by.strip()
    if not by or len(by) > 200 or not by.isprintable():
        raise UsageError("An approval needs the approver's name in at most 200 printable characters: give it by --by.")
    _expect(run, "awaiting_approval")
    candidate = run / "candidate"
    if not candidate.is_dir():
        raise StageError(f"Run {run.name} has no candidate to approve: run it again, so that it ends by keeping one.")
    held = _manifest.read(candidate)
    _manifest.check(candidate, held)
    _same_as_audited(run, held)

    def fill(folder: Path) -> Files:
        files = {name: _manifest.add_copy(folder, candidate / name) for name in held.files}
        if files != held.files:
            raise IntegrityError(f"The candidate of run {run.name} changed while it was approved: find out why, try again.")
        return files

    approval = Approval(by=by, at=_now())
    return _release(home or run.absolute().parents[1], held.model_copy(update={"approval": approval}), fill)


def verify(folder: Path) -> Release:
    """Check every byte of a release against its manifest; `folder` may be `latest`.

    Raises:
        UsageError: there is no such folder.
        IntegrityError: a file differs, is missing or does not belong there, or the release was moved to another name or
            version; the sentence names it.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no release in {folder}: see `hushtune releases` for those there are.")
    folder = folder.resolve()
    manifest = _manifest.read(folder)
    _manifest.check(folder, manifest)
    shelved = folder.parents[1].name == "releases"
    if shelved and (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise IntegrityError(
            f"{folder / MANIFEST} is that of {manifest.name} version {manifest.version or 'none'}, not of the release it lies "
            "in: do not use it; restore the release."
        )
    return _as_release(folder, manifest.name, manifest.version)


def releases(home: Path) -> list[Release]:
    """All published versions, by name and version; nothing is verified."""
    shelves = sorted(path for path in (home / "releases").glob("*") if re.fullmatch(NAME, path.name))
    return [_as_release(folder, shelf.name, folder.name) for shelf in shelves for folder in _versions(shelf)]


def _release(home: Path, manifest: Manifest, fill: Callable[[Path], Files]) -> Release:
    """Stage, verify, and rename into place as the next version, one publisher of a name at a time."""
    shelf = home / "releases" / manifest.name
    with _told(f"Release {manifest.name}"), _turn(home, manifest.name) as mark:
        shelf.mkdir(parents=True, exist_ok=True)
        _sweep(shelf)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=shelf))
        try:
            files = fill(staging)
            earlier = _earlier(shelf, manifest.run, files)
            version = earlier or str(1 + max([_highest(mark), *(int(folder.name) for folder in _versions(shelf))]))
            if earlier is None:
                _seal(staging, manifest.model_copy(update={"version": version, "created": _now(), "files": files}))
                os.chmod(staging, 0o755)
                write_text(mark, version)  # before the rename: a version that was ever visible is never used again
                _manifest.sync_folder(mark.parent)
                os.rename(staging, shelf / version)
                _manifest.sync_folder(shelf)
                _manifest.sync_folder(shelf.parent)
        except (HushtuneError, OSError):
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _sweep(shelf)
        _point(shelf, _versions(shelf)[-1].name)
    return _as_release(shelf / version, manifest.name, version)


def _fill(folder: Path, trained: Adapter, report_folder: Path, policy: Policy, card: str) -> Files:
    """Write the files of a release, without its manifest."""
    files = {name: _copy(folder, trained.adapter / name) for name in _ADAPTER}
    sources = {path.relative_to(trained.adapter).as_posix(): path for path in trained.adapter.rglob("*") if path.is_file()}
    # The digest is taken over the bytes that were copied, so that nothing can be exchanged between check and copy.
    copied = {name: files[name].sha256 if name in files else digest_file(path) for name, path in sources.items()}
    if digest(copied) != trained.adapter_digest:
        raise IntegrityError(f"The adapter in {trained.adapter} is not the one that was audited: run again.")
    files |= {name: _copy(folder, report_folder / name) for name in _REPORT}
    spelled = json.dumps(policy.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    files["policy.json"] = _manifest.add_text(folder, "policy.json", spelled + "\n")
    files["README.md"] = _manifest.add_text(folder, "README.md", card)
    return files


def _copy(folder: Path, source: Path) -> File:
    if not source.is_file():
        raise StageError(f"A release needs {source.name} and {source.parent} has none: run the stage that writes it again.")
    return _manifest.add_copy(folder, source)


def _seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, sync the folder, and read everything back. Signatures are made of the manifest, between the two."""
    _manifest.add_text(folder, MANIFEST, manifest.text())
    _manifest.sync_folder(folder)
    _manifest.check(folder, _manifest.read(folder))


def _expect(run: Path, status: Status) -> None:
    """The run's verdict is `status`, and its gates bear it out."""
    path = run / "verdict.json"
    if not path.is_file():
        raise StageError(f"Run {run.name} has no verdict yet: let it finish before it is released.")
    try:
        verdict = Verdict.model_validate_json(path.read_bytes())
    except ValidationError:
        raise IntegrityError(f"{path} is not a verdict: run again.") from None
    passed = bool(verdict.gates) and all(gate.passed for gate in verdict.gates)
    if passed == (verdict.status == "rejected"):
        raise IntegrityError(f"{path} contradicts its own gates: run again, and find out who wrote to it.")
    if verdict.status == status:
        return
    raise StageError(
        {
            "rejected": f"Run {run.name} was rejected by its gates and is not released: read its report for what to try.",
            "awaiting_approval": f"Run {run.name} awaits approval: `hushtune approve {run.name} --by NAME` releases it.",
            "released": f"Run {run.name} was released by its gates and needs no approval: see `hushtune releases`.",
        }[verdict.status]
    )


def _same_as_audited(run: Path, held: Manifest) -> None:
    """The candidate holds the adapter of the training stage, whose digest the audit checked."""
    trained, adapter = run / "trained" / "stage.json", run / "trained" / "adapter"
    try:
        audited = json.loads(trained.read_bytes())["value"]["adapter_digest"]
        same = {digest_file(adapter / name) == held.files[name].sha256 for name in _ADAPTER}
        same |= {held.adapter == audited, digest_folder(adapter) == audited}
    except (OSError, ValueError, LookupError, TypeError):
        same = {False}
    if same != {True}:
        raise IntegrityError(f"The candidate of run {run.name} is not the adapter that was audited: run again.")


def _versions(shelf: Path) -> list[Path]:
    """Folders of the published versions, oldest first."""
    found = [path for path in shelf.glob("*") if _VERSION.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _earlier(shelf: Path, run: str, files: Files) -> str | None:
    """The version that the same run published from the same bytes, if there is one: a crash came after its rename."""
    for folder in reversed(_versions(shelf)):
        try:
            manifest = _manifest.read(folder)
        except IntegrityError:
            continue  # a damaged release keeps its version; it is for `verify` to say so
        if (manifest.run, manifest.files) == (run, files):
            return folder.name
    return None


def _point(shelf: Path, version: str) -> None:
    """Swap `latest` in one step."""
    link = shelf / f"{_STAGING}latest"
    os.symlink(version, link)
    os.replace(link, shelf / "latest")
    _manifest.sync_folder(shelf)


def _sweep(shelf: Path) -> None:
    """Remove what a crash left behind; the caller holds the name's lock."""
    for path in shelf.glob(f"{_STAGING}*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)


@contextmanager
def _turn(home: Path, name: str) -> Iterator[Path]:
    """Hold the lock of a name, which a dying process drops; yields the file of its highest version."""
    marks = home / "releases" / ".versions"
    marks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(marks / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield marks / f"{name}.highest"
    finally:
        os.close(descriptor)


def _highest(mark: Path) -> int:
    text = mark.read_text() if mark.exists() else "0"
    if not text.isdecimal():
        raise IntegrityError(f"{mark} is not a version number: write the highest version that was ever released into it.")
    return int(text)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{what} could not be written ({error.strerror}): make room or rights in the home folder and try again."
        ) from None


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"{name!r} cannot name a release: use letters, digits, dots, dashes and underscores, at most 64, and begin with a "
            "letter or a digit."
        )


def _as_release(folder: Path, name: str, version: str) -> Release:
    path = folder / MANIFEST
    sealed = digest_file(path) if path.is_file() else ""
    return Release(name=name, version=version, folder=folder, manifest_digest=sealed)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
