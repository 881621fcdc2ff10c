"""Train a run by several processes of this machine, under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline import errors
from pipeline.errors import HushtuneError, StageError, UsageError
from pipeline.folders import Progress, finished, silent
from pipeline.train.distributed import LOST, LostProcess
from pipeline.train.loop import Trained

_MODULE = "pipeline.train"
_GRACE = 15.0  # seconds that torchrun has to stop its processes


def check(processes: int) -> None:
    """Refuse a number of processes that this machine cannot run.

    Raises:
        UsageError: it is below one, or above the number of GPUs where there are some.
    """
    if processes < 1:
        raise UsageError(f"A training needs at least one process: give --processes 1 or more, not {processes}.")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else processes
    if processes > gpus:
        raise UsageError(f"This machine has {gpus} GPUs and each process needs one: give --processes {gpus} or less.")


def train(run: Path, processes: int, progress: Progress = silent) -> Trained:
    """Train the run of a folder that holds policy.json, planted/, claim.json and mechanism.json.

    Args:
        run: the run's folder.
        processes: how many; they share this process's threads among themselves.
        progress: called after each step with `epsilon`.

    Returns:
        The value of the stage in `run/trained`.

    Raises:
        HushtuneError: what stopped the training, with the sentence of the process that failed first.
        StageError: a process was killed or fell silent; the run can be taken up again, with any number of processes.
    """
    check(processes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", f"{processes}", "--max-restarts", "0", "--monitor-interval", "0.5"]
    command += ["-m", _MODULE, f"{run}"]
    loopback = "lo0" if sys.platform == "darwin" else "lo"  # gradients do not leave this machine
    threads = max(1, torch.get_num_threads() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": f"{threads}", "GLOO_SOCKET_IFNAME": loopback}
    with os.fdopen(os.open(run / "torchrun.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as log:
        process = subprocess.Popen(
            command,
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
