"""The section on scrubbing: what was replaced, what is known of what was missed, and what nobody measured.

Recall is measured three ways: on values planted beside the data, on values planted in records of the data, and by comparing
two detectors (capture and recapture). What is left is what another detector finds in the scrubbed records. A measurement that
a run does not have is None here and is named as not measured on the page.
"""

from __future__ import annotations

from typing import Any

from pipeline.report.formats import count, join, plural
from pipeline.report.names import OPERATORS, words
from pipeline.report.names import entity as kind_name

Stages = dict[str, Any]
WEAK = 0.8  # recall below which a kind is named in the section's first lines


def scrubbing(stages: Stages) -> dict[str, Any]:
    """Values replaced by kind, recall with lower bounds, residual, and the checks that the run has or lacks."""
    scrubbed, policy = stages["scrubbed"], stages["policy"]["scrub"]
    recall = {row["entity"]: row for row in scrubbed["recall"]}
    sampled = scrubbed.get("sampled") or {}
    context = {row["entity"]: row for row in sampled.get("context") or ()}
    kinds = {*scrubbed["entities"], *recall, *context} - {"ALL"}
    rows = [
        _entity(kind, scrubbed["entities"].get(kind, 0), recall.get(kind), context.get(kind))
        for kind in sorted(kinds, key=lambda kind: (-scrubbed["entities"].get(kind, 0), kind))
    ]
    total = sum(row["count"] for row in rows)
    top = ", ".join(f"{row['title']} {count(row['count'])}" for row in rows[:3])
    weak = [row["title"] for row in rows if any((row[key] or 1) < WEAK for key in ("recall", "context_recall"))]
    both = "ALL" in recall or "ALL" in context
    overall = _entity("ALL", total, recall.get("ALL"), context.get("ALL")) if both else None
    untested = [row["title"] for row in rows if row["count"] and not row["planted"] and not row["context_planted"]]
    return {
        "finding": f"{plural(total, 'personal value')} in {plural(scrubbed['changed'], 'record')} were replaced."
        + _tested(overall),
        "weak": f"Found least often: {join(weak)}." if weak else "",
        "untested": f"Never tested on planted values: {'; '.join(untested)}." if untested else "",
        "records": scrubbed["records"],
        "changed": scrubbed["changed"],
        "changed_share": scrubbed["changed"] / scrubbed["records"] if scrubbed["records"] else None,
        "replaced": total,
        "detector": scrubbed["detector"],
        "operator": scrubbed["operator"],
        "operator_text": OPERATORS.get(scrubbed["operator"], scrubbed["operator"]),
        "minimum_score": policy["minimum_score"],
        "looked_for": list(policy["entities"]),
        "confidence": 0.95,  # of every lower bound here
        "overall": overall,
        "entities": rows,
        "sampled_records": sampled.get("records"),
        "capture": _capture(sampled),
        "residual": _residual(scrubbed),
        "k_anonymity": _identity(scrubbed.get("quasi")),
        "review": _review(stages["facts"].get("review")),
        "digest": scrubbed["digest"],
        "picture": {
            "title": "Values replaced, by kind",
            "alt": f"Bar chart of values replaced by kind; {plural(len(rows), 'kind')}, led by {top}." if rows else "",
        },
    }


def _tested(overall: dict[str, Any] | None) -> str:
    """Both measurements of recall, as counts: the one in the data's own records is often the lower one."""
    parts = [
        f"{count(overall[f'{key}found'])} of {count(overall[f'{key}planted'])} {where}"
        for key, where in (("", "in sentences made for it"), ("context_", "in records of the data"))
        if overall and overall[f"{key}planted"]
    ]
    return f" Of values planted to test it, it found {join(parts)}." if parts else ""


def _entity(kind: str, replaced: int, recall: dict[str, Any] | None, context: dict[str, Any] | None) -> dict[str, Any]:
    row = {"entity": kind, "title": kind_name(kind), "count": replaced}
    for prefix, measured in (("", recall), ("context_", context)):
        planted, found = (measured["planted"], measured["found"]) if measured else (None, None)
        row |= {
            f"{prefix}planted": planted,
            f"{prefix}found": found,
            f"{prefix}recall": found / planted if planted and found is not None else None,
            f"{prefix}low": measured["low"] if measured and planted else None,
        }
    return row


def _capture(sampled: dict[str, Any]) -> dict[str, Any] | None:
    """The share of all values that two independent detectors suggest there are, and what it was computed from."""
    capture = sampled.get("capture")
    if not capture:
        return None
    keys = ("first", "second", "both", "estimate", "low", "high", "recall", "recall_low")
    return {key: capture[key] for key in keys} | {"other": sampled.get("other")}


def _residual(scrubbed: dict[str, Any]) -> dict[str, Any] | None:
    """What another detector finds in the scrubbed records; some of it is no personal value."""
    if scrubbed.get("residual") is None:
        return None
    kinds = sorted(scrubbed["residual"].items(), key=lambda item: (-item[1], item[0]))
    total = sum(found for _, found in kinds)
    scanned = scrubbed.get("rescanned") or scrubbed["records"]
    return {
        "by": scrubbed["rescanned_by"],
        "found": total,
        "records": scanned,
        "per_record": total / scanned if scanned else None,
        "kinds": [{"entity": kind, "title": kind_name(kind), "count": found} for kind, found in kinds],
    }


def _review(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a person found who read records through: only named figures are taken."""
    if not found or not found["records"]:
        return None
    keys = ("records", "right", "wrong", "missed", "precision", "precision_low", "recall", "recall_low")
    return {key: found[key] for key in keys}


def _identity(quasi: dict[str, Any] | None) -> dict[str, Any] | None:
    """How many people share what remains of them: classes by size, people alone in theirs, and what remains, by kind."""
    if not quasi or not quasi["units"]:
        return None
    sizes = [{"size": size.replace("-", " to "), "units": units} for size, units in quasi["sizes"].items()]
    said = "; ".join(f"{row['size']}, {count(row['units'])}" for row in sizes)
    return {
        "units": quasi["units"],
        "unique": quasi["unique"],
        "unique_share": quasi["unique"] / quasi["units"],
        "sizes": sizes,
        "kinds": [{"kind": words(kind), "units": units} for kind, units in sorted(quasi["kinds"].items())],
        "picture": {
            "title": "People by how many share what remains of them",
            "alt": f"Columns of people by the size of their class: {said}.",
        },
    }
