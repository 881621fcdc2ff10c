"""What the first screen may say: no test without power passes for a defect or for safety, no waiver for a clean release."""

from __future__ import annotations

import pytest

from pipeline.policy import load
from pipeline.report import build, render
from tests.report import sample
from tests.report.page import Page


def first_screen(content):
    source = render(content)
    return Page(source[: source.index('id="reasons"')].rsplit("<section", 1)[0] + "</main></body></html>").text


def test_a_test_without_power_is_called_too_weak_and_not_a_defect():
    content = sample.inconclusive()
    gate = content["verdict"]["gates"][1]
    assert gate["finding"].endswith("could at most have been 1.2, so this gate cannot fail, and the limit is at most 2.5.")
    assert "could not have failed" in gate["remedy"]
    assert "canaries.guesses" in gate["remedy"]
    assert gate["alt"].startswith("Inconclusive.")
    assert "defect" not in first_screen(content)


def test_a_gate_that_really_failed_still_points_to_a_defect():
    values = sample.stages()
    values["evidence"]["figures"]["epsilon.lower_bound"] |= {"value": 9.1, "low": 9.1, "ceiling": 10.0}
    values["verdict"]["gates"][1] |= {"passed": False, "value": 9.1, "bound": 9.1}
    values["verdict"]["status"] = "rejected"
    assert "defect" in first_screen(sample.released(**values))


def test_what_failed_and_what_was_not_resolved_are_counted_apart():
    values = sample.stages()
    values["verdict"]["status"] = "rejected"
    values["verdict"]["gates"][4] |= {"passed": False}
    values["verdict"]["gates"][1] |= {"passed": False, "inconclusive": True}
    assert sample.released(**values)["verdict"]["sentence"] == (
        "1 of 6 gates failed: personal values found by the scrubber; "
        "1 could not be resolved: privacy loss proven by attack (ε)."
    )


class TestLabel:
    def test_a_waiver_stands_in_the_headline_and_takes_its_green(self):
        content = sample.waived()
        assert content["verdict"]["label"] == "Released under a waiver"
        assert '<body class="released let_through">' in render(content)
        assert content["verdict"]["gates"][3]["alt"].startswith("Waived.")

    def test_what_is_inconclusive_and_let_through_does_too(self):
        values = sample.stages()
        values["verdict"]["gates"][1] |= {"passed": False, "inconclusive": True, "tolerated": True}
        assert sample.released(**values)["verdict"]["label"] == "Released without a conclusion"

    def test_a_clean_release_has_neither(self):
        assert sample.released()["verdict"]["label"] == "Released"
        assert '<body class="released">' in render(sample.released())


class TestMeasured:
    def test_each_number_has_its_symbol_and_its_cases(self):
        words = first_screen(sample.released())
        assert [gate["symbol"] for gate in sample.released()["verdict"]["gates"]] == ["ε", "ε ≥", "p", "AUC", "", "ratio"]
        assert [gate["n"] for gate in sample.released()["verdict"]["gates"]] == [40, 256, 64, 1000, 240, 400]
        assert "AUC" in words

    def test_a_difference_shows_how_far_above_zero_it_may_lie_and_nothing_below(self):
        values = sample.stages()
        excess = "extraction.either_excess"
        values["verdict"]["gates"].append(
            values["verdict"]["gates"][3]
            | {"name": "extraction", "figure": excess, "value": 0.0, "bound": 0.0077, "limit": 0.02}
        )
        content = sample.released(**values)
        gate = content["verdict"]["gates"][-1]
        assert (gate["low"], gate["high"]) == (None, 0.0077)
        row = render(content).split("Can training records be extracted?", 1)[1].split("</tr>", 1)[0]
        assert ">0.8\xa0%</data>" in row
        assert "−" not in row

    def test_an_upper_bound_alone_is_shown(self):
        """0 % with nothing beside it would read as none."""
        page = render(sample.released())
        risk = page.split("Personal values that are missed and given first", 1)[1].split("</dd>", 1)[0]
        assert "≤ <data" in risk
        assert ">1.4\xa0%</data>" in risk


class TestNotPromised:
    def test_a_record_is_no_person_on_the_first_screen(self):
        assert "whoever has several records (here up to 19) is protected less" in first_screen(sample.released())

    def test_a_person_is(self):
        values = sample.stages()
        values["trained"]["mechanism"]["unit"] = "person"
        content = build(load("gdpr"), **values)
        assert "several records" not in content["promise"]["brief"]["not_promised"]
        assert "belongs to the people of the data" in content["budget"]["note"]

    @pytest.mark.parametrize(("context", "expected"), [(0.821, "82.1"), (0.95, "90.1"), (None, "90.1")])
    def test_recall_is_the_lowest_that_was_measured(self, context, expected):
        values = sample.stages()
        rows = values["scrubbed"]["sampled"]["context"]
        rows[-1]["low"] = context
        if context is None:
            rows.pop()
        assert f"at least {expected}\xa0%)" in sample.released(**values)["promise"]["brief"]["not_promised"]


def test_a_p_value_without_power_is_mended_the_other_way_round():
    """Fewer secrets, not more: the smallest p that their best can have grows with their number."""
    values = sample.stages()
    values["verdict"]["gates"][2] |= {"passed": False, "inconclusive": True}
    assert "Lower audit.exposure_canaries" in sample.released(**values)["verdict"]["gates"][2]["remedy"]


def test_a_purpose_that_nobody_stated_is_said_to_lack_on_the_first_screen():
    assert "purpose and origin" in first_screen(sample.released())
    stated = sample.released(load("default").override(data__provenance="Letters of the ward, for drafting answers."))
    assert "purpose and origin" not in first_screen(stated)


def test_what_is_not_promised_holds_both_recalls():
    text = sample.released()["promise"]["not_promised"][0]["text"]
    assert "it found 224" in text
    assert "75 of 84, at least 82.1" in text


def test_awaiting_says_where_the_approval_will_stand():
    assert "manifest.json" in first_screen(sample.awaiting())


def test_the_first_screen_names_base_data_and_policy():
    assert "nano, tuned on support-messages.jsonl.gz under policy" in first_screen(sample.released())


def test_scrubbing_states_counts_and_what_was_never_tested():
    scrubbing = sample.released()["scrubbing"]
    assert "224 of 240 in sentences made for it and 75 of 84 in records of the data" in scrubbing["finding"]
    assert scrubbing["untested"] == "Never tested on planted values: URL; Origin, faith, politics; IP address; Credit card."
    assert sample.bare()["scrubbing"]["finding"].endswith("were replaced.")
