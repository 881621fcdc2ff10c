"""`hushtune run`: the flow with its own server, live progress, a closing table and an exit code.

The command line finds `run` through the entry-point group "hushtune.commands".
"""

import argparse
import contextlib
import functools
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import console, server
from flows.outcome import Outcome
from pipeline import resume, runs
from pipeline.commands.common import data_file, quiet, resolved_policy
from pipeline.errors import BudgetExhausted, HushtuneError, StageError, UsageError
from pipeline.policy import Policy, load
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
        data = data_file(arguments)
        _check(arguments.processes)
        name = arguments.name or ("example" if arguments.data is None else runs.name_for(data))
        job = _job(runs.open_home(arguments.home), name, policy, data, new=arguments.new)
        outcome = _finetune(job, data, policy, arguments.processes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(job)) from None
    except HushtuneError as error:
        if job is not None and isinstance(error, UsageError):
            _forget(job)
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


def _job(home: Path, name: str, policy: Policy, data: Path, *, new: bool) -> Run:
    """The interrupted run of the same name, policy and data, or a new one; says on stderr which it takes up or leaves."""
    runs.check_name(name)
    budget = policy.privacy.lifetime.budget
    wanted = resume.identity(name, policy, data)
    if new:
        for sentence in resume.leave(home, wanted, budget):
            print(sentence, file=sys.stderr)
    elif (job := resume.take_up(home, wanted)) is not None:
        where = resume.stands(job, budget)
        print(f"Taking up run {job.id}, interrupted: {where} (--new starts another one instead).", file=sys.stderr)
        return job
    return resume.begin(home, wanted)


def _check(processes: int) -> None:
    """Refuse a number of processes that this machine cannot run, before anything is spent."""
    if processes != 1:
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

        state = finetune(
            data=data, policy=str(kept), home=job.home, name=job.name, run=job.id, processes=processes, return_state=True
        )
        result: Any = state.result(raise_on_failure=False)
    if isinstance(result, Outcome):
        return result
    if board.stopped:
        raise KeyboardInterrupt
    raise result if isinstance(result, HushtuneError) else StageError(f"Prefect ended run {job.id} as {state.name}.")


def _stopped(job: Run | None) -> str:
    """Tidy up after Ctrl-C and say what stays."""
    if job is None or not (_reserved(job) or any(job.folder.glob("*/stage.json"))):
        if job is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        return "Stopped by you before any privacy was spent; nothing of the run is left."
    spent = "what it reserved stays charged in full" if _reserved(job) else "no privacy was spent"
    return (
        f"Stopped by you: {spent}; the same command goes on with run {job.id}, whose folder {job.folder} stays, and --new "
        "starts another one."
    )


def _forget(job: Run) -> bool:
    """Remove the folder of a run that has reserved nothing; says whether it did."""
    if _reserved(job):
        return False
    shutil.rmtree(job.folder, ignore_errors=True)
    return True


def _reserved(job: Run) -> bool:
    """Whether the run has taken anything out of a budget; the ledger knows it before the run's folder does."""
    if (job.folder / "claim.json").exists():
        return True
    kept = job.folder / "policy.json"
    if not kept.exists():
        return False
    return resume.charge(job.home, job.id, load(kept).privacy.lifetime.budget) is not None


def _failure(job: Run | None, error: HushtuneError) -> dict[str, Any]:
    """What --json prints for a run without a verdict: the keys that scripts read, and the sentence."""
    status = "budget_exhausted" if isinstance(error, BudgetExhausted) else "error"
    nothing = dict.fromkeys(("release", "report", "epsilon", "delta", "unit"))
    return {"status": status, "run": job.id if job else None, "error": str(error), "gates": {}, **nothing}


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, sort_keys=True), flush=True)
