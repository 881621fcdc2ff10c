"""Membership signals against a direct full softmax in float64, a naive double loop, and their definitions."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit import members, membership, signals
from pipeline.audit.membership import Sample, auc
from pipeline.audit.scoring import FIRST, MEAN, SAMPLED, SPREAD, TOP_K, Scores, Sequenced, moments, read, score
from pipeline.corpus import Part, Record
from pipeline.train.examples import encode
from tests import tiny


def distributions(model: torch.nn.Module, ids: tuple[int, ...]) -> np.ndarray:
    """Log-probabilities over the vocabulary before each token but the first, float64 [T − 1, V]."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1).numpy()


def sequences(count: int, seed: int = 0) -> list[Sequenced]:
    rng = np.random.default_rng(seed)
    return [Sequenced((0, *rng.integers(2, len(tiny.tokenizer()), rng.integers(4, 30)).tolist()), 1) for _ in range(count)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_details_agree_with_a_direct_softmax(family: str) -> None:
    model, records = tiny.FAMILIES[family](), sequences(9)
    found = score(model, records, budget=60, detailed=True)
    for record, details in zip(records, found.details, strict=True):
        log_p = distributions(model, record.input_ids)
        target = np.array(record.input_ids[1:])
        chosen = log_p[np.arange(len(target)), target]
        mean = (np.exp(log_p) * log_p).sum(1)
        spread = np.sqrt((np.exp(log_p) * (log_p - mean[:, None]) ** 2).sum(1))
        least = np.sort(log_p, axis=1)[:, -TOP_K]
        kept = np.log(np.exp(np.sort(log_p, axis=1)[:, -TOP_K:]).sum(1))
        assert details[:, MEAN] == pytest.approx(mean, abs=1e-4)
        assert details[:, SPREAD] == pytest.approx(spread, abs=1e-4)
        assert (details[:, FIRST] == (log_p.argmax(1) == target)).all()
        assert details[:, SAMPLED] == pytest.approx(np.where(chosen >= least, chosen - kept, -np.inf), abs=1e-4)


def test_details_agree_with_float64_to_a_millionth_where_the_logits_are_exact() -> None:
    """The model's own rounding left out: an identity head hands over the logits as they are."""
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(0, scale, (20, 97)) for scale in (1e-3, 1.0, 5.0, 30.0)])
    log_p = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(1, keepdims=True)
    mean, spread = (found.numpy() for found in moments(torch.tensor(log_p)))
    expected = (np.exp(log_p) * log_p).sum(1)
    assert mean == pytest.approx(expected, abs=1e-9)
    assert spread == pytest.approx(np.sqrt((np.exp(log_p) * (log_p - expected[:, None]) ** 2).sum(1)), abs=1e-9)
    head = torch.nn.Identity()
    head.weight = torch.zeros(97, 1)  # type: ignore[assignment]
    exact = np.round(logits * 64) / 64  # what fp32 holds
    target = rng.integers(0, 97, len(exact))
    found = read(head, torch.tensor(exact, dtype=torch.float32), torch.tensor(target), detailed=True).numpy()
    kept = np.sort(exact, axis=1)[:, -TOP_K:]
    chosen = exact[np.arange(len(exact)), target]
    total = kept[:, -1] + np.log(np.exp(kept - kept[:, -1:]).sum(1))
    assert found[:, 1 + SAMPLED] == pytest.approx(np.where(chosen >= kept[:, 0], chosen - total, -np.inf), abs=1e-5)


def test_min_k_plus_is_the_mean_of_the_least_normalised_tokens() -> None:
    model, records = tiny.llama(), sequences(12)
    scores = score(model, records, detailed=True)
    for record, values, details in zip(records, scores.log_probs, scores.details, strict=True):
        log_p = distributions(model, record.input_ids)
        chosen = log_p[np.arange(len(log_p)), record.input_ids[1:]]
        mean = (np.exp(log_p) * log_p).sum(1)
        each = np.sort((chosen - mean) / np.sqrt((np.exp(log_p) * (log_p - mean[:, None]) ** 2).sum(1)))
        count = max(1, int(0.2 * len(each)))
        assert signals.least(signals.normalised(values, details)) == pytest.approx(each[:count].mean(), abs=2e-4)
        exact = np.stack([np.zeros(len(mean)), mean, np.ones(len(mean)), mean], 1)
        assert signals.least(signals.normalised(chosen, exact)) == pytest.approx(
            np.sort(chosen - mean)[:count].mean(), abs=1e-9
        )
        assert signals.least(chosen) == pytest.approx(np.sort(chosen)[:count].mean(), abs=1e-12)


def test_a_token_that_the_model_is_certain_of_says_nothing() -> None:
    details = np.array([[1, -1e-9, 1e-8, 0], [0, -2.0, 1.0, -1]])
    assert signals.normalised(np.array([-1e-9, -3.0]), details).tolist() == [0.0, -1.0]
    assert signals.least(np.zeros(0)) == 0.0


def rmia_by_hand(tuned: np.ndarray, base: np.ndarray, members: int, a: float, gamma: float) -> list[float]:
    """Every record against every other record of the population, one by one."""
    ratio = [np.exp(t) / (((1 + a) * np.exp(b) + 1 - a) / 2) for t, b in zip(tuned, base, strict=True)]
    found = []
    for x in range(len(ratio)):
        others = [z for z in range(members, len(ratio)) if z != x]
        found.append(sum(ratio[x] / ratio[z] >= gamma for z in others) / len(others))
    return found


