"""The detectors: one pass of a model, of Presidio's pattern recognisers and of our own rules over each text.

- `default`: spaCy's small English model (or the one that `scrub.model` names) and the rules;
- `high_recall`: the same and rampart, an independent model: what either finds is replaced;
- `fast`: the rules alone.

Differences from a stock `AnalyzerEngine`, all measured to give the same spans or better: only the `ner` pipe of the model
runs, texts are read in batches, a recogniser whose matches need a digit skips texts without one, and context words are
looked up in the characters around a match instead of in lemmas, which need the tagger.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib import metadata

import regex

from pipeline.policy import Scrub
from pipeline.scrub._models import Model, Rampart, given
from pipeline.scrub._names import joined, listed, propagated, unknown
from pipeline.scrub._patterns import NOT_PERSONAL
from pipeline.scrub._reading import read
from pipeline.scrub._recognisers import DENIED, recognisers, without
from pipeline.scrub._words import recased, telling
from pipeline.scrub.detect import Span, legible, resolve, windows

_DULL = {entity: regex.compile(pattern) for entity, pattern in NOT_PERSONAL.items()}
_MODEL = frozenset(("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME"))  # what a policy may ask of any detector


class Engine:
    """A detector of a policy.

    Args:
        scrub: the policy's section: detector, model, entities, minimum score, allowed and denied words.

    Raises:
        PolicyError: an entity that no recogniser supports, or a model that is not installed.
    """

    def __init__(self, scrub: Scrub):
        _silence()
        self._models: list[Model] = [] if scrub.detector == "fast" else [given(scrub.model)]
        self._models += [Rampart()] if scrub.detector == "high_recall" else []
        found = _MODEL.union(*(model.entities for model in self._models))
        self._recognisers = sorted(recognisers(scrub, frozenset(found)), key=lambda one: one.slow)
        self._entities = {*scrub.entities, *(one.entity for one in self._recognisers)}
        self._allowed = {word.casefold() for word in scrub.allow}
        self._minimum = scrub.minimum_score
        names = [f"presidio-analyzer {metadata.version('presidio-analyzer')}", *(model.name for model in self._models)]
        self.name = f"{scrub.detector} ({', '.join(names)})"

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans: sorted, non-overlapping."""
        return read(texts, self._find)

    def _find(self, texts: list[str]) -> list[list[Span]]:
        typed = [legible(text) for text in texts]
        seen = [recased(text) for text in typed]
        pieces = [(index, start, piece) for index, text in enumerate(seen) for start, piece in windows(text)]
        named = self._named([piece for _, _, piece in pieces])
        found: list[list[Span]] = [[] for _ in texts]
        for (index, start, piece), spans in zip(pieces, named, strict=True):
            spans += self._matched(typed[index][start : start + len(piece)], piece)
            found[index] += [span._replace(start=start + span.start, end=start + span.end) for span in spans]
        return [resolve(text, self._spread(text, spans)) for text, spans in zip(seen, found, strict=True)]

    def _named(self, texts: list[str]) -> list[list[Span]]:
        """What the models find; a stretch (a signature, say) is read once however often it stands here."""
        stretches = [list(telling(text)) for text in texts]
        distinct = list(dict.fromkeys(stretch for found in stretches for _, stretch in found))
        read: dict[str, list[Span]] = {stretch: [] for stretch in distinct}
        for model in self._models:
            for stretch, spans in zip(distinct, model.find(distinct), strict=True):
                read[stretch] += [span for span in spans if span.entity in self._entities and span.score >= self._minimum]
        return [
            [span._replace(start=at + span.start, end=at + span.end) for at, stretch in found for span in read[stretch]]
            for found in stretches
        ]

    def _matched(self, typed: str, seen: str) -> list[Span]:
        found: list[Span] = []
        for one in self._recognisers:
            text = typed if one.exact else seen
            found += [span for span in one.spans(without(text, found) if one.slow else text) if span.score >= self._minimum]
        return found

    def _spread(self, text: str, spans: list[Span]) -> list[Span]:
        """The spans that count, and what follows from them: names joined, in lists, and again in the text."""
        if "PERSON" not in self._entities:
            return self._kept(text, spans)
        kept = []
        for span in self._kept(text, [*spans, *unknown(text)]):
            start, end = joined(text, span.start, span.end) if span.entity == "PERSON" else (span.start, span.end)
            kept.append(span._replace(start=start, end=end))
        kept += self._kept(text, [item for span in kept if span.entity == "PERSON" for item in listed(text, span)])
        return kept + self._kept(text, propagated([text], [kept])[0])

    def _kept(self, text: str, spans: Iterable[Span]) -> list[Span]:
        """The spans without allowed words and without what nobody is known by."""
        kept = []
        for span in spans:
            value = text[span.start : span.end].strip()
            dull = _DULL.get(span.entity)
            if span.entity == DENIED or not (value.casefold() in self._allowed or (dull and dull.fullmatch(value))):
                kept.append(span)
        return kept


def _silence() -> None:
    """Stop every logger that writes values it has seen; Presidio's IBAN recogniser, for one, does so at error level."""
    for name in (
        "presidio-analyzer",
        "presidio_analyzer",
        "decision_process",
        "spacy",
        "tldextract",
        "filelock",
        "transformers",
    ):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.addFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
