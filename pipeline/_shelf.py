"""The shelf that releases stand on: stage beside the target, sign, verify, and rename into place.

HOME/releases/NAME/1, NAME/2, …   versions, immutable
HOME/releases/NAME/latest         a symbolic link to the newest
HOME/releases/.versions/          the highest version that each name ever had, so that none is used twice
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

from pipeline import _attestation, _manifest, signing, storage
from pipeline._attestation import ATTESTATION, SIGNATURE, SIGNATURES
from pipeline._manifest import MANIFEST, File, Manifest
from pipeline.errors import HushtuneError, IntegrityError, StageError, UsageError
from pipeline.folders import Value, digest, digest_file, write_text
from pipeline.gates import Status, Verdict
from pipeline.ledger import Head, Ledger
from pipeline.policy import Policy
from pipeline.runs import NAME

ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
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


def put(home: Path, manifest: Manifest, fill: Callable[[Path], Files]) -> Release:
    """Stage, verify, and rename into place as the next version, one publisher of a name at a time; copy it to a store."""
    shelf = home / "releases" / manifest.name
    with told(f"Release {manifest.name}"), _turn(home, manifest.name) as mark:
        key, ledger = signing.signing_key(home), Ledger(home)
        shelf.mkdir(parents=True, exist_ok=True)
        _sweep(shelf)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=shelf))
        try:
            files = fill(staging)
            earlier = earlier_version(shelf, manifest)
            if earlier is None:
                _first(ledger, manifest.run)
            version = earlier or str(1 + max([_highest(mark), *(int(folder.name) for folder in versions(shelf))]))
            if earlier is None:
                whole = manifest.model_copy(update={"version": version, "created": now(), "files": files})
                seal(staging, whole)
                _sign(staging, whole, ledger.head(), key)
                check(staging, whole, signing.trusted_keys(home))
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
        _point(shelf, versions(shelf)[-1].name)
        made = as_release(shelf / version, manifest.name, version)
        whole = _manifest.read(made.folder)
        note_release(ledger, made, whole)
        storage.publish(home, made.folder, whole)
    return made


def note_release(ledger: Ledger, made: Release, whole: Manifest) -> None:
    """Note a release once, approved by whom its own manifest names: who asks after a crash may be another."""
    if any(entry.detail["manifest"] == made.manifest_digest for entry in ledger.notes("release", whole.run)):
        return
    by = whole.approval.by if whole.approval else None
    content = {"name": made.name, "version": made.version, "manifest": made.manifest_digest, "approved_by": by}
    ledger.note(whole.run, "release", content)


def _first(ledger: Ledger, run: str) -> None:
    """Refuse to publish again what was taken away: under another version it would no longer be revoked."""
    for entry in ledger.notes("release", run):
        name, version = entry.detail["name"], entry.detail["version"]
        raise StageError(
            f"Run {run} was released as {name} version {version}, which is gone or was changed: restore it, or start a new run."
        )


def fill(folder: Path, trained: Adapter, report_folder: Path, policy: Policy, card: str) -> Files:
    """Write the files of a release, without its manifest."""
    files = {name: _copy(folder, trained.adapter / name) for name in ADAPTER}
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


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, sync the folder, and read everything back."""
    _manifest.add_text(folder, MANIFEST, manifest.text())
    _manifest.sync_folder(folder)
    _manifest.check(folder, _manifest.read(folder))


def _sign(folder: Path, manifest: Manifest, head: Head, key: Path) -> None:
    """Sign all files by model-signing, and attest them, the signature among them."""
    signing.sign_folder(folder, SIGNATURE, [ATTESTATION], key)
    _manifest.sync_file(folder / SIGNATURE)
    report = json.loads((folder / "report.json").read_bytes())
    _manifest.add_text(folder, ATTESTATION, _attestation.attest(folder, manifest, report, head, key))
    _manifest.sync_folder(folder)


def check(folder: Path, manifest: Manifest, keys: list[Path]) -> None:
    """Check every file of a folder, and both signatures."""
    _manifest.check(folder, manifest, SIGNATURES)
    _attestation.check(folder, manifest, keys)
    signing.check_folder(folder, SIGNATURE, [ATTESTATION], keys)


def expect(run: Path, status: Status) -> None:
    """The run's verdict is `status`, and its gates bear it out."""
    path = run / "verdict.json"
    if not path.is_file():
        raise StageError(f"Run {run.name} has no verdict yet: let it finish before it is released.")
    try:
        verdict = Verdict.model_validate_json(path.read_bytes())
    except ValidationError:
        raise IntegrityError(f"{path} is not a verdict: run again.") from None
    passes = bool(verdict.gates) and not any(gate.stops for gate in verdict.gates)
    if passes == (verdict.status in ("rejected", "inconclusive")):
        raise IntegrityError(f"{path} contradicts its own gates: run again, and find out who wrote to it.")
    if verdict.status == status:
        return
    raise StageError(
        {
            "rejected": f"Run {run.name} was rejected by its gates and is not released: read its report for what to try.",
            "inconclusive": f"Run {run.name} is inconclusive and is not released: read its report for what to try.",
            "awaiting_approval": f"Run {run.name} awaits approval: `hushtune approve {run.name} --by NAME` releases it.",
            "released": f"Run {run.name} was released by its gates and needs no approval: see `hushtune releases`.",
        }[verdict.status]
    )


def versions(shelf: Path) -> list[Path]:
    """Folders of the published versions, oldest first."""
    found = [path for path in shelf.glob("*") if _VERSION.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def earlier_version(shelf: Path, manifest: Manifest) -> str | None:
    """The version that the same run published, if there is one: a crash came after its rename, or somebody asks again.

    A run is released once, with the report that it had then; the same report written again has other bytes.

    Raises:
        IntegrityError: the run's release holds another adapter, or stands under another policy.
    """
    for folder in reversed(versions(shelf)):
        try:
            found = _manifest.read(folder)
        except IntegrityError:
            continue  # a damaged release keeps its version; it is for `verify` to say so
        if found.run != manifest.run:
            continue
        if (found.adapter, found.policy) != (manifest.adapter, manifest.policy):
            raise IntegrityError(
                f"Run {manifest.run} was released as {folder} with another adapter or policy: start a new run."
            )
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
def told(what: str) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{what} could not be written ({error.strerror}): make room or rights in the home folder and try again."
        ) from None


def check_name(name: str) -> None:
    """Refuse a name that no release can have (UsageError)."""
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"{name!r} cannot name a release: use letters, digits, dots, dashes and underscores, at most 64, and begin with a "
            "letter or a digit."
        )


def as_release(folder: Path, name: str, version: str) -> Release:
    path = folder / MANIFEST
    sealed = digest_file(path) if path.is_file() else ""
    return Release(name=name, version=version, folder=folder, manifest_digest=sealed)


def now() -> str:
    """The time, as manifests spell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
