"""The draw of members and non-members: repeated texts, units and the size of the lot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.audit import records
from pipeline.canaries import Manifest, Planted
from pipeline.corpus import Part, Record, save_records


def drawn(folder: Path, train: str, held_out: str, *, by_person: bool = False, most: int = 999) -> records.Drawn:
    """A draw from records given as words "unit:text", such as "u1:hello"; `|` parts a text."""
    for name, words in (("train", train), ("held_out", held_out)):
        pairs = [word.split(":") for word in words.split()]
        made = (
            Record(f"{name}{i}", unit, tuple(Part("text", part) for part in text.split("|")))
            for i, (unit, text) in enumerate(pairs)
        )
        save_records(folder / f"{name}.jsonl", made)
    planted = Planted.model_construct(folder=folder)
    manifest = Manifest(tokenizer="", spaces={}, canaries=(), guesses=1, alpha=0.05, seed="0" * 64, scrubber="none")
    rng = np.random.default_rng(0)
    return records.draw(planted, manifest, most, most, rng, by_person=by_person)


def texts_of(side: list[Record]) -> list[str]:
    return sorted("|".join(part.text for part in record.parts) for record in side)


def test_a_text_that_was_trained_on_is_no_non_member(tmp_path: Path) -> None:
    found = drawn(tmp_path, "u1:a u2:b u3:b u4:c u5:e|f", "u6:a u7:d u8:g u9:g u10:e u11:e|f")
    assert texts_of(found.members) == ["c"]
    assert texts_of(found.held_out) == ["d", "e"]
    assert found.repeated == 8
    assert found.real_units == 5


def test_a_text_that_one_person_repeats_is_drawn_once(tmp_path: Path) -> None:
    found = drawn(tmp_path, "u1:a u1:a u1:b u2:c", "u3:d u3:d", by_person=True)
    assert texts_of(found.members) == ["a", "b", "c"]
    assert texts_of(found.held_out) == ["d"]
    assert found.repeated == 2
    assert found.real_units == 2


def test_leaving_repeated_texts_out_keeps_the_split_by_chance(tmp_path: Path) -> None:
    """A boilerplate text stands on both sides of almost every split; kept on one of them it would tell that side."""
    rng = np.random.default_rng(0)
    texts = [f"boiler{i % 20}" if i % 2 else f"own{i}" for i in range(400)]
    sides = rng.random(400) < 0.6
    words = [" ".join(f"u{i}:{texts[i]}" for i in np.flatnonzero(sides == side)) for side in (True, False)]
    found = drawn(tmp_path, *words)
    assert all(text.startswith("own") for text in texts_of(found.members) + texts_of(found.held_out))
    assert len(found.members) + len(found.held_out) == 200 == found.repeated


def test_a_lot_is_no_larger_than_asked_for_and_spares_nobody(tmp_path: Path) -> None:
    words = " ".join(f"u{i}:t{i}" for i in range(40)), " ".join(f"v{i}:s{i}" for i in range(40))
    few = drawn(tmp_path, *words, most=10)
    assert len(few.members) == len(few.held_out) == 10
    assert few.repeated == 0
    assert len(drawn(tmp_path, *words).members) == 40
