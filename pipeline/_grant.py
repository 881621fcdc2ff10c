"""Whether a reservation fits: the composition with it, held against the caps of every budget that its people are in."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from pipeline import cohorts
from pipeline._account import PLAN, Book, Plan
from pipeline.cohorts import Refinement, Units
from pipeline.composition import LEAST_NOISE, Spend
from pipeline.errors import UsageError
from pipeline.policy import Lifetime


def grant(book: Book, run: str, lifetime: Lifetime, plan: Spend, refined: Refinement | None) -> dict[str, Any] | str:
    """What the reservation's entry keeps of the composition, or the sentence that refuses it for want of budget."""
    people = Plan(lifetime.budget, refined.seen if refined else None)
    own = book.groups(lifetime.budget, people)
    cap, delta = book.cap(lifetime.budget, lifetime)
    after, group = book.worst(own, delta, [plan])
    if after > cap:
        return _refusal(book, run, lifetime.budget, lifetime, plan, people)
    _check_names(book, lifetime, refined)
    for budget in sorted(book.budgets(claim for one in own if PLAN in one for claim in one) - {lifetime.budget}):
        other, slack = book.cap(budget)
        if book.worst(book.groups(budget, people), slack, [plan])[0] > other:
            return _refusal(book, run, budget, lifetime, plan, people)
    return book.composed(group, delta, [plan], after)


def _check_names(book: Book, lifetime: Lifetime, refined: Refinement | None) -> None:
    """Refuse people of a budget that the policy does not name."""
    for cohort, count in (refined.seen if refined else {}).items():
        strange = book.budgets(book.leaves[cohort].claims) - {lifetime.budget, *lifetime.also}
        if strange:
            name, unit = min(strange), book.leaves[cohort].kind
            raise UsageError(
                f"At least {count:,} {unit}{'s' if count > 1 else ''} of this data are in budget {name} already, and the "
                f"policy charges budget {lifetime.budget}: charge {name}, or name it in privacy.lifetime.also, so that "
                "what was spent there counts here too."
            )


def _refusal(book: Book, run: str, budget: str, lifetime: Lifetime, plan: Spend, about: Plan) -> str:
    cap, delta = book.cap(budget, lifetime if budget == lifetime.budget else None)
    groups = book.groups(budget, about)
    people = {group for group in groups if PLAN in group} or groups

    def after(steps: int) -> float:
        return book.worst(groups, delta, [plan.of(steps)])[0]

    spent = book.worst({group - {PLAN} for group in people}, delta)[0]
    low, high = 0, plan.steps  # low steps fit, high do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if after(middle) <= cap else (low, middle)
    tighter = budget != lifetime.budget or (cap, delta) != (lifetime.epsilon, lifetime.delta)
    return (
        f"Budget {budget} cannot hold run {run}: of its ε {cap:g} at δ {delta:g}"
        f"{', the tightest cap that a run has registered,' if tighter else ''} {spent:.3f} is spent and "
        f"{max(0.0, cap - spent):.3f} is left, and with this run's {plan.steps} steps it would be {after(plan.steps):.3f}; "
        f"{low} of them would fit, so lower train.steps or privacy.epsilon, or train on other people's data under a "
        "budget of their own."
    )


def about(units: Units | None, manifest: str | None) -> dict[str, Any]:
    """What a reservation says of whom it is about and of its canary manifest."""
    said: dict[str, Any] = {}
    if units is not None:
        said["units"] = {"key": units.key, "count": len(units.hashes), "digest": units.digest}
        said["units"] |= {"by": units.by} if units.by else {}
    if manifest is not None:
        said["manifest"] = manifest
    return said


def refined_by(connection: Connection, book: Book, units: Units | None, budget: str, name: str) -> Refinement | None:
    """What a run about `units` does to the cohorts of the ledger called `name`; None for a run that does not say."""
    if units is None:
        return None
    book.check_key(units.key, name)
    book.check_naming(budget, units.by)
    return cohorts.refine(cohorts.load(connection, units.kind), units.hashes, book.made + 1)


def mechanism(sampling_rate: float, noise_multiplier: float, steps: int) -> Spend:
    """The mechanism of a reservation, or a UsageError where it is out of range."""
    try:
        plan = Spend(sampling_rate=sampling_rate, noise_multiplier=noise_multiplier, steps=steps)
    except ValidationError as error:
        raise UsageError(
            f"A reservation's {error.errors()[0]['loc'][0]} is out of range: the sampling rate lies in (0, 1], the "
            f"noise multiplier is at least {LEAST_NOISE} and the steps are a whole number from 1."
        ) from None
    if plan.steps < 1:
        raise UsageError("A reservation needs at least one step: set train.steps to 1 or more.")
    return plan
