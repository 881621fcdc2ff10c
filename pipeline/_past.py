"""The runs of a home as their own files tell of them: when each was last at work, how it ended, and what it took."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import runs
from pipeline.folders import Value


class Past(Value):
    """One run: `at` is when it was last written to; `state` its outcome, or running, interrupted or abandoned.

    `gates` says of each gate whether it passed; `seconds` is by stage.
    """

    run: str
    at: datetime
    state: str
    gates: dict[str, bool]
    seconds: dict[str, float]


def past(home: Path) -> list[Past]:
    """The runs of a home, the one that was at work last at the end."""
    found = [_read(path.parent) for path in (home / "runs").glob("*/policy.json")]
    return sorted(found, key=lambda one: (one.at, one.run))


def _read(folder: Path) -> Past:
    ended = _json(folder / "outcome.json")
    state = ended.get("status") or "interrupted"
    if not ended and (folder / "abandoned").exists():
        state = "abandoned"
    elif not ended and runs.is_held(folder):
        state = "running"
    marks = [folder / name for name in ("outcome.json", "facts.json", "policy.json")]
    at = next(path for path in marks if path.exists()).stat().st_mtime
    return Past(
        run=folder.name,
        at=datetime.fromtimestamp(at, UTC),
        state=state,
        gates={name: bool(gate["passed"]) for name, gate in ended.get("gates", {}).items()},
        seconds=_json(folder / "facts.json").get("seconds", {}),
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else {}
