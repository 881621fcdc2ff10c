"""Dates in texts, moved by an offset and spelled as before."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

_MONTHS = ("January February March April May June July August September October November December").split()
_NAMED = r"(?P<month>(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)\.?"
_FORMS = tuple(
    re.compile(form, re.I)
    for form in (
        r"(?<!\d)(?P<year>\d{4})(?P<gap>[-/.])(?P<month>\d{1,2})(?P=gap)(?P<day>\d{1,2})(?!\d)",
        r"(?<!\d)(?P<first>\d{1,2})(?P<gap>[-/.])(?P<second>\d{1,2})(?P=gap)(?P<year>\d{4}|\d{2})(?!\d)",
        rf"(?<!\d)(?P<day>\d{{1,2}})(?P<suffix>st|nd|rd|th)?[ -](?:of )?{_NAMED},?[ -](?P<year>\d{{4}})(?!\d)",
        rf"\b{_NAMED} (?P<day>\d{{1,2}})(?P<suffix>st|nd|rd|th)?,? (?P<year>\d{{4}})(?!\d)",
        rf"\b{_NAMED},? (?:of )?(?P<year>\d{{4}})(?!\d)",
        r"(?<![\d/.,-])(?P<year>(?:19|20)\d{2})(?![\d/.-])",
    )
)
_WEEKDAY = re.compile(r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b", re.I)
_LETTERS = re.compile(r"[^\W\d_]+")
_KEPT = frozenset(
    "in on at the of and to from by until since between about around early late mid t z am pm st nd rd th".split()
)


def shifted(text: str, offset: timedelta, *, day_first: bool = False) -> str | None:
    """The text with its dates moved; None where it holds something that is no date with at least a year.

    `day_first` says how 3/4/2020 is read, where only one of the two numbers could be a month it is read as that. A weekday
    beside a date stays, as offsets are whole weeks. A month or a year without its day moves from its middle.

    >>> shifted("Tuesday, 3 March 1964", timedelta(weeks=5))
    'Tuesday, 7 April 1964'
    """
    for form in _FORMS:
        found = list(form.finditer(text))
        if found and _nothing_else(form.sub(" ", text)):
            pieces, end = [], 0
            for match in found:
                new = _moved(match, offset, day_first)
                if new is None:
                    return None
                pieces += [text[end : match.start()], new]
                end = match.end()
            return "".join([*pieces, text[end:]])
    return None


def _nothing_else(rest: str) -> bool:
    rest = re.sub(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?", " ", _WEEKDAY.sub(" ", rest))
    return not re.search(r"\d", rest) and all(word.lower() in _KEPT for word in _LETTERS.findall(rest))


def _moved(match: re.Match[str], offset: timedelta, day_first: bool) -> str | None:
    parts: dict[str, Any] = match.groupdict()
    year, short = int(parts["year"]), len(parts["year"]) == 2
    year += (2000 if year < 50 else 1900) if short else 0
    month, day = parts.get("month"), int(parts.get("day") or 15)
    if parts.get("first"):
        first, second = int(parts["first"]), int(parts["second"])
        day_first = first > 12 or (second <= 12 and (day_first or parts["gap"] == "."))
        day, month = (first, second) if day_first else (second, first)
        names = ("first", "second") if day_first else ("second", "first")
    else:
        names = ("day", "month")
        month = (
            7
            if month is None
            else int(month)
            if month.isdigit()
            else 1 + "jan feb mar apr may jun jul aug sep oct nov dec".split().index(month[:3].lower())
        )
    try:
        new = date(year, int(month), day) + offset
    except (ValueError, OverflowError):
        return None
    spelled: dict[str, Callable[[str], str]] = {
        "year": lambda old: f"{new.year % 100:02d}" if short else str(new.year),
        names[0]: lambda old: f"{new.day:0{len(old)}d}" if old.startswith("0") or len(old) == 2 else str(new.day),
        names[1]: lambda old: _month(new.month, old),
        "suffix": lambda old: _suffix(new.day),
    }
    pieces, end = [], match.start()
    for start, stop, name in sorted((*match.span(name), name) for name in spelled if parts.get(name)):
        pieces += [match.string[end:start], spelled[name](match.string[start:stop])]
        end = stop
    return "".join([*pieces, match.string[end : match.end()]])


def _month(month: int, old: str) -> str:
    if old.isdigit():
        return f"{month:02d}" if old.startswith("0") or len(old) == 2 else str(month)
    name = _MONTHS[month - 1] if len(old) > 4 or old.capitalize() in _MONTHS else _MONTHS[month - 1][:3]
    return name.upper() if old.isupper() else name.lower() if old.islower() else name


def _suffix(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
