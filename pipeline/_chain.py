"""The ledger's entries as a hash chain: append one, find its end, find an edit.

The hash of an entry is SHA-256 over its predecessor's hash and the canonical JSON of all its other columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from pipeline._database import entries, head
from pipeline.errors import IntegrityError
from pipeline.folders import Value, canonical

START = "0" * 64  # the hash before the first entry

Kind = Literal["reserve", "spend", "close", "note"]


class Entry(Value):
    """One line of the ledger; `steps` is its claim's running total of noisy steps."""

    seq: int
    at: str
    kind: Kind
    budget: str
    claim: str
    run: str
    steps: int
    detail: dict[str, Any]
    hash: str


class Head(Value):
    """The end of the chain. One that is kept elsewhere, in a release say, shows up even a chain written anew."""

    entries: int
    hash: str


def append(
    connection: Connection,
    kind: Kind,
    *,
    budget: str,
    claim: str,
    run: str,
    steps: int,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one entry at the end, inside a writing transaction."""
    end = last(connection)
    row = {
        "seq": end.entries + 1,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "kind": kind,
        "budget": budget,
        "claim": claim,
        "run": run,
        "steps": steps,
        "detail": canonical(dict(detail or {})),
    }
    row["hash"] = _hash(end.hash, row)
    connection.execute(insert(entries).values(row))
    connection.execute(update(head).values(entries=row["seq"], hash=row["hash"]))


def last(connection: Connection) -> Head:
    """The recorded end of the chain."""
    row = connection.execute(select(head.c.entries, head.c.hash)).first()
    if row is None:
        raise IntegrityError("The ledger has lost its head: restore it from a backup.")
    return Head(entries=row.entries, hash=row.hash)


def parse(rows: Iterable[Mapping[Any, Any]]) -> list[Entry]:
    """Rows of the table as entries."""
    return [Entry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


def verify(connection: Connection, name: str, anchor: Head | None = None) -> Head:
    """Recompute the whole chain.

    Args:
        connection: a reading transaction.
        name: of the ledger, for messages.
        anchor: an end of the chain that was kept elsewhere, which must still lie on it.

    Returns:
        The end of the chain.

    Raises:
        IntegrityError: an entry was changed, removed or put in between, or the chain does not hold the anchor.
    """
    previous, count, anchored = START, 0, anchor in (None, Head(entries=0, hash=START))
    for row in connection.execute(select(entries).order_by(entries.c.seq)).mappings():
        count += 1
        if row["seq"] != count or row["hash"] != _hash(previous, row):
            raise IntegrityError(
                f"Entry {count} of the ledger {name} was changed, removed or put in between: restore the ledger from a "
                "backup and find out who wrote to it."
            )
        previous = row["hash"]
        anchored = anchored or (anchor is not None and (anchor.entries, anchor.hash) == (count, previous))
    end = last(connection)
    if (end.entries, end.hash) != (count, previous):
        raise IntegrityError(
            f"The ledger {name} should end with entry {end.entries} and ends with entry {count}: restore it from a "
            "backup and find out who wrote to it."
        )
    if not anchored and anchor is not None:
        raise IntegrityError(
            f"The ledger {name} does not hold entry {anchor.entries} as it was recorded elsewhere: it was rewritten or is "
            "another one, so restore it from a backup."
        )
    return end


def _hash(previous: str, row: Mapping[Any, Any]) -> str:
    content = canonical({key: value for key, value in row.items() if key != "hash"})
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()
