"""The content: taken from the stages' values and from nothing else, with the arithmetic checked by other means."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from pipeline.audit.figures import Evidence
from pipeline.corpus import Corpus
from pipeline.errors import IntegrityError
from pipeline.gates import Verdict
from pipeline.ledger import Standing
from pipeline.policy import load
from pipeline.report import SCHEMA, build, render
from tests.report import sample

SENTINEL = "Zyxwvut-Sentinel 555-0199"


def test_schema_and_sections():
    content = sample.released()
    assert content["schema"] == SCHEMA == "hushtune-report/1"
    sections = (
        "run verdict promise data scrubbing training budget canaries epsilon membership extraction utility figures "
        "evidence_text reproduce coverage"
    )
    assert set(content) == {"schema", *sections.split()}
    json.dumps(content, allow_nan=False)


def test_real_values_give_the_same_content_as_mappings():
    from pipeline.canaries import Planted
    from pipeline.scrub import Scrubbed
    from pipeline.train.loop import Trained

    kinds = {
        "corpus": Corpus,
        "scrubbed": Scrubbed,
        "planted": Planted,
        "trained": Trained,
        "evidence": Evidence,
        "verdict": Verdict,
        "standing": Standing,
    }
    values = sample.stages()
    for key, kind in kinds.items():  # what the report knows of a stage, and this version of the stage does not give
        values[key] = {name: value for name, value in values[key].items() if name in kind.model_fields}
    models = {key: kind.model_validate(values[key]) for key, kind in kinds.items()}
    assert build(load("default"), **models, facts=values["facts"]) == sample.released(**values)


def test_text_in_a_value_never_reaches_the_report():
    values = sample.stages()
    for key in ("corpus", "scrubbed", "planted", "trained", "evidence", "verdict", "standing"):
        values[key] |= {"text": SENTINEL, "records": values[key].get("records", SENTINEL), "folder": SENTINEL}
    values["trained"]["base"] |= {"folder": SENTINEL}
    values["evidence"]["series"] |= {"private.texts": [SENTINEL]}
    values["facts"] |= {"sample": SENTINEL}
    content = sample.released(**values)
    assert SENTINEL not in json.dumps(content)
    assert SENTINEL not in render(content)


def test_a_manifest_that_was_swapped_is_refused():
    values = sample.stages()
    values["trained"]["manifest_digest"] = sample.hexes("another")
    with pytest.raises(IntegrityError, match="canary manifest"):
        sample.released(**values)


def test_numbers_that_are_not_finite_become_missing():
    values = sample.stages()
    values["evidence"]["figures"]["epsilon.lower_bound"]["value"] = math.nan
    values["evidence"]["figures"]["utility.perplexity"]["high"] = math.inf
    values["verdict"]["gates"][1]["value"] = math.nan
    content = sample.released(**values)
    assert content["epsilon"]["lower_bound"] is None
    assert content["epsilon"]["outcome"] == "unmeasured"
    assert content["utility"]["perplexity"]["high"] is None
    assert content["verdict"]["gates"][1]["value"] is None
    render(content)


class TestVerdict:
    def test_gates_carry_what_the_policy_and_the_evidence_say(self):
        gate = {gate["name"]: gate for gate in sample.released()["verdict"]["gates"]}["membership"]
        assert (gate["rule"], gate["judge"], gate["limit"], gate["bound"]) == ("at_most", "high", 0.6, 0.557)
        assert (gate["low"], gate["high"]) == (0.485, 0.557)
        assert gate["axis"][0] <= gate["low"]
        assert gate["axis"][1] >= gate["limit"]

    def test_rejected_names_each_failed_gate_in_one_sentence(self):
        verdict = sample.rejected()["verdict"]
        assert verdict["sentence"].startswith("2 of 6 gates failed: membership attack")
        assert verdict["sentence"].count(".") == 1
        assert verdict["failed"] == 2
        findings = [gate["finding"] for gate in verdict["gates"] if not gate["passed"]]
        assert findings[1] == (
            "Personal values found by the scrubber: 82.9\xa0% (lower bound), where the policy asks for at least 90\xa0%."
        )

    def test_a_miss_by_less_than_rounding_is_spelled_out(self):
        values = sample.stages()
        gate = values["verdict"]["gates"][0]
        gate |= {"passed": False, "value": 8.0000004, "bound": 8.0000004, "why": "privacy.epsilon is 8.0000004, beyond 8."}
        content = sample.released(**values)
        assert content["verdict"]["gates"][0]["finding"] == "Privacy loss spent (ε): privacy.epsilon is 8.0000004, beyond 8."

    def test_a_figure_whose_conditions_do_not_hold_says_so(self):
        values = sample.stages()
        values["evidence"]["figures"]["epsilon.lower_bound"]["conditions"] = {"independent_coins": False}
        values["verdict"]["gates"][1] |= {"passed": False, "why": "epsilon.lower_bound is not valid."}
        content = sample.released(**values)
        gate = content["verdict"]["gates"][1]
        assert gate["finding"] == "Privacy loss proven by attack (ε): epsilon.lower_bound is not valid."
        assert "a condition that does not hold" in gate["remedy"]
        assert content["epsilon"]["lower_bound"] is None


class TestPromise:
    @pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0, 20.0])
    def test_meaning_of_epsilon(self, epsilon):
        values = sample.stages()
        values["trained"]["epsilon"] = epsilon
        promise = sample.released(**values)["promise"]
        odds = 0.5 / 0.5 * math.exp(epsilon)
        assert promise["certainty_from_half"] == pytest.approx(odds / (1 + odds))
        assert promise["odds_factor"] == pytest.approx(math.exp(epsilon))
        kind = "strong guarantee, and this is one" if epsilon <= 1 else "weak guarantee" if epsilon > 10 else "second kind"
        assert kind in promise["strength"]

    def test_record_and_person_promise_different_things(self):
        record = sample.released()["promise"]
        values = sample.stages()
        values["trained"]["mechanism"]["unit"] = "person"
        person = build(load("gdpr"), **values)["promise"]
        assert "A person with several records is protected less" in record["terms"][0]["text"]
        assert "The largest unit here holds 19 records" in record["not_promised"][1]["text"]
        assert "All records of a person count as one" in person["terms"][0]["text"]
        assert "16 of their records" in person["terms"][0]["text"]

    def test_what_is_not_promised_is_said(self):
        outside = ("the verdict itself", "lost_gradients", "empty_draws")
        text = " ".join(f"{limit['title']} {limit['text']}" for limit in sample.released()["promise"]["not_promised"])
        for piece in (
            "scrubber",
            "Groups of records",
            "sampling rate q",
            "number of records n",
            "held-out perplexity",
            *outside,
        ):
            assert piece in text

    def test_groups_are_the_accountants_and_never_a_multiple(self):
        promise = sample.released()["promise"]
        assert promise["group_epsilon"] == {"2": 17.42, "10": 128.61}
        text = promise["not_promised"][1]["text"]
        assert "At the same δ, two records of the same person together: ε ≤ 17.5; ten: ε ≤ 129." in text
        assert "twice" not in text

    @pytest.mark.parametrize("groups", [None, {}, {"2": math.inf}])
    def test_groups_that_are_absent_are_said_to_be(self, groups):
        values = sample.stages()
        values["trained"]["group_epsilon"] = groups
        content = sample.released(**values)
        assert content["promise"]["group_epsilon"] == {"2": None, "10": None}
        assert "was not computed, or is not finite" in content["promise"]["not_promised"][1]["text"]
        render(content)
        del values["trained"]["group_epsilon"]
        assert sample.released(**values)["promise"] == content["promise"]

    def test_one_group_without_a_finite_limit(self):
        values = sample.stages()
        values["trained"]["group_epsilon"] = {"2": 17.42}
        text = sample.released(**values)["promise"]["not_promised"][1]["text"]
        assert "ε ≤ 17.5; ten: no finite limit is known." in text

    def test_delta_is_slack_and_no_probability_of_failure(self):
        content = sample.released()
        term = content["promise"]["terms"][3]
        assert term["term"] == "Slack of the limit (δ)"
        assert "n·δ = 0.429" in term["text"]
        assert content["promise"]["units_times_delta"] == pytest.approx(4811**-0.1)
        assert "may fail" not in json.dumps(content)
        assert "not hold, δ" not in render(content)

    def test_the_number_of_units_is_public(self):
        promise = sample.released()["promise"]
        assert promise["adjacency"] == "add_or_remove_one"
        assert "had contributed nothing; the number of records is public" in promise["terms"][1]["text"]

    def test_epsilon_is_never_rounded_down(self):
        values = sample.stages()
        values["trained"]["epsilon"] = 1.001
        content = sample.released(**values)
        assert content["promise"]["terms"][2]["term"].startswith("ε = 1.01")
        assert "2.73" in content["promise"]["terms"][2]["text"]  # e^1.001 = 2.7210…
        assert "73.2\xa0%" in content["promise"]["terms"][2]["text"]  # 0.73125…
        assert content["promise"]["epsilon"] == 1.001

    def test_counts_that_tell_who_was_drawn_are_not_published(self):
        content = sample.released()
        assert {"empty_draws", "lost_gradients"} & set(content["training"]) == set()
        values = sample.stages()
        values["trained"] |= {"empty_draws": 31, "lost_gradients": 17}
        assert sample.released(**values) == content

    def test_an_early_stop_is_said_and_charged_in_full(self):
        values = sample.stages()
        values["trained"] |= {"noisy_steps": 12, "updates": 10}
        content = sample.released(**values)["training"]
        assert content["finding"].startswith(
            "Training stopped on public data after 12 steps; all 40 noisy steps planned are charged"
        )
        assert (content["steps"], content["updates"]) == (40, 10)
        assert sample.released()["training"]["finding"].startswith("40 noisy steps spent ε = ")


class TestAttacks:
    def test_exposure_that_is_not_valid_finds_nothing(self):
        values = sample.stages()
        for dotted, figure in values["evidence"]["figures"].items():
            if dotted.startswith("exposure."):
                figure["conditions"] = {"coins_fair": True, "alphabet_round_trips": False}
        content = sample.released(**values)
        canaries = content["canaries"]
        assert canaries["finding"] == "Exposure was measured and is not valid: alphabet round trips does not hold."
        assert (canaries["p"], canaries["above_cutoff"], canaries["planted"]["mean"]) == (None, None, None)
        assert "No planted secret stands out" not in render(content)

    @pytest.mark.parametrize("change", [{"resolvable": False}, {"value": math.nan}])
    def test_exposure_that_cannot_be_resolved_finds_nothing(self, change):
        values = sample.stages()
        values["evidence"]["figures"]["exposure.family_p"] |= change
        assert "is not valid: too few cases" in sample.released(**values)["canaries"]["finding"]

    def test_exposure_without_its_test_finds_nothing(self):
        values = sample.stages()
        del values["evidence"]["figures"]["exposure.family_p"]
        assert "test against chance is missing" in sample.released(**values)["canaries"]["finding"]

    def test_membership_that_is_not_valid_finds_and_draws_nothing(self):
        values = sample.stages()
        for dotted, figure in values["evidence"]["figures"].items():
            if dotted.startswith("membership."):
                figure["conditions"] = {"split_by_chance": False}
        membership = sample.released(**values)["membership"]
        assert membership["finding"] == "Membership was attacked and is not valid: split by chance does not hold."
        assert membership["roc"] == []

    def test_bound_that_is_not_valid_finds_nothing(self):
        values = sample.stages()
        values["evidence"]["figures"]["epsilon.lower_bound"]["conditions"] = {"coins_fair": False}
        epsilon = sample.released(**values)["epsilon"]
        assert (epsilon["outcome"], epsilon["lower_bound"]) == ("invalid", None)
        assert "not valid: coins fair does not hold" in epsilon["finding"]

    def test_ceiling_is_shown_as_the_largest_reachable(self):
        values = sample.stages()
        values["evidence"]["figures"]["epsilon.lower_bound"]["ceiling"] = 3.219
        content = sample.released(**values)
        assert content["epsilon"]["reachable"] == content["verdict"]["gates"][1]["ceiling"] == 3.219
        page = render(content)
        assert 'could reach <data value="3.219" data-at="/verdict/gates/1/ceiling" data-format="lower">3.21<' in page

    def test_passing_is_never_called_a_proof(self):
        content = sample.released()
        assert "no attack tried here contradicts the promise" in content["verdict"]["sentence"]
        assert "promise was kept" not in render(content)

    def test_utility_that_is_not_valid_is_neither_told_nor_drawn(self):
        values = sample.stages()
        values["evidence"]["figures"]["utility.perplexity"]["conditions"] = {"scores_finite": False}
        content = sample.released(**values)
        assert content["utility"]["finding"] == "Utility was measured and is not valid: scores finite does not hold."
        assert 'data-at="/utility/perplexity/value"' not in render(content)

    def test_cutoff_is_the_family_one(self):
        content = sample.released()["canaries"]
        # The largest of m independent Exp(1) variables exceeds ln2 · cutoff with probability α.
        below = stats.expon.cdf(content["cutoff_bits"] * math.log(2)) ** content["planted"]["n"]
        assert 1 - below == pytest.approx(content["alpha"])
        assert content["space"] == 48**3

    def test_a_secret_that_stands_out_is_counted(self):
        values = sample.stages()
        values["evidence"]["series"]["exposure.planted"][3] = 16.7
        content = sample.released(**values)["canaries"]
        assert content["above_cutoff"] == 1
        assert "stand out" in content["finding"]

    @pytest.mark.parametrize(
        ("low", "reachable", "outcome"),
        [(9.0, 12.0, "violated"), (0.2, 3.7, "limited"), (0.2, 9.0, "consistent"), (9.0, 9.5, "violated")],
    )
    def test_outcome_of_the_bound(self, low, reachable, outcome):
        values = sample.stages()
        figures = values["evidence"]["figures"]
        figures["epsilon.lower_bound"]["value"], figures["epsilon.reachable"]["value"] = low, reachable
        assert sample.released(**values)["epsilon"]["outcome"] == outcome

    def test_the_control_is_never_the_best_attack(self):
        values = sample.stages()
        values["evidence"]["figures"]["membership.splitter.auc"]["value"] = 0.9
        membership = sample.released(**values)["membership"]
        assert "0.521" in membership["finding"]
        assert [row["attack"] for row in membership["attacks"]] == ["loss", "ratio", "splitter"]

    def test_every_figure_of_the_evidence_is_listed(self):
        values: dict[str, Any] = sample.stages()
        values["evidence"]["figures"]["extraction.greedy"] = sample.figure("extraction.greedy", 0.0, None, 0.003, 1000, "k")
        content = sample.released(**values)
        assert {row["figure"] for row in content["figures"]} == set(values["evidence"]["figures"])
        assert "extraction.greedy" in render(content)

    def test_utility_that_got_worse_is_not_called_a_fall(self):
        values = sample.stages()
        values["evidence"]["figures"]["utility.perplexity"]["value"] = 400.0
        assert "did not fall" in sample.released(**values)["utility"]["finding"]


def test_example_file_name_only():
    assert Path(sample.released()["data"]["source"]).name == sample.released()["data"]["source"]


class TestPublicTextAndAnswers:
    def test_a_report_without_them_does_not_speak_of_them(self):
        content = sample.released()
        assert content["utility"]["public"] is content["utility"]["completions"] is None
        page = render(content)
        assert "What it answers" not in page
        assert "Public text" not in page

    def test_the_gain_of_public_text_stands_beside_that_of_private_training(self):
        content = sample.asked()
        assert "from 318 to 171 by public text, and to 96.7 by private training" in content["utility"]["finding"]
        assert "12 private records share 13 words" in content["utility"]["public"]
        assert "/somewhere" not in json.dumps(content)
        assert {"name": "Public adapter", "digest": sample.hexes("public adapter")} in content["reproduce"]["digests"]
        page = render(content)
        assert 'data-at="/utility/public_perplexity/value"' in page
        assert content["utility"]["public"] in html.unescape(page)

    def test_answers_are_told_of_base_model_and_control(self):
        content = sample.asked()
        rows = {row["title"]: row for row in content["utility"]["completions"]["rows"]}
        assert [rows["ROUGE-L"][who]["value"] for who in ("base", "tuned", "control")] == [0.08, 0.27, 0.34]
        assert "ROUGE-L of the base model 8 %" in content["utility"]["completions"]["picture"]["alt"]
        assert 'data-at="/utility/completions/rows/1/control/value"' in render(content)
