"""The reviewer's page: private, local, with every span marked; and what comes back from it."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import time
import urllib.request
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline import facts
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


IN_PAGE = """(async () => {
  let saved; URL.createObjectURL = blob => { saved = blob; return 'data:,'; };
  HTMLAnchorElement.prototype.click = () => {};
  const section = document.querySelectorAll('section')[1], text = section.querySelector('p.text');
  section.querySelector('.read').click(); section.querySelector('[data-wrong]').click();
  const last = text.lastChild, at = last.textContent.indexOf('today'), range = document.createRange();
  range.setStart(last, at); range.setEnd(last, at + 5);
  getSelection().removeAllRanges(); getSelection().addRange(range);
  document.getElementById('miss').click(); document.getElementById('save').click();
  return await saved.text();
})()"""


def evaluated(socket: Any, expression: str) -> dict[str, Any]:
    parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": parameters}))
    answer = json.loads(socket.recv(timeout=20)).get("result", {})
    assert "exceptionDetails" not in answer, answer
    return answer.get("result", {})


def in_browser(browser: str, page: Path, script: str) -> str:
    """What a script returns in a page, in a headless browser driven by its debugging protocol."""
    from websockets.sync.client import connect

    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={page.parent / 'b'}",
    ]
    process = subprocess.Popen([browser, *options, page.as_uri()], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "DevTools listening on" in line)
        port = re.search(r"ws://127.0.0.1:(\d+)/", line)
        assert port is not None
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/json") as answer:
                tabs = [one for one in json.load(answer) if one["type"] == "page" and one["url"] == page.as_uri()]
            if tabs:
                break
            time.sleep(0.1)
        with connect(tabs[0]["webSocketDebuggerUrl"]) as socket:
            while (evaluated(socket, "document.querySelectorAll('section').length").get("value") or 0) < 5:
                time.sleep(0.1)  # an evaluation during the navigation fails
            return evaluated(socket, script)["value"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page in")
def test_what_is_ticked_in_a_browser_is_what_is_saved(page: Path, tmp_path: Path) -> None:
    saved = in_browser(str(shutil.which("chromium")), page, IN_PAGE)
    (tmp_path / "t.json").write_text(saved)
    found = review.measure(tmp_path / "t.json")
    assert found.records == 1
    assert (found.wrong, found.missed) == (1, 1)
    row = json.loads(saved)["records"][1]
    text = '<script>alert(1)</script> & "mail" 🎉 ann0@example.org today'
    assert row["read"] is True
    assert [text[start:end] for _, start, end in row["missed"]] == ["today"]  # characters, not UTF-16 units, tags left out
    assert found.right == row["found"] - 1
    assert "today" not in saved


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


def test_a_review_is_kept_beside_the_run_whose_records_it_saw(
    read: Callable[..., Corpus], policy: Policy, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    scrubbed = scrub(read(["mail ann@example.org"]), policy, run / "scrubbed", probes=None)
    path = ticks(tmp_path / "t.json", (1, [], 1, True))
    with pytest.raises(InputError, match="other records"):
        review.keep(path, run)
    assert not (run / "review.json").exists()
    path.write_text(path.read_text().replace('"x"', json.dumps(scrubbed.digest)))
    found = review.keep(path, run)
    (run / "facts.json").write_text('{"seconds": {}}')
    assert facts.for_report(run)["review"] == found.model_dump(mode="json")
    assert found.recall == 0.5
