"""Which real records the audit looks at: members, non-members and held-out ones, drawn by lot from a planted corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.splitter import METHOD, TOLERANCE, blind_scores
from pipeline.canaries import Manifest, Planted, planted_records
from pipeline.corpus import Record, load_records


@dataclass(frozen=True)
class Drawn:
    """Members to attack, held-out records in the order of the lot, and what the files hold.

    `repeated` counts the records that no lot could fall on because of their text. `real_units` counts the privacy units of
    the training records that are no canaries. `ids` are those of all training records and of all held-out ones.
    """

    members: list[Record]
    held_out: list[Record]
    planted_as_drawn: bool
    repeated: int
    real_units: int
    ids: tuple[frozenset[str], frozenset[str]]

    @property
    def sides(self) -> tuple[list[Record], list[Record]]:
        """Members and held-out records."""
        return self.members, self.held_out


def draw(
    planted: Planted, manifest: Manifest, members: int, held_out: int, rng: np.random.Generator, *, by_person: bool
) -> Drawn:
    """Draw up to `members` trained records that are no canaries, and up to `held_out` held-out ones.

    A text that several privacy units share is drawn on neither side, and one that a unit repeats is drawn once: a held-out
    record whose text was trained on is no non-member. It is left out among members as well, since a text that many share
    almost surely stands in training: keeping it on that side alone would tell members from others without any model.

    `planted_as_drawn` says whether every canary whose coin said in stands in the training file once for each copy, with its
    own text and unit, and no other canary does, there or among the held-out records.
    """
    names = {canary.id for canary in manifest.canaries}
    expected = sorted((record.id, record.unit, _text(record)) for record in planted_records(manifest))
    found: list[tuple[str, str, tuple[str, ...]]] = []
    real: list[Record] = []
    for record in load_records(planted.folder / "train.jsonl"):
        if record.unit in names:
            found.append((record.id, record.unit, _text(record)))
        else:
            real.append(record)
    outside = list(load_records(planted.folder / "held_out.jsonl"))
    clean = not any(record.unit in names for record in outside)
    sides = _singular(real, outside, by_person)
    return Drawn(
        members=_lot(sides[0], members, rng),
        held_out=_lot(sides[1], held_out, rng),
        planted_as_drawn=sorted(found) == expected and clean,
        repeated=len(real) + len(outside) - len(sides[0]) - len(sides[1]),
        real_units=len({record.unit for record in real}) if by_person else len(real),
        ids=(frozenset(record.id for record in real), frozenset(record.id for record in outside)),
    )


def groups(records: Sequence[Record]) -> np.ndarray:
    """Unit of each record, [n]."""
    return np.array([record.unit for record in records], dtype=object).astype(str)


def blind(members: Sequence[Record], non_members: Sequence[Record], rng: np.random.Generator) -> np.ndarray:
    """Scores of the splitter check, members first, [n + m]."""
    every = [*members, *non_members]
    texts = [" ".join(part.text for part in record.parts) for record in every]
    return blind_scores(texts, np.arange(len(every)) < len(members), groups(every), rng)


def _singular(real: list[Record], outside: list[Record], by_person: bool) -> tuple[list[Record], list[Record]]:
    """The records of both sides whose text belongs to one privacy unit, each text once."""
    owners: dict[tuple[str, ...], set[str]] = {}
    for record in (*real, *outside):
        owners.setdefault(_text(record), set()).add(record.unit if by_person else record.id)
    return _once(real, owners), _once(outside, owners)


def _once(records: Iterable[Record], owners: dict[tuple[str, ...], set[str]]) -> list[Record]:
    kept = {_text(record): record for record in records if len(owners[_text(record)]) == 1}
    return list(kept.values())


def _text(record: Record) -> tuple[str, ...]:
    return tuple(part.text for part in record.parts)


def _lot(records: list[Record], count: int, rng: np.random.Generator) -> list[Record]:
    return [records[i] for i in rng.permutation(len(records))[:count]]


__all__ = ["METHOD", "TOLERANCE", "Drawn", "blind", "draw", "groups"]
