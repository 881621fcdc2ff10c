"""Train a run by several processes, under torchrun: of this machine, or of several that share the run's folder.

HUSHTUNE_MACHINES=COUNT@HOST:PORT says that COUNT machines train together, of which this one is the first and is HOST to the
others. `command` is what each of the others runs. The first machine's process 0 draws, noises and speaks to the ledger.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline import errors
from pipeline.errors import HushtuneError, StageError, UsageError
from pipeline.folders import Progress, finished, silent
from pipeline.train.distributed import LOST, LostProcess
from pipeline.train.loop import Trained

MACHINES = "HUSHTUNE_MACHINES"
_MODULE = "pipeline.train"
_GRACE = 15.0  # seconds that torchrun has to stop its processes


class Machines(NamedTuple):
    """How many machines train together, and where the first is reached by the others."""

    count: int
    host: str
    port: int


def machines() -> Machines | None:
    """What HUSHTUNE_MACHINES says; None for this machine alone.

    Raises:
        UsageError: it is not understood.
    """
    said = os.environ.get(MACHINES, "").strip()
    found = re.fullmatch(r"([2-9]|[1-9]\d+)@([\w.-]+):(\d{1,5})", said)
    if said and found is None:
        raise UsageError(
            f"{MACHINES} is not understood: set it to COUNT@HOST:PORT, where HOST is this machine as the others reach it."
        )
    return Machines(int(found[1]), found[2], int(found[3])) if found else None


def command(run: Path, processes: int, together: Machines | None, rank: int = 0) -> list[str]:
    """What starts a machine's part of a training: that of this machine, or of the one of several with `rank`.

    >>> command(Path("RUN"), 8, Machines(2, "10.0.0.1", 29400), rank=1)[3:9]
    ['--nnodes', '2', '--node-rank', '1', '--master-addr', '10.0.0.1']
    """
    where = ["--standalone", "--local-addr", "127.0.0.1"]
    if together:
        where = ["--nnodes", f"{together.count}", "--node-rank", f"{rank}", "--master-addr", together.host]
        where += ["--master-port", f"{together.port}"]
    return [
        *(sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", f"{processes}"),
        *("--max-restarts", "0", "--monitor-interval", "0.5", "-m", _MODULE, f"{run}"),
    ]


def check(processes: int) -> None:
    """Refuse a number of processes that this machine cannot run.

    Raises:
        UsageError: it is below one, or above the number of GPUs where there are some; or HUSHTUNE_MACHINES is not understood.
    """
    machines()
    if processes < 1:
        raise UsageError(f"A training needs at least one process: give --processes 1 or more, not {processes}.")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else processes
    if processes > gpus:
        raise UsageError(f"This machine has {gpus} GPUs and each process needs one: give --processes {gpus} or less.")


def train(run: Path, processes: int, progress: Progress = silent) -> Trained:
    """Train the run of a folder that holds policy.json, planted/, claim.json and mechanism.json.

    Args:
        run: the run's folder.
        processes: how many on this machine; they share this process's threads among themselves.
        progress: called after each step with `epsilon`.

    Returns:
        The value of the stage in `run/trained`.

    Raises:
        HushtuneError: what stopped the training, with the sentence of the process that failed first.
        StageError: a process was killed or fell silent; the run can be taken up again, with any number of processes.
    """
    check(processes)
    together = machines()
    threads = max(1, torch.get_num_threads() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": f"{threads}"}
    if not together:  # gradients do not leave this machine
        environment["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    with os.fdopen(os.open(run / "torchrun.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as log:
        process = subprocess.Popen(
            command(run, processes, together),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C comes here alone, and then stops them below
        )
        try:
            failures = _follow(process, progress)
            code = process.wait()
        finally:
            _stop(process)
    trained = finished(run / "trained", Trained) if code == 0 else None
    if trained is None:
        raise _first(failures)
    return trained


def _follow(process: subprocess.Popen[str], progress: Progress) -> list[HushtuneError]:
    """Show the progress that process 0 prints, until all have ended; returns the failures, first one first."""
    failures = []
    for line in process.stdout or ():
        try:
            content: Any = json.loads(line)
        except ValueError:
            continue
        if not isinstance(content, dict):
            continue
        if "error" in content:
            kind = {"LostProcess": LostProcess}.get(content["error"]) or getattr(errors, content["error"], StageError)
            failures.append(kind(content["message"]))
        elif "done" in content:
            progress(content.pop("done"), content.pop("total"), **content)
    return failures


def _first(failures: list[HushtuneError]) -> HushtuneError:
    """The failure that explains the others: a process that misses another is never the cause."""
    return next((error for error in failures if not isinstance(error, LostProcess)), StageError(LOST))


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
