"""The example data: messages of made-up people to a help desk or a clinic, with gold spans of the personal values.

    for record in generate(records=6000, people=900, seed=0): ...        {"id", "unit", "text", "spans"}
    python -m pipeline.example                                           writes the bundled file again

A person keeps name, address, numbers, style, and one to three topics over all of their messages. A gold span is
{"start", "end", "label"} in characters, with Presidio's entity names as labels.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.example._grammar import Grammar, Scope, finished
from pipeline.example._messages import message
from pipeline.example._people import Maker, Person, person

RECORDS, PEOPLE, SEED = 6000, 900, 0
SHORTEST, LONGEST = 25, 110
"""Words of a message."""

_OWN = {"mail", "form", "chat", "complaint", "portal", "admin"}  # layouts that the person writes; staff write the others
_WOMEN = {"pregnancy", "breast"}
_CONTRACTIONS = {
    "I am": "I'm", "I have been": "I've been", "I would": "I'd", "I will": "I'll", "cannot": "can't", "do not": "don't",
    "does not": "doesn't", "did not": "didn't", "is not": "isn't", "was not": "wasn't", "has not": "hasn't",
    "have not": "haven't", "will not": "won't", "could not": "couldn't", "It is": "It's", "it is": "it's",
}  # fmt: skip
_CONTRACTED = re.compile(r"\b(" + "|".join(sorted(_CONTRACTIONS, key=len, reverse=True)) + r")(?= [a-z])")
_WORD = re.compile(r"\b[a-z]{4,}\b")
_NEAR = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioposdfghjklkxcvbnmn", strict=True))


def path() -> Path:
    """The bundled file: gzipped JSON Lines."""
    return _assets() / "messages.jsonl.gz"


def generate(records: int = RECORDS, people: int = PEOPLE, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Yield records `{"id", "unit", "text", "spans"}`; the same arguments and the same Faker give the same records.

    Args:
        records: how many; between one and as many as there are different texts.
        people: how many units; 4 to 12 records each where the numbers allow it.
        seed: of everything that is drawn.
    """
    maker = Maker(_assets() / "homes.yaml", seed)
    grammars = {kind: Grammar(_assets() / f"{kind}.txt") for kind in ("support", "clinical")}
    everyone = [_person(maker, grammars, number) for number in range(1, people + 1)]
    turns = [one for one, count in zip(everyone, _shares(maker.random, records, people), strict=True) for _ in range(count)]
    maker.random.shuffle(turns)
    written: set[str] = set()
    for number, one in enumerate(turns, 1):
        while True:
            text, spans = _message(maker, grammars, one)
            if SHORTEST <= len(text.split()) <= LONGEST and text not in written:
                break
        written.add(text)
        yield {"id": f"m{number:05d}", "unit": one.unit, "text": text, "spans": spans}


def write(target: Path, *, records: int = RECORDS, people: int = PEOPLE, seed: int = SEED) -> int:
    """Write the records to a gzipped JSON Lines file, the same bytes each time; returns its size in bytes."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in generate(records, people, seed))
    target.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))
    return target.stat().st_size


def _assets() -> Path:
    return Path(str(files("pipeline"))) / "assets" / "example"


def _person(maker: Maker, grammars: dict[str, Grammar], number: int) -> Person:
    draw = maker.random
    kinds = draw.choices([["support"], ["clinical"], ["support", "clinical"]], [42, 42, 16])[0]
    topics = {kind: draw.sample(grammars[kind].topics(), draw.randint(1, 3)) for kind in kinds}
    sex = "female" if _WOMEN & set(topics.get("clinical", ())) else None
    return person(maker, number, topics, sex)


def _shares(draw: random.Random, records: int, people: int) -> list[int]:
    """Records of each person: 4 to 12 where the numbers allow it, uneven, and exact in sum."""
    least, most = min(4, records // people), max(12, -(-records // people))
    counts = [least] * people
    open_ = list(range(people))
    for _ in range(records - least * people):
        at = draw.choice(open_)
        counts[at] += 1
        if counts[at] == most:
            open_.remove(at)
    return counts


def _message(maker: Maker, grammars: dict[str, Grammar], one: Person) -> tuple[str, list[dict[str, int | str]]]:
    draw = maker.random
    kind = draw.choice(list(one.topics))
    grammar, topic = grammars[kind], draw.choice(one.topics[kind])
    layout = draw.choice(grammar.layouts("record"))
    own = layout in _OWN
    values = message(maker, one, own=own)
    scope = Scope(topic, values, draw, one.kept)
    if kind == "clinical":
        drug, _, dose = grammar.write("medicine", scope)[0][0].partition(" / ")
        values |= {"drug": lambda: [(drug, None)], "dose": lambda: [(f"{drug} {dose}", None)]}
    change = _Hand(draw, one, own=own)
    return finished(grammar.write(layout, scope), change)


class _Hand:
    """How somebody's words come out: contractions, small letters, slips. It never touches a gold span."""

    def __init__(self, draw: random.Random, one: Person, *, own: bool):
        self._draw, self._contracts, self._lower = draw, own and one.style.contracts, own and one.style.lower
        self._typos = one.style.typos if own else (0.02 if draw.random() < 0.08 else 0.0)

    def __call__(self, text: str) -> str:
        if self._contracts:
            text = _CONTRACTED.sub(lambda match: _CONTRACTIONS[match[1]], text)
        if self._lower:
            text = text.lower()
        return _WORD.sub(self._slipped, text) if self._typos else text

    def _slipped(self, match: re.Match[str]) -> str:
        word = match[0]
        if self._draw.random() >= self._typos:
            return word
        at = self._draw.randrange(1, len(word) - 1)
        kind = self._draw.choice(["swap", "drop", "double", "near"])
        middle = {
            "swap": word[at + 1] + word[at] if word[at + 1] != word[at] else word[at],
            "drop": word[at + 1],
            "double": word[at] * 2 + word[at + 1],
            "near": _NEAR[word[at]] + word[at + 1],
        }
        return word[:at] + middle[kind] + word[at + 2 :]
