"""Where the pieces of a stage are done: HUSHTUNE_TASK_RUNNER=ENGINE, ENGINE:WORKERS or ENGINE:ADDRESS.

    threads, threads:8                          processes of this machine, each driven by a task in a thread (the default)
    dask, dask:8, dask:tcp://HOST:8786          a Dask cluster of our own, or one that runs
    ray, ray:8, ray:ray://HOST:10001, ray:auto  the same with Ray

The engine's Prefect task runner starts with the stage and ends with it, so that training has the whole machine. A task is told
where the run's folder is, and pieces, which are paths and digests; it returns counts. Nothing of it is cached, persisted or
tried again by Prefect. Dask and Ray give the task of a worker that was lost to another, which finds what was finished.
"""

import contextlib
import functools
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prefect import task
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import stages
from pipeline import mapping
from pipeline.errors import HushtuneError, StageError, UsageError

SETTING = "HUSHTUNE_TASK_RUNNER"
_EXTRAS = {"dask": "prefect_dask", "ray": "prefect_ray"}
_ADDRESSES = {"dask": r"(tcp|tls|ws|wss|ucx)://[^\s/@]+", "ray": r"auto|ray://[^\s/@]+|[\w.-]+:\d+"}
_ROUNDS = 4  # batches for each worker: enough that none waits long for another at the end
_MOST = 64  # pieces in a batch, after which progress is told; a task costs Prefect 30-90 ms
_TASKS = {"pieces"}


class Choice(NamedTuple):
    """Engine, number of workers of a cluster of our own, or address of one that runs."""

    engine: str
    workers: int | None = None
    address: str | None = None


def choice() -> Choice:
    """What HUSHTUNE_TASK_RUNNER says.

    Raises:
        UsageError: it is not understood, or the engine is not installed.
    """
    said = os.environ.get(SETTING, "").strip() or "threads"
    engine, _, rest = said.partition(":")
    if engine in _EXTRAS and find_spec(_EXTRAS[engine]) is None:
        raise UsageError(f"{SETTING} asks for {engine}, which is not installed: pip install 'hushtune[{engine}]'.")
    if engine in ("threads", *_EXTRAS):
        if not rest:
            return Choice(engine)
        if rest.isdecimal() and int(rest):
            return Choice(engine, workers=int(rest))
        if engine in _ADDRESSES and re.fullmatch(_ADDRESSES[engine], rest):
            return Choice(engine, address=rest)
    raise UsageError(
        f"{SETTING} is not understood: set it to threads, dask or ray, with a number of workers (dask:8) or, for dask and ray, "
        "the address of a cluster without a password (dask:tcp://HOST:8786, ray:ray://HOST:10001)."
    )


def mapper(folder: Path, stage: str) -> mapping.Map:
    """Who does the pieces of a stage of the run in `folder`: tasks under the runner that is chosen."""
    chosen = choice()
    if chosen.engine == "threads":
        return functools.partial(_threads, chosen.workers, folder, stage)
    return functools.partial(_cluster, chosen, folder, stage)


def _threads(
    workers: int | None, folder: Path, stage: str, function: mapping.Function, items: Sequence[Any], done: mapping.Done
) -> list[Any]:
    """One task a worker, each of which drives a process: Python's lock would let threads work one at a time."""
    count = min(workers or min(mapping.cores(), mapping.MOST_WORKERS), len(items))
    queue = mapping.Queue(function, items, done)
    with ThreadPoolTaskRunner(max_workers=count) as runner:
        try:
            futures = [runner.submit(DRIVE, {"stage": stage, "folder": folder, "queue": queue}) for _ in range(count)]
            for future in futures:
                future.result()
        finally:
            queue.stop()
    return queue.results()


def _cluster(
    chosen: Choice, folder: Path, stage: str, function: mapping.Function, items: Sequence[Any], done: mapping.Done
) -> list[Any]:
    """Tasks of several pieces each, in order, on a cluster."""
    results: list[Any] = []
    with _started(chosen, folder) as (runner, workers):
        shared = {"stage": stage, "folder": folder.absolute(), "function": function}
        futures = [runner.submit(PIECES, shared | {"items": batch}) for batch in batches(items, workers)]
        try:
            for future in futures:
                for result in _result(future, chosen.engine):
                    results.append(result)
                    done(len(results) - 1, result)
        except BaseException:
            _cancel(futures)
            raise
    if len(results) != len(items):
        raise StageError(f"{len(items) - len(results)} pieces of the stage {stage} were lost on the way: run again.")
    return results


