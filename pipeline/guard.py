"""A second look at what a model writes: the scrubber run over it, counting what looks like personal data.

A released model is private by its training, not by this: what is found here may be invented, and what is missed may not be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.folders import Value
from pipeline.policy import Scrub
from pipeline.scrub import detect, operators

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]+>")
_NESTED = re.compile(r"<+([A-Z][A-Z_]+)>+")  # a finding that held part of a placeholder


class Guarded(Value):
    """Of `texts` texts: how many hold something that looks like personal data, and how much, by entity."""

    texts: int
    texts_with_hits: int
    hits: dict[str, int]


class Guard:
    """Counts what a policy's detector finds in generated text, and replaces it by its type; `name` says which detector."""

    def __init__(self, scrub: Scrub) -> None:
        self._detector = detect.load(scrub)
        self.name = self._detector.name
        self._operate = operators.operator("placeholder")
        self._hits: Counter[str] = Counter()
        self._texts = self._with_hits = 0

    def check(self, texts: Sequence[str]) -> list[str]:
        """Count what is found in `texts`; returns them with each finding replaced by its type."""
        found = [
            [span for span in spans if not _is_placeholder(text, span)]
            for text, spans in zip(texts, self._detector.find(texts), strict=True)
        ]
        self._texts += len(texts)
        self._with_hits += sum(bool(spans) for spans in found)
        self._hits.update(span.entity for spans in found for span in spans)
        replaced = [operators.replace(text, spans, self._operate, "")[0] for text, spans in zip(texts, found, strict=True)]
        return [_NESTED.sub(r"<\1>", text) for text in replaced]

    @property
    def found(self) -> Guarded:
        """What was found so far."""
        return Guarded(texts=self._texts, texts_with_hits=self._with_hits, hits=dict(sorted(self._hits.items())))


def _is_placeholder(text: str, span: detect.Span) -> bool:
    """Whether a finding is a placeholder, such as a model learns to write from scrubbed text: it stands for nobody."""
    around = _PLACEHOLDER.finditer(text, max(0, span.start - 40), min(len(text), span.end + 40))
    return any(match.start() <= span.start and span.end <= match.end() for match in around)
