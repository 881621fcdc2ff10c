"""What stands in the place of a value that was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.scrub.detect import Span


def placeholder(value: str, entity: str) -> str:
    """`<PERSON>`: keeps the sentence readable and says what was there."""
    return f"<{entity}>"


def redact(value: str, entity: str) -> str:
    """Nothing at all."""
    return ""


def mask(value: str, entity: str) -> str:
    """A star for each character that is not blank; the length stays, and so do later offsets."""
    return "".join(character if character.isspace() else "*" for character in value)


OPERATORS: dict[str, Callable[[str, str], str]] = {"placeholder": placeholder, "redact": redact, "mask": mask}


def replace(text: str, spans: Iterable[Span], operator: str) -> str:
    """Replace the characters of each span (sorted, non-overlapping) by what the operator gives.

    >>> replace("Call Ada now", [Span(5, 8, "PERSON", 0.85)], "placeholder")
    'Call <PERSON> now'
    """
    put = OPERATORS[operator]
    pieces, end = [], 0
    for span in spans:
        pieces += [text[end : span.start], put(text[span.start : span.end], span.entity)]
        end = span.end
    return "".join([*pieces, text[end:]])
