"""The ledger of lifetime privacy budgets: reserve, spend, close.

A budget belongs to the people (or, in a budget of records, to the records) in the data, not to a run, and to one
privacy unit: an ε for one record says nothing of a person with many. A run reserves its whole planned mechanism before
the first noisy step, records every step before it is applied, and closes with the steps taken. What a run is charged:

    open or abandoned    every planned step
    closed               the steps taken: the largest total that was ever recorded

Nothing is refunded, a run that is rejected has still spent, and a step that is replayed counts again. What a person has
spent is the composition of the mechanisms of the runs that the person was in, not a sum of ε; a budget stands where the
most charged of its people do (see `pipeline.cohorts`). A run about people of another budget is refused unless its policy
names that budget; then the caps of both hold.

Entries are only ever added. Each carries the SHA-256 of its predecessor's hash and of its own content; `verify` finds
an edit. The ledger is `HOME/ledger.db`, or the database that the environment variable HUSHTUNE_LEDGER_URL names (SQLite or
PostgreSQL). Writers queue at one lock, so runs that reserve at once never overspend.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from pipeline import _chain, _journal, _lost, cohorts
from pipeline._account import PLAN, Book, Charge, Claim, Cohort, Past, Plan, Standing, claim_of
from pipeline._chain import Entry, Head
from pipeline._database import Database, entries
from pipeline._grant import about, grant, mechanism, refined_by
from pipeline._journal import Reserved
from pipeline._lost import append as _append
from pipeline.cohorts import Units
from pipeline.composition import Spend, composed_epsilon
from pipeline.errors import BudgetExhausted, IntegrityError, StageError
from pipeline.folders import canonical
from pipeline.policy import Lifetime

__all__ = ["Charge", "Claim", "Cohort", "Entry", "Head", "Ledger", "Past", "Spend", "Standing"]


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
        self._home = None if is_url else Path(where)
        self.name = self._database.name
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
        units: Units | None = None,
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
            units: whom the run is about; without it the run is charged to everybody in the budget.
            manifest: SHA-256 of the canary manifest, which so is fixed before the first step where a run cannot rewrite it.

        Raises:
            BudgetExhausted: with this run the composed ε of some of its people would exceed the cap of a budget that they
                are in; says what is left.
            UsageError: the mechanism is out of range, the budget protects another unit or knows its people by another column
                or pattern, the hashes were made with another key, or people of the run are in a budget that the policy does
                not name.
            IntegrityError: the ledger was edited.
        """
        plan = mechanism(sampling_rate, noise_multiplier, steps)
        promise = {"epsilon": epsilon, "delta": delta, "unit": unit, "policy": policy_digest, **plan.model_dump()}
        promise |= about(units, manifest)
        alone = composed_epsilon([plan], delta)
        detail = {**promise, "alone": alone, "lifetime": {"epsilon": lifetime.epsilon, "delta": lifetime.delta}}
        self.verify()
        with self._database.read() as connection:
            # Composed here and remembered, so that the lock is held briefly.
            book = Book(connection)
            if (claim := book.again(lifetime.budget, run, promise)) is not None:
                return self._kept(claim)
            book.check_unit(lifetime.budget, unit)
            grant(book, run, lifetime, plan, refined_by(connection, book, units, lifetime.budget, self.name))
        with self._database.write() as connection:
            book = Book(connection)
            claim = book.again(lifetime.budget, run, promise)
            if claim is None:
                book.check_unit(lifetime.budget, unit)
                refined = refined_by(connection, book, units, lifetime.budget, self.name)
                granted = grant(book, run, lifetime, plan, refined)
                if isinstance(granted, str):
                    raise BudgetExhausted(granted)
                detail["composed"] = granted
                if refined is not None:
                    detail["cohorts"] = {"inside": refined.inside, "made": [one.described() for one in refined.made]}
                    cohorts.store(connection, unit, refined.made)
                claim = Claim(
                    id=secrets.token_hex(8), budget=lifetime.budget, run=run, mechanism=plan, epsilon=epsilon, delta=delta
                )
                _append(connection, "reserve", claim, 0, detail)
        return self._kept(claim)

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
        self,
        budget: str,
        *,
        lifetime: Lifetime | None = None,
        planned: Sequence[Spend] = (),
        unit: str | None = None,
        units: Units | None = None,
    ) -> Standing:
        """Where a budget stands, or would stand with more mechanisms.

        Args:
            budget: its name.
            lifetime: the cap of a policy, which counts beside the registered ones; needed for a budget not used yet.
            planned: mechanisms to add in thought; `runs` and `epsilon_sum` leave them out.
            unit: what those protect (record or person); None does not ask.
            units: whom they are about; everybody in the budget by default.

        Raises:
            UsageError: the ledger has no such budget and no `lifetime` is given, or it protects another unit.
        """
        with self._database.read() as connection:
            book = Book(connection)
            book.check_unit(budget, unit)
            refined = refined_by(connection, book, units, budget, self.name)
            cap, delta = book.cap(budget, lifetime)
        plan = Plan(budget, refined.seen if refined else None) if planned else None
        spent, group = book.worst(book.groups(budget, plan), delta, planned)
        found = book.groups(budget)
        return Standing(
            budget=budget,
            epsilon_cap=cap,
            delta=delta,
            epsilon_spent=spent,
            epsilon_sum=max((book.plain_sum(one) for one in found), default=0.0) if PLAN in group else book.plain_sum(group),
            runs=len(book.of(budget)),
            epsilon_left=max(0.0, cap - spent),
            cohorts=max(1, sum(budget in book.budgets(leaf.claims) for leaf in book.leaves.values())),
        )

    def cohorts(
        self, budget: str, *, lifetime: Lifetime | None = None, planned: Sequence[Spend] = (), units: Units | None = None
    ) -> list[Cohort]:
        """The cohorts of a budget, those in most runs first, each with its ε now and with `planned` mechanisms.

        Arguments are those of `standing`. Composes one history for each cohort.
        """
        with self._database.read() as connection:
            book = Book(connection)
            refined = refined_by(connection, book, units, budget, self.name)
            delta = book.cap(budget, lifetime)[1]
        plan = Plan(budget, refined.seen if refined else None) if planned else None
        fresh = len(units.hashes) - sum(refined.seen.values()) if plan and units is not None and refined else 0
        return book.cohorts(budget, delta, planned, plan, fresh)

    def charges(self, budget: str) -> list[Charge]:
        """What each claim weighs on a budget, oldest first; empty for a budget not used yet."""
        with self._database.read() as connection:
            book = Book(connection)
        return [book.charges[entry.claim] for entry in book.of(budget)]

    def past(self, budget: str) -> list[Past]:
        """The runs of a budget, oldest first, each with its ε and where the budget stood once it was reserved."""
        with self._database.read() as connection:
            return Book(connection).past(budget)

    def history(self, budget: str) -> list[Entry]:
        """All entries of a budget, oldest first; empty for a budget not used yet."""
        with self._database.read() as connection:
            rows = select(entries).where(entries.c.budget == budget).order_by(entries.c.seq)
            return _chain.parse(connection.execute(rows).mappings())

    def budgets(self) -> list[str]:
        """Names of the budgets that runs have used."""
        with self._database.read() as connection:
            named = select(entries.c.budget).distinct().where(entries.c.budget != "").order_by(entries.c.budget)
            return list(connection.scalars(named))

    def note(self, run: str, what: str, content: Mapping[str, Any]) -> None:
        """Put something that was done with a run on the chain: a release, an approval, a deletion. It spends nothing."""
        with self._database.write() as connection:
            _note(connection, run, what, content)

    def notes(self, what: str | None = None, run: str | None = None) -> list[Entry]:
        """The notes, oldest first; only those of one kind or run where given."""
        rows = select(entries).where(entries.c.kind == "note").order_by(entries.c.seq)
        with self._database.read() as connection:
            found = _chain.parse(connection.execute(rows).mappings())
        return [one for one in found if what in (None, one.detail["what"]) and run in (None, one.run)]

    def note_once(self, run: str, what: str, content: Mapping[str, Any]) -> None:
        """Note something that a run can have one of: the same again changes nothing.

        Raises:
            IntegrityError: the ledger notes another one for this run.
        """
        mine = select(entries).where(entries.c.kind == "note", entries.c.run == run)
        with self._database.write() as connection:
            noted = [one.detail for one in _chain.parse(connection.execute(mine).mappings()) if one.detail["what"] == what]
            if not noted:
                _note(connection, run, what, content)
        if noted and noted[0] != {"what": what, **content}:
            raise IntegrityError(
                f"The {what} of run {run} is another than the one that the ledger {self.name} notes: it was changed or made "
                "again, so start a new run."
            )

    def holds(self, head: Head) -> bool:
        """Whether an end of the chain that was kept elsewhere still lies on it; `verify` first."""
        with self._database.read() as connection:
            found = connection.scalar(select(entries.c.hash).where(entries.c.seq == head.entries))
        return found == head.hash or head == Head(entries=0, hash=_chain.START)

    def claims(self) -> dict[str, Claim]:
        """Every claim that this ledger has granted, by its id."""
        with self._database.read() as connection:
            rows = select(entries).where(entries.c.kind == "reserve").order_by(entries.c.seq)
            return {entry.claim: claim_of(entry) for entry in _chain.parse(connection.execute(rows).mappings())}

    def copy_to(self, other: Ledger, note: Mapping[str, Any] | None = None) -> Head:
        """Bring what another ledger lacks into it and return its end; see `pipeline._lost.extend`."""
        with self._database.read() as source, other._database.write() as target:
            _lost.extend(source, target, self.name, other.name)
            if note is not None:
                _lost.close_all(target)
                _note(target, "", "restored", note)
        return other.verify()

    def leave(self) -> None:
        """Close the connections, so that the database is one file that can be moved."""
        self._database.close()

    def rebuild(self, lost: Sequence[Reserved], heads: Iterable[Head], note: Mapping[str, Any]) -> None:
        """Charge in full, to everybody, what this ledger no longer holds, and note whose word that rests on, all at once."""
        with self._database.write() as connection:
            _lost.charge(connection, lost)
            known = sorted((head.model_dump(mode="json") for head in heads), key=canonical)
            _note(connection, "", "rebuilt", {**note, "claims": [one.claim.id for one in lost], "heads": known})
        for one in lost:
            self._kept(one.claim)

    def now(self) -> datetime:
        """The time (UTC), never before that of an entry: a clock that was set back gives no second chance."""
        with self._database.read() as connection:
            last = connection.scalar(select(func.max(entries.c.at)))
        here = datetime.now(UTC)
        return here if last is None else max(here, datetime.fromisoformat(last))

    def head(self) -> Head:
        """The end of the chain."""
        with self._database.read() as connection:
            return _chain.last(connection)

    def verify(self, anchor: Head | None = None) -> Head:
        """Recompute the whole chain and return its end.

        Args:
            anchor: an end of the chain that was kept elsewhere, which must still lie on it.

        Raises:
            IntegrityError: an entry was changed, removed or put in between, the chain does not hold the anchor, or the hashes
                of a cohort are not those that the chain describes.
        """
        with self._database.read() as connection:
            end = _chain.verify(connection, self.name, anchor)
            leaves = Book(connection).leaves
            cohorts.check(connection, {number: leaf.digest for number, leaf in leaves.items()}, self.name)
            return end

    def _kept(self, claim: Claim) -> Claim:
        """Write a reservation down beside the ledger too, before its first noisy step."""
        if self._home is not None:
            with self._database.read() as connection:
                reserved = _journal.of(connection, claim)
            _journal.keep(self._home, reserved)
        return claim

    def _last(self, connection: Connection, claim: Claim) -> tuple[str, int]:
        """Kind and running total of the claim's last entry."""
        mine = (entries.c.claim == claim.id, entries.c.budget == claim.budget, entries.c.run == claim.run)
        rows = select(entries.c.kind, entries.c.steps).where(*mine).order_by(entries.c.seq.desc()).limit(1)
        row = connection.execute(rows).first()
        if row is None:
            raise StageError(
                f"The claim of run {claim.run} is not in the ledger {self.name}: use the one that it was reserved in."
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


def _note(connection: Connection, run: str, what: str, content: Mapping[str, Any]) -> None:
    _chain.append(connection, "note", budget="", claim="", run=run, steps=0, detail={"what": what, **content})
