"""Letters and digits that stand apart, and numbers said digit by digit: what a caller spells, and what hides from a search.

    list(spelt("call J o h n on 5 5 5 - 0 1 4 7"))        # [((5, 12), 'John'), ((16, 29), '555-0147')]

A run counts from four letters or seven digits on. The gap that most of them have is no part of the value, any other is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import regex

from pipeline.scrub._words import GIVEN

_GAP = r"(?:[ ]{1,3}|[ ]?[-·_*–][ ]?|\.|[ ]\.[ ])"  # no full stop between two abbreviations
_LETTERS = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}\p{{N}}'’]|\p{{L}}[-._&])\p{{L}}(?:{_GAP}\p{{L}}(?![\p{{L}}\p{{M}}\p{{N}}'’])){{3,80}}+(?!\.\p{{L}})"
)
_DIGITS = regex.compile(rf"(?<![\w.,/-])\d(?:{_GAP}\d(?!\w)){{6,24}}+(?![.,-/]?\w)")
_DIGIT = {"zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_DIGIT |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_WORDS = regex.compile(rf"(?i)\b(?:{'|'.join(_DIGIT)})(?:[ ,.-]{{1,3}}(?:{'|'.join(_DIGIT)})\b){{6,24}}+")
_NO_NAMES = ("abcde", "acgtun", "yntfxo")  # answers, bases, marks in tables
_APART = re.compile(r"(?<![^\W_])[^\W_](?:[ .·_*–-]{1,3}[^\W_](?![^\W_])){3}")  # quick to look for
_SAID = re.compile(r"(?i)\b(?:zero|oh|one|two|three|four|five|six|seven|eight|nine)[ ,.-]{1,3}"
                   r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine)\b")  # fmt: skip


def spelt(text: str) -> Iterator[tuple[tuple[int, int], str]]:
    """Start and end of each run in order, and what it spells."""
    runs = []
    if _APART.search(text):
        runs += [(match.span(), _word(match.group())) for match in _LETTERS.finditer(text)]
        runs += [(match.span(), _number(match.group())) for match in _DIGITS.finditer(text)]
    if _SAID.search(text):
        runs += [(match.span(), _said(match.group())) for match in _WORDS.finditer(text)]
    yield from sorted((span, new) for span, new in runs if new)


def _together(run: str) -> str:
    """The run without its commonest gap."""
    gaps = regex.findall(_GAP, run)
    (usual, _), *_ = Counter(gaps).most_common(1)
    return "".join(
        piece if at % 2 == 0 else "" if piece == usual else piece.strip() or " "
        for at, piece in enumerate(regex.split(rf"({_GAP})", run))
    )


def _word(run: str) -> str:
    """The words that letters spell, as names are written; nothing where they are an abbreviation, a list or answers."""
    letters = [character for character in run.lower() if character.isalpha()]
    steps = {ord(after) - ord(before) for before, after in pairwise(letters)}
    if len(steps) == 1 or any(set(letters) <= set(few) for few in _NO_NAMES) or ("." in run and run.isupper()):
        return ""
    if not any(letter in "aeiouy" or letter > "\x7f" for letter in letters):
        return ""
    whole = _together(run)
    if whole.isupper():  # four capitals are most often an abbreviation: G E R D
        return " ".join(word.title() if len(word) > 4 or word.lower() in GIVEN else word for word in whole.split(" "))
    return regex.sub(r"(?<=\p{Ll})(?=\p{Lu})", " ", whole)


def _number(run: str) -> str:
    digits = [int(character) for character in run if character.isdigit()]
    steps = {after - before for before, after in pairwise(digits)}
    return "" if len(steps) == 1 else _together(run)  # 1 2 3 4 5 6 7


def _said(run: str) -> str:
    words = [word.lower() for word in regex.findall(r"\p{L}+", run)]
    return "" if words == list(_DIGIT)[2:][: len(words)] else "".join(_DIGIT[word] for word in words)
