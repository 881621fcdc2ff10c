"""Extraction against a hand-written decoding loop and an enumeration of everything that could be sampled."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.audit import extraction, scoring, shares
from pipeline.audit.extraction import needed, reach
from pipeline.audit.scoring import FIRST, SAMPLED, Sequenced, score
from pipeline.train.examples import IGNORED, Example
from tests import tiny


def small(vocabulary: int = 6, seed: int = 0) -> LlamaForCausalLM:
    """A model whose whole space of continuations can be written down."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def overfitted(texts: list[list[int]], steps: int = 150) -> torch.nn.Module:
    """A tiny model trained on a handful of records until it knows them."""
    model = tiny.llama(layers=1).train()
    ids = torch.tensor(texts)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model.eval()


def records(count: int, length: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        ids = rng.integers(2, len(tiny.tokenizer()), length).tolist()
        made.append(Example(f"r{seed}-{i}", "u", (0, *ids), (IGNORED, *ids)))
    return made


def decode(model: torch.nn.Module, ids: list[int], count: int) -> list[int]:
    """Greedy decoding, one token at a time, without any cache."""
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


def greedily(model: torch.nn.Module, example: Example, prefix: int, suffix: int) -> bool:
    ids = list(example.input_ids)
    starts = range(prefix + 1, len(ids) - suffix + 1)
    return any(decode(model, ids[:start], suffix) == ids[start : start + suffix] for start in starts)


def test_greedy_extraction_agrees_with_a_decoding_loop() -> None:
    known, new = records(5, 20, 0), records(5, 20, 1)
    model = overfitted([list(example.input_ids) for example in known], 60)
    mixed = [
        Example(e.id, "u", (*e.input_ids[:9], *n.input_ids[9:]), (IGNORED, *e.input_ids[1:9], *n.input_ids[9:]))
        for e, n in zip(known, new, strict=True)
    ]
    some = [*known, *new, *mixed]
    found = score(model, some, detailed=True)
    seen = set()
    for prefix, suffix in ((2, 4), (4, 6), (12, 5), (16, 4), (1, 12)):
        for example, details in zip(some, found.details, strict=True):
            got = reach(example.labels, details, prefix, suffix)
            assert got is not None
            assert got.greedy == greedily(model, example, prefix, suffix)
            seen.add(got.greedy)
    assert seen == {True, False}


@pytest.mark.parametrize("top_k", [3, 40])
def test_the_chance_of_a_suffix_is_that_of_an_enumeration(top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every continuation of three tokens and its probability under top-k sampling, written out one by one."""
    monkeypatch.setattr(scoring, "TOP_K", top_k)
    model, prefix = small(), (0, 3, 1)
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        grown = {}
        for tail, chance in chances.items():
            with torch.no_grad():
                logits = model(torch.tensor([[*prefix, *tail]])).logits[0, -1].double().numpy()
            kept = np.argsort(-logits)[:top_k]
            weights = np.exp(logits[kept])
            grown |= {(*tail, int(t)): chance * w / weights.sum() for t, w in zip(kept, weights, strict=True)}
        chances = grown
    assert sum(chances.values()) == pytest.approx(1, abs=1e-12)
    every = list(itertools.product(range(6), repeat=3))
    found = score(model, [Sequenced((*prefix, *tail), 3) for tail in every], detailed=True)
    for tail, details in zip(every, found.details, strict=True):
        labels = (IGNORED,) * 3 + tail
        got = reach(labels, details, 2, 3)
        assert got is not None
        assert math.exp(got.log_chance) == pytest.approx(chances.get(tail, 0.0), abs=1e-6)


def test_n_queries_find_it_with_the_chance_that_n_queries_have() -> None:
    for queries, chance in ((1, 0.5), (10, 0.1), (1000, 0.5), (1000, 0.999)):
        p = math.exp(needed(queries, chance))
        assert stats.binom.sf(0, queries, p) == pytest.approx(chance, abs=1e-9)


def test_a_window_lies_in_learned_tokens_that_stand_together() -> None:
    labels = (IGNORED, IGNORED, IGNORED, 5, 6, IGNORED, 7, 8, 9)
    details = np.zeros((5, 4))
    details[:, SAMPLED] = -1.0, -2.0, -4.0, -8.0, -16.0
    details[:, FIRST] = 1, 1, 0, 1, 1
    assert reach(labels, details, 1, 2) == (True, -3.0)
    assert reach(labels, details, 3, 2) == (True, -12.0)  # of tokens 7 8 and 8 9
    assert reach(labels, details, 5, 3) == (False, -28.0)
    assert reach(labels, details, 6, 3) is None
    assert reach(labels, details, 1, 4) is None
    assert reach(labels, details, 1, 6) is None


def test_a_planted_leak_is_found_and_what_was_never_trained_is_not() -> None:
    known, new = records(5, 30, 0), records(40, 30, 1)
    model = overfitted([list(example.input_ids) for example in known])
    sides = [(side, score(model, side, detailed=True)) for side in (known, new)]
    found = {f.name: f for f in extraction.measure(*sides, prefix=8, suffix=8, alpha=0.05, note="all")}
    for way in ("greedy", "discoverable", "either"):
        assert found[f"extraction.{way}"].value == 1.0
        assert found[f"extraction.{way}"].low == pytest.approx(0.05 ** (1 / 5))
        assert found[f"extraction.{way}_control"].value == 0.0
        assert found[f"extraction.{way}_control"].high == pytest.approx(1 - 0.05 ** (1 / 40))
        assert found[f"extraction.{way}_excess"].low > 0.4
        assert found[f"extraction.{way}_excess"].n == 45
    before = {f.name: f for f in extraction.measure(*reversed(sides), prefix=8, suffix=8, alpha=0.05, note="all")}
    assert before["extraction.either_excess"].value == -1.0


def test_records_that_are_too_short_leave_nothing_measured() -> None:
    model, short = tiny.llama(), records(30, 10, 0)
    scores = score(model, short, detailed=True)
    assert extraction.measure((short, scores), (short, scores), prefix=8, suffix=8, alpha=0.05, note="all") == []


@pytest.mark.parametrize(("hits", "cases"), [(0, 20), (3, 20), (20, 20), (0, 1000), (17, 500)])
def test_bounds_of_a_share_are_scipys(hits: int, cases: int) -> None:
    test = stats.binomtest(hits, cases, alternative="less").proportion_ci(0.95, "exact")
    assert shares.above(hits, cases) == pytest.approx(test.high, abs=1e-9)
    test = stats.binomtest(hits, cases, alternative="greater").proportion_ci(0.95, "exact")
    assert shares.below(hits, cases) == pytest.approx(test.low, abs=1e-9)
    if not hits:
        assert shares.above(0, cases) == pytest.approx(1 - 0.05 ** (1 / cases), abs=1e-12)


@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.002, 0.0)])
def test_the_excess_lies_within_its_bounds_as_often_as_they_say(p: float, q: float) -> None:
    """Exact coverage of each one-sided bound, summed over every outcome of two binomials."""
    n, m = 120, 80
    over = under = 0.0
    chances = stats.binom.pmf(np.arange(n + 1), n, p), stats.binom.pmf(np.arange(m + 1), m, q)
    for hits in np.flatnonzero(chances[0] > 1e-7):
        for others in np.flatnonzero(chances[1] > 1e-7):
            chance = chances[0][hits] * chances[1][others]
            value, low, high = shares.excess((int(hits), n), (int(others), m))
            assert low <= value <= high
            over += chance * (low > p - q + 1e-12)
            under += chance * (high < p - q - 1e-12)
    assert over <= 0.055
    assert under <= 0.055
