from __future__ import annotations

import json
import math
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import policy as policies
from pipeline.audit.figures import Evidence, Figure
from pipeline.gates import Verdict, Waiver, judge, number
from pipeline.policy import Gate, Policy

DEFAULT = policies.load("default")
FINITE = st.floats(-1e6, 1e6)
# Figures that every gate of the presets accepts.
GOOD = {
    "privacy.epsilon": (2.9, None, None),
    "epsilon.lower_bound": (0.4, 0.4, None),
    "exposure.family_p": (0.6, None, None),
    "membership.worst.auc": (0.51, 0.47, 0.54),
    "extraction.either_excess": (0.0, -0.006, 0.006),
    "scrub.recall": (0.99, 0.97, None),
    "control.exposure.copies_16.mean_bits": (15.0, None, None),
    "control.epsilon.lower_bound": (3.0, 2.5, None),
    "utility.perplexity_ratio": (0.3, 0.28, 0.32),
}


def figure(name: str, value: float, low: float | None = None, high: float | None = None, **more) -> Figure:
    return Figure(name=name, value=value, low=low, high=high, n=more.pop("n", 500), method="test", **more)


def evidence(*figures: Figure) -> Evidence:
    named = {one.name: one for one in figures}
    return Evidence(folder=Path("evidence"), figures=named, series={}, digest="0" * 64, seconds={})


def good(**changes: Figure | None) -> Evidence:
    """Evidence on which every preset passes, with some figures replaced (None takes one away)."""
    figures = {name: figure(name, *numbers) for name, numbers in GOOD.items()}
    figures.update({name.replace("__", "."): change for name, change in changes.items()})
    return evidence(*(one for one in figures.values() if one is not None))


def rules(gates: dict[str, Gate], approval: str = "none") -> Policy:
    return DEFAULT.model_copy(update={"gates": gates, "release": policies.Release(approval=approval)})


def gate(judge: str = "value", **limit: float) -> Gate:
    return Gate(figure="x.y", judge=judge, why="A reason to ask.", owner="an owner", **limit)


@pytest.mark.parametrize("preset", policies.presets())
def test_presets_pass_on_good_evidence(preset):
    chosen = policies.load(preset)
    verdict = judge(chosen, good())
    expected = "awaiting_approval" if chosen.release.approval == "required" else "released"
    assert verdict.status == expected
    assert [result.name for result in verdict.gates] == list(chosen.gates)
    assert all(result.passed for result in verdict.gates)


@pytest.mark.parametrize("preset", policies.presets())
def test_missing_evidence_fails_every_gate(preset):
    chosen = policies.load(preset)
    for name, rule in chosen.gates.items():
        verdict = judge(chosen, good(**{rule.figure.replace(".", "__"): None}))
        failed = [result.name for result in verdict.gates if not result.passed]
        assert verdict.status == "rejected"
        assert name in failed
        assert all(chosen.gates[other].figure == rule.figure for other in failed)
        assert any(rule.figure in reason and "no figure" in reason for reason in verdict.reasons)


def test_no_evidence_at_all_fails_all():
    verdict = judge(DEFAULT, evidence())
    assert not any(result.passed for result in verdict.gates)
    assert len(verdict.reasons) == len(DEFAULT.gates)


@pytest.mark.parametrize("preset", policies.presets())
@pytest.mark.parametrize("spoil", ["nan", "inf", "-inf", "unresolvable", "invalid", "no bound", "nan bound"])
def test_spoilt_evidence_fails_every_gate(preset, spoil):
    chosen = policies.load(preset)
    for name, rule in chosen.gates.items():
        if "bound" in spoil and rule.judge == "value":
            continue
        sound = figure(rule.figure, *GOOD[rule.figure])
        changes = {
            "unresolvable": {"resolvable": False},
            "invalid": {"conditions": {"independent coins": True, "score fixed before": False}},
            "no bound": {"low": None, "high": None},
            "nan bound": {"low": math.nan, "high": math.nan},
        }.get(spoil) or {"value": float(spoil), "low": sound.low, "high": sound.high}
        spoilt = sound.model_copy(update=changes)
        verdict = judge(chosen, good(**{rule.figure.replace(".", "__"): spoilt}))
        result = next(result for result in verdict.gates if result.name == name)
        assert not result.passed
        assert result.inconclusive == (spoil == "unresolvable")
        assert verdict.status == ("inconclusive" if spoil == "unresolvable" else "rejected")
        if spoil == "invalid":
            assert "score fixed before" in result.why
        json.dumps(verdict.model_dump(mode="json"), allow_nan=False)


