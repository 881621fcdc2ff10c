"""How much of the personal data a detector finds, measured against gold spans: `{"text","spans":[{"start","end","label"}]}`.

A token is a run of letters and digits; it is personal if a gold span overlaps it, and found if a detected span does. Token
figures do not look at labels: a name that is replaced as a place is as safe as one that is replaced as a name. A gold
span counts as found only if every letter and digit of it is covered.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.folders import Progress, Value, silent
from pipeline.policy import Policy
from pipeline.scrub.detect import Detector, Span, load

ALPHA = 0.05  # one-sided error probability of `Recall.low`
_BATCH = 64
_TOKEN = re.compile(r"[^\W_]+")


class Recall(Value):
    """Planted values of one entity and how many were found; `low` is the Clopper–Pearson one-sided 95 % lower bound."""

    entity: str
    planted: int
    found: int
    low: float


class LabelRecall(Value):
    """For one gold label: spans, those fully covered, tokens, those covered."""

    label: str
    spans: int
    spans_found: int
    tokens: int
    tokens_found: int


class EntityPrecision(Value):
    """For one detected entity: spans, and those that overlap a gold span of any label."""

    entity: str
    spans: int
    correct: int


class RecallReport(Value):
    """Token and span recall and precision of a detector on a gold file. Shares are None where there is nothing to count."""

    source: str
    detector: str
    texts: int
    tokens_personal: int
    tokens_detected: int
    tokens_found: int
    token_recall: float | None
    token_precision: float | None
    span_recall: float | None
    span_precision: float | None
    labels: tuple[LabelRecall, ...]
    entities: tuple[EntityPrecision, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return self.model_dump(mode="json")


class Gold(NamedTuple):
    """A text and its gold spans (score 1)."""

    text: str
    spans: tuple[Span, ...]


class _Counts:
    """Sums over the texts: tokens, and rows by gold label and by detected entity."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()
        self.labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.entities: defaultdict[str, Counter[str]] = defaultdict(Counter)


def measure(gold: Path, policy: Policy, *, progress: Progress = silent) -> RecallReport:
    """Measure the policy's detector on a gold file.

    Args:
        gold: JSON Lines `{"text","spans":[{"start","end","label"}]}`; offsets count characters; other keys are ignored.
        policy: its section `scrub` names detector, entities, minimum score and allowed words.
        progress: told lines done of lines.

    Raises:
        InputError: the file is missing, empty or binary, or a line is not gold; the message names the line.
        PolicyError: the policy names an entity that no recogniser supports.
    """
    for _ in read_gold(gold):  # refuses a bad file before the detector is loaded
        pass
    return measure_with(load(policy.scrub), gold, progress=progress)


def measure_with(detector: Detector, gold: Path, *, progress: Progress = silent) -> RecallReport:
    """Measure any detector on a gold file; see `measure`.

    Raises:
        InputError: the file is missing, empty or binary, or a line is not gold.
    """
    total = sum(1 for _ in read_gold(gold))
    counts = _Counts()
    done = 0
    for batch in _batches(read_gold(gold)):
        for item, spans in zip(batch, detector.find([item.text for item in batch]), strict=True):
            _count(counts, item, spans)
        done += len(batch)
        progress(done, total)
    return _report(counts, gold.name, detector.name, total)


