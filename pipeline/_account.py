"""What the ledger's entries add up to: claims, what each is charged, and where a budget stands over the cohorts of its people.

A person's privacy is spent by the runs that the person was in, whatever budget they were charged to. So a budget stands where
the most charged of its cohorts stands: the maximum over its cohorts of the composition of the runs that each was in. A run
that did not say whom it was about (no `units`) counts for everybody in its budget, and one that was charged again after the
ledger was lost (`rebuilt`) for everybody in every budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, select

from pipeline import _chain
from pipeline._chain import Entry
from pipeline._database import entries
from pipeline.composition import Spend, composed_epsilon, composition_key
from pipeline.errors import UsageError
from pipeline.folders import Value
from pipeline.policy import Lifetime

Group = frozenset[str]
"""Ids of the claims that one cohort was in; PLAN among them stands for what is planned."""

PLAN = "plan"


class Claim(Value):
    """A run's reservation: what it may take from a budget. `epsilon` and `delta` are the run's own promise."""

    id: str
    budget: str
    run: str
    mechanism: Spend
    epsilon: float
    delta: float


class Charge(Value):
    """What one claim weighs on its budget: `charged` steps of those planned; `taken` are recorded so far."""

    claim: Claim
    taken: int
    charged: int
    closed: bool


class Standing(Value):
    """Where a budget stands: where the most charged of its cohorts does.

    `epsilon_spent` is the composition at `delta` of all charged mechanisms that cohort was in; `epsilon_sum` the plain sum of
    those runs' ε, each at its own δ, for comparison; `epsilon_cap` and `delta` are the tightest that any run registered;
    `runs` counts those of the budget, `cohorts` the groups of units that were in different ones.
    """

    budget: str
    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_sum: float
    runs: int
    epsilon_left: float
    cohorts: int = 1


class Past(Value):
    """One run of a budget: ε of what it was charged, alone at its own δ, and where the budget stood once it was reserved."""

    run: str
    at: str
    epsilon: float
    composed: float


class Cohort(Value):
    """Units that were in the same runs. `units` is None for the units of runs that did not say whom they were about.

    `epsilon_after` is ε with what is planned: the same as `epsilon_spent` for units that the plan leaves out.
    """

    units: int | None
    runs: tuple[str, ...]
    planned: bool
    epsilon_spent: float
    epsilon_after: float


class _Leaf(NamedTuple):
    kind: str
    count: int
    digest: str
    claims: Group


class Book:
    """All reservations and charges, as they stand in one transaction."""

    def __init__(self, connection: Connection) -> None:
        rows = select(entries).where(entries.c.kind == "reserve").order_by(entries.c.seq)
        self.reservations = _chain.parse(connection.execute(rows).mappings())
        closed = func.max(case((entries.c.kind == "close", 1), else_=0))
        ends = select(entries.c.claim, func.max(entries.c.steps), closed).group_by(entries.c.claim)
        found = {claim: (taken, bool(end)) for claim, taken, end in connection.execute(ends)}
        self.charges = {entry.claim: _charge(entry, *found[entry.claim]) for entry in self.reservations}
        self.leaves, self.made = _leaves(self.reservations)
        self._entry = {entry.claim: entry for entry in self.reservations}
        self._composed = {e.detail["composed"]["key"]: e.detail["composed"]["epsilon"] for e in self.reservations}

    def of(self, budget: str) -> list[Entry]:
        """The reservations of a budget, oldest first."""
        return [entry for entry in self.reservations if entry.budget == budget]

    def again(self, budget: str, run: str, promise: Mapping[str, Any]) -> Claim | None:
        """The claim of a run that has reserved the same before."""
        for entry in self.of(budget):
            if entry.run == run and promise.items() <= entry.detail.items():
                return claim_of(entry)
        return None

    def check_unit(self, budget: str, unit: str | None) -> None:
        """Refuse a unit that is not the one the budget protects (UsageError)."""
        for entry in self.of(budget):
            if unit is not None and entry.detail["unit"] != unit:
                raise UsageError(
                    f"Budget {budget} protects one {entry.detail['unit']} and this policy one {unit}: name another budget in "
                    "privacy.lifetime.budget."
                )

    def check_key(self, key: str, name: str) -> None:
        """Refuse hashes that were made with another key than the ledger's (UsageError): they would match nobody."""
        for entry in self.reservations:
            if "units" in entry.detail and entry.detail["units"]["key"] != key:
                raise UsageError(
                    f"The ledger {name} was begun with another HOME/keys/units.key than the one here, so that nobody in it "
                    "could be recognised: bring that key here."
                )

    def check_naming(self, budget: str, by: str) -> None:
        """Refuse people who are known by something else than those of the budget (UsageError): all would pass for new."""
        for entry in self.of(budget):
            known = entry.detail.get("units", {}).get("by", by)
            if by and known != by:
                raise UsageError(
                    f"Budget {budget} knows its people by {known} and this run by {by}, so that none would be recognised: set "
                    "data.unit_column and data.unit_pattern as before, and give a renamed column of the data its name back."
                )

    def cap(self, budget: str, lifetime: Lifetime | None = None) -> tuple[float, float]:
        """The tightest ε and δ that the budget's runs have registered, `lifetime` among them."""
        caps = [(entry.detail["lifetime"]["epsilon"], entry.detail["lifetime"]["delta"]) for entry in self.of(budget)]
        if lifetime is not None:
            caps.append((lifetime.epsilon, lifetime.delta))
        if not caps:
            raise UsageError(f"The ledger has no budget {budget}: name one that a run has used (`hushtune budget show`).")
        return min(cap for cap, _ in caps), min(delta for _, delta in caps)

    def budgets(self, claims: Iterable[str]) -> set[str]:
        """The budgets that some claims were charged to."""
        return {self._entry[claim].budget for claim in claims if claim != PLAN}

    def groups(self, budget: str, plan: Plan | None = None) -> set[Group]:
        """The claims that each cohort of a budget was in or, with a plan, will have been in; those in fewer are left out.

        A plan of another budget reaches this one where a reservation was rebuilt: its people are unknown and may be the plan's.
        """
        planned = plan is not None and (plan.budget == budget or any("rebuilt" in entry.detail for entry in self.of(budget)))
        newcomers = self._nameless(plan.budget) | {PLAN} if plan is not None and planned else frozenset()
        found = {self._nameless(budget) | newcomers}  # whoever was in no run before
        for number, leaf in self.leaves.items():
            here = budget in self.budgets(leaf.claims)
            reached = plan is not None and plan.reaches(number, plan.budget in self.budgets(leaf.claims))
            if here or (planned and reached):
                more, mark = (plan.budget, {PLAN}) if plan is not None and reached else (None, set())
                found.add(self._whole(leaf.claims, more) | mark)
        return _maximal(found - {frozenset()})

    def epsilon(self, group: Group, delta: float, planned: Sequence[Spend] = ()) -> float:
        """ε of everything that a cohort was charged."""
        history = [self._spend(entry.claim) for entry in self.reservations if entry.claim in group]
        history += planned if PLAN in group else ()
        # What a reservation composed stands in the chain: a long history need not be composed anew only to be shown.
        known = self._composed.get(composition_key(history, delta))
        return composed_epsilon(history, delta) if known is None else known

    def worst(self, groups: Iterable[Group], delta: float, planned: Sequence[Spend] = ()) -> tuple[float, Group]:
        """The largest ε of some cohorts, and whose it is."""
        found = [(self.epsilon(group, delta, planned), group) for group in groups]
        return max(found, key=lambda pair: pair[0], default=(0.0, frozenset()))

    def composed(self, group: Group, delta: float, planned: Sequence[Spend], epsilon: float) -> dict[str, float | str]:
        """What a reservation keeps of the composition that it was granted on."""
        history = [self._spend(entry.claim) for entry in self.reservations if entry.claim in group]
        history += planned if PLAN in group else ()
        return {"key": composition_key(history, delta), "epsilon": epsilon, "delta": delta}

    def past(self, budget: str) -> list[Past]:
        """The runs of a budget, oldest first."""
        return [
            Past(run=entry.run, at=entry.at, epsilon=self.plain_sum(frozenset({entry.claim})),
                 composed=entry.detail["composed"]["epsilon"])
            for entry in self.of(budget)
        ]  # fmt: skip

    def plain_sum(self, group: Group) -> float:
        """The sum of the ε of a cohort's runs, each at its own δ."""
        total = 0.0
        for claim in sorted(group - {PLAN}):
            charge, entry = self.charges[claim], self._entry[claim]
            whole = charge.charged == charge.claim.mechanism.steps
            total += entry.detail["alone"] if whole else composed_epsilon([self._spend(claim)], charge.claim.delta)
        return total

    def cohorts(self, budget: str, delta: float, planned: Sequence[Spend], plan: Plan | None, fresh: int) -> list[Cohort]:
        """The cohorts of a budget, or those that a plan reaches, the ones in most runs first."""
        sizes: dict[Group, int | None] = {}
        for number, leaf in self.leaves.items():
            here = budget in self.budgets(leaf.claims)
            reached = plan.reached(number, leaf.count, here) if plan else 0
            whole = self._whole(leaf.claims, budget if reached else None)
            for group, count in ((whole | {PLAN}, reached), (whole, leaf.count - reached if here else 0)):
                if count:
                    sizes[group] = (sizes.get(group) or 0) + count
        nameless = self._nameless(budget)
        if fresh:
            sizes[nameless | {PLAN}] = fresh
        if nameless and not fresh:
            sizes[nameless | ({PLAN} if plan and plan.seen is None else frozenset())] = None
        made = []
        for group, count in sorted(sizes.items(), key=lambda item: (-len(item[0]), item[1] or 0)):
            runs = tuple(entry.run for entry in self.reservations if entry.claim in group)
            spent, after = self.epsilon(group - {PLAN}, delta), self.epsilon(group, delta, planned)
            made.append(Cohort(units=count, runs=runs, planned=PLAN in group, epsilon_spent=spent, epsilon_after=after))
        return made

    def _spend(self, claim: str) -> Spend:
        charge = self.charges[claim]
        return charge.claim.mechanism.of(charge.charged)

    def _nameless(self, budget: str) -> Group:
        """Reservations that count for everybody in a budget; one that was rebuilt counts for everybody in every budget."""
        return frozenset(
            entry.claim
            for entry in self.reservations
            if "rebuilt" in entry.detail or (entry.budget == budget and "cohorts" not in entry.detail)
        )

    def _whole(self, claims: Group, more: str | None = None) -> Group:
        """The claims of a cohort and those that count for everybody in its budgets."""
        named = self.budgets(claims) | ({more} if more else set())
        return claims.union(*(self._nameless(budget) for budget in named))


