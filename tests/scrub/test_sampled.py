"""What is missed in the records themselves: planting in context, and capture and recapture, against known truths."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pipeline.policy import Policy
from pipeline.scrub import Span
from pipeline.scrub.sampled import chapman, figures, sample


class Names:
    """Finds the words that begin with a letter of `letters`, as persons."""

    def __init__(self, letters: str):
        self.name, self.letters = f"names in {letters}", letters

    def find(self, texts: list[str]) -> list[list[Span]]:
        found = []
        for text in texts:
            spans, start = [], 0
            for word in text.split(" "):
                if word[:1] in self.letters and word:
                    spans.append(Span(start, start + len(word), "PERSON", 1.0))
                start += len(word) + 1
            found.append(spans)
        return found


def records(path: Path, texts: list[str]) -> Path:
    lines = [{"id": f"r{n}", "unit": f"r{n}", "parts": [{"role": "text", "text": text}]} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_estimator_is_chapmans_and_covers_the_truth() -> None:
    found = chapman(200, 150, 120)
    assert found is not None
    assert found.estimate == pytest.approx(201 * 151 / 121 - 1)  # by hand
    rng, inside = random.Random(3), 0
    for _ in range(300):
        one, two = ({value for value in range(400) if rng.random() < share} for share in (0.8, 0.6))
        estimate = chapman(len(one), len(two), len(one & two))
        assert estimate is not None
        inside += estimate.low <= 400 <= estimate.high
    assert inside / 300 > 0.9
    assert chapman(0, 5, 0) is None


def test_planted_values_are_found_by_who_can_and_missed_by_who_cannot(tmp_path: Path, policy: Policy) -> None:
    source = records(tmp_path / "records.jsonl", [f"we met Anna and xavier in week {n}" for n in range(40)])
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÉÖÜÁÍÓÚŠŽČŁŚ"
    all_names, few = sample(source, policy.scrub, Names(letters), None), sample(source, policy.scrub, Names("A"), None)
    assert all_names is not None
    assert few is not None
    whole, part = all_names.context[-1], few.context[-1]
    assert (whole.entity, whole.planted) == ("ALL", 40)
    assert part.found < whole.found  # the control: who knows names with A only misses the fresh ones
    assert figures(few)["scrub.context"][0] == part.found / part.planted
    assert all_names.capture is None


def test_two_detectors_tell_how_much_both_miss(tmp_path: Path, policy: Policy) -> None:
    source = records(tmp_path / "records.jsonl", ["met Anna Bert Carl Dora"] * 30)
    found = sample(source, policy.scrub, Names("AB"), Names("BC"))
    assert found is not None
    assert found.capture is not None
    assert (found.capture.first, found.capture.second, found.capture.both) == (60, 60, 30)
    assert found.capture.estimate == pytest.approx(61 * 61 / 31 - 1)
    assert found.capture.recall_low < found.capture.recall == pytest.approx(60 / found.capture.estimate)
    assert figures(found)["scrub.capture"] == (found.capture.recall, found.capture.recall_low, 90)


def test_no_sample_where_none_is_wanted(tmp_path: Path, policy: Policy) -> None:
    source = records(tmp_path / "records.jsonl", ["met Anna"])
    none = policy.scrub.model_copy(update={"sample": 0})
    assert sample(source, none, Names("A"), None) is None
    assert figures(None) == {}
