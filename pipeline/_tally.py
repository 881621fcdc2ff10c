"""Counts over all records of a corpus in bounded memory: ids, units, repeated texts, and the fingerprint."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from pipeline._shapes import Shaped
from pipeline.folders import canonical

MODULUS = 2**3072 - 1103717
"""The largest prime below 2^3072."""


class Fingerprint:
    """A collision-resistant hash of a multiset: the product of the members' hashes modulo a prime.

    The order of the members does not matter, repeats do, and nothing is kept but one number. Multiplicative multiset
    hash MuHASH of Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing" (EUROCRYPT 1997), section 1.2.
    """

    def __init__(self) -> None:
        self._product, self._members = 1, 0

    def add(self, member: str) -> None:
        """Count one member in."""
        drawn = hashlib.shake_256(member.encode()).digest(MODULUS.bit_length() // 8)
        self._product = self._product * (int.from_bytes(drawn, "little") or 1) % MODULUS
        self._members += 1

    def hexdigest(self) -> str:
        """SHA-256 (hex) of the number of members and their product."""
        return hashlib.sha256(f"{self._members}:{self._product:x}".encode()).hexdigest()


class Tally:
    """Digests of ids, units and texts in a scratch database beside the records; it is deleted at the end."""

    def __init__(self, scratch: Path):
        self._path = scratch / "tally.db"
        self._path.unlink(missing_ok=True)
        self._rows = sqlite3.connect(self._path, isolation_level=None)
        for statement in (
            "pragma journal_mode = off",
            "pragma synchronous = off",
            "create table ids (digest blob primary key, number integer) without rowid",
            "create table units (digest blob primary key, records integer) without rowid",
            "create table texts (digest blob primary key) without rowid",
            "begin",
        ):
            self._rows.execute(statement)
        self._fingerprint = Fingerprint()
        self.records = self.characters = self.duplicates = 0

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()
        self._path.unlink(missing_ok=True)

    def add(self, shaped: Shaped, number: int, *, has_units: bool) -> int | None:
        """Count in a record that starts at line `number`; returns the line of an earlier one with its id, if any."""
        record = shaped.record
        key = _digest(record.id)
        if not self._rows.execute("insert or ignore into ids values (?, ?)", (key, number)).rowcount:
            return self._rows.execute("select number from ids where digest = ?", (key,)).fetchone()[0]
        parts = [[part.role, part.text] for part in record.parts]
        text = canonical(parts)
        new = self._rows.execute("insert or ignore into texts values (?)", (_digest(text),)).rowcount
        add = "insert into units values (?, 1) on conflict do update set records = records + 1"
        self._rows.execute(add, (_digest(record.unit),))
        # Ids and units that were made from a record's place would make the fingerprint depend on the order.
        self._fingerprint.add(canonical([record.id if shaped.has_id else None, record.unit if has_units else None, parts]))
        self.records += 1
        self.duplicates += not new
        self.characters += sum(len(part.text) for part in record.parts)
        return None

    def units(self) -> tuple[int, int]:
        """How many units there are, and how many records the largest has."""
        count, largest = self._rows.execute("select count(*), max(records) from units").fetchone()
        return count, largest or 0

    def fingerprint(self) -> str:
        """SHA-256 (hex) that names the multiset of records."""
        return self._fingerprint.hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
