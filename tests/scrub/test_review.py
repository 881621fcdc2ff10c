"""The reviewer's page: private, local, with every span marked; and what comes back from it."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.corpus import Corpus
from pipeline.errors import InputError
from pipeline.policy import Policy
from pipeline.scrub import review, scrub
from pipeline.scrub.recall import lower_bound


class Marks(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.marks: list[str] = []
        self.tags: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [tag, *(name for name, _ in attrs)]
        self.inside = tag == "mark"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.marks.append(data)
            self.inside = False


@pytest.fixture
def page(read: Callable[..., Corpus], policy: Policy, tmp_path: Path) -> Path:
    texts = [f'<script>alert(1)</script> & "mail" 🎉 ann{n}@example.org today' for n in range(9)]
    corpus = read(texts)
    scrubbed = scrub(corpus, policy, tmp_path / "scrubbed", probes=None)
    assert review.write_page(scrubbed, corpus.folder / "records.jsonl", tmp_path / "page.html", 5) == 5
    return tmp_path / "page.html"


def test_the_page_marks_what_was_replaced_and_reaches_for_nothing(page: Path) -> None:
    text, parser = page.read_text(), Marks()
    parser.feed(text)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert sum(bool(re.fullmatch(r"ann\d@example\.org", mark)) for mark in parser.marks) == 5
    assert "alert(1)</script>" not in text
    assert "default-src 'none'" in text
    assert not {"src", "link", "iframe", "img", "action", "form"} & set(parser.tags)
    assert "http:" not in text
    assert "https:" not in text


def ticks(path: Path, *rows: tuple[int, list[int], int, bool]) -> Path:
    records = [{"found": n, "wrong": wrong, "missed": [[0, 1, 2]] * missed, "read": read} for n, wrong, missed, read in rows]
    path.write_text(json.dumps({"kind": "hushtune review/1", "digest": "x", "records": records}))
    return path


def test_ticks_become_precision_and_recall_of_the_records_that_were_read(tmp_path: Path) -> None:
    found = review.measure(ticks(tmp_path / "t.json", (3, [1], 1, True), (2, [], 0, True), (9, [0, 1, 2], 5, False)))
    assert (found.records, found.right, found.wrong, found.missed) == (2, 4, 1, 1)
    assert (found.precision, found.recall) == (0.8, 0.8)
    assert found.recall_low == lower_bound(4, 5)
    none = review.measure(ticks(tmp_path / "t.json", (3, [], 0, False)))
    assert (none.records, none.precision, none.recall) == (0, None, None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "hushtune review/1", "records": [1]}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match="review page"):
        review.measure(tmp_path / "t.json")


def test_ticks_of_spans_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for wrong in ([3], [-1], [0, 0]):
        with pytest.raises(InputError):
            review.measure(ticks(tmp_path / "t.json", (3, wrong, 0, True)))