@given(
    value=FINITE, worse=st.floats(0, 1e6), limit=FINITE, at_most=st.booleans(), side=st.sampled_from(["value", "low", "high"])
)
def test_worsening_a_figure_never_turns_a_fail_into_a_pass(value, worse, limit, at_most, side):
    chosen = rules({"only": gate(side, **{"at_most" if at_most else "at_least": limit})})

    def passes(judged: float) -> bool:
        bounds = {"value": 0.0, "low": -1e9, "high": 1e9} | {side: judged}
        return judge(chosen, evidence(figure("x.y", **bounds))).gates[0].passed

    moved = value + worse if at_most else value - worse
    assert passes(value) or not passes(moved)
    assert passes(value) == (value <= limit if at_most else value >= limit)


@given(
    value=st.floats(),
    low=st.none() | st.floats(),
    high=st.none() | st.floats(),
    limit=FINITE,
    holds=st.booleans(),
    resolvable=st.booleans(),
    at_most=st.booleans(),
    side=st.sampled_from(["value", "low", "high"]),
    approval=st.sampled_from(["none", "required"]),
)
@settings(max_examples=300)
def test_a_pass_needs_everything(value, low, high, limit, holds, resolvable, at_most, side, approval):
    chosen = rules({"only": gate(side, **{"at_most" if at_most else "at_least": limit})}, approval)
    one = figure("x.y", value, low, high, conditions={"fixed": holds}, resolvable=resolvable)
    verdict = judge(chosen, evidence(one))
    judged = {"value": value, "low": low, "high": high}[side]
    sound = holds and resolvable and math.isfinite(value) and judged is not None and math.isfinite(judged)
    passed = sound and (judged <= limit if at_most else judged >= limit)
    assert verdict.gates[0].passed == passed
    unresolved = not resolvable and holds and math.isfinite(value)
    stopped = "inconclusive" if unresolved else "rejected"
    assert verdict.status == (("awaiting_approval" if approval == "required" else "released") if passed else stopped)
    assert verdict.gates[0].why.endswith(".")
    assert "x.y" in verdict.gates[0].why
    if not sound:
        assert number(limit) in verdict.gates[0].why
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_one_failure_rejects_and_reasons_name_only_failures(outcomes):
    chosen = rules({f"gate{k}": gate(at_most=1.0 if passes else -1.0) for k, passes in enumerate(outcomes)})
    verdict = judge(chosen, evidence(figure("x.y", 0.0)))
    assert [result.passed for result in verdict.gates] == outcomes
    assert verdict.status == ("released" if all(outcomes) else "rejected")
    decisive = [f"gate{k}" for k, passes in enumerate(outcomes) if passes == all(outcomes)]
    assert [reason.split()[1] for reason in verdict.reasons] == decisive


@pytest.mark.parametrize("epsilon", [1.5, 4.0])
def test_the_spent_gate_follows_the_promise(tmp_path, epsilon):
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: default\nname: own\nprivacy: {{epsilon: {epsilon}}}\n")
    chosen = policies.load(path)
    for spent in (epsilon, epsilon + 1e-9):
        verdict = judge(chosen, good(privacy__epsilon=figure("privacy.epsilon", spent)))
        result = next(result for result in verdict.gates if result.name == "epsilon_spent")
        assert result.limit == epsilon
        assert result.passed == (spent == epsilon)
        assert f"at most {epsilon:g}." in result.why


