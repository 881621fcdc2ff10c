"""Coverage: decided by what was measured, never by the framework's name; each row says where, or what is missing."""

from __future__ import annotations

import copy
import re

import pytest

from pipeline import policy as policies
from pipeline.report import render
from pipeline.report.coverage import coverage, holds
from pipeline.report.frameworks import FACTS, FRAMEWORKS, IDENTIFIERS
from tests.report import sample


def rows(content, key):
    (found,) = [one for one in content["coverage"]["frameworks"] if one["key"] == key]
    return {row["ref"]: row for row in found["rows"]}


def test_the_rows_name_known_facts_and_the_facts_known_sections():
    named = {fact for framework in FRAMEWORKS for row in framework.rows for fact in row.facts}
    assert named <= set(FACTS)
    anchors = set(re.findall(r'id="([\w-]+)"', render(sample.released())))
    assert {fact.section for fact in FACTS.values()} <= anchors
    content = sample.released()
    for fact in FACTS.values():
        for pointer in fact.pointers:
            assert pointer.split("/")[1] in content, pointer


def test_hipaa_has_its_eighteen_identifiers_in_order():
    letters = [one.ref.removeprefix("(b)(2)(i)") for one in IDENTIFIERS["hipaa"]]
    assert letters == [f"({chr(ord('A') + place)})" for place in range(18)]


def test_every_kind_that_is_replaced_bears_on_an_identifier():
    named = {kind for rows in IDENTIFIERS.values() for one in rows for kind in one.kinds}
    assert set(policies.load("base").scrub.entities) - named <= {"ORGANIZATION", "UK_NHS", "UK_NINO"}
    gdpr = {one.ref: one.kinds for one in IDENTIFIERS["gdpr"]}
    assert {"AMOUNT", "TRAIT"} <= set(gdpr["4(1) factors"])
    assert "TRAIT" in gdpr["9(1)"]


def test_what_identifies_by_the_gdpr_is_judged_by_its_recall():
    found = rows(sample.released(), "gdpr")
    assert found["4(1) name"]["evidence"]
    assert found["9(1)"]["status"] == "partly"  # people must add what else tells it


def test_annex_iv_is_whole():
    """A row left out would be one fewer that is not covered (Regulation (EU) 2024/1689, Annex IV, points 1 to 9)."""
    (annex,) = [one for one in FRAMEWORKS if one.key == "ai_act"]
    points = [f"{number}({letter})" for number in (1, 2) for letter in "abcdefgh"] + [str(number) for number in range(3, 10)]
    assert [row.ref for row in annex.rows] == points


def test_what_is_measured_is_covered_and_what_is_not_is_not():
    full, bare = rows(sample.released(), "edpb"), rows(sample.bare(), "edpb")
    assert full["First likelihood"]["status"] == "covered"
    assert bare["First likelihood"]["status"] == "partly"
    assert "Extraction of records" in bare["First likelihood"]["missing"]
    assert {link["section"] for link in full["First likelihood"]["evidence"]} >= {"epsilon", "canaries", "extraction"}


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda values: values["evidence"]["figures"].pop("extraction.greedy"), "extraction"),
        (lambda values: values["evidence"]["figures"]["residual.risk"].update(resolvable=False), "risk"),
        (lambda values: values["evidence"]["figures"]["epsilon.lower_bound"].update(conditions={"coins_fair": False}), "bound"),
        (lambda values: values["scrubbed"].update(residual=None), "residual"),
        (lambda values: values["facts"].update(course=[]), "course"),
    ],
)
def test_a_fact_falls_with_its_evidence(change, fact):
    values = sample.stages()
    assert holds(sample.released(**values), fact)
    change(values)
    content = sample.released(**values)
    assert not holds(content, fact)
    affected = [row for one in content["coverage"]["frameworks"] for row in one["rows"] if FACTS[fact].title in row["missing"]]
    assert affected
    assert all(row["status"] != "covered" for row in affected)


def test_a_bound_of_zero_is_a_measurement():
    values = sample.stages()
    values["evidence"]["figures"]["epsilon.lower_bound"] |= {"value": 0.0, "low": 0.0}
    assert holds(sample.released(**values), "bound")


def test_what_only_people_can_add_is_never_covered():
    for one in FRAMEWORKS:
        for row in one.rows:
            if row.rest:
                found = next(made for made in rows(sample.released(), one.key).values() if made["rest"] == row.rest)
                assert found["status"] != "covered"


class TestIdentifiers:
    def test_recogniser_and_recall_above_the_limit_are_covered(self):
        found = rows(sample.released(), "hipaa")
        assert found["(b)(2)(i)(F)"]["status"] == "partly"  # 20 of 20 bound recall by 86 %, and the policy asks for 90 %
        values = sample.stages()
        for row in values["scrubbed"]["recall"]:
            row["low"] = 0.95
        found = rows(sample.released(**values), "hipaa")
        assert found["(b)(2)(i)(F)"]["status"] == "covered"
        assert found["(b)(2)(i)(F)"]["low"] == 0.95

    def test_the_lower_of_both_recalls_counts(self):
        values = sample.stages()
        for row in values["scrubbed"]["recall"]:
            row["low"] = 0.95
        found = rows(sample.released(**values), "hipaa")["(b)(2)(i)(H)"]
        assert (found["status"], found["recall"], found["low"]) == ("partly", 0.75, 0.563)  # 18 of 24 in records of the data

    def test_without_recogniser_or_recall_it_is_said(self):
        found = rows(sample.released(), "hipaa")
        assert found["(b)(2)(i)(L)"]["status"] == "not"
        assert found["(b)(2)(i)(P)"]["status"] == "not"
        assert found["(b)(2)(i)(M)"]["status"] == "partly"
        assert found["(b)(2)(i)(M)"]["missing"] == ["recall on MAC address"]
        assert found["(b)(2)(i)(R)"]["status"] == "partly"

    def test_a_policy_that_does_not_look_for_a_kind_loses_its_row(self):
        content = copy.deepcopy(sample.released())
        content["scrubbing"]["looked_for"].remove("EMAIL_ADDRESS")
        again = {"coverage": coverage(content)}
        assert rows(again, "hipaa")["(b)(2)(i)(F)"]["status"] == "not"


def test_it_says_that_people_decide():
    note = sample.released()["coverage"]["note"]
    assert "evidence for a human decision" in note
    assert "No row says that a duty is met" in note
