"""How runs end in Prefect: a named state, and an event of the same name that an automation can wait for.

    state              kind         event
    Released           Completed    hushtune.run.released
    AwaitingApproval   Completed    hushtune.run.awaiting_approval
    NothingNew         Completed    hushtune.run.nothing_new
    Superseded         Completed    hushtune.run.superseded
    Rejected           Failed       hushtune.run.rejected
    Inconclusive       Failed       hushtune.run.inconclusive
    BudgetExhausted    Failed       hushtune.run.budget_exhausted
    TimedOut           Failed       hushtune.run.timed_out
    AtWork             Failed       hushtune.run.at_work

An audit that is done again ends as "Confirmed", "Rejected", "Inconclusive" or "PastRetention", under hushtune.audit. Every run
of a schedule may end as "Superseded", then under hushtune.run, hushtune.audit or hushtune.retention. An event carries names,
numbers and gates, never text.
"""

import logging
from datetime import UTC, datetime

from prefect.events import emit_event
from prefect.states import Completed, Failed, State

from flows.outcome import Outcome
from flows.parameters import Finetune, Reaudit
from pipeline.errors import BudgetExhausted, BusyError, StageError
from pipeline.gates import Verdict
from pipeline.policy import Policy
from pipeline.runs import Run

_NAMES = {
    "released": "Released",
    "awaiting_approval": "AwaitingApproval",
    "rejected": "Rejected",
    "inconclusive": "Inconclusive",
}


def ended(outcome: Outcome) -> State:
    """The state of a run that was judged."""
    emit(
        outcome.status,
        outcome.run,
        name=outcome.name,
        version=outcome.version,
        epsilon=outcome.epsilon,
        delta=outcome.delta,
        budget=outcome.budget,
        lifetime_spent=outcome.lifetime_spent,
        lifetime_cap=outcome.lifetime_cap,
        failed=[name for name, gate in outcome.gates.items() if not gate.passed],
    )
    words = {"released": f"{outcome.name} {outcome.version}", "awaiting_approval": f"Run {outcome.run} awaits approval."}
    kind = Completed if outcome.status in words else Failed
    return kind(name=_NAMES[outcome.status], message=words.get(outcome.status) or " ".join(outcome.reasons), data=outcome)


def budget_exhausted(run: Run, rules: Policy, error: BudgetExhausted) -> State:
    """The state of a run that the lifetime budget does not hold; nothing was spent."""
    emit("budget_exhausted", run.id, name=run.name, budget=rules.privacy.lifetime.budget)
    return Failed(name="BudgetExhausted", message=str(error), data=error)


def nothing_new(job: Finetune) -> State:
    """The state of an incremental run whose folder holds nothing that is not in a release already."""
    emit("nothing_new", job.called, name=job.called)
    return Completed(name="NothingNew", message=f"Nothing new since the releases of {job.called}; nothing was spent.")


def superseded(of: str, name: str, due: datetime) -> State:
    """The state of a run that its schedule missed and that a later one overtakes (see flows/catchup.py); nothing was opened."""
    emit("superseded", name, of=of, name=name, by=due.isoformat())
    when = f"{due.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    message = f"The run that was due {when} does the work of those that were missed; this one spent nothing."
    return Completed(name="Superseded", message=message)


def at_work(job: Finetune, error: BusyError) -> State:
    """The state of a run that another process works on: a worker's orphan, or a run that takes longer than its schedule."""
    emit("at_work", job.run or job.called, name=job.called)
    return Failed(name="AtWork", message=str(error), data=error)


def audited_again(job: Reaudit, run: str, verdict: Verdict) -> State:
    """The state of an audit that was done again; what was released stays, whatever it found."""
    passed = verdict.status in ("released", "awaiting_approval")
    what = "confirmed" if passed else verdict.status
    emit(what, run, of="audit", target=job.target, failed=[gate.name for gate in verdict.gates if not gate.passed])
    if passed:
        return Completed(name="Confirmed", message=f"{job.target} passes every gate again.", data=verdict)
    advice = f"A person decides: `hushtune revoke {job.target} --why TEXT` withdraws a release."
    return Failed(name=_NAMES[verdict.status], message=f"{' '.join(verdict.reasons)} {advice}", data=verdict)


def past_retention(job: Reaudit, run: str, deleted: tuple[str, ...]) -> State:
    """The state of an audit that cannot be done again, since the private files are deleted as the policy says."""
    emit("past_retention", run, of="audit", target=job.target)
    what = ", ".join(deleted)
    return Completed(name="PastRetention", message=f"Run {run} cannot be audited again: its retention has deleted {what}.")


def nothing_released(job: Reaudit) -> State:
    """The state of an audit of a name that has no release yet."""
    return Completed(name="NothingReleased", message=f"There is no release, and no run, called {job.target} yet.")


def timed_out(run: Run, error: TimeoutError) -> State:
    """The state of a run of which a stage took longer than its hours (flows/rules.py); the next run goes on with it."""
    emit("timed_out", run.id, name=run.name)
    message = f"Run {run.id} was stopped, since a stage took longer than it may ({error}): the next run goes on with it."
    return Failed(name="TimedOut", message=message, data=StageError(message))


def emit(what: str, run: str, *, of: str = "run", **payload: object) -> None:
    """Send an event hushtune.run.WHAT; no run fails for want of it."""
    try:
        emit_event(
            event=f"hushtune.{of}.{what}",
            resource={"prefect.resource.id": f"hushtune.run.{run}", "prefect.resource.name": run},
            payload={"run": run, **payload},
        )
    except Exception as error:
        logging.getLogger(__name__).warning("The event %s was not sent (%s).", what, type(error).__name__)
