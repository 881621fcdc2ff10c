"""Recall and precision against counts made by hand, and gold files of every bad kind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pipeline.errors import InputError
from pipeline.policy import Policy
from pipeline.scrub import Detector, Span, recall

SENTINEL = "quux4711"
DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "pii" / "presidio_generated_large.jsonl"


class Fixed:
    """A detector that finds what it was told."""

    name = "fixed"

    def __init__(self, **found: list[Span]):
        self.found = found

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        return [self.found.get(text.split()[0], []) for text in texts]


def gold(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_counts_by_hand(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gold(
        tmp_path / "gold.jsonl",
        {"text": "one Ada Lovelace wrote to me", "spans": [{"start": 4, "end": 16, "label": "PERSON"}], "template_id": 3},
        {
            "text": "two ada@example.org or Bob",
            "spans": [{"start": 4, "end": 19, "label": "EMAIL"}, {"start": 23, "end": 26, "label": "PERSON"}],
        },
        "",
        {"text": "three words here", "spans": []},
    )
    detector = Fixed(
        one=[Span(8, 22, "LOCATION", 0.85)],  # "Lovelace wrote": half of the name, and a word too many
        two=[Span(4, 19, "EMAIL_ADDRESS", 1.0)],
        three=[Span(6, 11, "PERSON", 0.85)],
    )
    monkeypatch.setattr(recall, "load", lambda scrub: detector)
    told: list[tuple[int, int]] = []
    report = recall.measure(path, policy, progress=lambda done, total, **_: told.append((done, total)))
    # Personal tokens: Ada, Lovelace, ada, example, org, Bob. Detected: Lovelace, wrote, ada, example, org, words.
    assert (report.tokens_personal, report.tokens_detected, report.tokens_found) == (6, 6, 4)
    assert report.token_recall == report.token_precision == pytest.approx(4 / 6)
    assert report.span_recall == pytest.approx(1 / 3)
    assert report.span_precision == pytest.approx(2 / 3)
    assert [(row.label, row.spans, row.spans_found, row.tokens, row.tokens_found) for row in report.labels] == [
        ("EMAIL", 1, 1, 3, 3),
        ("PERSON", 2, 0, 3, 1),
    ]
    assert [(row.entity, row.spans, row.correct) for row in report.entities] == [
        ("EMAIL_ADDRESS", 1, 1),
        ("LOCATION", 1, 1),
        ("PERSON", 1, 0),
    ]
    assert told == [(3, 3)]
    assert json.loads(json.dumps(report.to_json()))["token_recall"] == pytest.approx(4 / 6)


def test_nothing_to_count_is_no_share(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "load", lambda scrub: Fixed())
    report = recall.measure(gold(tmp_path / "gold.jsonl", {"text": "one", "spans": []}), policy)
    assert report.token_recall is report.token_precision is report.span_recall is report.span_precision is None


def test_planted_counts_only_whole_values(tmp_path: Path) -> None:
    path = gold(
        tmp_path / "gold.jsonl",
        {"text": "one Ada Lovelace", "spans": [{"start": 4, "end": 16, "label": "PERSON"}]},
        {"text": "two Ada-Lovelace", "spans": [{"start": 4, "end": 16, "label": "PERSON"}]},
        {"text": "six 1.2.3.4", "spans": [{"start": 4, "end": 11, "label": "IP_ADDRESS"}]},
    )
    detector = Fixed(
        one=[Span(4, 15, "PERSON", 1)], two=[Span(4, 7, "PERSON", 1), Span(8, 16, "URL", 1)], six=[Span(4, 11, "IP_ADDRESS", 1)]
    )
    rows = recall.planted(path, detector)
    assert [(row.entity, row.planted, row.found) for row in rows] == [("IP_ADDRESS", 1, 1), ("PERSON", 2, 1), ("ALL", 3, 2)]


@given(st.integers(1, 400), st.data())
def test_the_lower_bound_solves_the_binomial_tail(trials: int, data: st.DataObject) -> None:
    found = data.draw(st.integers(1, trials))
    low = recall.lower_bound(found, trials)
    assert 0 < low < found / trials + 1e-12
    assert binom.sf(found - 1, trials, low) == pytest.approx(0.05, rel=1e-6)  # P[X >= found] at the bound
    assert recall.lower_bound(0, trials) == 0.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", 'no "text"'),
        ('{"text": 3, "spans": []}', 'no "text"'),
        ('{"text": "' + SENTINEL + '"}', '"spans" must be a list'),
        ('{"text": "' + SENTINEL + '", "spans": [{"start": 0, "end": 99, "label": "X"}]}', "span 1 must have"),
        ('{"text": "' + SENTINEL + '", "spans": [{"start": 3, "end": 3, "label": "X"}]}', "span 1 must have"),
        ('{"text": "' + SENTINEL + '", "spans": [{"start": true, "end": 3, "label": "X"}]}', "span 1 must have"),
        ('{"text": "' + SENTINEL + '", "spans": ["x"]}', "span 1 must have"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_named_and_not_quoted(tmp_path: Path, policy: Policy, line: str, message: str) -> None:
    path = gold(tmp_path / "gold.jsonl", {"text": "fine", "spans": []}, line)
    with pytest.raises(InputError, match="line 2") as caught:
        recall.measure(path, policy)
    assert message in str(caught.value)
    assert SENTINEL not in str(caught.value)


def test_a_file_that_is_missing_empty_or_binary(tmp_path: Path, policy: Policy) -> None:
    with pytest.raises(InputError, match="does not exist"):
        recall.measure(tmp_path / "none.jsonl", policy)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="is empty"):
        recall.measure(tmp_path / "empty.jsonl", policy)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"line 1.*UTF-8"):
        recall.measure(tmp_path / "binary.jsonl", policy)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_read_or_refused(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "bytes.jsonl"
    path.write_bytes(b"\n".join(lines))
    with contextlib.suppress(InputError):
        list(recall.read_gold(path))


@pytest.mark.skipif(not DATA.is_file(), reason="the gold file of presidio-research is not here")
def test_recall_on_synthetic_gold(tmp_path: Path, policy: Policy, detector: Detector) -> None:
    lines = DATA.read_text(encoding="utf-8").splitlines(keepends=True)[::14]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    report = recall.measure(path, policy)
    assert report.token_recall >= 0.82
    assert report.token_precision >= 0.85
    certain = {"CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "DOMAIN_NAME"}
    assert all(row.spans_found == row.spans for row in report.labels if row.label in certain)
