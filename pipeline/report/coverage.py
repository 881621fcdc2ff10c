"""Coverage: for each row of eight frameworks, whether this report holds the evidence that the row asks about, and where.

A row names facts; a fact holds if what it points to in report.json was measured. All of them: covered. Some, or where the
row also asks for something that only people can add: partly. None: not. `covered` says that evidence is here to be read, never
that the framework is satisfied: that is a decision, and it is a person's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.formats import plural
from pipeline.report.frameworks import FACTS, FRAMEWORKS, IDENTIFIERS, Framework, Identifier, Row
from pipeline.report.names import entity as kind_name

NOTE = (
    "This is evidence for a human decision, sorted by what eight frameworks ask about. Covered: the evidence is in this "
    "report. Partly: some of it is, or the rest is for people to add. Not: this report holds none. No row says that a duty is "
    "met."
)


def coverage(content: Mapping[str, Any]) -> dict[str, Any]:
    """All matrices, decided from the rest of the report's content."""
    frameworks = [_framework(framework, content) for framework in FRAMEWORKS]
    counts = {status: sum(one["counts"][status] for one in frameworks) for status in ("covered", "partly", "not")}
    total = sum(counts.values())
    return {
        "finding": f"Of {plural(total, 'question')} that {len(frameworks)} frameworks ask, this report holds the evidence for "
        f"{counts['covered']}, part of it for {counts['partly']}, and none for {counts['not']}.",
        "note": NOTE,
        "counts": counts,
        "frameworks": frameworks,
    }


def _framework(framework: Framework, content: Mapping[str, Any]) -> dict[str, Any]:
    rows = [_row(row, content) for row in framework.rows]
    rows += [_identifier(one, content) for one in IDENTIFIERS.get(framework.key, ())]
    counts = {status: sum(row["status"] == status for row in rows) for status in ("covered", "partly", "not")}
    return {
        "key": framework.key,
        "title": framework.title,
        "source": framework.source,
        "sum": ", ".join(f"{number} {status}" for status, number in counts.items()),
        "counts": counts,
        "rows": rows,
    }


def _row(row: Row, content: Mapping[str, Any]) -> dict[str, Any]:
    held = [name for name in row.facts if holds(content, name)]
    lacking = [FACTS[name].title for name in row.facts if name not in held]
    status = "not" if not held else "partly" if lacking or row.rest else "covered"
    return {
        "ref": row.ref,
        "what": row.what,
        "status": status,
        "evidence": [{"section": FACTS[name].section, "title": FACTS[name].title} for name in held],
        "missing": lacking,
        "rest": row.rest,
        "recall": None,
        "low": None,
    }


def holds(content: Mapping[str, Any], fact: str) -> bool:
    """Whether everything that a fact points to was measured: not None, not empty, usable where it is a figure."""
    return all(_measured(content, pointer) for pointer in FACTS[fact].pointers)


def _measured(content: Any, pointer: str) -> bool:
    for part in pointer.split("/")[1:]:
        if isinstance(content, list):
            content = content[int(part)] if int(part) < len(content) else None
        else:
            content = content.get(part) if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and "resolvable" in content:
        return bool(content["resolvable"] and content["valid"])
    if isinstance(content, str | list | Mapping):
        return bool(content)
    return content is not None and content is not False


def _identifier(one: Identifier, content: Mapping[str, Any]) -> dict[str, Any]:
    """Something that identifies: its recognisers, and the lowest recall that was measured for any of them."""
    scrubbing = content["scrubbing"]
    looked, rows = set(scrubbing["looked_for"]), {row["entity"]: row for row in scrubbing["entities"]}
    here = [kind for kind in one.kinds if kind in looked]
    found = {kind: pair for kind in here if (pair := _worst(rows.get(kind))) is not None}
    measured = list(found.values())
    worst = min(measured, key=lambda pair: pair["low"], default=None)
    whole = len(here) == len(one.kinds) == len(measured) and worst is not None and worst["low"] >= _limit(content)
    lacking = [f"no recogniser for {kind_name(kind)}" for kind in one.kinds if kind not in here]
    lacking += [f"recall on {kind_name(kind)}" for kind in here if kind not in found]
    rest = one.rest
    if measured and worst is not None and worst["low"] < _limit(content):
        rest = "The lower bound of its recall is below the limit that the policy sets."
    return {
        "ref": one.ref,
        "what": one.what,
        "status": "covered" if whole and not one.rest else "partly" if here else "not",
        "evidence": [{"section": "scrubbing", "title": kind_name(kind)} for kind in here],
        "missing": lacking,
        "rest": rest,
        "recall": worst["recall"] if worst else None,
        "low": worst["low"] if worst else None,
    }


def _worst(row: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Recall and its lower bound where it is lowest: in made sentences or in the data's own records."""
    both = [] if row is None else [{"recall": row[f"{key}recall"], "low": row[f"{key}low"]} for key in ("", "context_")]
    return min((pair for pair in both if pair["low"] is not None), key=lambda pair: pair["low"], default=None)


def _limit(content: Mapping[str, Any]) -> float:
    """The limit that the policy's gates set on the scrubber's recall; none where no gate does."""
    limits = [gate["limit"] for gate in content["verdict"]["gates"] if gate["figure"].startswith("scrub.recall")]
    return max(limits, default=0.0)
