"""Clean English prose out of a Wikipedia XML dump, for pretraining a base model on public text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

_PAGE = re.compile(r"<title>(?P<title>[^<]*)</title>.*?<text[^>]*>(?P<text>.*?)</text>", re.S)
_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}", re.S)
_MEDIA = re.compile(
    r"\[\[(?:image|file|category|media|[a-z]{2,3}(?:-[a-z]+)?|simple):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.I
)
_LINK = re.compile(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]")
_URL = re.compile(r"\[(?:https?|ftp)://[^\s\]]+ ?([^\]]*)\]")
_BLOCK = re.compile(r"<(ref|math|gallery|table|pre|code|timeline|small|sub|sup)\b[^>]*?(?:/>|>.*?</\1>)", re.S | re.I)
_TAG = re.compile(r"<!--.*?-->|</?[a-z][^>]*>", re.S | re.I)
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.M)
_TABLE_LINE = re.compile(r"^\s*(?:[|!{}].*|:*\s*\W*)$", re.M)
_BULLET = re.compile(r"^[*#:;]+\s*", re.M)
_BLANKS = re.compile(r"\n{3,}")
_PARAGRAPHS = re.compile(r"\n\s*\n")


def articles(dump: str) -> Iterator[str]:
    """Yield the readable text of each article of a MediaWiki XML dump held in memory.

    Redirects, discussion and template pages (a colon in the title) and stubs under 400 characters are left out.
    """
    for page in _PAGE.finditer(dump):
        raw = html.unescape(page["text"])
        if ":" in page["title"] or raw[:9].upper() == "#REDIRECT":
            continue
        text = clean(raw)
        if len(text) >= 400:
            yield f"{html.unescape(page['title'])}\n\n{text}"


def clean(markup: str) -> str:
    """Turn wiki markup into plain paragraphs: links become their words; tables, templates and references go."""
    text = _TAG.sub("", _BLOCK.sub("", html.unescape(markup)))
    for _ in range(6):  # templates nest; each pass removes the innermost level
        text, removed = _INNERMOST.subn("", text)
        if not removed:
            break
    text = _URL.sub(r"\1", _LINK.sub(r"\1", _MEDIA.sub("", text)))
    text = _BULLET.sub("", _TABLE_LINE.sub("", _HEADING.sub(r"\1", text)))
    text = text.replace("'''", "").replace("''", "")
    return _BLANKS.sub("\n\n", text).strip()


def looks_like_dump(text: str) -> bool:
    """Whether the text is a MediaWiki export rather than plain prose."""
    return "<mediawiki" in text[:4096]


def documents(texts: Iterable[str]) -> Iterator[str]:
    """Yield documents from plain texts (passages of whole paragraphs) and from dumps (one for each article)."""
    for text in texts:
        yield from articles(text) if looks_like_dump(text) else passages(text)


def passages(text: str, least: int = 2_000) -> Iterator[str]:
    r"""Yield a plain text in passages: paragraphs, which blank lines part, joined until they hold `least` characters.

    >>> list(passages("One.\n\nTwo.\n\nThree.", least=8))
    ['One.\n\nTwo.', 'Three.']
    """
    held: list[str] = []
    for paragraph in _PARAGRAPHS.split(text):
        if paragraph.strip():
            held.append(paragraph.strip("\n"))
        if sum(map(len, held)) >= least:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)
