"""How far a run is, as a progress artifact on its page in Prefect: by stages, and within a stage as it tells.

Our own server, which ends with the command, shows no page; there the terminal shows the progress.
"""

import logging
import time
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows import server
from flows.rules import RULES

_INSTEAD = ("hold", "discard")
_STAGES = [name for name in RULES if name not in _INSTEAD]
_ALL = sum(RULES[name].share for name in _STAGES)
_EVERY = 15.0  # seconds between two updates within a stage
_artifacts: dict[str, UUID] = {}


def passed(run: str, stage: str) -> None:
    """Say that a stage has ended; no run fails for want of it."""
    _show(run, 100.0 * (_before(stage) + RULES[stage].share) / _ALL)


def teller(run: str, stage: str) -> Callable[[int, int], None]:
    """What a stage calls with its progress: shown now and then."""
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if total and time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            _show(run, 100.0 * (_before(stage) + RULES[stage].share * min(1.0, done / total)) / _ALL)

    return told


def _before(stage: str) -> int:
    """Shares of the stages before one; `hold` and `discard` stand where `publish` does."""
    place = _STAGES.index("publish" if stage in _INSTEAD else stage)
    return sum(RULES[name].share for name in _STAGES[:place])


def _show(run: str, percent: float) -> None:
    if server.is_ours():
        return
    try:
        if run in _artifacts:
            update_progress_artifact(_artifacts[run], progress=percent)
        else:
            made = create_progress_artifact(percent, key="hushtune-progress", description=f"Progress · {run}")
            _artifacts[run] = cast(UUID, made)
    except Exception as error:
        logging.getLogger(__name__).warning("Progress was not kept (%s).", type(error).__name__)
