"""A text as a person reads it: what hides a value from a detector is undone, and what is found is mapped back.

Undone are invisible characters and soft hyphens, HTML's character references, combining marks that have a letter of their own,
words broken by a hyphen or by quoted-printable's soft line ends, `[.]` and the like in addresses, odd blanks and hyphens,
letters of other widths and styles, and what is spelt out: `J o h n`, `K-O-W-A-L-S-K-I`, `5 5 5 - 0 1 4 7`, `five five zero …`.
"""

from __future__ import annotations

import html
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence

import regex

from pipeline.scrub._spelt import spelt
from pipeline.scrub.detect import Span, encodable, resolve

_BLANKS = ("\u00a0", "\u1680", *map(chr, range(0x2000, 0x200B)), "\u202f", "\u205f", "\u3000")
_SAME = {ord(blank): " " for blank in _BLANKS}
_SAME |= {ord(hyphen): "-" for hyphen in "\u2010\u2011\ufe63\uff0d"}
_SAME |= {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}
_SAME |= {code: usual for code in range(0x1D400, 0x1D800) if len(usual := unicodedata.normalize("NFKC", chr(code))) == 1}
_ODD = regex.compile(
    r"(?P<nothing>[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+|=\r?\n"
    r"|(?<=\p{L})-\r?\n(?:>[ ]?){0,9}(?=\p{Ll}))"
    r"|(?P<html>&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});)"
    r"|(?P<marks>\p{L}\p{M}{1,8})"
    r"|(?P<dot>\[\.\]|\(\.\)|\[dot\])|(?P<at>[%=]40(?=[\w-]{1,63}\.)|\[@\])"
)


def read(texts: Sequence[str], find: Callable[[list[str]], list[list[Span]]]) -> list[list[Span]]:
    """What a detector finds in texts as they are read, in offsets of the texts as they are."""
    texts = [encodable(text) for text in texts]
    seen = [plain(text) for text in texts]
    found = find([text for text, _, _ in seen])
    return [
        spans if starts is None or ends is None else resolve(text, [_back(span, starts, ends) for span in spans])
        for text, (_, starts, ends), spans in zip(texts, seen, found, strict=True)
    ]


def plain(text: str) -> tuple[str, Sequence[int] | None, Sequence[int] | None]:
    """The text as it is read, and for each of its characters start and end of what stands for it; None where nothing moved.

    >>> plain("M&uuml;ller")
    ('Müller', array('q', [0, 1, 7, 8, 9, 10]), array('q', [1, 7, 8, 9, 10, 11]))
    """
    seen, starts, ends = _mapped(
        text, ((match.span(), _undone(match.lastgroup or "", match.group())) for match in _ODD.finditer(text))
    )
    seen = seen.translate(_SAME)
    again, first, last = _mapped(seen, spelt(seen))
    if first is None or last is None or starts is None or ends is None:
        return again, starts if first is None else first, ends if last is None else last
    return again, array("q", (starts[at] for at in first)), array("q", (ends[at - 1] for at in last))


def _mapped(text: str, changes: Iterable[tuple[tuple[int, int], str]]) -> tuple[str, array | None, array | None]:
    """The text with each change made, and for each of its characters start and end of what stands for it."""
    pieces: list[str] = []
    starts, ends = array("q"), array("q")
    at = 0
    for (start, end), new in changes:
        if new == text[start:end]:
            continue
        _keep(pieces, starts, ends, text[at:start], at)
        pieces.append(new)
        starts.extend([start] * len(new))
        ends.extend([end] * len(new))
        at = end
    if not pieces:
        return text, None, None
    _keep(pieces, starts, ends, text[at:], at)
    return "".join(pieces), starts, ends


def _undone(kind: str, odd: str) -> str:
    if kind == "html":
        return html.unescape(odd)
    return {"nothing": "", "dot": ".", "at": "@"}[kind] if kind != "marks" else unicodedata.normalize("NFC", odd)


def _keep(pieces: list[str], starts: array, ends: array, text: str, at: int) -> None:
    pieces.append(text)
    starts.extend(range(at, at + len(text)))
    ends.extend(range(at + 1, at + len(text) + 1))


def _back(span: Span, starts: Sequence[int], ends: Sequence[int]) -> Span:
    return span._replace(start=starts[span.start], end=ends[span.end - 1])
