"""Words in a row that a text has in common with others, whatever their case and the marks between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text, in lower case.

    >>> words("Zero. One, TWO_three")
    ['zero', 'one', 'two', 'three']
    """
    return [word.lower() for word in _WORD.findall(text)]


def runs(some: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every `length` words in a row.

    >>> list(runs(["a", "b", "c"], 2))
    [('a', 'b'), ('b', 'c')]
    """
    return (tuple(some[start : start + length]) for start in range(len(some) - length + 1))


def repeated(texts: Iterable[str], records: Iterable[str], length: int) -> list[bool]:
    """Whether each text has `length` words in a row in common with any record. Records are read once and not held.

    >>> repeated(["one two three four five six", "one two three"], ["Zero. One, two; three four five SIX seven"], 6)
    [True, False]
    """
    own = [set(runs(words(text), length)) for text in texts]
    wanted = set().union(*own)
    known = {run for record in records for run in runs(words(record), length) if run in wanted} if wanted else set()
    return [bool(some & known) for some in own]