@given(value=FINITE, limit=FINITE, room=st.floats(0, 1e6), side=st.sampled_from(["value", "low", "high"]))
def test_a_figure_that_could_not_lie_beyond_the_limit_never_passes(value, limit, room, side):
    chosen = rules({"only": gate(side, at_most=limit)})
    one = figure("x.y", value, value, value, ceiling=limit - room)
    verdict = judge(chosen, evidence(one))
    assert verdict.status == "inconclusive"
    assert verdict.gates[0].stops
    assert "cannot fail" in verdict.gates[0].why
    assert "canaries.guesses" in verdict.reasons[0]
    able = figure("x.y", value, value, value, ceiling=limit + 1 + room)  # the control: the ceiling alone made it fail
    assert judge(chosen, evidence(able)).gates[0].passed == (value <= limit)
    chosen = rules({"only": gate(side, at_least=limit)})
    verdict = judge(chosen, evidence(figure("x.y", value, value, value, floor=limit + room)))
    assert verdict.status == "inconclusive"
    assert "cannot fail" in verdict.gates[0].why
    assert "exposure_canaries" in verdict.reasons[0]
    for ends in ({"floor": limit - 1 - room}, {"ceiling": limit - room}):  # the other end is no matter
        able = figure("x.y", value, value, value, **ends)
        assert judge(chosen, evidence(able)).gates[0].passed == (value >= limit)


@pytest.mark.parametrize("preset", policies.presets())
def test_an_attack_too_weak_to_fail_the_bound_fails_it(preset):
    chosen = policies.load(preset)
    limit = chosen.gates["epsilon_bound"].at_most
    for ceiling, passes in ((limit, False), (math.nan, False), (limit + 0.1, True)):
        weak = figure("epsilon.lower_bound", 0.4, 0.4, ceiling=ceiling)
        verdict = judge(chosen, good(epsilon__lower_bound=weak))
        assert [result.name for result in verdict.gates if not result.passed] == ([] if passes else ["epsilon_bound"])


def test_the_sentence_of_a_gate_that_cannot_fail():
    weak = judge(rules({"only": gate(at_most=8)}), evidence(figure("x.y", 0.4, ceiling=3.74)))
    assert weak.gates[0].why == "x.y could at most have been 3.74, so this gate cannot fail, and the limit is at most 8."
    blunt = judge(rules({"only": gate(at_least=0.01)}), evidence(figure("x.y", 0.4, floor=0.018)))
    assert blunt.gates[0].why == "x.y is never below 0.018, so this gate cannot fail, and the limit is at least 0.01."


def test_sentences():
    chosen = rules(
        {
            "membership": Gate(
                figure="membership.ratio.auc", judge="low", at_most=0.6, why="No better than a coin.", owner="the officer"
            )
        }
    )
    verdict = judge(chosen, evidence(figure("membership.ratio.auc", 0.7123456, 0.65432, 0.77, n=1000)))
    assert verdict.gates[0].why == (
        "membership.ratio.auc is 0.7123, its lower bound 0.6543 (n = 1,000), beyond the limit of at most 0.6."
    )
    assert verdict.reasons == (
        f"Gate membership failed: {verdict.gates[0].why} No better than a coin. Try a lower privacy.epsilon, fewer "
        "train.steps or the records of more people. The limit is owned by: the officer.",
    )
    passed = judge(chosen, evidence(figure("membership.ratio.auc", 0.55, 0.51, 0.6, n=1000)))
    assert passed.reasons == (
        "Gate membership passed: membership.ratio.auc is 0.55, its lower bound 0.51 (n = 1,000), within the limit of at most "
        "0.6.",
    )


@pytest.mark.parametrize(("value", "narrower"), [(0.01, True), (0.03, False)])
def test_a_figure_within_the_limit_whose_bound_is_not_asks_for_a_larger_sample(value, narrower):
    chosen = rules({"only": Gate(figure="x.y", judge="high", at_most=0.02, why="Nothing comes out.", owner="the officer")})
    (reason,) = judge(chosen, evidence(figure("x.y", value, 0.0, 0.04, n=750))).reasons
    assert ("only its bound is not, which a larger sample narrows" in reason) is narrower


def test_numbers_that_differ_are_spelled_apart():
    result = judge(rules({"only": gate(at_most=8)}), evidence(figure("x.y", 8.0000001))).gates[0]
    assert not result.passed
    assert "8.0000001" in result.why
    assert "at most 8." in result.why


