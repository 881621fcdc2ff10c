"""Quasi-identifiers that remain after scrubbing: how many people their combinations single out.

Looked for in the scrubbed records, outside of what was replaced: the gender of pronouns and titles, ages, years, countries,
occupations and family, amounts and traits where the policy does not replace them, and the values of columns that it keeps. Two
people are alike if all that remains of both is equal; class sizes are those of k-anonymity (Sweeney 2002, definition 3).
A person with none is in the class of those with none. Only these kinds are looked for, so the figure is a floor: a reader of
free text can know more.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import regex

from pipeline.corpus import COLUMN, Record
from pipeline.folders import Value
from pipeline.scrub._patterns import RULES
from pipeline.scrub._secrets import FAIR
from pipeline.scrub._words import COUNTRIES

SIZES: tuple[str, ...] = ("1", "2", "3-5", "6-10", ">10")
_KEPT = f"{COLUMN}keep:"
_FEMALE = regex.compile(r"(?i)\b(?:she|her|hers|herself|mrs|ms|miss|woman|girl|mother|mum|mom|daughter|sister|lady)\b")
_MALE = regex.compile(r"(?i)\b(?:he|him|his|himself|mr|sir|man|boy|father|dad|son|brother|gentleman)\b")
_FAMILY = regex.compile(
    r"(?i)\b(?:twins?|triplets?|pregnant|widow(?:er)?|divorced|adopted|orphan|only child|single (?:mother|father|parent))\b"
)
_WORK = regex.compile(
    r"(?i)\b(accountant|actor|actress|architect|artist|baker|barber|bricklayer|builder|butcher|carpenter|cashier|chef|cleaner|"
    r"clerk|cook|dancer|dentist|designer|driver|economist|electrician|engineer|farmer|firefighter|fisherman|florist|gardener|"
    r"hairdresser|interpreter|journalist|judge|labourer|lawyer|lecturer|librarian|lifeguard|locksmith|mechanic|midwife|miner|"
    r"musician|nanny|notary|nurse|optician|painter|paramedic|pharmacist|photographer|physiotherapist|pilot|plumber|"
    r"police ?(?:man|woman|officer)|politician|postman|priest|professor|programmer|psychologist|receptionist|roofer|sailor|"
    r"scientist|secretary|shopkeeper|singer|soldier|solicitor|surgeon|tailor|teacher|therapist|translator|veterinarian|waiter|"
    r"waitress|welder|writer)s?\b"
)
_YEAR, _DIGITS = regex.compile(r"(?<![\w./-])(?:19|20)\d{2}(?![\w/-]|\.\d)"), regex.compile(r"\d+")
_RULES = {
    kind: [regex.compile(rule.pattern) for rule in RULES[kind] if rule.score >= FAIR] for kind in ("AGE", "AMOUNT", "TRAIT")
}
_ARTICLE = regex.compile(r"\A(?:an?|the) ")
_COUNTRY = regex.compile(rf"(?i)(?<!\w)(?:{COUNTRIES})(?!\w)")


class Quasi(Value):
    """People (units) by the size of their class, those alone in theirs, and people of whom each kind of value remains."""

    units: int
    unique: int
    sizes: dict[str, int]
    kinds: dict[str, int]


def features(
    record: Record, places: Sequence[Sequence[tuple[int, int]]], replaced: Collection[str] = ()
) -> set[tuple[str, str]]:
    """Kind and value of the quasi-identifiers of a scrubbed record.

    Args:
        record: scrubbed.
        places: for each part, where replacements stand in it.
        replaced: entities that were looked for: where AMOUNT and TRAIT are among them, none are left to look for here.
    """
    found: set[tuple[str, str]] = set()
    female = male = 0
    for part, taken in zip(record.parts, places, strict=True):
        if part.role.startswith(_KEPT):
            found.add((part.role.removeprefix(_KEPT), part.text))
            continue
        text = _outside(part.text, taken)
        female, male = female + len(_FEMALE.findall(text)), male + len(_MALE.findall(text))
        found.update(("age", _years(match.group())) for rule in _RULES["AGE"] for match in rule.finditer(text))
        for kind, pattern in (("year", _YEAR), ("country", _COUNTRY), ("occupation", _WORK), ("family", _FAMILY)):
            found.update((kind, match.group().lower()) for match in pattern.finditer(text))
        said = {value for _, value in found}
        for kind in ("AMOUNT", "TRAIT"):
            for rule in () if kind in replaced else _RULES[kind]:
                found.update((kind.lower(), value) for value in _values(rule, text) if value not in said)
    return found | ({("gender", "f" if female > male else "m")} if female != male else set())


def _values(rule: regex.Pattern[str], text: str) -> Iterator[str]:
    for match in rule.finditer(text):
        yield _ARTICLE.sub("", match["value" if "value" in rule.groupindex else 0].lower())


def _years(age: str) -> str:
    digits = _DIGITS.search(age)
    return digits.group() if digits else age.lower()


def _outside(text: str, places: Sequence[tuple[int, int]]) -> str:
    pieces, end = [], 0
    for start, stop in places:
        pieces += [text[end:start], "¦"]
        end = stop
    return "".join([*pieces, text[end:]])


def to_line(unit: str, found: Iterable[tuple[str, str]]) -> str:
    """A line for `count`: digests of unit and values, and the kinds; no text."""
    return json.dumps([_digest(unit), sorted((kind, _digest(f"{kind} {value}")) for kind, value in found)]) + "\n"


def count(paths: Iterable[Path], scratch: Path) -> Quasi:
    """The classes of all units in files of `to_line`, in bounded memory: a database in `scratch` does the sorting."""
    path = scratch / "quasi.db"
    path.unlink(missing_ok=True)
    rows = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in ("pragma journal_mode = off", "pragma synchronous = off", "begin"):
            rows.execute(statement)
        rows.execute("create table marks (unit text, kind text, mark text, primary key (unit, kind, mark)) without rowid")
        for file in paths:
            rows.executemany("insert or ignore into marks values (?, ?, ?)", _marks(file))
        rows.execute("create table classes (marks text primary key, units integer) without rowid")
        kinds: Counter[str] = Counter()
        own: list[tuple[str, str]] = []
        unit = None
        for at, kind, mark in rows.execute("select unit, kind, mark from marks order by unit, kind, mark"):
            if at != unit and unit is not None:
                _close(rows, own, kinds)
                own = []
            unit = at
            own += [(kind, mark)] if kind else []
        if unit is not None:
            _close(rows, own, kinds)
        sizes = dict.fromkeys(SIZES, 0)
        for size, classes in rows.execute("select units, count(*) from classes group by units"):
            sizes[_size(size)] += size * classes
        return Quasi(units=sum(sizes.values()), unique=sizes["1"], sizes=sizes, kinds=dict(sorted(kinds.items())))
    finally:
        rows.close()
        path.unlink(missing_ok=True)


def _marks(file: Path) -> Iterator[tuple[str, str, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            unit, found = json.loads(line)
            yield unit, "", ""  # a unit without any
            yield from ((unit, kind, mark) for kind, mark in found)


def _close(rows: sqlite3.Connection, own: list[tuple[str, str]], kinds: Counter[str]) -> None:
    kinds.update({kind for kind, _ in own})
    add = "insert into classes values (?, 1) on conflict do update set units = units + 1"
    rows.execute(add, (_digest("".join(mark for _, mark in own)),))


def _size(units: int) -> str:
    return str(units) if units < 3 else "3-5" if units < 6 else "6-10" if units < 11 else ">10"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
