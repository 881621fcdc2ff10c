"""Figures of the evidence as the report takes them: by dotted name, with plain title, format, and what makes them unusable.

One that is absent is None and shown as not measured; one that is not valid is never summed up and never drawn.
"""

from __future__ import annotations

from typing import Any

from pipeline.report.formats import join
from pipeline.report.names import name, words

Stages = dict[str, Any]


def figure(stages: Stages, dotted: str) -> dict[str, Any] | None:
    """One figure of the evidence with its plain title and format; None if it is absent."""
    content = stages["evidence"]["figures"].get(dotted)
    if content is None:
        return None
    known = name(dotted)
    fields = {key: content.get(key) for key in ("value", "low", "high", "ceiling", "n", "method", "seconds")}
    conditions = [{"name": words(key), "holds": bool(holds)} for key, holds in (content.get("conditions") or {}).items()]
    return {
        "figure": dotted,
        "title": known.title,
        "format": known.format,
        **fields,
        "resolvable": content.get("resolvable", True) and fields["value"] is not None,
        "valid": all(condition["holds"] for condition in conditions),
        "conditions": conditions,
    }


def usable(found: dict[str, Any] | None) -> bool:
    """Whether a figure is there, resolvable and valid in all its conditions."""
    return found is not None and found["resolvable"] and found["valid"]


def flaw(found: list[dict[str, Any]]) -> str:
    """Why figures that are there are not usable: their broken conditions, or too few cases; empty if all are usable."""
    broken = [condition["name"].lower() for row in found for condition in row["conditions"] if not condition["holds"]]
    if broken:
        return join([f"{one} does not hold" for one in dict.fromkeys(broken)])
    return "" if all(usable(row) for row in found) else "too few cases to resolve it"


def value(stages: Stages, dotted: str) -> float | None:
    """The value of a figure that is usable; None otherwise."""
    found = figure(stages, dotted)
    return found["value"] if found is not None and usable(found) else None


def series(stages: Stages, key: str) -> list[Any]:
    """A series of the evidence; empty where there is none."""
    return stages["evidence"]["series"].get(key) or []


def figures(stages: Stages) -> list[dict[str, Any]]:
    """Every figure of the evidence, by name."""
    found = [figure(stages, dotted) for dotted in sorted(stages["evidence"]["figures"])]
    return [row for row in found if row is not None]
