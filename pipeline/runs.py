"""The home folder, mode 0700, and the runs in it: HOME/{runs,releases,models,keys}/ and HOME/ledger.db."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import UsageError
from pipeline.folders import Value, private_folder, write_text
from pipeline.policy import Policy

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"  # a name and its date


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
        UsageError: the folder cannot be made or written to.
    """
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
    for given, form in ((name, NAME), (run or new_id("run"), _ID)):
        if not re.match(form, given):
            raise UsageError(
                f"{given!r} cannot name a run: use letters, digits, dots, dashes and underscores, at most 64, and begin with a "
                "letter or a digit."
            )
    made = Run(name=name, id=run or new_id(name), home=open_home(home))
    private_folder(made.folder.parent)
    private_folder(made.folder)
    return made


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
