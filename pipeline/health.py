"""Whether a home can run: its folder, disk, ledger, keys, model, Prefect, last run and retention. Reads, and changes nothing.

Every check says what it found and, where that is not well, how to mend it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

from pipeline import _journal, anchors, cohorts, prefect_api, retention, signing
from pipeline import policy as policies
from pipeline._past import past
from pipeline.errors import HushtuneError
from pipeline.folders import Value
from pipeline.ledger import Ledger
from pipeline.models import ladder
from pipeline.release import releases

LEAST_FREE = 2 * 2**30  # bytes: a small run's checkpoints, and room to write down how it ended
_LATE = timedelta(days=1)  # the sweep comes once a day


class Check(Value):
    """One finding: what was looked at, whether it is well, what was found, and how to mend it where it is not."""

    name: str
    well: bool
    found: str
    mend: str = ""


def look(home: Path, *, policy: str = "default", oldest: float | None = None) -> list[Check]:
    """All findings about a home.

    Args:
        home: HUSHTUNE_HOME.
        policy: whose base model must be here.
        oldest: days after which the last run is too long ago; None does not ask.
    """
    names: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("home", lambda: _home(home)),
        ("disk", lambda: _disk(home)),
        ("ledger", lambda: _ledger(home)),
        ("signing key", lambda: _signing_key(home)),
        ("units key", lambda: _units_key(home)),
        ("model", lambda: _model(home, policy)),
        ("prefect", lambda: _prefect(home)),
        ("last run", lambda: _last_run(home, oldest)),
        ("retention", lambda: _retention(home)),
    )
    return [_sound(name, check) for name, check in names]


def ledger_of(home: Path) -> Ledger | None:
    """The ledger of a home, which is not made where there is none."""
    return Ledger(home) if (home / "ledger.db").exists() or os.environ.get("HUSHTUNE_LEDGER_URL") else None


def _sound(name: str, check: Callable[[], Check]) -> Check:
    """An error of hushtune is a finding: its sentence says what, where and how to mend it."""
    try:
        return check()
    except HushtuneError as error:
        found, _, mend = str(error).partition(": ")
        return Check(name=name, well=False, found=found, mend=mend)
    except OSError as error:
        return Check(name=name, well=False, found=f"it cannot be read ({error.strerror})", mend="give the rights to")
    except ValueError:  # of JSON, or of a value in it
        found = "a file of a run or a release cannot be read as what it should be"
        return Check(name=name, well=False, found=found, mend="restore it, or move that run's folder out of the home")


def _home(home: Path) -> Check:
    if not home.is_dir():
        return Check(name="home", well=False, found=f"{home} does not exist", mend="name it by --home or HUSHTUNE_HOME")
    mode = home.stat().st_mode & 0o777
    if mode != 0o700:
        return Check(name="home", well=False, found=f"{home} has mode {mode:04o}, others may enter", mend=f"chmod 700 {home}")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Check(name="home", well=False, found=f"{home} cannot be written to", mend="run as its owner")
    return Check(name="home", well=True, found=f"{home}, yours alone")


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(home if home.is_dir() else Path.cwd()).free
    mend = "make room: `hushtune retention`, or a larger disk"
    return Check(name="disk", well=free >= LEAST_FREE, found=f"{free / 2**30:.1f} GiB free", mend=mend)


def _ledger(home: Path) -> Check:
    ledger = ledger_of(home)
    if ledger is None:
        spent = any((home / "runs").glob("*/claim.json")) or bool(_journal.read(home) or releases(home))
        mend = "`hushtune budget restore BACKUP`, or without one `hushtune budget rebuild`"
        return Check(name="ledger", well=not spent, found="it is gone" if spent else "no run has spent yet", mend=mend)
    head, held = anchors.check(home, ledger)
    return Check(name="ledger", well=True, found=f"whole, {head.entries} entries; {held} releases and runs agree")


def _signing_key(home: Path) -> Check:
    named = os.environ.get("HUSHTUNE_SIGNING_KEY")
    path = Path(named) if named else home / "keys" / "release.key"
    if not path.exists():
        mend = "bring it there, or unset HUSHTUNE_SIGNING_KEY" if named else "restore it, or make one: `hushtune keys new`"
        return Check(name="signing key", well=False, found=f"{path} does not exist", mend=mend)
    return Check(name="signing key", well=True, found=f"{path}, fingerprint {signing.check_key(path)}")


def _units_key(home: Path) -> Check:
    path, ledger = home / "keys" / "units.key", ledger_of(home)
    if not path.exists() and not (ledger and ledger.claims()):
        return Check(name="units key", well=True, found="none yet: the first run makes it")
    mend = "restore it from a backup: without it nobody in the ledger is recognised"
    if not path.exists():
        return Check(name="units key", well=False, found=f"{path} does not exist", mend=mend)
    cohorts.load_key(home, make=False)
    return Check(name="units key", well=True, found=str(path))


def _model(home: Path, name: str) -> Check:
    ref = policies.load(name).model
    places = (Path(str(files("pipeline") / "assets" / ref)), Path(ref), ladder.folder(ref, home))
    here = any((place / "config.json").is_file() for place in places) or (ref.endswith(".gguf") and Path(ref).is_file())
    return Check(
        name="model", well=here, found=f"{ref} {'is' if here else 'is not'} here", mend=f"`hushtune models pull {ref}`"
    )


def _prefect(home: Path) -> Check:
    server = prefect_api.named(home, *map(os.environ.get, ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")))
    if server is None:
        return Check(name="prefect", well=True, found="no server is named: each run starts its own")
    if not prefect_api.lets_in(server):
        mend = "set PREFECT_API_AUTH_STRING to NAME:PASSWORD"
        return Check(name="prefect", well=False, found=f"{server.url} asks for another login", mend=mend)
    try:
        workers = prefect_api.workers(server)
    except (OSError, ValueError) as error:
        why = f"{server.url} does not answer ({type(error).__name__})"
        return Check(name="prefect", well=False, found=why, mend="start the server, or mend PREFECT_API_URL")
    alive = sum(workers.values())
    found = f"{server.url} answers, {alive} of {len(workers)} workers alive"
    return Check(name="prefect", well=alive > 0, found=found, mend="start one: `prefect worker start --pool hushtune`")


def _last_run(home: Path, oldest: float | None) -> Check:
    found = past(home)
    if not found:
        return Check(name="last run", well=oldest is None, found="there is none", mend="see that the schedule is on")
    last = found[-1]
    age = datetime.now(UTC) - last.at
    said = f"{last.run} {last.state.replace('_', ' ')}, {_span(age)} ago"
    if last.state == "interrupted":
        return Check(name="last run", well=False, found=said, mend="run the same command again: it goes on; --new leaves it")
    late = oldest is not None and age > timedelta(days=oldest)
    return Check(name="last run", well=not late, found=said, mend="see that the schedule is on and a worker is alive")


def _retention(home: Path) -> Check:
    ledger = ledger_of(home)
    due = retention.due(home, ledger, datetime.now(UTC) - _LATE) if ledger else []
    found = f"{len(due)} deletions are overdue" if due else "nothing is overdue"
    return Check(name="retention", well=not due, found=found, mend="`hushtune retention`, and see that it runs every day")


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
