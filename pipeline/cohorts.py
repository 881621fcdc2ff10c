"""Who was in which runs: keyed hashes of unit ids, kept as cohorts of units that were always in the same runs.

    key = load_key(home)                      # HOME/keys/units.key, mode 0600: without it no hash can be matched to a person
    units = units_of(corpus, policy, key)     # who this run is about, for `Ledger.reserve`

A person is known by the unit column's value, a record by its text (its id may be a line number), each after Unicode
normalisation, lower-casing and squeezing of blanks. All units that were read count, the held-out ones too: they are not
trained on, but the audit's figures are measured on them. Canaries are nobody.

The cohorts are a partition: a run that holds only a part of one splits it, and units never seen make a new one. So every unit
is stored once, in 8 bytes, however many runs it was in. Two units whose hashes collide (one chance in 10^7 for a million)
count as one that was in the runs of both: more is charged, never less.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select

from pipeline._database import cohorts
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import private_folder

if TYPE_CHECKING:
    from pipeline.corpus import Corpus, Record
    from pipeline.policy import Policy

Hashes = NDArray[np.uint64]

_KEY = "units.key"


class Units(NamedTuple):
    """The units of one run: `hashes` sorted and without repetition, made with the key whose id is `key`.

    `by` says what people are known by, in words: under another column or pattern nobody is recognised.
    """

    kind: str
    key: str
    hashes: Hashes
    by: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the hashes."""
        return _digest(self.hashes)


class Made(NamedTuple):
    """A cohort that a run brought about: a part of `parent`, or units never seen before (None)."""

    id: int
    parent: int | None
    hashes: Hashes

    def described(self) -> dict[str, int | str | None]:
        """What the chain keeps of it."""
        return {"id": self.id, "parent": self.parent, "count": len(self.hashes), "digest": _digest(self.hashes)}


class Refinement(NamedTuple):
    """What a run does to the partition: `inside` are the cohorts that make up the run, `seen` how many of its units were known
    by cohort they were found in, `made` the cohorts that are new.
    """

    inside: list[int]
    seen: dict[int, int]
    made: list[Made]


def load_key(home: Path, *, make: bool = True) -> bytes:
    """The 32 bytes of HOME/keys/units.key, which is made where it is missing.

    With `make` false a missing key is replaced by one that is not kept: its hashes match nothing.

    Raises:
        StageError: the key cannot be written or read, is not whole, or others may read it.
    """
    path = home / "keys" / _KEY
    if not path.exists():
        if not make:
            return secrets.token_bytes(32)
        _make_key(path)
    try:
        if path.stat().st_mode & 0o077:
            raise StageError(f"Others than its owner may read the key {path}, and match hashes to people: chmod 600 it.")
        key = path.read_bytes()
    except OSError as error:
        raise StageError(f"The key {path} cannot be read ({error.strerror}): make it readable for you alone.") from None
    if len(key) != 32:
        raise StageError(f"The key {path} is not whole: restore it from a backup, or the ledger cannot tell who was in it.")
    return key


def _make_key(path: Path) -> None:
    draft = path.with_name(f".{_KEY}.{secrets.token_hex(4)}")
    try:
        private_folder(path.parent)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails where another process was quicker: then its key is the one
    except FileExistsError:
        pass
    except OSError as error:
        raise StageError(f"The key {path} cannot be made ({error.strerror}): make room or rights in the home folder.") from None
    finally:
        draft.unlink(missing_ok=True)


def units_of(corpus: Corpus, policy: Policy, key: bytes) -> Units:
    """The units of a corpus, of the kind that the policy protects."""
    from pipeline.corpus import load_records

    kind = policy.privacy.unit
    records = load_records(corpus.folder / "records.jsonl")
    found = hashed(kind, (record.unit if kind == "person" else _text(record) for record in records), key)
    pattern = f" and pattern {policy.data.unit_pattern}" if policy.data.unit_pattern else ""
    return found._replace(by=f"column {policy.data.unit_column}{pattern}") if kind == "person" else found


def hashed(kind: str, names: Iterable[str], key: bytes) -> Units:
    """Units by their names: the first 8 bytes of HMAC-SHA-256 of kind and normalised name."""
    spelled = (" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in names)
    raw = b"".join(hmac.digest(key, f"{kind}\n{name}".encode(), "sha256")[:8] for name in spelled)
    named = hmac.digest(key, b"the name of this key", "sha256").hex()[:16]
    return Units(kind, named, np.unique(np.frombuffer(raw, dtype=">u8").astype(np.uint64)))


def refine(parts: Mapping[int, Hashes], run: Hashes, first: int) -> Refinement:
    """Split the cohorts `parts` at the border of a run, and make one of what is in none.

    Args:
        parts: disjoint sorted hashes by cohort.
        run: sorted hashes of the run.
        first: id of the first cohort that is made.
    """
    inside, seen, made = [], {}, []
    new = np.ones(len(run), dtype=bool)
    for number, hashes in parts.items():
        places = np.searchsorted(run, hashes)
        shared = run[np.minimum(places, len(run) - 1)] == hashes if len(run) else np.zeros(len(hashes), dtype=bool)
        count = int(shared.sum())
        if not count:
            continue
        seen[number] = count
        new[places[shared]] = False
        if count == len(hashes):
            inside.append(number)
            continue
        for part, belongs in ((hashes[shared], True), (hashes[~shared], False)):
            made.append(Made(first + len(made), number, part))
            if belongs:
                inside.append(made[-1].id)
    if new.any():
        made.append(Made(first + len(made), None, run[new]))
        inside.append(made[-1].id)
    return Refinement(inside, seen, made)


def load(connection: Connection, kind: str) -> dict[int, Hashes]:
    """The hashes of all cohorts of a kind."""
    rows = connection.execute(select(cohorts.c.id, cohorts.c.units).where(cohorts.c.kind == kind).order_by(cohorts.c.id))
    return {number: np.frombuffer(bytes(units), dtype="<u8").astype(np.uint64) for number, units in rows}


def store(connection: Connection, kind: str, made: Iterable[Made]) -> None:
    """Write new cohorts in the place of those that they are parts of."""
    for one in made:
        if one.parent is not None:
            connection.execute(delete(cohorts).where(cohorts.c.id == one.parent))
        connection.execute(insert(cohorts).values(id=one.id, kind=kind, units=_bytes(one.hashes)))


def check(connection: Connection, expected: Mapping[int, str], name: str) -> None:
    """Compare the stored cohorts with the digests that stand in the chain.

    Raises:
        IntegrityError: a cohort was changed, removed or added.
    """
    found = {}
    for number, units in connection.execute(select(cohorts.c.id, cohorts.c.units)):
        found[number] = hashlib.sha256(bytes(units)).hexdigest()
    wrong = sorted(number for number in found.keys() | expected.keys() if found.get(number) != expected.get(number))
    if wrong:
        raise IntegrityError(
            f"Cohort {wrong[0]} of the ledger {name} was changed, removed or added: restore the ledger from a backup and find "
            "out who wrote to it."
        )


def _text(record: Record) -> str:
    return "\n".join(part.text for part in record.parts)


def _bytes(hashes: Hashes) -> bytes:
    return hashes.astype("<u8").tobytes()


def _digest(hashes: Hashes) -> str:
    return hashlib.sha256(_bytes(hashes)).hexdigest()
