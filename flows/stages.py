"""What every task of the line has around it: a Prefect task without cache or result, a progress row, a clean error, its rule.

Prefect keeps parameters, states and messages in its database. So a task passes small frozen values only, its result is never
persisted, and an exception that leaves it is a fresh one with one sentence: no cause, no context, no frame of the library
behind it. The whole traceback of an unexpected error (it may quote private text) goes to traceback.txt in the run's folder.
"""

import contextlib
import errno
import functools
import logging
import os
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import State

from flows import console, progress
from flows.rules import DELAYS, RULES
from pipeline import facts
from pipeline.display import Line
from pipeline.errors import HushtuneError, StageError, TransientError
from pipeline.folders import write_text
from pipeline.runs import Run

P = ParamSpec("P")
R = TypeVar("R")

Work = Callable[Concatenate[Line, Run, P], R]
Call = Callable[Concatenate[Run, P], R]

BARE = {"retries": 0, "cache_policy": NO_CACHE, "persist_result": False, "log_prints": False}
"""Options of every task: nothing cached, nothing persisted, nothing tried again, whatever Prefect's defaults say."""


def stage(name: str, *, row: str | None = None) -> Callable[[Work[P, R]], Call[P, R]]:
    """Make a task of a function of (line, run, …); callers leave the line out. `row` is its row on the board."""
    rule = RULES[name]
    options = BARE | {"retries": rule.retries, "timeout_seconds": rule.hours * 3600}
    if rule.retries:
        options |= {"retry_delay_seconds": DELAYS, "retry_condition_fn": _may_pass}

    def wrap(work: Work[P, R]) -> Call[P, R]:
        @functools.wraps(work)
        def guarded(run: Run, *args: P.args, **kwargs: P.kwargs) -> R:
            with console.line(row or name) as line:
                line.told = progress.teller(run.id, name)
                result = clean(name, run.folder, functools.partial(work, line, run, *args, **kwargs))
                facts.took(run.folder, name, line.seconds())
                progress.passed(run.id, name)
                get_run_logger().info("%s: %s, %.1f s", name, line.said() or "done", line.seconds())
            return result

        # functools.wraps would show Prefect the line as a parameter.
        del guarded.__wrapped__
        return task(guarded, name=name, **options)

    return wrap


def _may_pass(task: object, task_run: object, state: State) -> bool:
    return isinstance(state.data, TransientError)


def table(run: Run, key: str, rows: list[dict], description: str) -> None:
    """Keep a table beside the run in Prefect; a run never fails for want of it."""
    keep(create_table_artifact, key=f"hushtune-{key}", table=rows, description=f"{description} · {run.id}")


def page(run: Run, key: str, markdown: str, description: str) -> None:
    """Keep a page beside the run in Prefect; a run never fails for want of it."""
    keep(create_markdown_artifact, key=f"hushtune-{key}", markdown=markdown, description=f"{description} · {run.id}")


def rename(run: Run) -> None:
    """Call the flow run in Prefect as its run, which a schedule does not know; a run never fails for want of it."""
    number = flow_run.get_id()
    if number is None or flow_run.get_name() == run.id:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(number), name=run.id)
    except Exception as error:
        logging.getLogger(__name__).warning("The flow run was not renamed (%s).", type(error).__name__)


def keep(create: Callable[..., object], **content: object) -> None:
    """Make an artifact; no run fails for want of it."""
    try:
        create(**content)
    except Exception as error:
        logging.getLogger(__name__).warning("An artifact was not kept (%s).", type(error).__name__)


def clean(name: str, folder: Path | None, work: Callable[[], R]) -> R:
    """Do a stage's work; whatever it raises leaves as a fresh error of one sentence.

    Args:
        name: the stage.
        folder: of the run, where traceback.txt may be written.
        work: what to do.

    Raises:
        HushtuneError: the same kind with the same sentence, or a StageError that names the stage and the kind of exception.
    """
    try:
        return work()
    except HushtuneError as error:
        failure = type(error)(str(error))
    except Exception as error:
        kind, where = type(error).__name__, ""
        sort = TransientError if _is_transient(error) else StageError
        if isinstance(error, OSError) and error.errno is not None:
            kind += f" ({os.strerror(error.errno)})"
        with contextlib.suppress(OSError):  # on a full disk, this must not let out what it is meant to keep in
            if folder is not None:
                write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
                where = f": traceback.txt in the run's folder {folder.name} says where, and may quote private text"
        failure = sort(f"The stage {name} stopped on a {kind}{where}.")
    raise failure  # outside of `except`, so that nothing hangs behind it


_PASSING = {
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "EPIPE", "ETIMEDOUT"),
    )
}


def _is_transient(error: Exception) -> bool:
    """A fault of network, disk or database that may pass; not a full disk, a missing file or missing rights."""
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error) or "busy" in str(error)
    if isinstance(error, OSError):  # what a library raises without a number is about the network
        return error.errno in _PASSING or (error.errno is None and not isinstance(error, FileNotFoundError | PermissionError))
    return False
