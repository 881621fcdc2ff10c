"""What a lost ledger leaves to do: bring a copy's entries back, and charge in full what no copy holds any longer.

Whom a lost reservation was about is lost with it. So what is charged again counts for everybody, in every budget, and its own
budget's cap holds for every later run: more than was spent, never less. An open claim that a copy brings back is closed in
full, since steps may have been taken after the copy was made, and no run goes on under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from pipeline import _chain
from pipeline import cohorts as units
from pipeline._account import PLAN, Book, Claim
from pipeline._database import cohorts, entries, head
from pipeline._journal import Reserved
from pipeline.composition import composed_epsilon
from pipeline.errors import IntegrityError

_ROWS = 1000


def extend(source: Connection, target: Connection, name: str, other: str) -> None:
    """Copy entries and cohorts from one ledger to another, which must be a beginning of it, inside a writing transaction.

    Raises:
        IntegrityError: the source was edited, or the target is not a beginning of it.
    """
    end, there = _chain.verify(source, name), _chain.verify(target, other)
    units.check(source, {number: leaf.digest for number, leaf in Book(source).leaves.items()}, name)
    at = source.scalar(select(entries.c.hash).where(entries.c.seq == there.entries))
    if there.entries and at != there.hash:
        raise IntegrityError(
            f"The ledger {other} holds other entries than {name}, or more: two ledgers are not joined; leave "
            "it as it is, or move it away and try again."
        )
    rows = source.execute(select(entries).where(entries.c.seq > there.entries).order_by(entries.c.seq)).mappings()
    for part in rows.partitions(_ROWS):
        target.execute(insert(entries), [dict(row) for row in part])
    target.execute(update(head).values(entries=end.entries, hash=end.hash))
    target.execute(delete(cohorts))
    for row in source.execute(select(cohorts)).mappings():
        target.execute(insert(cohorts).values(**row))


def close_all(connection: Connection) -> None:
    """Close every open claim with all the steps that it planned."""
    for charge in Book(connection).charges.values():
        if not charge.closed:
            append(connection, "close", charge.claim, charge.claim.mechanism.steps)


def charge(connection: Connection, lost: Sequence[Reserved]) -> None:
    """Put reservations on the chain again, each closed with all its steps, whatever the caps say: the spend has happened."""
    for one in lost:
        book, claim, plan = Book(connection), one.claim, one.claim.mechanism
        if claim.id in book.charges:  # somebody was quicker
            continue
        delta = min([one.cap.delta, *(entry.detail["lifetime"]["delta"] for entry in book.of(claim.budget))])
        groups = {group | {PLAN} for group in book.groups(claim.budget)} or {frozenset({PLAN})}
        after, group = book.worst(groups, delta, [plan])
        detail = {
            "epsilon": claim.epsilon,
            "delta": claim.delta,
            "unit": one.unit,
            "policy": one.policy,
            **plan.model_dump(),
            "alone": composed_epsilon([plan], claim.delta),
            "lifetime": one.cap.model_dump(),
            "composed": book.composed(group, delta, [plan], after),
            "rebuilt": True,
        }
        append(connection, "reserve", claim, 0, detail)
        append(connection, "close", claim, plan.steps)


def append(connection: Connection, kind: _chain.Kind, claim: Claim, steps: int, detail: dict[str, Any] | None = None) -> None:
    """Add an entry of a claim."""
    _chain.append(connection, kind, budget=claim.budget, claim=claim.id, run=claim.run, steps=steps, detail=detail)
