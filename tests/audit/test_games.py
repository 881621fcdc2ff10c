"""The games on a model that learned five values by heart, on one that never saw them, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipeline.audit import games, removed
from pipeline.audit.games import Outcome
from pipeline.audit.removed import Removed
from pipeline.audit.scoring import parts
from pipeline.corpus import Part, Record
from pipeline.train.examples import encode
from tests import tiny
from tests.audit.test_removed import corpus

TRAINED, HELD_OUT = 5, 24


def name_of(index: int) -> str:
    return f"{tiny.words()[index]} {tiny.words()[40 + index]}"


def text_of(index: int) -> str:
    return f"{tiny.sentence(index, 6)} name [{name_of(index)}] {tiny.sentence(500 + index, 3)}"


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Removed:
    texts = {f"r{i}": text_of(i) for i in range(TRAINED + HELD_OUT)}
    ids = list(texts)
    sources = corpus(tmp_path_factory.mktemp("corpus"), texts)
    rng = np.random.default_rng(0)
    return removed.gather(*sources, ids[:TRAINED], ids[TRAINED:], rng, by_person=False)


@pytest.fixture(scope="module")
def leaky(values: Removed) -> torch.nn.Module:
    """A model overfitted on the five originals, as if nothing had been scrubbed."""
    records = [
        Record(v.record.id, v.record.id, (Part("text", v.record.parts[0].text.replace("<PERSON>", v.text)),))
        for v in values.trained
    ]
    examples = encode(records, tiny.tokenizer(), 64)
    ids = torch.tensor([example.input_ids for example in examples])
    model = tiny.llama(layers=1).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model.eval()


def played(model: torch.nn.Module, values: Removed, count: int = 20) -> tuple[list[list[Outcome]], float]:
    return games.play(model, games.targets(values, tiny.tokenizer(), 64, count, np.random.default_rng(1)))


def test_targets_are_placed_where_their_tokens_stand(values: Removed) -> None:
    trained, held_out = games.targets(values, tiny.tokenizer(), 64, 20, np.random.default_rng(1))
    assert (len(trained), len(held_out)) == (TRAINED, 20)
    for target in (*trained, *held_out):
        before = target.value.record.parts[0].text[: target.value.cut]
        decoded = tiny.tokenizer().decode(target.packed.context[1:])
        assert before.startswith(decoded)
        assert before[len(decoded) :].strip() == ""
        candidates = [tiny.tokenizer().decode(ids).strip() for ids in target.packed.candidates]
        assert candidates[0] == target.value.text
        assert len(set(candidates)) == len(candidates) == HELD_OUT  # the pool, or the pool's others and itself
        assert set(candidates[1:]) <= {value.text for value in values.held_out}
        assert target.barred is not None
        assert " <PERSON>".startswith(tiny.tokenizer().decode([target.barred]))


def test_values_beyond_what_was_trained_on_are_not_played(values: Removed) -> None:
    assert games.targets(values, tiny.tokenizer(), 12, 20, np.random.default_rng(1)) == [[], []]


def test_values_with_too_few_rivals_are_not_played(values: Removed) -> None:
    few = Removed(values.trained, values.held_out[:10], values.everything, values.left)
    assert games.targets(few, tiny.tokenizer(), 64, 20, np.random.default_rng(1)) == [[], []]


def test_a_model_that_knows_the_values_loses_both_games(values: Removed, leaky: torch.nn.Module) -> None:
    (trained, held_out), error = played(leaky, values)
    assert error < 1e-3
    assert all(one.reconstructed and one.rank == 1 for one in trained)
    assert not any(one.reconstructed for one in held_out)
    figures, series = games.figures([trained, held_out], error, 0.05)
    named = {figure.name: figure for figure in figures}
    for game in ("reconstruction", "inference"):
        assert named[f"games.{game}"].value == 1
        assert named[f"games.{game}_excess"].low > 0.4
        assert all(named[f"games.{game}"].conditions.values())
    assert series["games.reconstruction.PERSON"] == [5.0, 5.0, 0.0, 20.0]


def test_a_model_that_never_saw_them_shows_nothing(values: Removed) -> None:
    sides, error = played(tiny.llama(layers=1), values)
    named = {figure.name: figure for figure in games.figures(sides, error, 0.05)[0]}
    assert named["games.reconstruction"].value == named["games.reconstruction_control"].value == 0
    assert named["games.reconstruction"].high == pytest.approx(1 - 0.05 ** (1 / 5))
    assert named["games.inference_excess"].low <= 0


def test_a_rank_counts_the_likelier_ones_and_ties(values: Removed) -> None:
    model = tiny.llama(layers=1)
    for target, outcome in zip(
        games.targets(values, tiny.tokenizer(), 64, 3, np.random.default_rng(1))[1], played(model, values, 3)[0][1], strict=True
    ):
        totals, _ = target.packed.run(*parts(model))
        assert outcome.rank == sum(total >= totals[0] for total in totals)
        assert outcome.candidates == len(totals)


def test_wrong_packing_voids_the_figures(values: Removed) -> None:
    sides, _ = played(tiny.llama(layers=1), values, 2)
    for error in (0.1, np.nan):
        assert not any(figure.conditions["packed_equals_plain_scoring"] for figure in games.figures(sides, error, 0.05)[0])


def test_free_texts_are_searched_for_both_sides_values(values: Removed) -> None:
    mine, other = values.trained[0], values.held_out[0]
    texts = [f"well, {mine.text}!", f"{mine.text} and {other.text}", mine.text[:-1], "nothing"]
    figures, series, found = games.sampled(values, texts, 0.05)
    named = {figure.name: figure for figure in figures}
    assert (named["games.sampling"].value, named["games.sampling"].n) == (1 / TRAINED, TRAINED)
    assert named["games.sampling_control"].value == 1 / HELD_OUT
    assert named["games.sampling_excess"].value == pytest.approx(1 / TRAINED - 1 / HELD_OUT)
    assert named["games.sampling_recall"].value == 1 / TRAINED
    assert (named["games.sampling_precision"].value, named["games.sampling_precision"].n) == (0.5, 2)
    assert series == {"games.sampling.PERSON": [1.0, 5.0, 1.0, 24.0]}
    assert found == [mine]
    silent = {figure.name for figure in games.sampled(values, [], 0.05)[0]}
    assert "games.sampling_precision" not in silent


def test_findings_name_places_and_hold_no_text(values: Removed, leaky: torch.nn.Module) -> None:
    left = Removed(values.trained, values.held_out, values.everything, dict(list(values.everything.items())[:1]))
    outcomes = played(leaky, values)[0][0]
    rows = games.findings(left, values.trained[:2], outcomes)
    counts = {game: sum(row["game"] == game for row in rows) for game in ("left_in_training", "sampling", "reconstruction")}
    assert counts == {"left_in_training": 1, "sampling": 2, "reconstruction": 5}
    written = json.dumps(rows)
    assert not any(word in written for value in values.everything.values() for word in value.phrase)
    original = {value.record.id: value for value in values.trained}
    for row in rows:
        value = original[row["id"]]  # type: ignore[index]
        assert (row["start"], row["end"], row["entity"]) == (value.start, value.end, "PERSON")


def test_nothing_removed_is_nothing_played() -> None:
    sides, error = games.play(tiny.llama(), games.targets(Removed(), tiny.tokenizer(), 64, 5, np.random.default_rng(0)))
    assert games.figures(sides, error, 0.05) == ([], {})
    assert games.sampled(Removed(), ["text"], 0.05) == ([], {}, [])
