"""The coverage matrices as they stand in frameworks.yaml: frameworks, their rows, the facts of a report that bear on them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

import yaml


class Fact(NamedTuple):
    """Something a report can show: its section's anchor, its name, and the JSON pointers that must lead to a measurement."""

    section: str
    title: str
    pointers: tuple[str, ...]


class Row(NamedTuple):
    """One question: reference, what it asks, the facts that bear on it, and what only people can add."""

    ref: str
    what: str
    facts: tuple[str, ...] = ()
    rest: str = ""


class Framework(NamedTuple):
    """A set of questions: key, title, source, rows."""

    key: str
    title: str
    source: str
    rows: tuple[Row, ...]


class Identifier(NamedTuple):
    """Something that identifies: reference, what it is, the kinds of value by which it is looked for, what people must add."""

    ref: str
    what: str
    kinds: tuple[str, ...]
    rest: str = ""


def _row(content: dict[str, Any]) -> Row:
    return Row(content["ref"], content["what"], tuple(content["facts"]), content.get("rest", ""))


_CONTENT = yaml.safe_load(files("pipeline.report").joinpath("frameworks.yaml").read_text(encoding="utf-8"))

FACTS = {name: Fact(fact["section"], fact["title"], tuple(fact["pointers"])) for name, fact in _CONTENT["facts"].items()}
FRAMEWORKS = tuple(
    Framework(one["key"], one["title"], one["source"], tuple(map(_row, one["rows"]))) for one in _CONTENT["frameworks"]
)
IDENTIFIERS = {
    key: tuple(Identifier(one["ref"], one["what"], tuple(one["kinds"]), one.get("rest", "")) for one in _CONTENT[name])
    for key, name in (("hipaa", "identifiers"), ("gdpr", "factors"))
}
