"""Prose out of wiki markup."""

from __future__ import annotations

import pytest

from pipeline import wikitext


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''slanted'' words", "Bold and slanted words"),
        ("a [[link]] and [[target|its words]]", "a link and its words"),
        ("[[Image:x.png|thumb|a [[nested]] caption]]kept", "kept"),
        ("before {{box|{{inner}}|x}}after", "before after"),
        ("{| class\n| cell\n|}text", "text"),
        ("fact<ref name=x>source</ref>.", "fact."),
        ("see [http://example.org the site] now", "see the site now"),
        ("== Heading ==\n* one\n* two", "Heading\none\ntwo"),
        ("<!-- hidden -->shown &amp; read", "shown & read"),
    ],
)
def test_markup_becomes_words(markup: str, text: str) -> None:
    assert wikitext.clean(markup) == text


def test_redirects_talk_pages_and_stubs_are_left_out() -> None:
    def page(title: str, text: str) -> str:
        return f"<page><title>{title}</title><revision><text xml:space='preserve'>{text}</text></revision></page>"

    long = "A sentence about a river. " * 30
    dump = "<mediawiki>" + page("River", long) + page("Talk:River", long) + page("Old", "#REDIRECT [[River]]") + page("S", "x")
    (article,) = wikitext.documents([dump])
    assert article.startswith("River\n\nA sentence")
    assert list(wikitext.documents(["plain words"])) == ["plain words"]