@given(st.integers(0, 2**32), st.integers(1, 15), st.integers(2, 15))
@settings(deadline=None, max_examples=60)
def test_rmia_agrees_with_a_double_loop(seed: int, members: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    tuned, base = rng.normal(-3, 1, members + others), rng.normal(-3, 1, members + others)
    expected = rmia_by_hand(tuned, base, members, signals._A, signals._GAMMA)
    assert signals.rmia(tuned, base, members) == pytest.approx(expected, abs=1e-6)


def test_rmia_gives_a_non_member_no_head_start() -> None:
    """A non-member is not compared with itself: where nothing leaks, both sides must score alike."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        values = signals.rmia(rng.normal(-3, 1, 80), rng.normal(-3, 1, 80), 40)
        areas.append(auc(values[:40], values[40:]))
    assert np.mean(areas) == pytest.approx(0.5, abs=4 * np.std(areas) / np.sqrt(200))


def test_every_attack_scores_every_record_and_members_higher_where_they_were_learned() -> None:
    model, records = tiny.llama(), sequences(20)
    tuned, base = score(model, records, detailed=True), score(tiny.llama(seed=1), records)
    better = Scores(
        tuple(values + (0.5 if row < 10 else 0) for row, values in enumerate(tuned.log_probs)), tuned.hits, tuned.details
    )
    texts = [str(record.input_ids) for record in records]
    before, after = (signals.signals(scores, base, 10, texts) for scores in (tuned, better))
    assert set(before) == set(signals.METHODS)
    for name, values in after.items():
        assert values.shape == (20,)
        assert (values[:10] >= before[name][:10] + (0 if name == "rmia" else 1e-3)).all()
    assert before["zlib"][3] == pytest.approx(tuned.totals[3] / (8 * len(zlib.compress(texts[3].encode()))))
    assert before["ratio"] == pytest.approx(tuned.means - base.means)


def drawn(seed: int, n: int, shift: float, attacks: int) -> dict[str, tuple[Sample, Sample]]:
    """Correlated scores of several attacks on the same records; the last attack sees `shift`, the others nothing."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 1, (2, n))
    made = {}
    for i in range(attacks):
        inside, outside = shared + rng.normal(0, 1, (2, n))
        unit = np.arange(n)
        made[f"a{i}"] = Sample(inside + (shift if i == attacks - 1 else 0), unit), Sample(outside, unit)
    return made


def worst(attacks: dict[str, tuple[Sample, Sample]], seed: int) -> tuple[membership.Figure, dict[str, membership.Figure]]:
    rng = np.random.default_rng(seed)
    areas = {
        name: membership.measure(name, *pair, conditions={"fine": True}, alpha=0.05, rng=rng, method="m")[0]
        for name, pair in attacks.items()
    }
    return membership.strongest(attacks, areas, alpha=0.05, rng=rng), areas


def test_the_strongest_attack_carries_the_widest_claim() -> None:
    figure, areas = worst(drawn(0, 150, 0.8, 4), 1)
    assert figure.value == max(area.value for area in areas.values()) == areas["a3"].value
    assert figure.high == max(area.high for area in areas.values())
    assert figure.low < areas["a3"].low  # wider than that of the attack alone
    assert "a3" in figure.method
    assert figure.resolvable
    assert figure.conditions == {"fine": True}
    wide = areas | {"a0": areas["a0"].model_copy(update={"high": 0.99})}  # the weakest, of which the least is known
    again = membership.strongest(drawn(0, 150, 0.8, 4), wide, alpha=0.05, rng=np.random.default_rng(1))
    assert (again.value, again.high) == (areas["a3"].value, 0.99)
    broken = areas | {"a0": areas["a0"].model_copy(update={"conditions": {"fine": False}, "resolvable": False})}
    judged = membership.strongest(drawn(0, 150, 0.8, 4), broken, alpha=0.05, rng=np.random.default_rng(1))
    assert not judged.resolvable
    assert judged.conditions == {"fine": False}


def side(texts: list[str], name: str) -> members.Side:
    """Records that the model scores by chance alone."""
    some = [Record(f"{name}{i}", f"{name}{i}", (Part("text", text),)) for i, text in enumerate(texts)]
    scores = score(tiny.llama(), examples := encode(some, tiny.tokenizer(), 32), detailed=True)
    return members.Side(some, examples, scores, scores)


def test_sides_that_words_alone_tell_apart_void_every_attack() -> None:
    """The negative control of `split_by_chance`: held-out records of another kind would make any attack look strong."""
    inside, outside = ([tiny.sentence(i + first, 8) for i in range(80)] for first in (0, 1000))
    for texts, valid in ((outside, True), ([f"late {text}" for text in outside], False)):
        sides, rng = (side(inside, "r"), side(texts, "h")), np.random.default_rng(0)
        figures, _ = members.attack(*sides, tiny.tokenizer().decode, repeated=0, alpha=0.05, rng=rng)
        attacked = [one for one in figures if one.name.endswith(".auc") and "splitter" not in one.name]
        assert len(attacked) == 7
        assert all(one.conditions["split_by_chance"] is valid for one in attacked)


@pytest.mark.slow
def test_bounds_of_the_strongest_attack_hold_although_it_was_picked_afterwards() -> None:
    """At true AUC ½ everywhere: the corrected lower bound rarely lies above ½; uncorrected (the control) it does too often."""
    false, uncorrected, short = 0, 0, 0
    trials = 300
    for trial in range(trials):
        figure, areas = worst(drawn(trial, 60, 0.0, 6), trial)
        false += figure.low > 0.5
        uncorrected += max(area.low for area in areas.values()) > 0.5
        short += figure.high < 0.5
    assert false <= 0.05 * trials
    assert short <= 0.05 * trials
    assert uncorrected > false