@given(st.floats(-1e14, 1e14))
def test_number_keeps_four_digits(value):
    spelled = float(number(value).replace(",", ""))
    assert spelled == pytest.approx(value, rel=1e-3)


def test_judging_changes_nothing_and_repeats():
    given_evidence, before = good(), good().model_dump_json()
    assert judge(DEFAULT, given_evidence) == judge(DEFAULT, given_evidence)
    assert given_evidence.model_dump_json() == before


# Inconclusive figures and waivers.

TODAY = date(2030, 5, 17)


def waiver(chosen: Policy, named: str = "utility", **changes) -> Waiver:
    content = {
        "gate": named,
        "policy": chosen.digest,
        "by": "Ada Lovelace",
        "why": "A pilot for ten readers.",
        "issued": TODAY - timedelta(days=3),
        "expires": TODAY + timedelta(days=3),
    }
    return Waiver(**content | changes)


POOR = {"utility__perplexity_ratio": figure("utility.perplexity_ratio", 1.2, 1.1, 1.3)}


@pytest.mark.parametrize("says", ["reject", "release"])
def test_the_policy_says_whether_what_is_inconclusive_is_released(says):
    chosen = DEFAULT.override(release__inconclusive=says)
    vague = figure("membership.worst.auc", 0.5, 0.4, 0.59, resolvable=False)
    verdict = judge(chosen, good(membership__worst__auc=vague))
    result = next(result for result in verdict.gates if result.name == "membership")
    assert (result.passed, result.inconclusive, result.tolerated) == (False, True, says == "release")
    assert verdict.status == ("released" if says == "release" else "inconclusive")
    assert any("membership is inconclusive" in reason for reason in verdict.reasons)
    both = judge(chosen, good(membership__worst__auc=vague, **POOR))
    assert both.status == "rejected"  # a failure weighs more than a doubt
    missing = judge(chosen, good(membership__worst__auc=None))
    assert missing.status == "rejected"  # and what is missing is no doubt


def test_a_waiver_lets_a_failed_gate_pass_and_says_so_first():
    verdict = judge(DEFAULT, good(**POOR), [waiver(DEFAULT)], TODAY)
    assert verdict.status == "released"
    result = next(result for result in verdict.gates if result.name == "utility")
    assert (result.passed, result.tolerated, result.waiver) == (False, True, waiver(DEFAULT))
    assert verdict.reasons[0].startswith(
        "Gate utility failed and was waived by Ada Lovelace on 2030-05-14, until 2030-05-20: A pilot for ten readers."
    )
    assert "1.3" in verdict.reasons[0]
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


@pytest.mark.parametrize(
    "wrong",
    [
        {"gate": "membership"},
        {"policy": "0" * 64},
        {"issued": TODAY + timedelta(days=1)},
        {"expires": TODAY - timedelta(days=1)},
    ],
)
def test_a_waiver_that_does_not_hold_changes_nothing(wrong):
    plain = judge(DEFAULT, good(**POOR))
    assert plain.status == "rejected"
    assert judge(DEFAULT, good(**POOR), [waiver(DEFAULT, **wrong)], TODAY) == plain
    assert judge(DEFAULT, good(**POOR), [waiver(DEFAULT)]) == plain  # without a day none holds


def test_what_guards_people_cannot_be_waived():
    for preset in policies.presets():
        chosen = policies.load(preset)
        assert [name for name, rule in chosen.gates.items() if rule.waivable] == ["utility"]
    leak = figure("membership.worst.auc", 0.9, 0.88, 0.92)
    verdict = judge(DEFAULT, good(membership__worst__auc=leak), [waiver(DEFAULT, "membership")], TODAY)
    assert verdict.status == "rejected"


@pytest.mark.parametrize("spoilt", [None, figure("utility.perplexity_ratio", math.nan)])
def test_what_is_not_known_cannot_be_waived(spoilt):
    verdict = judge(DEFAULT, good(utility__perplexity_ratio=spoilt), [waiver(DEFAULT)], TODAY)
    assert verdict.status == "rejected"
