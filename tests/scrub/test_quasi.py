"""What is left and singles people out: counted by hand, and against a count in memory."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.corpus import COLUMN, Corpus, Part, Record
from pipeline.policy import Policy
from pipeline.scrub import quasi, scrub

TEXTS = ["She is a nurse.", "He said he is 41 years old", "the plumber came in 1999", "a word about Norway", "nothing here"]


def record(*texts: str, unit: str = "u") -> Record:
    return Record("r", unit, tuple(Part("text", text) for text in texts))


def test_what_remains_is_found_outside_of_what_was_replaced() -> None:
    found = quasi.features(record("She is a nurse, aged 41, from Norway since 1999"), [[]])
    assert found == {("gender", "f"), ("occupation", "nurse"), ("age", "41"), ("country", "norway"), ("year", "1999")}
    text = "She saw a nurse"
    assert quasi.features(record(text), [[(0, 3), (10, 15)]]) == set()  # replacements, say surrogates
    assert quasi.features(record("he or she"), [[]]) == set()
    kept = Record("r", "u", (Part("text", "x"), Part(f"{COLUMN}keep:ward", "7 West")))
    assert quasi.features(kept, [[], []]) == {("ward", "7 West")}


def test_amounts_and_traits_that_a_policy_leaves_single_people_out() -> None:
    left = record("He was diagnosed with multiple sclerosis, was a retired miner and got 12,400 euros")
    found = quasi.features(left, [[]])
    assert {("trait", "multiple sclerosis"), ("trait", "retired miner"), ("amount", "12,400 euros")} <= found
    assert {kind for kind, _ in quasi.features(left, [[]], ("AMOUNT", "TRAIT"))} == {"gender", "occupation"}
    assert quasi.features(record("a nurse came"), [[]]) == {("occupation", "nurse")}  # not twice


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(TEXTS)), min_size=1, max_size=80))
def test_classes_are_those_of_a_count_in_memory(tmp_path: Path, rows: list[tuple[int, str]]) -> None:
    files = [tmp_path / f"{at}.jsonl" for at in range(3)]
    for at, file in enumerate(files):  # people are spread over shards
        file.write_text("".join(quasi.to_line(str(unit), quasi.features(record(text), [[]])) for unit, text in rows[at::3]))
    people: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for unit, text in rows:
        people[unit] |= quasi.features(record(text), [[]])
    classes = Counter(frozenset(own) for own in people.values())
    sizes = Counter(quasi._size(size) for size in classes.values() for _ in range(size))
    found = quasi.count(files, tmp_path)
    assert found.units == len(people)
    assert found.unique == sum(size == 1 for size in classes.values())
    assert found.sizes == {size: sizes[size] for size in quasi.SIZES}
    assert found.kinds == dict(sorted(Counter(kind for own in people.values() for kind in {kind for kind, _ in own}).items()))
    assert not (tmp_path / "quasi.db").exists()


def test_a_scrubbed_corpus_says_whom_it_singles_out(read: Callable[..., Corpus], policy: Policy, tmp_path: Path) -> None:
    rows = [{"unit": f"u{n}", "text": f"She came with Anna Kowalczyk, order {n}"} for n in range(12)]
    rows += [{"unit": "odd", "text": "a firefighter wrote to ann@example.org"}]
    found = scrub(read(rows), policy, tmp_path / "scrubbed", probes=None).quasi
    assert found is not None
    assert found.sizes == {"1": 1, "2": 0, "3-5": 0, "6-10": 0, ">10": 12}
    assert (found.units, found.unique) == (13, 1)
    assert found.kinds == {"gender": 12, "occupation": 1}
    assert not list((tmp_path / "scrubbed").rglob("*quasi*"))


@pytest.mark.parametrize("text", ["Anna is a nurse", "she was 41"])
def test_a_line_holds_no_text(text: str) -> None:
    line = quasi.to_line("Anna", quasi.features(record(text), [[]]))
    assert not any(word in line for word in ("Anna", "nurse", '41"', '"f"'))
    assert len(json.loads(line)) == 2
