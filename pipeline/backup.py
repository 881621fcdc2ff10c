"""Backups of the ledger: one file that holds the whole chain and the cohorts, whatever database the ledger is on.

    backup.write(ledger, Path("/backup/ledger-2026-11-24.db"))
    backup.restore(home, Path("/backup/ledger-2026-11-24.db"))      # also moves a ledger to another database

A restore never goes back behind what the home shows (releases, claims, its record of reservations), only adds to a ledger that
is a beginning of the backup (an empty one, say), and closes open claims in full: steps may have been taken since. In a home
without any record, as on a new disk, a person has to say that nothing was spent since the backup, and the chain notes it.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline import _journal, anchors
from pipeline.errors import IntegrityError, UsageError
from pipeline.folders import check_parent, digest_file, sync
from pipeline.ledger import Head, Ledger


def write(ledger: Ledger, file: Path) -> Head:
    """Write a backup, mode 0600, as the ledger stands at one moment; runs may go on meanwhile.

    Raises:
        UsageError: the file exists, or its folder cannot be written to.
        IntegrityError: the ledger was edited.
    """
    check_parent(file)
    if file.exists():
        raise UsageError(f"There is a file {file}: give the backup a name of its own, with the date say.")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as folder:
        draft = Path(folder) / "ledger.db"
        copy = Ledger(f"sqlite:///{draft.absolute()}")
        head = ledger.copy_to(copy)
        copy.leave()
        with sqlite3.connect(draft) as database:
            database.execute("PRAGMA journal_mode=DELETE")  # one file, which can be read on a disk that is read-only
        database.close()
        sync(draft)
        draft.rename(file)
    sync(file.absolute().parent)
    return head


def restore(
    home: Path, file: Path, *, by: str = "", why: str = "", copies: Sequence[Path] = (), keys: Sequence[Path] = ()
) -> Head:
    """Bring a backup into the ledger of a home: HOME/ledger.db, or the database that HUSHTUNE_LEDGER_URL names.

    Args:
        home: HUSHTUNE_HOME, whose keys and releases are back in their place.
        file: from `write`.
        by: who says that nothing was spent since the backup; needed where the home has no record of its own.
        why: what that rests on.
        copies: folders of releases that were kept elsewhere, which the backup must hold too.
        keys: public keys that signed the copies; the home's by default.

    Returns:
        The end of the chain.

    Raises:
        UsageError: the file is no backup or holds nothing, the ledger holds all of it, or `by` and `why` are needed.
        IntegrityError: the backup was edited, is older than what the home or a copy shows, or is of another ledger.
    """
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=home) as folder:
        backup = opened(file, Path(folder))
        try:
            anchors.witnessed(home, backup, copies, keys)
        except IntegrityError as error:
            raise IntegrityError(
                f"The backup {file} is older than what this home shows, or of another ledger; restore a newer one, or bring it "
                f"in and charge the rest in full by `hushtune budget rebuild --backup {file}`. What is missing: {error}"
            ) from None
        if not (_journal.read(home) or (by and why)):
            raise UsageError(
                f"Nothing in {home} shows that no run has spent since the backup {file} was made: find out, and say who "
                "says so and why by --by NAME --why TEXT, which the ledger notes."
            )
        ledger = Ledger(home)
        return bring(backup, ledger, word(by, why, file, backup))


def word(by: str, why: str, file: Path, backup: Ledger) -> dict[str, str | int]:
    """What the chain notes of a restore."""
    return {"by": by, "why": why, "backup": digest_file(file), "entries": backup.head().entries}


def bring(backup: Ledger, ledger: Ledger, note: dict[str, str | int]) -> Head:
    """Copy a backup into a ledger that is a beginning of it.

    Raises:
        UsageError: the ledger holds all of it already.
        IntegrityError: either was edited, or the ledger is another one.
    """
    if ledger.holds(backup.head()):
        raise UsageError(f"The ledger {ledger.name} holds all that the backup holds: there is nothing to restore.")
    return backup.copy_to(ledger, note)


def opened(file: Path, folder: Path) -> Ledger:
    """A backup's copy in `folder`, checked, so that the file itself is never written to.

    Raises:
        UsageError: the file is missing, holds nothing, or is the database of a ledger in use.
        IntegrityError: it is no ledger, or was edited.
    """
    if not file.is_file():
        raise UsageError(f"There is no backup {file}: give a file that `hushtune budget backup` wrote.")
    if file.with_name(file.name + "-wal").exists():
        raise UsageError(f"{file} is a ledger in use and no backup: make one of it by `hushtune budget backup`.")
    shutil.copyfile(file, folder / "ledger.db")
    backup = Ledger(f"sqlite:///{(folder / 'ledger.db').absolute()}")
    if not backup.verify().entries:
        raise UsageError(f"The backup {file} holds no entries: give a file that `hushtune budget backup` wrote.")
    return backup
