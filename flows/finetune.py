"""The main flow: it reads like the line that it runs."""

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import State

from flows import catchup, endings, limits, tasks
from flows.parameters import Finetune
from flows.tasks import Opened
from pipeline import resume, runs
from pipeline.errors import BudgetExhausted, BusyError, UsageError


def _name() -> str:
    """Name of the flow run in Prefect: that of the run, once it is known."""
    job = Finetune.model_validate(flow_run.parameters["job"])
    return job.run or job.name or Path(job.data).name


@flow(name="finetune", flow_run_name=_name, retries=0, persist_result=False, log_prints=False)
def finetune(job: Finetune) -> State:
    """Fine-tune on private text, audit, judge, and release only if every gate passes.

    Args:
        job: what to run. Prefect stores it in its database: paths and names, never text.

    Returns:
        Completed "Released", "AwaitingApproval", "NothingNew" or "Superseded" (a later run does the work of those that were
        missed), Failed "Rejected", "Inconclusive", "BudgetExhausted", "TimedOut" or "AtWork" (another process works on it).
    """
    if due := catchup.overtaken():
        return endings.superseded("run", job.called, due)
    try:
        opened = tasks.open_run(job)
    except BusyError as error:
        return endings.at_work(job, error)
    if opened is None:
        return endings.nothing_new(job)
    try:
        return _line(opened, job.processes)
    except TimeoutError as error:
        return endings.timed_out(opened.run, error)
    except UsageError:
        if job.run is None:
            resume.forget(opened.run)
        raise
    finally:
        if job.run is None:
            runs.let_go(opened.run.folder)


def _line(opened: Opened, processes: int) -> State:
    run, rules, base = opened.run, opened.rules, opened.base
    corpus = tasks.read(run, rules, opened.intake)
    if rules.continued_pretraining is not None:
        base = tasks.continue_pretraining(run, rules, corpus, base)
    probes = tasks.probe(run, rules)
    scrubbed = tasks.scrub(run, rules, corpus, probes)
    planted = tasks.plant(run, rules, scrubbed, base)
    with limits.one_trainer(rules.privacy.lifetime.budget):
        try:
            plan = tasks.reserve(run, rules, corpus, planted, base)
        except BudgetExhausted as error:
            return endings.budget_exhausted(run, rules, error)
        trained, standing = tasks.train(run, rules, planted, base, plan, processes)
    evidence = tasks.audit(run, rules, corpus, scrubbed, planted, trained)
    verdict = tasks.judge(run, rules, evidence)
    page = tasks.report(run, rules, corpus, scrubbed, planted, trained, evidence, verdict, standing)
    made = None
    if verdict.status == "released":
        made = tasks.publish(run, rules, base, trained, page)
    elif verdict.status == "awaiting_approval":
        tasks.hold(run, rules, base, trained, page)
    else:
        tasks.discard(run, rules)
    return endings.ended(tasks.outcome(run, rules, trained, verdict, standing, page, made))
