"""Reads a report's HTML for the tests: words, figures, headings, pictures and whatever would load something."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Stated:
    """A figure that the page states: its attributes and the text inside."""

    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """A parsed page. `words` are texts outside figures, styles and the scales of pictures, in order."""

    source: str
    figures: list[Stated] = field(default_factory=list)
    drawn: list[Stated] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self, convert_charrefs=True)
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(self.source)
        assert not self._open, f"unclosed: {self._open}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.tags.append((tag, attributes))
        if tag in VOID:
            return
        self._open.append((tag, attributes))
        if tag == "data":
            self.figures.append(Stated(attributes))
        if tag == "g" and "data-at" in attributes:
            self.drawn.append(Stated(attributes))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if self.headings and any(re.fullmatch(r"h[1-6]", tag) for tag in tags):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "style" in tags or any(attributes.get("class") == "scale" for _, attributes in self._open):
            return
        if "data" in tags:
            self.figures[-1].text += data
        elif any("data-at" in attributes for tag, attributes in self._open if tag == "g"):
            self.drawn[-1].text += data
        elif data.strip():
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join([*self.words, *(figure.text for figure in self.figures)]).split())


def strings(content: Any) -> list[str]:
    """Every string in JSON content, keys left out."""
    if isinstance(content, dict):
        return [text for item in content.values() for text in strings(item)]
    if isinstance(content, list):
        return [text for item in content for text in strings(item)]
    return [content] if isinstance(content, str) else []


def tokens(text: str) -> list[str]:
    """The words of a text that hold a digit, without the punctuation around them."""
    return [word.strip("().,;:?!") for word in text.split() if re.search(r"\d", word)]
