"""Names carried from one text of a person to the others: who signs one message is greeted in the next."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.policy import Scrub
from pipeline.scrub.detect import Span, resolve


def threaded(texts: Sequence[str], units: Sequence[str], found: Sequence[Sequence[Span]], scrub: Scrub) -> list[list[Span]]:
    """The spans of each text and those that repeat a name found in another text of its unit."""
    spans = [list(one) for one in found]
    if "PERSON" not in scrub.entities:
        return spans
    from pipeline.scrub._names import propagated

    threads: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        threads.setdefault(unit, []).append(index)
    allowed = {word.casefold() for word in scrub.allow}
    for members in threads.values():
        if len(members) > 1:
            own = [texts[index] for index in members]
            for index, more in zip(members, propagated(own, [spans[index] for index in members]), strict=True):
                text = texts[index]
                more = [span for span in more if text[span.start : span.end].casefold() not in allowed]
                spans[index] = resolve(text, [*spans[index], *more])
    return spans