def batches(items: Sequence[Any], workers: int) -> list[list[Any]]:
    """Items in tasks for so many workers; the first item, which is the longest, alone.

    >>> batches("abcdefghi", 1)
    [['a'], ['b', 'c'], ['d', 'e'], ['f', 'g'], ['h', 'i']]
    """
    rest = list(items[1:])
    size = min(_MOST, max(1, -(-len(rest) // (_ROUNDS * workers))))
    return [list(items[:1]), *(rest[at : at + size] for at in range(0, len(rest), size))]


def _pieces(stage: str, folder: Path, function: mapping.Function, items: list[Any]) -> list[Any]:
    """What a worker does of a batch. One piece at a time in a process, whatever threads it has: no detector is shared."""
    with _turn:
        return stages.clean(stage, folder, lambda: [function(item) for item in items])


def _drive(stage: str, folder: Path, queue: mapping.Queue) -> int:
    return stages.clean(stage, folder, queue.drive)


_turn = threading.Lock()
PIECES = task(_pieces, name="pieces", **stages.BARE)
DRIVE = task(_drive, name="pieces", **stages.BARE)


@contextlib.contextmanager
def _started(chosen: Choice, folder: Path) -> Iterator[tuple[TaskRunner, int]]:
    """The engine's runner, ready for tasks, and its number of workers.

    Raises:
        StageError: the cluster does not answer.
    """
    _check_reach(chosen)
    with contextlib.ExitStack() as until_the_end:
        started = None
        with contextlib.suppress(OSError, RuntimeError, ValueError, ImportError, TimeoutError):
            make = {"dask": _dask, "ray": _ray}[chosen.engine]
            started = make(chosen, folder, until_the_end)
        if started is None or not started[1]:
            where = f"The {chosen.engine} cluster at {chosen.address}" if chosen.address else f"A {chosen.engine} cluster"
            raise StageError(f"{where} did not start or has no workers: see that it runs, or change {SETTING}.")
        yield started


def _dask(chosen: Choice, folder: Path, until_the_end: contextlib.ExitStack) -> tuple[TaskRunner, int]:
    from prefect_dask import DaskTaskRunner

    if chosen.address:
        runner = DaskTaskRunner(address=chosen.address, client_kwargs={"timeout": 20})
    else:
        options = {
            "n_workers": chosen.workers or mapping.cores(),
            "threads_per_worker": 1,
            "processes": True,
            "security": True,  # who may connect could run code as us: certificates of this cluster's own
            "dashboard_address": None,
            "local_directory": until_the_end.enter_context(TemporaryDirectory(prefix="dask-", dir=folder)),
            "silence_logs": logging.CRITICAL,
        }
        runner = DaskTaskRunner(cluster_kwargs=options)
    until_the_end.enter_context(runner)
    if chosen.address:
        runner.client.wait_for_workers(1, timeout=20)
    return runner, len(runner.client.scheduler_info(n_workers=-1)["workers"])


def _ray(chosen: Choice, folder: Path, until_the_end: contextlib.ExitStack) -> tuple[TaskRunner, int]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if not chosen.address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # who may connect could run code as us
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {"num_cpus": chosen.workers or mapping.cores(), "include_dashboard": False}
    import ray
    from prefect_ray import RayTaskRunner

    runner = RayTaskRunner(address=chosen.address, init_kwargs=options)
    until_the_end.enter_context(runner)
    return runner, int(ray.cluster_resources().get("CPU", 0))


def _check_reach(chosen: Choice) -> None:
    """Refuse a cluster elsewhere whose tasks could not reach a Prefect server that listens on this machine only."""
    address = chosen.address or ""
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    local = {"127.0.0.1", "localhost", "::1", None}
    if address != "auto" and host not in local and urlsplit(PREFECT_API_URL.value() or "").hostname in local:
        raise UsageError(
            f"The cluster at {address} cannot reach Prefect's server on this machine alone: name one that it reaches by "
            "PREFECT_API_URL."
        )


def _result(future: Any, engine: str) -> list[Any]:
    """What a task returned; what the engine itself raises is told by its kind only."""
    try:
        return future.result()
    except HushtuneError:
        raise
    except Exception as error:
        kind = type(error).__name__
    raise StageError(
        f"A worker of {engine} was lost ({kind}), perhaps for lack of memory: run again (finished pieces are kept), with fewer "
        "workers if it happens again."
    )


def _cancel(futures: Sequence[Any]) -> None:
    """Take back what waits on a cluster that goes on without us."""
    for future in futures:
        with contextlib.suppress(Exception):
            if hasattr(future.wrapped_future, "cancel"):
                future.wrapped_future.cancel()
            else:
                import ray

                ray.cancel(future.wrapped_future)


class _Few(logging.Filter):
    """Keeps the line that Prefect logs for each task out of a run's story, where thousands would drown it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or getattr(record, "task_name", None) not in _TASKS


logging.getLogger("prefect.task_runs").addFilter(_Few())
