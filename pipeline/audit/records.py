"""Which real records the audit looks at: members, non-members and held-out ones, drawn by lot from a planted corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.splitter import METHOD, TOLERANCE, blind_scores
from pipeline.canaries import Manifest, Planted
from pipeline.corpus import Record, load_records


@dataclass(frozen=True)
class Drawn:
    """Members to attack, held-out records in the order of the lot, and how the canaries stand in the training file."""

    members: list[Record]
    held_out: list[Record]
    planted_as_drawn: bool


def draw(planted: Planted, manifest: Manifest, members: int, held_out: int, rng: np.random.Generator) -> Drawn:
    """Draw up to `members` trained records that are no canaries, and up to `held_out` held-out ones.

    `planted_as_drawn` says whether every canary whose coin said in stands in the training file exactly once with its own
    text and unit, and no other canary does, there or among the held-out records.
    """
    names = {canary.id for canary in manifest.canaries}
    expected = sorted((c.id, c.id, c.text) for c in manifest.canaries if c.included)
    found: list[tuple[str, str, str]] = []
    real: list[Record] = []
    for record in load_records(planted.folder / "train.jsonl"):
        if record.id in names and record.unit == record.id:
            found.append((record.id, record.unit, " ".join(part.text for part in record.parts)))
        else:
            real.append(record)
    outside = list(load_records(planted.folder / "held_out.jsonl"))
    clean = not any(record.id in names and record.unit == record.id for record in outside)
    return Drawn(_lot(real, members, rng), _lot(outside, held_out, rng), sorted(found) == expected and clean)


def groups(records: Sequence[Record]) -> np.ndarray:
    """Unit of each record, [n]."""
    return np.array([record.unit for record in records], dtype=object).astype(str)


def blind(members: Sequence[Record], non_members: Sequence[Record], rng: np.random.Generator) -> np.ndarray:
    """Scores of the splitter check, members first, [n + m]."""
    every = [*members, *non_members]
    texts = [" ".join(part.text for part in record.parts) for record in every]
    return blind_scores(texts, np.arange(len(every)) < len(members), groups(every), rng)


def _lot(records: list[Record], count: int, rng: np.random.Generator) -> list[Record]:
    return [records[i] for i in rng.permutation(len(records))[:count]]


__all__ = ["METHOD", "TOLERANCE", "Drawn", "blind", "draw", "groups"]
