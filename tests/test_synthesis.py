"""A synthetic corpus: what is written, and how its closeness to the private records is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import policy, synthesis
from pipeline.corpus import Part, Record, save_records
from pipeline.guard import Guard
from tests import tiny


def text(seed: int, length: int = 30) -> str:
    return tiny.sentence(seed, length)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Forty training records and twenty held-out ones."""
    for name, seeds in (("train", range(40)), ("held_out", range(100, 120))):
        records = [Record(f"r{seed}", f"u{seed}", (Part("text", text(seed)),)) for seed in seeds]
        save_records(tmp_path / f"{name}.jsonl", records)
    return tmp_path


def made(texts: list[str], folder: Path, **more) -> tuple[synthesis.Synthetic, list[dict]]:
    def write(count: int):
        for start in range(0, count, 3):
            yield texts[start : min(start + 3, count)]

    output = folder / "out.jsonl"
    report = synthesis.synthesize(write, tiny.tokenizer(), len(texts), output, **more)
    return report, [json.loads(line) for line in output.read_text().splitlines()]


def test_copies_and_long_shared_runs_are_counted_and_others_are_not(planted: Path, tmp_path: Path) -> None:
    words = text(5).split()
    texts = [
        text(3),  # a whole training record
        text(3).upper() + "  ",  # and its other spelling
        " ".join([*text(900, 10).split(), *words[4:17], *text(901, 10).split()]),  # thirteen words of one
        " ".join([*text(902, 10).split(), *words[4:16], *text(903, 10).split()]),  # twelve: no run
        text(100),  # a held-out record was never trained on
        text(904),
    ]
    report, lines = made(texts, tmp_path, planted=planted)
    assert report.overlap is not None
    assert (report.overlap.texts, report.overlap.equal, report.overlap.sharing) == (6, 2, 3)
    assert [line["text"] for line in lines] == texts
    assert [line["id"] for line in lines] == [f"synthetic-{at}" for at in range(1, 7)]


@given(st.lists(st.text("ab ", max_size=40), max_size=4), st.text("ab ", max_size=40))
def test_shared_runs_are_those_that_a_search_by_hand_finds(training: list[str], candidate: str) -> None:
    words = candidate.split()
    known = [one.split() for one in training]
    runs = [words[at : at + 13] for at in range(len(words) - 12)]
    expected = any(run == one[at : at + 13] for run in runs for one in known for at in range(len(one) - 12))
    seen = synthesis._Overlaps(training)
    seen.look([candidate])
    assert seen.found.sharing == expected
    assert seen.found.equal == (bool(words) and words in known)


def test_distance_tells_the_same_source_from_another(planted: Path, tmp_path: Path) -> None:
    same, _ = made([text(seed) for seed in range(200, 220)], tmp_path, planted=planted)
    other, _ = made(["baba " * 30] * 20, tmp_path, planted=planted)
    assert same.distance is not None
    assert other.distance is not None
    assert same.distance.synthetic < 1.2 * same.distance.floor
    assert other.distance.synthetic > 1.4 * other.distance.floor
    assert same.distance.held_out == 20


def test_a_report_of_counts_lies_beside_the_corpus_and_quotes_nothing(planted: Path, tmp_path: Path) -> None:
    report, _ = made([text(3), text(904)], tmp_path, planted=planted)
    content = (tmp_path / "out.jsonl.report.json").read_text()
    assert json.loads(content)["overlap"]["equal"] == 1
    assert not any(word in content for word in text(3).split())
    assert "outside the privacy guarantee" in report.note
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_compared_is_none_and_not_zero(tmp_path: Path) -> None:
    report, _ = made([text(1)], tmp_path)
    assert report.overlap is None
    assert report.distance is None


def test_the_guard_replaces_after_copies_were_counted(planted: Path, tmp_path: Path) -> None:
    address = " ".join([*text(1, 14).split(), "ada@example.org"])
    save_records(planted / "train.jsonl", [Record("r", "u", (Part("text", address),))])
    report, lines = made([address], tmp_path, planted=planted, guard=Guard(policy.load("default").scrub))
    assert report.overlap is not None
    assert report.overlap.equal == 1
    assert report.guarded is not None
    assert report.guarded.hits["EMAIL_ADDRESS"] == 1
    assert "ada@example.org" not in lines[0]["text"]


def test_a_failure_leaves_no_half_corpus(tmp_path: Path) -> None:
    def write(count: int):
        yield [text(0)]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        synthesis.synthesize(write, tiny.tokenizer(), 5, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
