"""A page for a human reviewer, and what the reviewer's ticks say of precision and recall.

The page holds records as they are, so it stays on this machine (mode 0600, no network: its policy forbids any request).
What it saves holds offsets, counts and a digest only. Only records ticked as read through count.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.corpus import Record, load_records
from pipeline.errors import InputError
from pipeline.folders import Value, digest_file, finished, write_json, write_text
from pipeline.scrub.recall import lower_bound
from pipeline.scrub.stage import Scrubbed

_KIND = "hushtune review/1"


class Reviewed(Value):
    """What a reviewer found: values marked rightly, wrongly, and missed, in the records read through.

    `low` bounds are Clopper-Pearson one-sided 95 % lower bounds. Precision and recall are None where there is nothing to count.
    """

    records: int
    right: int
    wrong: int
    missed: int
    precision: float | None
    precision_low: float | None
    recall: float | None
    recall_low: float | None


def write_page(scrubbed: Scrubbed, source: Path, page: Path, count: int) -> int:
    """Write a page of that many records, drawn at random; returns how many there are.

    Args:
        scrubbed: a finished stage, for its spans.
        source: records.jsonl of the corpus, with the originals.
        page: the file to write, mode 0600.
        count: records on the page.
    """
    rng, kept = random.Random(digest_file(source)), []
    with (scrubbed.folder / "spans.jsonl").open(encoding="utf-8") as spans:
        for seen, (record, line) in enumerate(zip(load_records(source), spans, strict=True)):
            place = rng.randrange(seen + 1)
            item = (seen, record, json.loads(line)["spans"])
            if len(kept) < count:
                kept.append(item)
            elif place < count:
                kept[place] = item
    kept.sort(key=lambda item: item[0])
    body = "\n".join(_record(number, record, spans) for number, (_, record, spans) in enumerate(kept, 1))
    write_text(page, _page(body, scrubbed.digest))
    return len(kept)


def measure(ticks: Path) -> Reviewed:
    """Precision and recall from a file of ticks that the page saved.

    Raises:
        InputError: the file is missing or is not what the page saves; the message quotes nothing of it.
    """
    return _measured(ticks)[0]


def keep(ticks: Path, run: Path) -> Reviewed:
    """Measure, and write the figures into review.json of a run's folder, where its report finds them.

    Raises:
        InputError: as `measure`, or the page showed other records than those that the run was trained on.
    """
    found, seen = _measured(ticks)
    scrubbed = finished(run / "scrubbed", Scrubbed)
    if scrubbed is None or scrubbed.digest != seen:
        raise InputError(
            f"{ticks} is a review of other records than those of run {run.name}: scrub the run's data by the run's policy with "
            "--sample, and review that page."
        )
    write_json(run / "review.json", found.model_dump(mode="json"))
    return found


def _measured(ticks: Path) -> tuple[Reviewed, str]:
    """The figures, and the digest of the scrubbed records that the page belongs to."""
    content = None
    try:
        content = json.loads(ticks.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{ticks} does not exist: give the file that the review page saved.") from None
    except (OSError, ValueError, RecursionError):
        pass
    counts = _counts(content)
    if counts is None:
        raise InputError(f"{ticks} is not what a review page saves: save the page's ticks again.")
    right, wrong, missed = counts["found"] - counts["wrong"], counts["wrong"], counts["missed"]
    found = Reviewed(
        records=counts["records"], right=right, wrong=wrong, missed=missed,
        precision=right / (right + wrong) if right + wrong else None,
        precision_low=lower_bound(right, right + wrong) if right + wrong else None,
        recall=right / (right + missed) if right + missed else None,
        recall_low=lower_bound(right, right + missed) if right + missed else None,
    )  # fmt: skip
    return found, str((content or {}).get("digest"))


def is_ticks(path: Path) -> bool:
    """Whether a file is what a review page saves, by its first bytes."""
    try:
        with path.open("rb") as file:
            return _KIND.encode() in file.read(64)
    except OSError:
        return False


def _counts(content: Any) -> Counter[str] | None:
    if not isinstance(content, dict) or content.get("kind") != _KIND or not isinstance(content.get("records"), list):
        return None
    counts: Counter[str] = Counter()
    for record in content["records"]:
        if not isinstance(record, dict):
            return None
        found, wrong, missed = (record.get(key) for key in ("found", "wrong", "missed"))
        if type(found) is not int or not isinstance(wrong, list) or not isinstance(missed, list):
            return None
        if not all(type(one) is int and 0 <= one < found for one in wrong) or len(set(wrong)) < len(wrong):
            return None
        if record.get("read") is True:
            counts.update(records=1, found=found, wrong=len(wrong), missed=len(missed))
    return counts


def _record(number: int, record: Record, spans: list[dict[str, Any]]) -> str:
    parts, index = [], 0
    for at, part in enumerate(record.parts):
        own, pieces, end = [span for span in spans if span.get("part", 0) == at], [], 0
        for span in own:
            pieces.append(html.escape(part.text[end : span["start"]]))
            value, entity = html.escape(part.text[span["start"] : span["end"]]), html.escape(span["entity"])
            tick = f'<input type="checkbox" data-wrong="{index}" title="wrong: no personal value" aria-label="wrong">'
            pieces.append(f'<mark title="{entity}">{value}</mark><label class="tag">{tick}{entity}</label>')
            end, index = span["end"], index + 1
        pieces.append(html.escape(part.text[end:]))
        parts.append(f'<p class="text" data-part="{at}" dir="auto">{"".join(pieces)}</p>')
    return (
        f'<section data-found="{index}"><h2>Record {number}</h2>{"".join(parts)}<ul class="missed"></ul>'
        f'<label><input type="checkbox" class="read"> read through</label></section>'
    )


def _page(body: str, digest: str) -> str:
    script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Review of scrubbed records</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}"><meta name="referrer" content="no-referrer">'
        f"<style>{_STYLE}</style></head><body data-digest='{digest}'><h1>Review of scrubbed records</h1>"
        "<p>This page holds private text: keep it on this machine and delete it when you are done. What is marked was "
        "replaced. Tick a mark that is no personal value. Select a personal value that is not marked, and press the button. "
        "Tick “read through” under each record that you have checked: only those count. Then save; the file holds no text.</p>"
        f'<nav><button id="miss">Selected text was missed</button> <button id="save">Save ticks</button></nav>{body}'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}section{border-top:1px solid #999}"
    ".text{white-space:pre-wrap;overflow-wrap:anywhere}mark{background:#ffe08a}.tag{font-size:.7em;color:#444;user-select:none}"
    "nav{position:sticky;top:0;background:#fff;padding:.5rem 0}h2{font-size:1em}.missed{font-size:.85em}"
)
_SCRIPT = """
const points = text => [...text].length;
function inside(range) {
  const node = range.startContainer, element = node.nodeType === 3 ? node.parentElement : node;
  return element.closest('p.text');
}
function plain(part, container, offset) {
  const range = document.createRange(); range.setStart(part, 0); range.setEnd(container, offset);
  const copy = range.cloneContents(); copy.querySelectorAll('.tag').forEach(tag => tag.remove());
  return points(copy.textContent);
}
document.getElementById('miss').onclick = () => {
  const chosen = window.getSelection(); if (!chosen.rangeCount || chosen.isCollapsed) return;
  const range = chosen.getRangeAt(0), part = inside(range); if (!part || !part.contains(range.endContainer)) return;
  const item = document.createElement('li');
  item.dataset.missed = JSON.stringify([Number(part.dataset.part), plain(part, range.startContainer, range.startOffset),
    plain(part, range.endContainer, range.endOffset)]);
  item.textContent = 'missed: ' + chosen.toString() + ' (click to undo)'; item.onclick = () => item.remove();
  part.parentElement.querySelector('.missed').append(item);
};
document.getElementById('save').onclick = () => {
  const records = [...document.querySelectorAll('section')].map(section => ({
    found: Number(section.dataset.found), read: section.querySelector('.read').checked,
    wrong: [...section.querySelectorAll('[data-wrong]:checked')].map(tick => Number(tick.dataset.wrong)),
    missed: [...section.querySelectorAll('[data-missed]')].map(item => JSON.parse(item.dataset.missed))}));
  const content = JSON.stringify({kind: 'hushtune review/1', digest: document.body.dataset.digest, records});
  const link = document.createElement('a'); link.download = 'ticks.json';
  link.href = URL.createObjectURL(new Blob([content], {type: 'application/json'})); link.click();
};
"""
