"""The ledger of lifetime privacy budgets: reserve, spend, close.

A budget belongs to the people (or, in a budget of records, to the records) in the data, not to a run, and to one
privacy unit: an ε for one record says nothing of a person with many. A run reserves its whole planned mechanism before
the first noisy step, records every step before it is applied, and closes with the steps taken. What a run is charged:

    open or abandoned    every planned step
    closed               the steps taken: the largest total that was ever recorded

Nothing is refunded, a run that is rejected has still spent, and a step that is replayed counts again. What a budget has
spent is the composition of all its charged mechanisms, not a sum of ε.

Entries are only ever added. Each carries the SHA-256 of its predecessor's hash and of its own content; `verify` finds
an edit. The ledger is `HOME/ledger.db`, or the database that the environment variable HUSHTUNE_LEDGER_URL names.
Writers queue at one lock, so two runs that reserve at once never overspend.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, case, func, select

from pipeline import _chain
from pipeline._chain import Entry, Head
from pipeline._database import Database, entries
from pipeline.composition import LEAST_NOISE, Spend, composed_epsilon, composition_key
from pipeline.errors import BudgetExhausted, StageError, UsageError
from pipeline.folders import Value
from pipeline.policy import Lifetime

__all__ = ["Charge", "Claim", "Entry", "Head", "Ledger", "Spend", "Standing"]


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
    """Where a budget stands.

    `epsilon_spent` is the composition of all charged mechanisms at `delta`; `epsilon_sum` the plain sum of the runs' ε,
    each at its own δ, for comparison; `epsilon_cap` and `delta` are the tightest that any run registered.
    """

    budget: str
    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_sum: float
    runs: int
    epsilon_left: float


class Ledger:
    """The budgets of one ledger.

    Args:
        where: HUSHTUNE_HOME, which holds `ledger.db` unless HUSHTUNE_LEDGER_URL names another; or a `sqlite:///` URL.

    Raises:
        UsageError: the URL is malformed or of a database that is not served.
        IntegrityError: the file is not a ledger.
    """

    def __init__(self, where: Path | str) -> None:
        is_url = isinstance(where, str) and "://" in where
        self._database = Database(where if is_url else os.environ.get("HUSHTUNE_LEDGER_URL") or where, _chain.START)
        self._planned: dict[str, int] = {}

    def reserve(
        self,
        *,
        run: str,
        lifetime: Lifetime,
        sampling_rate: float,
        noise_multiplier: float,
        steps: int,
        epsilon: float,
        delta: float,
        policy_digest: str,
        unit: str,
        manifest: str | None = None,
    ) -> Claim:
        """Take the whole planned mechanism out of the budget, before the first noisy step.

        A run that was interrupted and reserves the same again gets its claim back, closed or not; `taken` says how far it
        came. A closed claim serves a run whose training is finished, and refuses another step.

        Args:
            run: the run's name.
            lifetime: the policy's lifetime budget. A cap looser than one that a run has registered changes nothing.
            sampling_rate: probability that a unit enters a step, in (0, 1].
            noise_multiplier: standard deviation of the noise, in clipping norms.
            steps: noisy steps planned.
            epsilon: the run's own promise, recorded; what is charged is computed from the mechanism.
            delta: the δ of that promise.
            policy_digest: SHA-256 of the resolved policy.
            unit: what the policy protects (record or person): the same for every run of a budget.
            manifest: SHA-256 of the canary manifest, which so is fixed before the first step where a run cannot rewrite it.

        Raises:
            BudgetExhausted: with this run the composed ε at the lifetime δ would exceed the cap; says what is left.
            UsageError: the mechanism is out of range, or the budget protects another unit.
            IntegrityError: the ledger was edited.
        """
        plan = _plan(sampling_rate, noise_multiplier, steps)
        promise = {"epsilon": epsilon, "delta": delta, "unit": unit, "policy": policy_digest, **plan.model_dump()}
        if manifest is not None:
            promise["manifest"] = manifest
        detail = {
            **promise,
            "alone": composed_epsilon([plan], delta),
            "lifetime": {"epsilon": lifetime.epsilon, "delta": lifetime.delta},
        }
        self.verify()
        with self._database.read() as connection:
            # remembered, so that the lock is held briefly
            _account(connection, lifetime.budget, lifetime, unit).with_plan(plan)
        with self._database.write() as connection:
            account = _account(connection, lifetime.budget, lifetime, unit)
            for charge, entry in zip(account.charges, account.reservations, strict=True):
                if charge.claim.run == run and promise.items() <= entry.detail.items():
                    return charge.claim
            after = account.with_plan(plan)
            if after <= account.cap:
                claim = _claim(secrets.token_hex(8), lifetime.budget, run, detail)
                key = composition_key([*account.history, plan], account.delta)
                detail["composed"] = {"key": key, "epsilon": after, "delta": account.delta}
                _append(connection, "reserve", claim, 0, detail)
                return claim
        raise BudgetExhausted(_refusal(run, lifetime, account, plan))

    def spend(self, claim: Claim, steps: int) -> None:
        """Record that the claim's running total of noisy steps becomes `steps`: called before the step is applied.

        Costs one synced commit and no accounting.

        Args:
            claim: from `reserve`.
            steps: noisy steps ever taken under the claim, this and replayed ones included: more than recorded so far.

        Raises:
            BudgetExhausted: the reservation does not hold so many; nothing is recorded, the step must not be taken.
            StageError: the claim is closed or unknown, or another process has recorded as many steps already.
        """
        with self._database.write() as connection:
            kind, taken = self._last(connection, claim)
            if kind == "close":
                raise StageError(f"The claim of run {claim.run} on budget {claim.budget} is closed: start a new run.")
            if steps <= taken:
                raise StageError(
                    f"Run {claim.run} records step {steps} and {taken} are recorded already: go on from what the "
                    "ledger holds, and train a run in one place at a time."
                )
            self._within(connection, claim, steps)
            _append(connection, "spend", claim, steps)

    def close(self, claim: Claim, steps: int) -> None:
        """End a claim: it is charged for the steps taken, never for fewer than recorded. Closing again changes nothing.

        Args:
            claim: from `reserve`.
            steps: noisy steps ever taken under the claim.

        Raises:
            BudgetExhausted: more steps than reserved; the claim stays open, which charges it in full.
            StageError: the claim is unknown, or was closed with fewer steps.
        """
        with self._database.write() as connection:
            kind, taken = self._last(connection, claim)
            self._within(connection, claim, steps)
            if kind != "close":
                _append(connection, "close", claim, max(taken, steps))
            elif steps > taken:
                raise StageError(
                    f"The claim of run {claim.run} was closed with {taken} steps and cannot be closed again with "
                    f"{steps}: the run took steps that the ledger was not told of, so do not release it."
                )

    def taken(self, claim: Claim) -> int:
        """The running total of noisy steps recorded under a claim: where a resumed run goes on counting."""
        with self._database.read() as connection:
            return self._last(connection, claim)[1]

    def manifests(self, run: str) -> set[str]:
        """Digests of the canary manifests under which a run has reserved."""
        with self._database.read() as connection:
            rows = select(entries).where(entries.c.run == run, entries.c.kind == "reserve")
            reserved = _chain.parse(connection.execute(rows).mappings())
        return {entry.detail["manifest"] for entry in reserved if "manifest" in entry.detail}

    def standing(
        self, budget: str, *, lifetime: Lifetime | None = None, planned: Sequence[Spend] = (), unit: str | None = None
    ) -> Standing:
        """Where a budget stands, or would stand with more mechanisms.

        Args:
            budget: its name.
            lifetime: the cap of a policy, which counts beside the registered ones; needed for a budget not used yet.
            planned: mechanisms to add in thought; `runs` and `epsilon_sum` leave them out.
            unit: what those protect (record or person); None does not ask.

        Raises:
            UsageError: the ledger has no such budget and no `lifetime` is given, or it protects another unit.
        """
        with self._database.read() as connection:
            account = _account(connection, budget, lifetime, unit)
        spent = account.with_plan(*planned)
        return Standing(
            budget=budget,
            epsilon_cap=account.cap,
            delta=account.delta,
            epsilon_spent=spent,
            epsilon_sum=account.plain_sum(),
            runs=len(account.charges),
            epsilon_left=max(0.0, account.cap - spent),
        )

    def charges(self, budget: str) -> list[Charge]:
        """What each claim weighs on a budget, oldest first; empty for a budget not used yet."""
        with self._database.read() as connection:
            return _charges(connection, budget, _reservations(connection, budget))

    def history(self, budget: str) -> list[Entry]:
        """All entries of a budget, oldest first; empty for a budget not used yet."""
        with self._database.read() as connection:
            rows = select(entries).where(entries.c.budget == budget).order_by(entries.c.seq)
            return _chain.parse(connection.execute(rows).mappings())

    def budgets(self) -> list[str]:
        """Names of the budgets that runs have used."""
        with self._database.read() as connection:
            return list(connection.scalars(select(entries.c.budget).distinct().order_by(entries.c.budget)))

    def head(self) -> Head:
        """The end of the chain."""
        with self._database.read() as connection:
            return _chain.last(connection)

    def verify(self, anchor: Head | None = None) -> Head:
        """Recompute the whole chain and return its end.

        Args:
            anchor: an end of the chain that was kept elsewhere, which must still lie on it.

        Raises:
            IntegrityError: an entry was changed, removed or put in between, or the chain does not hold the anchor.
        """
        with self._database.read() as connection:
            return _chain.verify(connection, str(self._database.path), anchor)

    def _last(self, connection: Connection, claim: Claim) -> tuple[str, int]:
        """Kind and running total of the claim's last entry."""
        mine = (entries.c.claim == claim.id, entries.c.budget == claim.budget, entries.c.run == claim.run)
        rows = select(entries.c.kind, entries.c.steps).where(*mine).order_by(entries.c.seq.desc()).limit(1)
        row = connection.execute(rows).first()
        if row is None:
            raise StageError(
                f"The claim of run {claim.run} is not in the ledger {self._database.path}: use the one that it was reserved in."
            )
        return row.kind, row.steps

    def _within(self, connection: Connection, claim: Claim, steps: int) -> None:
        planned = self._planned.get(claim.id)
        if planned is None:
            rows = select(entries).where(entries.c.claim == claim.id, entries.c.kind == "reserve")
            planned = int(_chain.parse(connection.execute(rows).mappings())[0].detail["steps"])
            self._planned[claim.id] = planned
        if steps > planned:
            raise BudgetExhausted(
                f"Run {claim.run} reserved {planned} steps of budget {claim.budget}, replayed ones included, and step "
                f"{steps} is not among them: stop with the steps taken, or reserve anew under another run."
            )


