"""The guard: counts and replaces what looks like personal data in generated text."""

from __future__ import annotations

import pytest

from pipeline import policy
from pipeline.guard import Guard


@pytest.fixture(scope="module")
def rules():
    return policy.load("default").scrub


def test_findings_are_counted_over_all_texts_and_replaced_by_their_type(rules) -> None:
    guard = Guard(rules)
    first = guard.check(["Write to ada.lovelace@example.org today.", "Nothing here."])
    guard.check(["Call from 192.168.7.21 and from eve@example.com."])
    assert first == ["Write to <EMAIL_ADDRESS> today.", "Nothing here."]
    found = guard.found
    assert (found.texts, found.texts_with_hits) == (3, 2)
    assert found.hits["EMAIL_ADDRESS"] == 2
    assert found.hits["IP_ADDRESS"] == 1


def test_one_that_saw_nothing_says_so(rules) -> None:
    assert Guard(rules).found.model_dump() == {"texts": 0, "texts_with_hits": 0, "hits": {}}


def test_placeholders_that_a_model_learned_to_write_are_no_findings(rules) -> None:
    guard = Guard(rules)
    text = "Dear <PERSON>, <PERSON> of <LOCATION> met <PERSON>."
    assert guard.check([text]) == [text]
    assert guard.found.hits == {}
    assert guard.check(["Dear <PERSON> ada@example.org"]) == ["Dear <PERSON> <EMAIL_ADDRESS>"]
