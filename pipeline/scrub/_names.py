"""Names beyond what a model finds: words that no dictionary knows, names joined, listed and propagated.

All of this reads the text as `_words.recased` shows it. Offsets count characters of that text, which has the same length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import regex

from pipeline.scrub._patterns import NAMES_AFTER, NAMES_BEFORE, TITLE
from pipeline.scrub._words import ALSO_WORDS, GIVEN, WORD, known, ordinary
from pipeline.scrub.detect import Span

SCORE = 0.5  # of a name that stands here for its spelling or its neighbours only
_NEAR = 50  # characters before a name that are looked at
_AFTER, _BEFORE = regex.compile(NAMES_AFTER), regex.compile(NAMES_BEFORE)
_CAPITAL = regex.compile(r"(?<![\p{L}\p{M}\d_@./#&-])\p{Lu}[\p{L}\p{M}'’]*(?:-[\p{L}\p{M}'’]+)*(?![\p{L}\p{M}\d_@/]|\.\w)")
_NUMBER_AFTER = regex.compile(
    r"[ ]\d{1,5}[A-Za-z]?\b(?![.,:/]\d)(?!,?[ ]?(?:%|mg|mcg|ml|kg|g|cm|mm|am|pm|st|nd|rd|th|hours?|"
    r"days?|weeks?|months?|years?)\b)"
)
_NUMBER_BEFORE = regex.compile(r"(?<![\w.,/-])\d{1,4}[A-Za-z]?,?[ ]\Z")
_INSIDE = regex.compile(r"[\p{Ll},;:(\"'“][ ]?\Z")  # a word after this does not start a sentence
_FIRST = regex.compile(r"(?<![\p{L}\p{M}.'’-])(\p{Lu}\p{L}+)[ ]\Z")
_VERB = regex.compile(r"[ ](?:is|was|has|had|said|says|will|would|wants|wanted|called|asked|told|and|\p{Lu}\p{L}+)\b")
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_NEVER = frozenset(
    f"{_MONTHS} {_DAYS} the this that there please thanks thank regards what when where who why how he she it they".split()
)
_ITEM = r"(\p{Lu}[\p{L}\p{M}'’-]+)"
_NEXT = regex.compile(
    rf"(?:,[ ](?:(?:and|or|&)[ ])?|[ ](?:and|or|&)[ ]){_ITEM}(?=[,.;:!?)\n]|[ ](?:and|or|&|\p{{Ll}})|['’]s\b|\Z)"
)
_LAST = regex.compile(rf"(?<=[\p{{Ll}},:(][ ]|\A){_ITEM}(?:,[ ](?:(?:and|or|&)[ ])?|[ ](?:and|or|&)[ ])\Z")
_TITLE = regex.compile(TITLE)
_TOKEN = regex.compile(r"(?<![\w@.])\p{L}[\p{L}\p{M}'’-]{2,60}+(?![\w@])")
_POSSESSIVE = regex.compile(r"['’][sS]?\Z")
_POSSESSED, _NAMED = regex.compile(r"['’]s?\Z"), regex.compile(r"\p{Lu}[\p{L}\p{M}'’-]+")
_OWNED = regex.compile(r"['’]s\Z")
_WITHIN = regex.compile(r"[\p{Ll},;:(\"“][ ]\Z")


def unknown(text: str) -> Iterator[Span]:
    """Capitalised words that are no English words, with the names and house numbers beside them."""
    for match in _CAPITAL.finditer(text):
        if _is_name(text, match):
            start, end = joined(text, *match.span())
            number = _NUMBER_AFTER.match(text, end)
            if number is None:
                yield Span(start, end, "PERSON", SCORE)
            else:
                before = _NUMBER_BEFORE.search(text, max(0, start - 8), start)
                yield Span(before.start() if before else start, number.end(), "STREET_ADDRESS", SCORE)


def _is_name(text: str, match: Any) -> bool:
    word = match.group()
    if word[:2].isupper():  # an abbreviation, or a word in capitals among others
        return False
    plain = _OWNED.sub("", word).lower()
    if plain in GIVEN:
        return True
    parts = [part for part in WORD.findall(word) if len(part) > 2]
    if parts and not all(map(known, parts)):
        return True
    inside = _INSIDE.search(text, max(0, match.start() - 2), match.start()) is not None
    return plain in ALSO_WORDS and plain not in _NEVER and inside and bool(_VERB.match(text, match.end()))


def joined(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of a name with the names beside it."""
    after = _AFTER.match(text, end)
    end = after.end() if after else end
    before = _BEFORE.search(text, max(0, start - _NEAR), start)
    if before:
        return before.start(), end
    first = _FIRST.search(text, max(0, start - _NEAR), start)
    if first and (first[1].lower() in ALSO_WORDS or not ordinary(first[1])):
        return first.start(), end
    return start, end


def listed(text: str, name: Span) -> Iterator[Span]:
    """The other items of a list that a name stands in: `Kovalev, Lee and Phillips`."""
    end = name.end
    for _ in range(12):
        item = _NEXT.match(text, end)
        if item is None or item[1].lower() in _NEVER:
            break
        yield Span(item.start(1), item.end(1), name.entity, SCORE)
        end = item.end()
    start = name.start
    for _ in range(12):
        item = _LAST.search(text, max(0, start - _NEAR), start)
        if item is None or item[1].lower() in _NEVER:
            break
        yield Span(item.start(1), item.end(1), name.entity, SCORE)
        start = item.start(1)


def propagated(texts: Sequence[str], found: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """What else in these texts (one person's) repeats a name that was found in one of them.

    A name that no dictionary knows is found again in any case; one that is also a word only with its capital, inside a
    sentence, and only where it stood beside a title or another name.
    """
    strange, words = set[str](), set[str]()
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            if span.entity == "PERSON":
                _learn(text[span.start : span.end], strange, words)
    return [list(_repeats(text, strange, words)) for text in texts] if strange or words else [[] for _ in texts]


def _repeats(text: str, strange: set[str], words: set[str]) -> Iterator[Span]:
    for match in _TOKEN.finditer(text):  # a look-up for each word: an alternation of many names would take quadratic time
        name = _POSSESSIVE.sub("", match.group())
        start = match.start()
        if name.lower() in strange or (name in words and _WITHIN.search(text, max(0, start - 2), start)):
            yield Span(start, start + len(name), "PERSON", SCORE)


def _learn(value: str, strange: set[str], words: set[str]) -> None:
    title = _TITLE.match(value)
    names = [name for name in _NAMED.findall(value[title.end() if title else 0 :]) if len(name) > 2]
    for name in names:
        name = _POSSESSED.sub("", name)
        if name.lower() in _NEVER or len(name) < 3:
            continue
        if len(name) > 3 and not all(known(part) for part in WORD.findall(name) or [name]):
            strange.add(name.lower())
        elif title or len(names) > 1:
            words.add(name)
