"""Revocations: a release that was withdrawn stays where it is and no longer verifies.

    HOME/releases/.revoked.jsonl     one signed DSSE envelope a line, only ever added to; each names its predecessor

The ledger notes each one too, so that a line that is taken away is missed. The file can be handed to whoever verifies a copy
of a release elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import signing
from pipeline._manifest import sync_folder
from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import Value, canonical
from pipeline.ledger import Ledger

KIND = "application/vnd.hushtune.revocation+json"
LIST = ".revoked.jsonl"


class Revocation(Value):
    """One withdrawn version: `manifest` is the SHA-256 of its manifest.json, `previous` that of the line before."""

    name: str
    version: str
    manifest: str
    why: str
    at: str
    previous: str


def revoke(home: Path, name: str, version: str, manifest: str, why: str) -> Revocation:
    """Withdraw a version: sign it away, append that to the list and to the ledger. Withdrawing again changes nothing.

    Raises:
        UsageError: the reason is missing or too long.
        IntegrityError: the list was changed.
    """
    why = " ".join(why.split())
    if not (4 <= len(why) <= 500 and why.isprintable()):
        raise UsageError("A revocation needs a reason of 4 to 500 characters: give it by --why.")
    path = home / "releases" / LIST
    with _alone(path):
        key, ledger = signing.signing_key(home), Ledger(home)
        found = read(path, signing.trusted_keys(home))
        made = next((one for one in found if one.manifest == manifest), None)
        if made is None:
            made = Revocation(
                name=name,
                version=version,
                manifest=manifest,
                why=why,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                previous=_last(path),
            )
            _append(path, canonical(json.loads(signing.seal(made.model_dump(mode="json"), KIND, key))) + "\n")
        if not any(entry.detail["manifest"] == manifest for entry in ledger.notes("revocation")):
            ledger.note("", "revocation", made.model_dump(mode="json"))
    return made


def read(path: Path, keys: Sequence[Path]) -> list[Revocation]:
    """The revocations of a list, the oldest first; none where there is no list.

    Raises:
        IntegrityError: a line was changed, removed or added by somebody who is not trusted here.
    """
    found: list[Revocation] = []
    previous = ""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ():
        try:
            spelled = json.dumps(json.loads(line), indent=2, sort_keys=True) + "\n"
        except ValueError:
            spelled = ""
        one = Revocation.model_validate(signing.unseal(spelled, KIND, keys, path))
        if one.previous != previous or canonical(json.loads(line)) + "\n" != line:
            raise IntegrityError(f"A line of {path} is missing or was changed: restore the list.")
        previous = hashlib.sha256(line.encode()).hexdigest()
        found.append(one)
    return found


def check(manifest: str, home: Path | None, path: Path | None, keys: Sequence[Path]) -> None:
    """Refuse a release that was withdrawn.

    Args:
        manifest: SHA-256 of its manifest.json.
        home: where the release lies, whose list and ledger are asked; None for a copy elsewhere.
        path: a list to ask instead.
        keys: public keys.

    Raises:
        IntegrityError: the release was revoked, or the list was changed.
    """
    path = path or (home / "releases" / LIST if home is not None else None)
    known: list[dict[str, Any]] = []
    if path is not None:
        known += [one.model_dump() for one in read(path, keys)]
    if home is not None and ((home / "ledger.db").exists() or os.environ.get("HUSHTUNE_LEDGER_URL")):
        known += [entry.detail for entry in Ledger(home).notes("revocation")]
    for one in known:
        if one["manifest"] == manifest:
            raise IntegrityError(f"{one['name']} {one['version']} was revoked on {one['at'][:10]}: {one['why']} Do not use it.")


def _last(path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def _append(path: Path, line: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line.encode())  # one write: a crash leaves the line or a piece that `_mend` cuts off
            if written < len(line.encode()):  # the disk became full on the way
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise StageError(f"{path} could not be written ({error.strerror}): make room or rights and try again.") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f"{LIST}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _mend(path)
        yield
    finally:
        os.close(descriptor)


def _mend(path: Path) -> None:
    """Cut off a line that a crash left half written: it has no end, so nobody has ever acted on it."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
