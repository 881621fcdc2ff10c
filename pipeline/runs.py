"""The home folder, mode 0700, and the runs in it: HOME/{runs,releases,models,keys}/ and HOME/ledger.db."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import BusyError, UsageError
from pipeline.folders import Value, private_folder, write_text
from pipeline.policy import Policy

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"  # a name and its date


class Run(Value):
    """One run: `name` is what its releases are called, `id` is NAME-YYYYMMDD-HHMMSS-xxxx (UTC) and names its folder."""

    name: Annotated[str, Field(pattern=NAME)]
    id: str
    home: Path

    @property
    def folder(self) -> Path:
        """The run's folder, mode 0700: the only place where private text may stand."""
        return self.home / "runs" / self.id


def open_home(home: Path) -> Path:
    """Make the home folder, mode 0700, and return its absolute path.

    Raises:
        UsageError: the folder cannot be made or written to, or is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(home)):
        raise UsageError("The home holds private text, locks and a ledger, and cannot be a URL: give a folder by --home.")
    try:
        return private_folder(home.expanduser().absolute())
    except OSError as error:
        why = error.strerror or "it is not a folder"
        raise UsageError(f"The home folder {home} cannot be used ({why}): give another one by --home.") from None


def start(home: Path, name: str, run: str | None = None) -> Run:
    """Make the folder of a new run, or take up the run with the id given.

    Raises:
        UsageError: the name or the id holds other characters than letters, digits, dots, dashes and underscores.
    """
    check_name(name)
    if run is not None:
        check_name(run, ID)
    made = Run(name=name, id=run or new_id(name), home=open_home(home))
    private_folder(made.folder.parent)
    private_folder(made.folder)
    return made


def check_name(name: str, form: str = NAME) -> None:
    """Refuse a name that could leave the home.

    Raises:
        UsageError: it holds other characters than letters, digits, dots, dashes and underscores.
    """
    if not re.fullmatch(form, name):
        raise UsageError(
            f"{name!r} cannot name a run: use letters, digits, dots, dashes and underscores, at most 64, and begin with a "
            "letter or a digit."
        )


_held: dict[Path, int] = {}


def hold(folder: Path) -> None:
    """Keep every other process away from a run until `let_go` or this process's end, however it ends; twice is fine.

    Raises:
        BusyError: another process works on the run.
        UsageError: its disk knows no locks.
    """
    folder = folder.absolute()
    if folder in _held:
        return
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        who = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise UsageError(
                f"The folder {folder} cannot be locked ({error.strerror}): put the home folder on a disk that knows locks."
            ) from None
        raise BusyError(
            f"Run {folder.name} is being worked on by another process{f' ({who})' if who else ''}: wait until it ends, or "
            "start another run with --new."
        ) from None
    with contextlib.suppress(OSError):  # who holds it is a courtesy; a full disk does not make the lock less firm
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}"[:64].encode("ascii", "replace"), 0)
    _held[folder] = descriptor


def is_held(folder: Path) -> bool:
    """Whether another process holds a run; changes nothing."""
    folder = folder.absolute()
    if folder in _held or not (folder / "lock").exists():
        return False
    descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk that knows no locks, on which nobody holds a run
        return False
    finally:
        os.close(descriptor)
    return False


def let_go(folder: Path) -> None:
    """Let other processes take up the run."""
    descriptor = _held.pop(folder.absolute(), None)
    if descriptor is not None:
        os.close(descriptor)


def _let_all_go() -> None:
    for descriptor in _held.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_all_go)  # a child that outlives its parent must not keep the parent's runs


def keep_policy(folder: Path, policy: Policy) -> Path:
    """Write a run's resolved policy, in the policy's own order of keys, and return the path of policy.json."""
    write_text(folder / "policy.json", json.dumps(policy.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
    return folder / "policy.json"


def new_id(name: str) -> str:
    """A fresh run id for releases called `name`."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def name_for(data: Path) -> str:
    """The name of a data file's runs: its file name without extensions, in the characters that a name may hold.

    >>> name_for(Path("mail/Support letters (2024).jsonl.gz"))
    'Support-letters-2024'
    """
    stem = data.name.split(".")[0] or "run"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64] or "run"


def find(home: Path, run: str) -> Path:
    """The folder of an existing run, by id or by path.

    Raises:
        UsageError: there is no such run.
    """
    for folder in (home / "runs" / run, Path(run)):
        if (folder / "policy.json").is_file():
            return folder.absolute()
    known = sorted(folder.name for folder in (home / "runs").glob("*") if (folder / "policy.json").is_file())
    latest = f"; the latest is {max(known, key=lambda name: name[-20:])}" if known else ""
    raise UsageError(f"There is no run {run} in {home}{latest}: give the name of a folder of {home / 'runs'}.")
