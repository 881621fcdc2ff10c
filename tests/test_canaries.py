"""Canaries: planted exactly as the coins fell, random, readable by the tokenizer, and sealed."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline import models, policy
from pipeline.canaries import Manifest, Planted, design, load_manifest, plant
from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.errors import InputError, IntegrityError, ModelError
from pipeline.folders import digest_file
from pipeline.policy import Canaries, Policy
from pipeline.scrub import Scrubbed
from tests import tiny

SMALL = Canaries(count=40, prefix_tokens=4, secret_tokens=4, alphabet=18, guesses=20, repeated=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    return models.resolve(str(tiny.save(tmp_path_factory.mktemp("models") / "tiny")), Path("nowhere"))


def small(unit: str = "record") -> Policy:
    chosen = policy.load("default").override(privacy__unit=unit, data__held_out=0.2)
    return chosen.model_copy(update={"canaries": SMALL})


def scrubbed(folder: Path, units: int = 20, records: int = 60, prefix: str = "u") -> Scrubbed:
    folder.mkdir()
    made = (Record(f"r{i}", f"{prefix}{i % units}", (Part("text", tiny.sentence(i, 6)),)) for i in range(records))
    save_records(folder / "records.jsonl", made)
    return Scrubbed(
        folder=folder,
        records=records,
        changed=0,
        entities={},
        detector="default",
        operator="placeholder",
        digest=digest_file(folder / "records.jsonl"),
        recall=(),
        seconds=0.0,
    )


def manifest(seed: int = 0) -> Manifest:
    return design(SMALL, tiny.tokenizer(), "t", 0.05, random.Random(seed))


def test_the_planted_canaries_are_those_that_the_coins_chose(base: models.Base, tmp_path: Path) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small(), tmp_path / "p")
    sealed = load_manifest(planted)
    texts = {record.id: record.parts[0].text for record in load_records(planted.folder / "train.jsonl")}
    for canary in sealed.canaries:
        assert (texts.get(canary.id) == canary.text) == canary.included
        assert (canary.id in texts) == canary.included
    assert planted.included == sum(canary.included for canary in sealed.canaries)
    held = {record.id for record in load_records(planted.folder / "held_out.jsonl")}
    assert not any(canary.id in held for canary in sealed.canaries)


def test_people_are_wholly_in_or_wholly_out_where_they_are_the_unit(base: models.Base, tmp_path: Path) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small("person"), tmp_path / "p")
    train = list(load_records(planted.folder / "train.jsonl"))
    held = list(load_records(planted.folder / "held_out.jsonl"))
    assert not {record.unit for record in train} & {record.unit for record in held}
    assert planted.held_out_units == 4
    assert planted.held_out_records == len(held) == 12
    assert len(train) == planted.train_records == 60 - 12 + planted.included
    assert planted.train_units == 16 + 40  # all canaries count, or n would follow from their coins


def test_records_are_held_out_by_chance_where_they_are_the_unit(base: models.Base, tmp_path: Path) -> None:
    """Members and non-members then differ by chance alone, or a membership attack would only find the person's style."""
    planted = plant(scrubbed(tmp_path / "s"), base, small("record"), tmp_path / "p")
    train = {record.id for record in load_records(planted.folder / "train.jsonl")}
    held = list(load_records(planted.folder / "held_out.jsonl"))
    assert not train & {record.id for record in held}
    assert len(held) == planted.held_out_units == planted.held_out_records == 12
    assert len(train) == planted.train_records == 48 + planted.included
    assert planted.train_units == 48 + 40
    assert len({record.unit for record in held}) > 4


def test_coins_are_fair_and_independent_of_the_secrets() -> None:
    chance = random.Random(7)
    coins = [c.included for _ in range(40) for c in design(SMALL, tiny.tokenizer(), "t", 0.05, chance).canaries]
    assert stats.binomtest(sum(coins), len(coins), 0.5).pvalue > 1e-3
    runs = sum(a != b for a, b in itertools.pairwise(coins))
    assert stats.binomtest(runs, len(coins) - 1, 0.5).pvalue > 1e-3


def test_two_plantings_of_the_same_data_differ(base: models.Base, tmp_path: Path) -> None:
    source = scrubbed(tmp_path / "s")
    first = load_manifest(plant(source, base, small(), tmp_path / "a"))
    second = load_manifest(plant(source, base, small(), tmp_path / "b"))
    assert {c.text for c in first.canaries}.isdisjoint(c.text for c in second.canaries)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_every_canary_and_every_candidate_reads_back_as_its_own_tokens(seed: int) -> None:
    made = manifest(seed)
    chance = random.Random(seed)
    assert made.space_size == 18**4 >= 100_000
    for canary in made.canaries[:5]:
        other = tuple(chance.choice(candidates) for candidates in made.alphabet)
        for secret in (canary.secret, other):
            text = tiny.tokenizer().decode([*canary.prefix, *secret])
            assert tuple(tiny.tokenizer()(text)["input_ids"]) == (*canary.prefix, *secret)
        assert all(token in candidates for token, candidates in zip(canary.secret, made.alphabet, strict=True))


@pytest.mark.parametrize("edit", ["coin", "guesses", "alpha", "garbage"])
def test_a_manifest_changed_after_sealing_is_refused(base: models.Base, tmp_path: Path, edit: str) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small(), tmp_path / "p")
    path = planted.folder / "manifest.json"
    content = json.loads(path.read_text())
    if edit == "coin":
        content["canaries"][3]["included"] = not content["canaries"][3]["included"]
    elif edit == "garbage":
        content = {}
    else:
        content[edit] = {"guesses": 18, "alpha": 0.5}[edit]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        load_manifest(planted)


def test_a_finished_planting_is_kept_so_that_coins_are_flipped_once(base: models.Base, tmp_path: Path) -> None:
    source = scrubbed(tmp_path / "s")
    first = plant(source, base, small(), tmp_path / "p")
    assert plant(source, base, small(), tmp_path / "p") == first
    assert isinstance(first, Planted)


def test_unfit_data_and_tokenizers_are_refused(base: models.Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few to keep a share"):
        plant(scrubbed(tmp_path / "s", units=2), base, small("person"), tmp_path / "p")
    with pytest.raises(InputError, match="rename them"):
        plant(scrubbed(tmp_path / "t", prefix="hushtune-canary-"), base, small(), tmp_path / "p")
    wide = Canaries(count=40, alphabet=128, guesses=20)
    with pytest.raises(ModelError, match="plain one-token words"):
        design(wide, tiny.tokenizer(), "t", 0.05, random.Random(0))
