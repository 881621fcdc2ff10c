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
from pipeline.canaries import Manifest, Planted, design, load_manifest, plant, planted_records
from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.errors import InputError, IntegrityError
from pipeline.folders import digest_file
from pipeline.policy import Canaries, Policy
from pipeline.scrub import Scrubbed, load
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
    train = list(load_records(planted.folder / "train.jsonl"))
    for canary in sealed.canaries:
        mine = [record for record in train if record.unit == canary.id]
        assert len(mine) == (canary.copies if canary.included else 0)
        assert all(record.parts[0].text == canary.text for record in mine)
    assert len({record.id for record in train}) == len(train)
    assert planted.secrets == len(sealed.canaries) == 40 + 3 * 3
    assert planted.secrets_included == sum(canary.included for canary in sealed.canaries)
    held = {record.unit for record in load_records(planted.folder / "held_out.jsonl")}
    assert not any(canary.id in held for canary in sealed.canaries)


def test_copies_are_units_of_their_own_unless_a_person_is_the_unit(base: models.Base, tmp_path: Path) -> None:
    """Whatever the coins, the same number of units is counted: n, and with it q and σ, must not tell them."""
    for unit, units in (("record", 40 + 3 * (1 + 4 + 16)), ("person", 40 + 9)):
        planted = plant(scrubbed(tmp_path / f"s{unit}"), base, small(unit), tmp_path / unit)
        sealed = load_manifest(planted)
        records = planted_records(sealed)
        assert planted.canaries == units == sealed.units(unit)
        assert planted.included == (len(records) if unit == "record" else len({record.unit for record in records}))


def test_the_scrubber_leaves_every_random_canary_and_would_change_the_personal_ones(base: models.Base, tmp_path: Path) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small(), tmp_path / "p")
    sealed, detector = load_manifest(planted), load(small().scrub)
    assert sealed.scrubber == detector.name
    assert not any(detector.find([canary.text for canary in sealed.of("random")]))
    personal = detector.find([canary.text for canary in sealed.of("personal")])
    assert sum(map(bool, personal)) > len(personal) / 2  # the control: what a miss would look like is what it looks for


def test_what_the_scrubber_would_change_is_drawn_again_and_keeps_its_secret() -> None:
    """Secrets stay uniform: only the prefix is drawn again, so that a p-value of a rank stays exact."""
    picky = lambda texts: [not (text.startswith(" ba") and len(text) > 12) for text in texts]  # noqa: E731
    texts, firsts = [], []
    for seed in range(20):
        made = design(SMALL, tiny.tokenizer(), "t", 0.05, random.Random(seed), picky)
        texts += [canary.text for canary in made.of("random")]
        firsts += [canary.choice[0] for canary in made.of("random")]
    assert not any(text.startswith(" ba") for text in texts)
    assert any(canary.text.startswith(" ba") for canary in manifest().of("random"))  # the control
    assert stats.chisquare([firsts.count(i) for i in range(18)]).pvalue > 1e-3


def test_a_tokenizer_without_one_token_words_still_gets_canaries() -> None:
    wide = Canaries(count=40, alphabet=128, guesses=20, repeated=2)
    made = design(wide, tiny.tokenizer(), "t", 0.05, random.Random(0))
    assert made.spaces["random"].alphabet is None
    assert made.spaces["random"].size == 128**3
    for canary in made.canaries:
        ids = tuple(tiny.tokenizer()(canary.text)["input_ids"])
        assert ids[: len(canary.prefix) + len(canary.secret)] == (*canary.prefix, *canary.secret)
        assert canary.secret == made.spaces[canary.family].secret(canary.choice)


@pytest.mark.parametrize("preset", ["small", "standard", "strong"])
def test_a_preset_sets_how_many_and_a_key_overrides_it(preset: str) -> None:
    chosen = Canaries(preset=preset)  # type: ignore[arg-type]
    assert (chosen.count, chosen.guesses, chosen.repeated) == {
        "small": (64, 64, 8), "standard": (256, 128, 12), "strong": (1000, 500, 24)
    }[preset]  # fmt: skip
    assert Canaries(preset=preset, repeated=0).repeated == 0  # type: ignore[arg-type]
    again = Canaries.model_validate(chosen.model_dump())
    assert again == chosen


def test_people_are_wholly_in_or_wholly_out_where_they_are_the_unit(base: models.Base, tmp_path: Path) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small("person"), tmp_path / "p")
    train = list(load_records(planted.folder / "train.jsonl"))
    held = list(load_records(planted.folder / "held_out.jsonl"))
    assert not {record.unit for record in train} & {record.unit for record in held}
    assert planted.held_out_units == 4
    assert planted.held_out_records == len(held) == 12
    assert len(train) == planted.train_records == 60 - 12 + len(planted_records(load_manifest(planted)))
    assert planted.train_units == 16 + 40 + 9  # all canaries count, or n would follow from their coins


def test_records_are_held_out_by_chance_where_they_are_the_unit(base: models.Base, tmp_path: Path) -> None:
    """Members and non-members then differ by chance alone, or a membership attack would only find the person's style."""
    planted = plant(scrubbed(tmp_path / "s"), base, small("record"), tmp_path / "p")
    train = {record.id for record in load_records(planted.folder / "train.jsonl")}
    held = list(load_records(planted.folder / "held_out.jsonl"))
    assert not train & {record.id for record in held}
    assert len(held) == planted.held_out_units == planted.held_out_records == 12
    assert len(train) == planted.train_records == 48 + planted.included
    assert planted.train_units == 48 + 40 + 3 * 21
    assert len({record.unit for record in held}) > 4


def test_coins_are_fair_and_independent_of_the_secrets() -> None:
    chance = random.Random(7)
    coins = [c.included for _ in range(15) for c in design(SMALL, tiny.tokenizer(), "t", 0.05, chance).canaries]
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
    space = made.spaces["random"]
    assert space.size == 18**4 >= 100_000
    for canary in made.canaries[:5]:
        other = space.secret([chance.randrange(18) for _ in range(4)])
        for secret in (canary.secret, other):
            text = tiny.tokenizer().decode([*canary.prefix, *secret])
            assert tuple(tiny.tokenizer()(text)["input_ids"]) == (*canary.prefix, *secret)
        assert canary.secret == space.secret(canary.choice)


@pytest.mark.parametrize("edit", ["coin", "guesses", "alpha", "seed", "garbage"])
def test_a_manifest_changed_after_sealing_is_refused(base: models.Base, tmp_path: Path, edit: str) -> None:
    planted = plant(scrubbed(tmp_path / "s"), base, small(), tmp_path / "p")
    path = planted.folder / "manifest.json"
    content = json.loads(path.read_text())
    if edit == "coin":
        content["canaries"][3]["included"] = not content["canaries"][3]["included"]
    elif edit == "garbage":
        content = {}
    else:
        content[edit] = {"guesses": 18, "alpha": 0.5, "seed": "0" * 64}[edit]
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
