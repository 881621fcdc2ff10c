"""How much is missed in the records themselves: two estimates from a sample of them.

Planting in context: where a detector found a value in a record, a fresh value of the same kind is put in its place, so that
the words around it are the record's own; what share is found again is recall per entity with a lower bound. The places are
those that the scrubbing detector or the independent one found: a place that both overlook is never planted in, so this
recall is an upper estimate of the recall on the data, and a sharper test than sentences of ours.

Capture and recapture: from what each of two independent detectors finds, and what both find, follows how many values there
are. Where the two tend to miss the same values the estimate of recall is too high; where one of them finds what is no value
it is too low.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus import load_records
from pipeline.folders import Value, digest_file
from pipeline.policy import Scrub
from pipeline.scrub.detect import Detector, Span, encodable
from pipeline.scrub.recall import Recall, covered, lower_bound

_CHARACTERS = 20_000  # of a text that are sampled
_Z = 1.959964  # two-sided 95 % of the normal distribution
_SHARED = ("PERSON", "LOCATION", "STREET_ADDRESS", "EMAIL_ADDRESS", "PHONE_NUMBER", "URL")  # what both detectors can find


class Capture(Value):
    """Values that the first detector found, the second, both; how many there are by Chapman's estimator, with a 95 % interval.

    `recall` is the first detector's share of the estimate, `recall_low` its share of the interval's upper end.
    """

    first: int
    second: int
    both: int
    estimate: float
    low: float
    high: float
    recall: float
    recall_low: float


class Sampled(Value):
    """What was measured on `records` sampled records. `context` is recall on values planted in their contexts."""

    records: int
    context: tuple[Recall, ...]
    capture: Capture | None
    other: str | None


def sample(source: Path, scrub: Scrub, detector: Detector, other: Detector | None) -> Sampled | None:
    """Measure on `scrub.sample` records of a file, drawn at random by the file's digest; None where none are wanted.

    Args:
        source: records.jsonl of a corpus.
        scrub: the policy's section.
        detector: what scrubs.
        other: an independent detector, or None: then there is no capture and recapture.
    """
    rng = random.Random(digest_file(source))
    texts = _texts(source, scrub.sample, rng)
    if not texts:
        return None
    found = detector.find(texts)
    again = other.find(texts) if other else [[] for _ in texts]
    planted = _planted(texts, found, again, rng)
    return Sampled(
        records=len(texts),
        context=_recall(planted, detector),
        capture=_capture(found, again) if other else None,
        other=other.name if other else None,
    )


def _texts(source: Path, count: int, rng: random.Random) -> list[str]:
    """The texts of that many records: a reservoir, so that one pass and little memory do (Vitter 1985, algorithm R)."""
    kept: list[str] = []
    for seen, record in enumerate(load_records(source) if count else ()):
        text = "\n".join(encodable(part.text) for part in record.parts)[:_CHARACTERS]
        place = rng.randrange(seen + 1)
        if len(kept) < count:
            kept.append(text)
        elif place < count:
            kept[place] = text
    return kept


def _planted(
    texts: Sequence[str], found: Sequence[Sequence[Span]], again: Sequence[Sequence[Span]], rng: random.Random
) -> list[tuple[str, Span]]:
    """Each text with one fresh value in the place of a value found, and where it stands."""
    from pipeline.scrub.probes import fakers, value

    made, sources = [], fakers(rng)
    counts: Counter[str] = Counter()
    for text, first, second in zip(texts, found, again, strict=True):
        places = [span for span in (*first, *second) if value(span.entity, rng, sources) is not None]
        if not places:
            continue
        least = min(counts[span.entity] for span in places)
        place = rng.choice([span for span in places if counts[span.entity] == least])  # rare kinds first
        counts[place.entity] += 1
        new = str(value(place.entity, rng, sources))
        changed = text[: place.start] + new + text[place.end :]
        made.append((changed, Span(place.start, place.start + len(new), place.entity, 1.0)))
    return made


def _recall(planted: Sequence[tuple[str, Span]], detector: Detector) -> tuple[Recall, ...]:
    counts: Counter[tuple[str, bool]] = Counter()
    for (text, span), spans in zip(planted, detector.find([text for text, _ in planted]), strict=True):
        hit = covered(text, span, spans)
        counts.update([(span.entity, hit), ("ALL", hit)])
    entities = sorted({entity for entity, _ in counts} - {"ALL"}) + (["ALL"] if planted else [])
    return tuple(
        Recall(
            entity=entity,
            planted=counts[entity, True] + counts[entity, False],
            found=counts[entity, True],
            low=lower_bound(counts[entity, True], counts[entity, True] + counts[entity, False]),
        )
        for entity in entities
    )


def _capture(found: Sequence[Sequence[Span]], again: Sequence[Sequence[Span]]) -> Capture | None:
    first = second = both = 0
    for one, two in zip(found, again, strict=True):
        mine, theirs = ([span for span in spans if span.entity in _SHARED] for spans in (one, two))
        first, second = first + len(mine), second + len(theirs)
        both += sum(any(span.start < other.end and other.start < span.end for other in one) for span in theirs)
    return chapman(max(first, both), second, both)


def chapman(first: int, second: int, both: int) -> Capture | None:
    """Chapman's estimator of a population captured twice, and its normal interval; None where nothing was captured.

    N = (n1 + 1)(n2 + 1)/(m + 1) - 1, variance (n1 + 1)(n2 + 1)(n1 - m)(n2 - m)/((m + 1)^2 (m + 2)) (Chapman 1951; Seber 1970).

    >>> round(chapman(200, 150, 120).estimate, 1)
    249.8
    """
    if not first or not second:
        return None
    estimate = (first + 1) * (second + 1) / (both + 1) - 1
    variance = (first + 1) * (second + 1) * (first - both) * (second - both) / ((both + 1) ** 2 * (both + 2))
    seen = first + second - both
    low, high = max(estimate - _Z * variance**0.5, seen), max(estimate + _Z * variance**0.5, seen)
    estimate = max(estimate, seen)
    return Capture(
        first=first, second=second, both=both, estimate=estimate, low=low, high=high,
        recall=first / estimate, recall_low=first / high,
    )  # fmt: skip


def figures(sampled: Any) -> dict[str, tuple[float, float | None, int]]:
    """Figures that a gate can demand: name to value, lower bound and sample size."""
    made: dict[str, tuple[float, float | None, int]] = {}
    for one in sampled.context if sampled else ():
        name = "scrub.context" if one.entity == "ALL" else f"scrub.context.{one.entity}"
        made[name] = (one.found / one.planted, one.low, one.planted)
    if sampled and sampled.capture:
        capture = sampled.capture
        made["scrub.capture"] = (capture.recall, capture.recall_low, capture.first + capture.second - capture.both)
    return made
