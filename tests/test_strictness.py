"""A child may only tighten: every key of a policy is walked in both directions, through files as a user writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from pipeline import cli
from pipeline import policy as policies
from pipeline.errors import PolicyError
from pipeline.policy import Policy
from pipeline.strictness import RULES, changes, check_name, leaves

HOUSE = policies.load("default").override(
    release__inconclusive="release",
    release__four_eyes=False,
    release__quarantine_days=5,
    scrub__allow=["Acme"],
    scrub__operator="mask",
    scrub__consistency="corpus",
    scrub__rescan="off",
    scrub__deny=["Falcon"],
    scrub__countries=["uk"],
    scrub__recognizers="house-recognisers.yaml",
    canaries__secret_tokens=3,
    canaries__guesses=100,
    privacy__delta=1e-5,
    continued_pretraining={"public_data": "public.jsonl", "overlap": "count"},
)
# A tighter and a looser value of every key that has a direction; None where the range has no room.
MOVES: dict[str, tuple[Any, Any]] = {
    "data.columns": (None, None),  # a mapping of free names: below
    "scrub.detector": ("high_recall", "fast"),
    "scrub.model": (None, "spacy:en_core_web_lg"),
    "scrub.consistency": ("person", None),
    "scrub.rescan": ("auto", None),
    "scrub.rescan_records": (None, 100),
    "scrub.sample": (300, 100),
    "scrub.deny": (["Falcon", "Osprey"], []),
    "scrub.countries": (["uk", "germany"], []),
    "scrub.recognizers": (None, "others.yaml"),
    "scrub.entities": ([*HOUSE.scrub.entities, "US_NPI"], list(HOUSE.scrub.entities[1:])),
    "scrub.minimum_score": (0.3, 0.4),
    "scrub.operator": ("placeholder", "surrogate"),
    "scrub.allow": ([], ["Acme", "Ann"]),
    "scrub.probes": (300, 200),
    "canaries.count": (512, 128),
    "canaries.repetitions": (None, [1, 2]),
    "canaries.repeated": (20, 5),
    "canaries.secret_tokens": (4, None),
    "canaries.alphabet": (64, 47),
    "canaries.guesses": (120, 90),
    "continued_pretraining.overlap": ("refuse", None),
    "privacy.epsilon": (7.9, 8.1),
    "privacy.delta": (9e-6, 2e-5),
    "privacy.unit": ("person", None),
    "privacy.lifetime.epsilon": (31, 33),
    "privacy.lifetime.delta": (4e-5, 6e-5),
    "privacy.lifetime.on_exhausted": (None, None),
    "audit.alpha": (None, 0.04),
    "audit.membership_records": (600, 400),
    "audit.utility_records": (500, 300),
    "audit.extraction_records": (600, 400),
    "audit.prefix_tokens": (20, 8),
    "audit.suffix_tokens": (8, 20),
    "audit.samples": (300, 200),
    "audit.games_values": (200, 50),
    "audit.completion_records": (200, 50),
    "audit.control": (True, None),
    "audit.exposure_canaries": (200, 100),
    "release.approval": ("required", None),
    "release.approval_days": (7, 15),
    "release.four_eyes": (True, None),
    "release.inconclusive": ("reject", None),
    "release.quarantine_days": (0, 6),
    "retention.raw_days": (1, None),
    "retention.scrubbed_days": (1, 91),
    "retention.checkpoint_days": (1, 15),
    "retention.review_days": (1, 31),
}
NO_END = {"retention.raw_days": None}  # a looser value that is None


def keys(model: type[BaseModel], path: str = "") -> list[str]:
    """Every key of a policy but the gates, whose names are free."""
    found = []
    for name, field in model.model_fields.items():
        if name == "gates":
            continue
        kind = next((one for one in get_args(field.annotation) if _is_section(one)), field.annotation)  # a section or None
        if kind is not field.annotation:
            found.append(f"{path}{name}")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys(kind, f"{path}{name}.")
        else:
            found.append(f"{path}{name}")
    return found


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


DIRECTED = [key for key in keys(Policy) if RULES[key].compare.__name__ != "_free"]


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def child(folder: Path, content: dict[str, Any]) -> Policy:
    (folder / "house.yaml").write_text(yaml.safe_dump(HOUSE.model_dump(mode="json") | {"name": "house"}))
    (folder / "ward.yaml").write_text(yaml.safe_dump({"extends": "house.yaml", "name": "ward", **content}))
    return policies.load(folder / "ward.yaml")


def test_every_key_has_a_rule_and_every_directed_key_is_walked():
    assert set(keys(Policy)) == set(RULES)
    assert set(DIRECTED) == set(MOVES)


@pytest.mark.parametrize("key", DIRECTED)
def test_a_child_may_tighten_and_never_loosen(tmp_path, key):
    tighter, looser = MOVES[key]
    if tighter is not None:
        chosen = child(tmp_path, nested(key, tighter))
        (change,) = [one for one in changes(HOUSE, chosen) if one.key == key]
        assert change.direction == "tighter"
    if looser is not None or key in NO_END:
        with pytest.raises(PolicyError) as told:
            child(tmp_path, nested(key, looser))
        assert f"{key} is " in str(told.value)
        assert "house.yaml" in str(told.value)


def test_a_further_column_may_be_dropped_and_not_kept(tmp_path):
    (tmp_path / "house.yaml").write_text(
        yaml.safe_dump({"extends": "base", "name": "house", "data": {"columns": {"note": "scrub"}}})
    )
    for what, allowed in (("drop", True), ("hash", True), ("keep", False)):
        content = {"extends": "house.yaml", "name": "ward", "data": {"columns": {"note": what}}}
        (tmp_path / "ward.yaml").write_text(yaml.safe_dump(content))
        if allowed:
            policies.load(tmp_path / "ward.yaml")
        else:
            with pytest.raises(PolicyError, match=r"data\.columns\.note"):
                policies.load(tmp_path / "ward.yaml")


NAMED = ["scrub.operator", "privacy.unit", "release.approval", "release.four_eyes", "release.inconclusive"]


@pytest.mark.parametrize("key", NAMED)
def test_named_values_go_one_way(tmp_path, key):
    (tmp_path / "tight.yaml").write_text(yaml.safe_dump({"extends": "base", "name": "tight", **nested(key, MOVES[key][0])}))
    loose = leaves(HOUSE.model_dump(mode="json"))[key]
    (tmp_path / "ward.yaml").write_text(yaml.safe_dump({"extends": "tight.yaml", "name": "ward", **nested(key, loose)}))
    with pytest.raises(PolicyError, match=key):
        policies.load(tmp_path / "ward.yaml")


def test_free_keys_may_change(tmp_path):
    content = {
        "data": {"text_column": "body", "limit": 9, "max_tokens": 64, "held_out": 0.3},
        "train": {"steps": 40, "lora": {"rank": 2}},
        "privacy": {"lifetime": {"budget": "ward", "also": ["records"]}},
        "model": "elsewhere",
    }
    assert {one.direction for one in changes(HOUSE, child(tmp_path, content))} == {"free"}


GATES = [
    ({"utility": {"at_most": 0.9}}, True),
    ({"utility": {"at_most": 1.1}}, False),
    ({"scrub_recall": {"at_least": 0.95}}, True),
    ({"scrub_recall": {"at_least": 0.8}}, False),
    ({"epsilon_bound": {"judge": "high"}}, True),
    ({"utility": {"judge": "value"}}, False),
    ({"scrub_recall": {"judge": "value"}}, False),
    ({"utility": {"waivable": False}}, True),
    ({"membership": {"waivable": True}}, False),
    ({"membership": {"figure": "privacy.epsilon"}}, False),
    ({"membership": {"why": "Because we say so.", "owner": "someone else"}}, True),
    ({"epsilon_spent": {"at_most": 7}}, True),
    ({"epsilon_spent": {"at_most": 9}}, False),
    ({"more": {"figure": "x.y", "at_most": 1, "why": "One more rule.", "owner": "someone"}}, True),
]


@pytest.mark.parametrize(("gates", "allowed"), GATES)
def test_gates_only_tighten(tmp_path, gates, allowed):
    if allowed:
        child(tmp_path, {"gates": gates})
    else:
        with pytest.raises(PolicyError, match=rf"gates\.{next(iter(gates))}\."):
            child(tmp_path, {"gates": gates})


def test_a_gate_that_follows_the_promise_is_compared_by_its_number(tmp_path):
    (tmp_path / "fixed.yaml").write_text("extends: base\nname: fixed\ngates: {epsilon_spent: {at_most: 4}}\n")
    (tmp_path / "ward.yaml").write_text(
        yaml.safe_dump({"extends": "fixed.yaml", "name": "ward", "gates": {"epsilon_spent": {"at_most": "privacy.epsilon"}}})
    )
    with pytest.raises(PolicyError, match=r"gates\.epsilon_spent\.at_most"):
        policies.load(tmp_path / "ward.yaml")


@pytest.mark.parametrize(("old", "new"), [("auto", 1e-9), (1e-5, "auto")])
def test_what_cannot_be_compared_is_refused(tmp_path, old, new):
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"extends": "base", "name": "one", "privacy": {"delta": old}}))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"extends": "one.yaml", "name": "two", "privacy": {"delta": new}}))
    with pytest.raises(PolicyError, match=r"privacy\.delta is .* cannot be compared"):
        policies.load(tmp_path / "two.yaml")


def test_a_grandchild_is_held_to_its_parent(tmp_path):
    child(tmp_path, {"privacy": {"epsilon": 4}})
    (tmp_path / "bed.yaml").write_text("extends: ward.yaml\nname: bed\nprivacy: {epsilon: 5}\n")  # below the house's 8
    with pytest.raises(PolicyError, match=r"privacy\.epsilon is 5.0, which is looser than the 4.0"):
        policies.load(tmp_path / "bed.yaml")


def test_starting_values_may_be_changed_in_any_direction(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: base\nname: own\nprivacy: {epsilon: 20}\nretention: {raw_days: null}\n")
    assert policies.load(tmp_path / "own.yaml").privacy.epsilon == 20


@pytest.mark.parametrize("name", ["gdpr", "hipaa-safe-harbor", "strict"])
def test_presets_are_tighter_than_the_default(name):
    found = changes(policies.load("default"), policies.load(name))
    loose = [one.key for one in found if one.direction in ("looser", "incomparable")]
    allowed = {
        "gdpr": ["privacy.lifetime.delta"],  # a δ for people, of whom there are fewer
        "hipaa-safe-harbor": ["scrub.entities"],  # doses and diagnoses stay: they are what a clinical model learns
    }
    assert loose == allowed.get(name, [])


def test_a_policy_that_goes_by_the_name_of_a_preset_is_as_tight(tmp_path):
    path = tmp_path / "ours.yaml"
    for text, laxer in [
        ("extends: base\nname: strict\nprivacy: {epsilon: 50}", True),
        ("extends: default\nname: strict", True),
        ("extends: strict\nprivacy: {epsilon: 1}", False),
        ("extends: base\nname: ours\nprivacy: {epsilon: 50}", False),
        ("extends: base\nprivacy: {epsilon: 50}", False),  # base promises nothing
    ]:
        path.write_text(text)
        if laxer:
            with pytest.raises(PolicyError, match="as a preset is"):
                check_name(policies.load(path))
            assert cli.main(["policy", "check", str(path)]) == 2
            assert cli.main(["plan", "--policy", str(path), "--home", str(tmp_path / "home")]) == 2
        else:
            check_name(policies.load(path))


@pytest.mark.parametrize("name", policies.presets())
def test_presets_go_by_their_own_name(name):
    check_name(policies.load(name))


def test_the_diff_says_which_way(capsys):
    assert cli.main(["policy", "diff", "strict", "default"]) == 0
    out = capsys.readouterr().out
    assert "privacy.epsilon: 3.0 → 8.0, LOOSER: how much one run may reveal about a unit" in out
    assert 'name: "strict" → "default", changes no protection' in out