def planted(gold: Path, detector: Detector) -> tuple[Recall, ...]:
    """Recall on planted values, by entity and, last, for `ALL`; empty where the file plants none.

    A value counts as found only if every letter and digit of it is covered by detected spans, whatever their entity.

    Raises:
        InputError: a line is not gold.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    for batch in _batches(read_gold(gold)):
        for item, spans in zip(batch, detector.find([item.text for item in batch]), strict=True):
            counts.update((span.entity, covered(item.text, span, spans)) for span in item.spans)
    entities = sorted({entity for entity, _ in counts})
    rows = [(entity, counts[entity, True], counts[entity, False]) for entity in entities]
    if rows:
        rows.append(("ALL", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    return tuple(
        Recall(entity=entity, planted=found + missed, found=found, low=lower_bound(found, found + missed))
        for entity, found, missed in rows
    )


def covered(text: str, value: Span, spans: Sequence[Span]) -> bool:
    """Whether every letter and digit of `value` lies in one of `spans`."""
    return all(
        any(span.start <= position < span.end for span in spans)
        for position in range(value.start, value.end)
        if text[position].isalnum()
    )


def lower_bound(found: int, trials: int, alpha: float = ALPHA) -> float:
    """Clopper–Pearson one-sided lower bound of a proportion, at confidence 1 - `alpha`.

    The `alpha` quantile of Beta(found, trials - found + 1) (Clopper and Pearson, Biometrika 26, 1934).

    >>> round(lower_bound(20, 20), 3)
    0.861
    """
    if found == 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(found, trials - found + 1, alpha))


def read_gold(path: Path) -> Iterator[Gold]:
    """Yield the lines of a gold file; blank lines are skipped.

    Raises:
        InputError: the file is missing, empty or binary, or a line is not gold; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"Gold file {path} does not exist: give a JSON Lines file of texts with spans.")
    number = read = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            gold = _parse(line)
            if isinstance(gold, str):
                raise InputError(f"Gold file {path}, line {number}: {gold}.")
            read += 1
            yield gold
    if not read:
        raise InputError(f"Gold file {path} is empty: give at least one line of text with spans.")


def _parse(line: bytes) -> Gold | str:
    """A line's gold, or what is wrong with it (never its text)."""
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "it is not UTF-8 text; save the file as UTF-8"
    except (ValueError, RecursionError):
        return "it is not JSON; write one object on each line"
    if not isinstance(content, dict) or not isinstance(content.get("text"), str):
        return 'it has no "text" that is a string; add it'
    spans = content.get("spans")
    if not isinstance(spans, list):
        return '"spans" must be a list (an empty one where there is nothing personal)'
    found = [_span(span, len(content["text"])) for span in spans]
    if None in found:
        return (
            f'span {found.index(None) + 1} must have "start" and "end" (whole numbers, 0 <= start < end <= length of the '
            'text) and "label" (a string)'
        )
    return Gold(content["text"], tuple(span for span in found if span is not None))


def _span(span: Any, length: int) -> Span | None:
    if not isinstance(span, dict):
        return None
    start, end, label = span.get("start"), span.get("end"), span.get("label")
    if type(start) is not int or type(end) is not int or not isinstance(label, str):  # `type`: true is no offset
        return None
    return Span(start, end, label, 1.0) if 0 <= start < end <= length else None


def _batches(items: Iterable[Gold]) -> Iterator[list[Gold]]:
    items = iter(items)
    while batch := list(islice(items, _BATCH)):
        yield batch


def _touches(start: int, end: int, spans: Iterable[Span]) -> bool:
    return any(span.start < end and start < span.end for span in spans)


def _count(counts: _Counts, gold: Gold, spans: Sequence[Span]) -> None:
    for match in _TOKEN.finditer(gold.text):
        personal, detected = _touches(*match.span(), gold.spans), _touches(*match.span(), spans)
        counts.tokens.update(personal=personal, detected=detected, found=personal and detected)
        for label in {span.entity for span in gold.spans if _touches(*match.span(), [span])}:
            counts.labels[label].update(tokens=1, tokens_found=detected)
    for span in gold.spans:
        counts.labels[span.entity].update(spans=1, spans_found=covered(gold.text, span, spans))
    for span in spans:
        counts.entities[span.entity].update(spans=1, correct=_touches(span.start, span.end, gold.spans))


def _report(counts: _Counts, source: str, detector: str, texts: int) -> RecallReport:
    tokens = counts.tokens
    keys = ("spans", "spans_found", "tokens", "tokens_found")
    labels = [LabelRecall(label=label, **{key: row[key] for key in keys}) for label, row in sorted(counts.labels.items())]
    entities = [
        EntityPrecision(entity=entity, spans=row["spans"], correct=row["correct"])
        for entity, row in sorted(counts.entities.items())
    ]
    return RecallReport(
        source=source,
        detector=detector,
        texts=texts,
        tokens_personal=tokens["personal"],
        tokens_detected=tokens["detected"],
        tokens_found=tokens["found"],
        token_recall=_share(tokens["found"], tokens["personal"]),
        token_precision=_share(tokens["found"], tokens["detected"]),
        span_recall=_share(sum(row.spans_found for row in labels), sum(row.spans for row in labels)),
        span_precision=_share(sum(row.correct for row in entities), sum(row.spans for row in entities)),
        labels=tuple(labels),
        entities=tuple(entities),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
