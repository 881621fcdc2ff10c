"""`hushtune run`: the flow with its own server, live progress, a closing table and an exit code.

The command line finds `run` through the entry-point group "hushtune.commands".
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import console, server
from flows.outcome import Outcome
from pipeline import resume, runs, storage
from pipeline.commands.common import data_file, quiet, resolved_policy
from pipeline.errors import BudgetExhausted, HushtuneError, StageError, UsageError
from pipeline.policy import Policy
from pipeline.runs import Run

EXITS = {"released": 0, "rejected": 3, "inconclusive": 3, "awaiting_approval": 5}


def run(arguments: argparse.Namespace) -> int:
    """Run the line on a data file and return 0 released, 3 rejected or inconclusive, or 5 awaiting approval.

    Raises:
        HushtuneError: the run could not finish; nothing half-written stays.
        KeyboardInterrupt: with a sentence that says what stays.
    """
    job: Run | None = None
    try:
        policy = resolved_policy(arguments)
        data = data_file(arguments, folder=True)
        _check(arguments.processes)
        name = arguments.name or ("example" if arguments.data is None else runs.name_for(data))
        home = runs.open_home(arguments.home)
        opened = resume.open_run(home, name, policy, data, new=arguments.new, incremental=arguments.incremental)
        if opened is None:
            return _nothing_new(arguments, name, data)
        job = opened.run
        for sentence in opened.said:
            print(sentence, file=sys.stderr)
        outcome = _finetune(job, data, policy, arguments.processes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(job)) from None
    except HushtuneError as error:
        if job is not None and isinstance(error, UsageError):
            resume.forget(job)
        if arguments.json:
            _print_json(_failure(job, error))
        raise
    finally:
        if job is not None:
            runs.let_go(job.folder)
    console.closing(outcome, Console(stderr=arguments.json, highlight=False))
    if arguments.json:
        _print_json(outcome.model_dump(mode="json"))
    return EXITS[outcome.status]


def _nothing_new(arguments: argparse.Namespace, name: str, data: Path) -> int:
    """Say that a folder holds nothing that is not in a release already; 0, for nothing is wrong."""
    sentence = f"Nothing new in {data} since the releases of {name}: nothing was done, and nothing spent."
    print(sentence, file=sys.stderr)
    if arguments.json:
        _print_json(_empty("nothing_new", None))
    return 0


def _check(processes: int) -> None:
    """Refuse a task runner, a store or a number of processes that cannot serve, before anything is spent."""
    storage.store()
    if os.environ.get("HUSHTUNE_TASK_RUNNER"):
        from flows import runners  # imports Prefect: not before the server starts, where nothing is asked for

        runners.choice()
    if processes != 1 or os.environ.get("HUSHTUNE_MACHINES"):
        from pipeline.train import launch

        launch.check(processes)


def _finetune(job: Run, data: Path, policy: Policy, processes: int) -> Outcome:
    """Run the flow and return its outcome, or raise what stopped it."""
    quiet()
    kept, pretrains = runs.keep_policy(job.folder, policy), policy.continued_pretraining is not None
    with console.shown(pretrains=pretrains) as board, contextlib.ExitStack() as until_the_end:
        with board.row("start"):
            heavy = functools.partial(importlib.import_module, "flows.finetune")  # imported while the server starts
            until_the_end.enter_context(server.running(job.home, heavy))
        from flows.finetune import finetune
        from flows.parameters import Finetune

        state = finetune(
            Finetune(data=str(data), policy=str(kept), home=str(job.home), name=job.name, run=job.id, processes=processes),
            return_state=True,
        )
        result: Any = state.result(raise_on_failure=False)
    if isinstance(result, Outcome):
        return result
    if board.stopped:
        raise KeyboardInterrupt
    raise result if isinstance(result, HushtuneError) else StageError(f"Prefect ended run {job.id} as {state.name}.")


def _stopped(job: Run | None) -> str:
    """Tidy up after Ctrl-C and say what stays."""
    if job is None or not (resume.has_reserved(job) or any(job.folder.glob("*/stage.json"))):
        if job is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        return "Stopped by you before any privacy was spent; nothing of the run is left."
    spent = "what it reserved stays charged in full" if resume.has_reserved(job) else "no privacy was spent"
    return (
        f"Stopped by you: {spent}; the same command goes on with run {job.id}, whose folder {job.folder} stays, and --new "
        "starts another one."
    )


def _failure(job: Run | None, error: HushtuneError) -> dict[str, Any]:
    """What --json prints for a run without a verdict: the keys that scripts read, and the sentence."""
    status = "budget_exhausted" if isinstance(error, BudgetExhausted) else "error"
    return _empty(status, job) | {"error": str(error)}


def _empty(status: str, job: Run | None) -> dict[str, Any]:
    nothing = dict.fromkeys(("release", "report", "epsilon", "delta", "unit"))
    return {"status": status, "run": job.id if job else None, "gates": {}, **nothing}


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, sort_keys=True), flush=True)
