"""What differs between two reports: the figures that a release is known by, and its gates.

    differences(summary(old), summary(new))   # rows with `title`, `format`, `before`, `after`

Figures are taken from report.json by JSON pointer; one that a report does not have is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Known(NamedTuple):
    """A figure that releases are compared by: its key, title, JSON pointer and format."""

    key: str
    title: str
    pointer: str
    format: str


KNOWN = (
    Known("verdict", "Verdict", "/verdict/label", "text"),
    Known("policy", "Policy", "/run/policy", "text"),
    Known("policy_digest", "Policy digest", "/run/policy_digest", "digest"),
    Known("base", "Base model", "/training/base/name", "text"),
    Known("hushtune", "hushtune", "/run/hushtune", "text"),
    Known("unit", "Protected unit", "/promise/unit", "text"),
    Known("epsilon", "Privacy loss ε", "/promise/epsilon", "upper"),
    Known("delta", "Slack δ", "/promise/delta", "scientific"),
    Known("lifetime", "Lifetime ε spent", "/budget/epsilon_spent", "upper"),
    Known("records", "Records trained on", "/data/train_records", "count"),
    Known("fingerprint", "Data fingerprint", "/data/fingerprint", "digest"),
    Known("noise", "Noise multiplier σ", "/training/noise_multiplier", "plain"),
    Known("steps", "Steps charged", "/training/steps", "count"),
    Known("base_perplexity", "Perplexity before", "/utility/base_perplexity/value", "number"),
    Known("perplexity", "Perplexity after", "/utility/perplexity/value", "number"),
)

_OF_GATES = ("title", "figure", "format", "rule", "value", "bound", "limit", "outcome")


def summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The comparable part of a report's content: `run`, `created`, `figures` by key, and `gates` by name."""
    gates = {gate["name"]: {key: gate.get(key) for key in _OF_GATES} for gate in content["verdict"]["gates"]}
    figures = {known.key: _at(content, known.pointer) for known in KNOWN}
    return {"run": content["run"]["name"], "created": content["run"]["created"], "figures": figures, "gates": gates}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of what changed: figures first, then what each gate judged and its limit."""
    rows = [
        {"title": known.title, "format": known.format, "before": before["figures"].get(known.key),
         "after": after["figures"].get(known.key)}
        for known in KNOWN
    ]  # fmt: skip
    for name in list(after["gates"]) + [name for name in before["gates"] if name not in after["gates"]]:
        old, new = before["gates"].get(name, {}), after["gates"].get(name, {})
        known = new or old
        limit = "share" if known["format"] == "percent" else "plain"
        for key, title, format in (("bound", known["title"], known["format"]), ("limit", f"Limit: {known['title']}", limit),
                                   ("outcome", f"Result: {known['title']}", "text")):  # fmt: skip
            rows.append({"title": title, "format": format, "before": old.get(key), "after": new.get(key)})
    return [row for row in rows if row["before"] != row["after"]]


def _at(content: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        content = content.get(part) if isinstance(content, Mapping) else None
    return content