class Plan(NamedTuple):
    """Whom a planned run is about: the units seen in each cohort, or everybody in its budget (`seen` None)."""

    budget: str
    seen: dict[int, int] | None

    def reaches(self, cohort: int, of_budget: bool) -> bool:
        """Whether some of the cohort will be in the run."""
        return of_budget if self.seen is None else cohort in self.seen

    def reached(self, cohort: int, count: int, of_budget: bool) -> int:
        """How many of the cohort's `count` units will be in the run."""
        return (count if of_budget else 0) if self.seen is None else self.seen.get(cohort, 0)


def claim_of(entry: Entry) -> Claim:
    """The claim that a reservation made."""
    detail = entry.detail
    plan = Spend(**{key: detail[key] for key in Spend.model_fields})
    return Claim(
        id=entry.claim,
        budget=entry.budget,
        run=entry.run,
        mechanism=plan,
        epsilon=detail["epsilon"],
        delta=detail["delta"],
    )


def _charge(entry: Entry, taken: int, closed: bool) -> Charge:
    claim = claim_of(entry)
    return Charge(claim=claim, taken=taken, charged=taken if closed else claim.mechanism.steps, closed=closed)


def _leaves(reservations: Iterable[Entry]) -> tuple[dict[int, _Leaf], int]:
    """The cohorts as the chain describes them, and how many were ever made."""
    leaves: dict[int, _Leaf] = {}
    made = 0
    for entry in reservations:
        described = entry.detail.get("cohorts", {"made": (), "inside": ()})
        kept = {one["parent"]: leaves[one["parent"]].claims for one in described["made"] if one["parent"] is not None}
        for one in described["made"]:
            leaves.pop(one["parent"], None)
            claims = kept.get(one["parent"], frozenset())
            leaves[one["id"]] = _Leaf(entry.detail["unit"], one["count"], one["digest"], claims)
            made = max(made, one["id"])
        for number in described["inside"]:
            leaves[number] = leaves[number]._replace(claims=leaves[number].claims | {entry.claim})
    return leaves, made


def _maximal(groups: set[Group]) -> set[Group]:
    """Without those that are contained in another: more runs never cost less."""
    kept: list[Group] = []
    for group in sorted(groups, key=len, reverse=True):
        if not any(group < larger for larger in kept):
            kept.append(group)
    return set(kept)