class _Account(NamedTuple):
    """One budget as it stands in a transaction."""

    reservations: list[Entry]
    charges: list[Charge]
    cap: float
    delta: float

    @property
    def history(self) -> list[Spend]:
        return [charge.claim.mechanism.of(charge.charged) for charge in self.charges]

    def with_plan(self, *planned: Spend) -> float:
        """ε of everything charged and planned."""
        history = [*self.history, *planned]
        key = composition_key(history, self.delta)
        # What a reservation composed stands in the chain: a long history need not be composed anew only to be shown.
        for entry in reversed(self.reservations):
            if entry.detail["composed"]["key"] == key:
                return entry.detail["composed"]["epsilon"]
        return composed_epsilon(history, self.delta)

    def plain_sum(self) -> float:
        total = 0.0
        for charge, entry in zip(self.charges, self.reservations, strict=True):
            plan = charge.claim.mechanism
            whole = charge.charged == plan.steps
            total += entry.detail["alone"] if whole else composed_epsilon([plan.of(charge.charged)], charge.claim.delta)
        return total


def _account(connection: Connection, budget: str, lifetime: Lifetime | None, unit: str | None = None) -> _Account:
    reservations = _reservations(connection, budget)
    for entry in reservations:
        if unit is not None and entry.detail["unit"] != unit:
            raise UsageError(
                f"Budget {budget} protects one {entry.detail['unit']} and this policy one {unit}: name another budget in "
                "privacy.lifetime.budget."
            )
    caps = [(entry.detail["lifetime"]["epsilon"], entry.detail["lifetime"]["delta"]) for entry in reservations]
    if lifetime is not None:
        caps.append((lifetime.epsilon, lifetime.delta))
    if not caps:
        raise UsageError(f"The ledger has no budget {budget}: name one that a run has used (`hushtune budget show`).")
    charges = _charges(connection, budget, reservations)
    return _Account(reservations, charges, cap=min(cap for cap, _ in caps), delta=min(delta for _, delta in caps))


