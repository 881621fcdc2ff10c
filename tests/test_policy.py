"""Policies: resolution, refusal of what is unknown or out of range, digests, the published schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import policy
from pipeline.errors import InputError, PolicyError

ROOT = Path(__file__).parents[1]


def write(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", policy.presets())
def test_every_preset_resolves_and_says_who_answers_for_each_gate(name: str) -> None:
    chosen = policy.load(name)
    assert chosen.name == name
    assert all(gate.owner and gate.why for gate in chosen.gates.values())


def test_presets_promise_what_their_names_say() -> None:
    loaded = {name: policy.load(name) for name in policy.presets()}
    assert set(loaded) == {"base", "default", "gdpr", "hipaa-safe-harbor", "strict"}
    assert loaded["default"].privacy.epsilon == 8
    assert loaded["strict"].privacy.epsilon < loaded["gdpr"].privacy.epsilon < loaded["default"].privacy.epsilon
    for name in ("gdpr", "hipaa-safe-harbor", "strict"):
        assert loaded[name].privacy.unit == "person"
        assert loaded[name].release.approval == "required"


@pytest.mark.parametrize("name", policy.presets())
def test_no_gate_is_looser_than_the_epsilon_it_guards(name: str) -> None:
    chosen = policy.load(name)
    assert chosen.gates["epsilon_spent"].at_most == "privacy.epsilon"
    assert chosen.gates["epsilon_bound"].at_most == (2.0 if name == "strict" else 2.5)
    assert chosen.gates["epsilon_bound"].at_most < chosen.privacy.epsilon


@pytest.mark.parametrize("name", policy.presets())
def test_records_and_people_have_budgets_of_their_own(name: str) -> None:
    privacy = policy.load(name).privacy
    assert privacy.lifetime.budget == {"record": "records", "person": "people"}[privacy.unit]


@pytest.mark.parametrize("name", policy.presets())
def test_gates_judge_the_bound_that_is_against_the_release(name: str) -> None:
    gates = policy.load(name).gates
    assert (gates["membership"].judge, gates["utility"].judge, gates["scrub_recall"].judge) == ("high", "high", "low")


@given(st.integers(1, 10**7), st.floats(1e-9, 9e-4))
def test_a_lifetime_delta_of_one_in_n_or_more_is_refused(units: int, delta: float) -> None:
    lifetime = policy.Lifetime(epsilon=8, delta=delta)
    if delta * units < 1 - 1e-9:
        lifetime.check(units)
    elif delta * units > 1 + 1e-9:
        with pytest.raises(InputError, match=rf"must be below 1/n = .* for {units:,} units: lower it\.$"):
            lifetime.check(units)


def test_the_presets_lifetime_delta_bears_twenty_thousand_records() -> None:
    lifetime = policy.load("default").privacy.lifetime
    lifetime.check(19_999)
    with pytest.raises(InputError, match=r"privacy\.lifetime\.delta is 5e-05"):
        lifetime.check(20_000)


def test_a_child_says_only_what_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: gdpr\nname: own\nprivacy: {epsilon: 2.5}\n")
    chosen, parent = policy.load(path), policy.load("gdpr")
    assert chosen.privacy.epsilon == 2.5
    assert chosen.privacy.unit == "person"
    assert chosen.model_copy(update={"name": "gdpr", "privacy": parent.privacy}) == parent
    assert chosen.digest != parent.digest


def test_a_parent_may_be_a_file_beside_the_child(tmp_path: Path) -> None:
    write(tmp_path, "extends: default\nname: house\ntrain: {steps: 7}\n", "house.yaml")
    path = write(tmp_path, "extends: house.yaml\nname: own\n")
    assert policy.load(path).train.steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: default\nprivcy: {epsilon: 3}\n", "the key privcy is unknown"),
        ("extends: default\nprivacy: {epsilon: 0}\n", "privacy.epsilon should be greater than 0"),
        ("extends: default\nprivacy: {epsilon: many}\n", "privacy.epsilon should be a valid number"),
        ("extends: default\nprivacy: {delta: 0.5}\n", "privacy.delta"),
        ("extends: default\ncanaries: {guesses: 500}\n", "guesses"),
        ("extends: default\ncanaries: {alphabet: 10}\n", "at least 100000"),
        ("extends: default\ngates: {utility: {figure: x, at_least: 3}}\n", "exactly one of at_most and at_least"),
        ("extends: default\ngates: {utility: {at_most: .inf}}\n", "finite number"),
        ("extends: default\ngates: {utility: {at_most: train.steps}}\n", "gates.utility.at_most"),
        ("extends: default\ndata: {unit_pattern: '('}\n", "not a regular expression"),
        ("extends: default\n\tname: x\n", "not valid YAML (line 2)"),
        ("extends: nobody\n", "no policy named nobody"),
        ("extends: own.yaml\n", "extends itself"),
        ("extends: [a, b]\n", "one policy"),
        ("name: own\n", "the key description is missing"),
        ("- a\n", "must hold keys and values"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_sentence_that_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.load(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_key_that_is_said_twice_is_refused(tmp_path: Path) -> None:
    """YAML would take the last without a word, and a reader the first."""
    path = tmp_path / "ours.yaml"
    path.write_text("extends: default\nprivacy:\n  epsilon: 1\n  epsilon: 8\n")
    with pytest.raises(PolicyError, match=r"says a key twice \(line 4\)"):
        policy.load(path)
    path.write_text("extends: default\nprivacy:\n  epsilon: 1\n  lifetime: {epsilon: 8}\n")
    assert policy.load(path).privacy.epsilon == 1


@pytest.mark.parametrize(
    "text",
    [
        "privacy: {lifetime: {epsilon: .inf}}",
        "privacy: {lifetime: {epsilon: .nan}}",
        "privacy: {epsilon: .nan}",
        "train: {clipping_norm: .inf}",
        "gates: {a/../../b: {figure: x.y, at_most: 1, why: Because of it., owner: nobody}}",
        "name: !!python/name:os.system",
    ],
)
def test_no_limit_is_endless_and_no_name_is_a_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(f"extends: base\n{text}\n")
    with pytest.raises(PolicyError):
        policy.load(path)


def test_a_missing_policy_names_those_there_are() -> None:
    with pytest.raises(PolicyError, match="choose one of base, default"):
        policy.load("nowhere")
    with pytest.raises(PolicyError, match="does not exist"):
        policy.load("nowhere.yaml")


def test_flags_become_part_of_the_policy_and_its_digest() -> None:
    plain = policy.load("default")
    changed = plain.override(data__text_column="body", model=None)
    assert changed.data.text_column == "body"
    assert changed.model == "nano"
    assert changed.digest != plain.digest
    assert plain.override(data__limit=None).digest == plain.digest
    with pytest.raises(PolicyError, match=r"data\.limit"):
        plain.override(data__limit=0)


@given(st.floats(0.01, 50), st.integers(1, 10_000))
def test_the_digest_depends_on_every_value_and_on_nothing_else(epsilon: float, steps: int) -> None:
    chosen = policy.load("default").override(privacy__epsilon=epsilon, train__steps=steps)
    again = policy.Policy.model_validate_json(chosen.model_dump_json())
    assert again.digest == chosen.digest
    assert again == chosen


def test_a_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy.load("default").privacy.epsilon = 100  # type: ignore[misc]


def test_the_published_schema_is_the_models_own() -> None:
    published = json.loads((ROOT / "policies" / "policy.schema.json").read_text())
    assert published == json.loads(json.dumps(policy.schema())), "run: hushtune policy schema > policies/policy.schema.json"
    for name in policy.presets():
        keys = yaml.safe_load((ROOT / "policies" / f"{name}.yaml").read_text())
        assert set(keys) <= set(published["properties"])
