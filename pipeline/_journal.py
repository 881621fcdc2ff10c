"""The home's own record of what its runs have reserved: HOME/reservations.jsonl, beside the ledger and only ever added to.

A ledger that was lost, set back or exchanged shows against it, whatever became of the runs' folders, and `budget rebuild`
charges from it what the ledger no longer holds. A line is on disk before the first noisy step; one that a crash left half
written is of a run that has taken none.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, select

from pipeline import _chain
from pipeline._account import Claim
from pipeline._chain import Head
from pipeline._database import entries
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import Value, canonical, sync

JOURNAL = "reservations.jsonl"


class Cap(Value):
    """The lifetime budget that a run registered."""

    epsilon: float
    delta: float


class Reserved(Value):
    """One reservation: what it may take, whom it protects, under which cap and policy; `head` is the chain's end with it."""

    claim: Claim
    unit: str
    cap: Cap
    policy: str
    head: Head | None = None


def of(connection: Connection, claim: Claim) -> Reserved:
    """A granted reservation, as its entry in the ledger says it."""
    rows = select(entries).where(entries.c.claim == claim.id, entries.c.kind == "reserve")
    (entry,) = _chain.parse(connection.execute(rows).mappings())
    detail, head = entry.detail, Head(entries=entry.seq, hash=entry.hash)
    return Reserved(claim=claim, unit=detail["unit"], cap=Cap(**detail["lifetime"]), policy=detail["policy"], head=head)


def read(home: Path) -> list[Reserved]:
    """The reservations of a home, oldest first; none where there is no journal.

    Raises:
        IntegrityError: a line is no reservation.
    """
    path = home / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    found = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            continue
        try:
            found.append(Reserved.model_validate_json(line))
        except ValidationError:
            raise IntegrityError(
                f"Line {number} of {path} is no reservation: restore it from a backup, or find out who wrote to it."
            ) from None
    return found


def keep(home: Path, reserved: Reserved) -> None:
    """Add a reservation durably; one that stands there already changes nothing.

    Raises:
        StageError: the line cannot be written, so no noisy step may be taken.
        IntegrityError: a line of the journal is no reservation.
    """
    path = home / JOURNAL
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)  # the ledger may be elsewhere
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if any(one.claim.id == reserved.claim.id for one in read(home)):
                return
            content = path.read_bytes()
            os.ftruncate(descriptor, content.rfind(b"\n") + 1)  # what a crash left half written
            line = (canonical(reserved.model_dump(mode="json")) + "\n").encode()
            if os.write(descriptor, line) < len(line):  # the disk became full on the way
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync(home)
    except OSError as error:
        raise StageError(f"{path} could not be written ({error.strerror}): make room or rights and try again.") from None