def _reservations(connection: Connection, budget: str) -> list[Entry]:
    rows = select(entries).where(entries.c.budget == budget, entries.c.kind == "reserve").order_by(entries.c.seq)
    return _chain.parse(connection.execute(rows).mappings())


def _charges(connection: Connection, budget: str, reservations: Sequence[Entry]) -> list[Charge]:
    closed = func.max(case((entries.c.kind == "close", 1), else_=0))
    rows = select(entries.c.claim, func.max(entries.c.steps), closed).where(entries.c.budget == budget)
    found = {claim: (taken, bool(end)) for claim, taken, end in connection.execute(rows.group_by(entries.c.claim))}
    charges = []
    for entry in reservations:
        claim = _claim(entry.claim, budget, entry.run, entry.detail)
        taken, ended = found[claim.id]
        charged = taken if ended else claim.mechanism.steps
        charges.append(Charge(claim=claim, taken=taken, charged=charged, closed=ended))
    return charges


def _claim(id: str, budget: str, run: str, detail: dict) -> Claim:
    plan = Spend(**{key: detail[key] for key in Spend.model_fields})
    return Claim(id=id, budget=budget, run=run, mechanism=plan, epsilon=detail["epsilon"], delta=detail["delta"])


def _append(connection: Connection, kind: _chain.Kind, claim: Claim, steps: int, detail: dict | None = None) -> None:
    _chain.append(connection, kind, budget=claim.budget, claim=claim.id, run=claim.run, steps=steps, detail=detail)


def _plan(sampling_rate: float, noise_multiplier: float, steps: int) -> Spend:
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


def _refusal(run: str, lifetime: Lifetime, account: _Account, plan: Spend) -> str:
    spent, after = account.with_plan(), account.with_plan(plan)
    low, high = 0, plan.steps  # low steps fit, high do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if account.with_plan(plan.of(middle)) <= account.cap else (low, middle)
    tighter = (account.cap, account.delta) != (lifetime.epsilon, lifetime.delta)
    return (
        f"Budget {lifetime.budget} cannot hold run {run}: of its ε {account.cap:g} at δ {account.delta:g}"
        f"{', the tightest cap that a run has registered,' if tighter else ''} {spent:.3f} is spent and "
        f"{max(0.0, account.cap - spent):.3f} is left, and with this run's {plan.steps} steps it would be {after:.3f}; "
        f"{low} of them would fit, so lower train.steps or privacy.epsilon, or train on other people's data under a "
        "budget of their own."
    )
