"""The personal values that scrubbing took out: whose they are, where they stood, and whether they stand somewhere still.

The values are cut out of the originals, which lie in the run's private folder; they are used in memory and never written.
A value that belongs to one privacy unit alone fell on the side of that unit by chance. So those of trained units and those of
held-out ones differ in nothing but training, and the second are what the model can guess anyway.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audit.figures import Figure
from pipeline.corpus import Record, load_records
from pipeline.errors import IntegrityError

Phrase = tuple[str, ...]

FEWEST_CHARACTERS = 4
"""Values with fewer letters and digits stand in too many texts by chance."""

_WORDS = re.compile(r"\w+|[^\w\s]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MANY = object()
_LEFT = "games.values_left_in_training"


@dataclass(frozen=True, slots=True)
class Value:
    """A value that was removed: what it was, and where it stood.

    `start` and `end` count in the original part, `cut` and `resume` in the scrubbed one, where the replacement begins and
    ends. `record` is the scrubbed record.
    """

    text: str
    entity: str
    phrase: Phrase
    record: Record
    part: int
    start: int
    end: int
    cut: int
    resume: int


@dataclass(frozen=True)
class Removed:
    """Removed values, each once.

    `trained` and `held_out` hold those of one unit alone, in the order of the lot. `everything` holds all that was removed
    from training records, `left` those of them that stand in some training record still.
    """

    trained: list[Value] = field(default_factory=list)
    held_out: list[Value] = field(default_factory=list)
    everything: dict[Phrase, Value] = field(default_factory=dict)
    left: dict[Phrase, Value] = field(default_factory=dict)


class Phrases:
    """Finds phrases in texts: word for word, case and punctuation included, whatever the blanks."""

    def __init__(self, phrases: Iterable[Phrase]) -> None:
        self._by_word: dict[str, dict[int, set[Phrase]]] = {}
        for phrase in phrases:
            if phrase:
                self._by_word.setdefault(phrase[0], {}).setdefault(len(phrase), set()).add(phrase)

    def within(self, text: str) -> set[Phrase]:
        """The phrases that stand in a text."""
        words = words_of(text)
        found = set()
        for place, word in enumerate(words):
            for length, phrases in self._by_word.get(word, {}).items():
                if (phrase := words[place : place + length]) in phrases:
                    found.add(phrase)
        return found


def words_of(text: str) -> Phrase:
    """The words and marks of a text.

    >>> words_of("Dr. O'Neil, 4th")
    ('Dr', '.', 'O', "'", 'Neil', ',', '4th')
    """
    return tuple(_WORDS.findall(text))


def gather(
    originals: Path, scrubbed: Path, trained: Collection[str], held_out: Collection[str], rng: np.random.Generator, *,
    by_person: bool,
) -> Removed:  # fmt: skip
    """Cut the removed values out of the originals and look for them in the scrubbed records.

    Args:
        originals: records.jsonl as they were read.
        scrubbed: folder of records.jsonl and spans.jsonl.
        trained: ids of the training records.
        held_out: ids of the held-out records.
        rng: shuffles the values.
        by_person: whether persons are the privacy units, not records.

    Raises:
        IntegrityError: originals, scrubbed records and spans do not belong together.
    """
    trained, held_out = set(trained), set(held_out)
    scrubbed_records = list(load_records(scrubbed / "records.jsonl"))
    values = list(_values(originals, scrubbed_records, scrubbed / "spans.jsonl"))
    owners: dict[Phrase, Any] = {}

    def own(phrase: Phrase, record: Record) -> None:
        unit = record.unit if by_person else record.id
        owners[phrase] = unit if owners.get(phrase, unit) == unit else _MANY

    for value in values:
        own(value.phrase, value.record)
    phrases, standing = Phrases(owners), set()
    for record in scrubbed_records:
        found = set().union(*(phrases.within(part.text) for part in record.parts))
        standing |= found if record.id in trained else set()
        for phrase in found:
            own(phrase, record)
    order = [values[i] for i in rng.permutation(len(values))]
    everything = {value.phrase: value for value in order if value.record.id in trained}
    single = {value.phrase: value for value in order if owners[value.phrase] is not _MANY}
    return Removed(
        trained=[value for value in single.values() if value.record.id in trained],
        held_out=[value for value in single.values() if value.record.id in held_out],
        everything=everything,
        left={phrase: value for phrase, value in everything.items() if phrase in standing},
    )


def figures(removed: Removed) -> list[Figure]:
    """How many values that were removed from a training record stand in some training record still, in all and by entity."""
    all_of = Counter(value.entity for value in removed.everything.values())
    left = Counter(value.entity for value in removed.left.values())
    if not all_of:
        return []
    total = len(removed.everything)
    method = (
        f"distinct values of {FEWEST_CHARACTERS} or more letters and digits that scrubbing removed from one training record "
        f"and left, word for word, in another place of the training text; no model; {len(removed.left):,} of {total:,}"
    )
    found = [Figure(name=_LEFT, value=len(removed.left), n=total, method=method)]
    for entity, n in sorted(all_of.items()):
        found.append(Figure(name=f"{_LEFT}.{entity}", value=left[entity], n=n, method=f"of {entity}, as all together"))
    return found


def _values(originals: Path, scrubbed: list[Record], spans: Path) -> Iterator[Value]:
    with spans.open(encoding="utf-8") as lines:
        rows = zip(load_records(originals), scrubbed, lines, strict=True)
        try:
            for original, record, line in rows:
                yield from _of_record(original, record, json.loads(line))
        except ValueError:
            raise _unfit(spans) from None


def _of_record(original: Record, record: Record, line: dict[str, Any]) -> Iterator[Value]:
    if not original.id == record.id == line["id"] or len(original.parts) != len(record.parts):
        raise ValueError
    for index, (part, scrubbed) in enumerate(zip(original.parts, record.parts, strict=True)):
        text = _SURROGATES.sub("\ufffd", part.text)
        places = [(span["start"], span["end"], span["entity"]) for span in line["spans"] if span.get("part", 0) == index]
        for (start, end, entity), (cut, resume) in zip(places, _aligned(text, scrubbed.text, places), strict=True):
            phrase = words_of(text[start:end])
            if sum(len(word) for word in phrase if word.isalnum()) >= FEWEST_CHARACTERS:
                yield Value(text[start:end], entity, phrase, record, index, start, end, cut, resume)


def _aligned(text: str, scrubbed: str, spans: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Where each replacement begins and ends, whatever was put there: what stands between the spans is the same in both.

    Raises:
        ValueError: it is not.
    """
    ends = [0, *(end for _, end, _ in spans)]
    starts = [*(start for start, _, _ in spans), len(text)]
    kept = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    if not scrubbed.startswith(kept[0]) or (not spans and scrubbed != text):
        raise ValueError
    found, cut = [], len(kept[0])
    for place, piece in enumerate(kept[1:], 1):
        last = place == len(spans)
        resume = len(scrubbed) - len(piece) if last else scrubbed.find(piece, cut)
        if resume < cut or not scrubbed.startswith(piece, resume):
            raise ValueError
        found.append((cut, resume))
        cut = resume + len(piece)
    return found


def _unfit(spans: Path) -> IntegrityError:
    return IntegrityError(f"The file {spans} does not fit the run's records: something was changed; run again from the start.")
