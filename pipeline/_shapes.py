"""From a row of a data file to a record: which columns make its text, its id and its unit, and what is refused."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline._readers import Row
from pipeline._source import Malformed, Source, named
from pipeline.policy import Data

Shape = Literal["text", "completion", "chat"]

ROLES = ("system", "user", "assistant")
COLUMN = "column:"
"""How the role of a part begins that holds a further column, kept for `hushtune scrub` only: `column:RULE:NAME`."""
_DEFAULT = {key: field.default for key, field in Data.model_fields.items()}
_SHAPES: dict[Shape, tuple[str, ...]] = {
    "text": ("text_column",),
    "completion": ("prompt_column", "completion_column"),
    "chat": ("messages_column",),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a record that one party wrote; role is text, prompt, completion, system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One training example; all records of a `unit` belong to one person."""

    id: str
    unit: str
    parts: tuple[Part, ...]


class Shaped(NamedTuple):
    """A record, and whether its id stands in the data (otherwise it was made from its place)."""

    record: Record
    has_id: bool


class Shaper:
    """Makes records out of rows. The first row that fits settles the shape, the first kept one whether there are units.

    `after` is the shaper of the file before in the same corpus, whose shape, units and numbers go on.
    """

    def __init__(self, source: Source, data: Data, *, with_columns: bool = False, after: Shaper | None = None):
        if source.format == "text":  # its one column has no name that a policy could give
            data = data.model_copy(update={key: _DEFAULT[key] for keys in _SHAPES.values() for key in keys})
        self._source, self._data, self._with_columns = source, data, with_columns
        self._pattern = re.compile(data.unit_pattern) if data.unit_pattern else None
        self._rows = after._rows if after else 0
        self.shape: Shape | None = after.shape if after else None
        self.has_units: bool | None = after.has_units if after else None

    def shaped(self, row: Row) -> Shaped | str:
        """The row's record, or why it is refused (it has no text).

        Raises:
            Malformed: a column is missing or holds what it cannot hold; the message names line and column.
            InputError: some records have a unit and this tells that others lack theirs: no record may stay, then.
        """
        self._rows += 1
        shape = self.shape or self._choose(row)
        parts = getattr(self, f"_{shape}")(row)
        self.shape = shape
        if isinstance(parts, str):
            return parts
        parts += self._further(row)
        given = self._label(row, self._data.id_column)
        name = given or f"r{self._rows:06d}"
        return Shaped(Record(name, self._unit(row) or name, parts), given is not None)

    def _further(self, row: Row) -> tuple[Part, ...]:
        """The further columns that the policy keeps in some form, as parts whose role says what is done with them."""
        if not self._with_columns:
            return ()
        rules = {column: rule for column, rule in self._data.columns.items() if rule != "drop"}
        for column in rules:
            if column not in row.values:
                raise self._missing(row, column, "columns")
        for own in (self._data.id_column, self._data.unit_column):
            rules.pop(own, None)  # these stand beside the parts; what leaves of them is said at the end
        return tuple(Part(f"{COLUMN}{rule}:{column}", self._cell(row, column)) for column, rule in rules.items())

    def _cell(self, row: Row, column: str) -> str:
        value = row.values[column]
        if isinstance(value, (bool, int, float)):
            return json.dumps(value)
        if value is not None and not isinstance(value, (str, list, dict)):
            value = str(value)  # a date or a decimal of Parquet
        if isinstance(value, (list, dict)):
            value = json.dumps(value, ensure_ascii=False, default=str)
        return self._checked(row, value, f"column {column}")

    def _choose(self, row: Row) -> Shape:
        explicit: list[Shape] = [shape for shape, keys in _SHAPES.items() if any(self._explicit(key) for key in keys)]
        candidates: list[Shape] = explicit or list(_SHAPES)
        for shape in candidates:
            if all(getattr(self._data, key) in row.values for key in _SHAPES[shape]):
                return shape
        for key in _SHAPES[explicit[0]] if explicit else ():
            self._value(row, key)
        names = f"{self._data.text_column}, {self._data.prompt_column} and {self._data.completion_column}, or"
        there = named(list(row.values))
        what = f"has none of the columns {names} {self._data.messages_column} ({there}): set data.text_column."
        raise Malformed(row.number, "missing column", what)

    def _explicit(self, key: str) -> bool:
        return getattr(self._data, key) != _DEFAULT[key]

    def _text(self, row: Row) -> tuple[Part, ...] | str:
        text = self._string(row, "text_column")
        return (Part("text", text),) if text.strip() else "empty text"

    def _completion(self, row: Row) -> tuple[Part, ...] | str:
        prompt, completion = self._string(row, "prompt_column"), self._string(row, "completion_column")
        return (Part("prompt", prompt), Part("completion", completion)) if completion.strip() else "empty completion"

    def _chat(self, row: Row) -> tuple[Part, ...] | str:
        messages = self._value(row, "messages_column")
        if isinstance(messages, str):  # CSV has no lists: there the cell holds JSON
            text, messages = messages, () if messages.strip() else None
            with contextlib.suppress(ValueError, RecursionError):
                messages = json.loads(text)
        if messages is not None and not isinstance(messages, list):
            what = f"column {self._data.messages_column} is not a list of messages: write [{{role, content}}, …]."
            raise Malformed(row.number, "bad messages", what)
        parts = tuple(self._message(row, at, message) for at, message in enumerate(messages or (), 1))
        return parts if any(part.text.strip() for part in parts) else "empty messages"

    def _message(self, row: Row, at: int, message: object) -> Part:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            what = f"message {at} is not an object with role and content: write both for each message."
            raise Malformed(row.number, "bad messages", what)
        if message["role"] not in ROLES:
            what = f"message {at} has an unknown role: the roles are {', '.join(ROLES)}."
            raise Malformed(row.number, "bad messages", what)
        return Part(message["role"], self._checked(row, message["content"], f"the content of message {at}"))

    def _string(self, row: Row, key: str) -> str:
        return self._checked(row, self._value(row, key), f"column {getattr(self._data, key)}")

    def _value(self, row: Row, key: str) -> Any:
        column = getattr(self._data, key)
        if column not in row.values:
            raise self._missing(row, column, key)
        return row.values[column]

    def _checked(self, row: Row, value: object, what: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Malformed(row.number, "not text", f"{what} holds {_kind(value)}, not text: write it as a string.")
        if not value.isascii() and _torn(value):
            what = f"{what} holds half a character (a lone surrogate): export the data as valid Unicode."
            raise Malformed(row.number, "half a character", what)
        return value

    def _label(self, row: Row, column: str) -> str | None:
        """An id or a unit: text or a whole number, the same in every format; None where there is none."""
        value = row.values.get(column)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # how a column of whole numbers with gaps comes out of Parquet
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return self._checked(row, value, f"column {column}").strip() or None

    def _unit(self, row: Row) -> str | None:
        column = self._data.unit_column
        label = self._label(row, column)
        if label is None and (self._explicit("unit_column") or self._pattern):
            if column not in row.values:
                raise self._missing(row, column, "unit_column")
            raise Malformed(row.number, "no unit", f"has no value in the unit column {column}: say whose record it is.")
        self.has_units = label is not None if self.has_units is None else self.has_units
        if self.has_units and label is None:
            what = f"has no {column} although earlier records have one: give every record a unit, or none."
            raise Malformed(row.number, "no unit", what)
        if not self.has_units and label is not None:
            what = f"has a {column} although earlier records have none: give every record a unit, or none."
            raise self._source.error(row.number, what)
        if label is None or self._pattern is None:
            return label
        match = self._pattern.search(label)
        if match is None or not match[0]:
            what = f"column {column} holds nothing that data.unit_pattern matches: mend the pattern or the line."
            raise Malformed(row.number, "no unit", what)
        return match[0]

    def _missing(self, row: Row, column: str, key: str) -> Malformed:
        what = f"has no column {column} ({named(list(row.values))}): add it, or name the right one with data.{key}."
        return Malformed(row.number, "missing column", what)


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "another kind of value")


def _torn(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
