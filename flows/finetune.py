"""The main flow: it reads like the line that it runs."""

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows import tasks
from flows.outcome import Outcome
from pipeline.errors import BudgetExhausted


def _name() -> str:
    """Name of the flow run in Prefect: that of the run."""
    given = flow_run.parameters
    return given["run"] or given["name"] or Path(given["data"]).name


@flow(name="finetune", flow_run_name=_name, retries=0, persist_result=False, log_prints=False)
def finetune(
    data: Path,
    policy: str = "default",
    home: Path = Path("hushtune-home"),
    name: str | None = None,
    run: str | None = None,
    base_model: str | None = None,
    processes: int = 1,
) -> State:
    """Fine-tune on private text, audit, judge, and release only if every gate passes.

    Prefect stores these parameters in its database: paths and names, never text.

    Args:
        data: the records.
        policy: preset, or path of a policy file.
        home: folder of all state.
        name: what the release is called; the data file's name by default.
        run: id of a run to take up again; a new one by default.
        base_model: overrides the policy's.
        processes: that train together on this machine.

    Returns:
        Completed "Released" or "AwaitingApproval", Failed "Rejected", "Inconclusive" or "BudgetExhausted".
    """
    job, rules, base = tasks.open_run(data, policy, home, name, run, base_model)
    corpus = tasks.read(job, rules, data)
    if rules.continued_pretraining is not None:
        base = tasks.continue_pretraining(job, rules, corpus, base)
    probes = tasks.probe(job, rules)
    scrubbed = tasks.scrub(job, rules, corpus, probes)
    planted = tasks.plant(job, rules, scrubbed, base)
    try:
        plan = tasks.reserve(job, rules, corpus, planted, base)
    except BudgetExhausted as error:
        return Failed(name="BudgetExhausted", message=str(error), data=error)
    trained, standing = tasks.train(job, rules, planted, base, plan, processes)
    evidence = tasks.audit(job, rules, corpus, scrubbed, planted, trained)
    verdict = tasks.judge(job, rules, evidence)
    page = tasks.report(job, rules, corpus, scrubbed, planted, trained, evidence, verdict, standing)
    made = None
    if verdict.status == "released":
        made = tasks.publish(job, rules, base, trained, page)
    elif verdict.status == "awaiting_approval":
        tasks.hold(job, rules, base, trained, page)
    else:
        tasks.discard(job, rules)
    return _ending(tasks.outcome(job, rules, trained, verdict, standing, page, made))


def _ending(outcome: Outcome) -> State:
    if outcome.status == "released":
        return Completed(name="Released", message=f"{outcome.name} {outcome.version}", data=outcome)
    if outcome.status == "awaiting_approval":
        return Completed(name="AwaitingApproval", message=f"Run {outcome.run} awaits approval.", data=outcome)
    name = "Inconclusive" if outcome.status == "inconclusive" else "Rejected"
    return Failed(name=name, message=" ".join(outcome.reasons), data=outcome)
