"""Free sampling with kept keys and values against the softmax that it claims to draw from."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.audit import sampler
from pipeline.audit.sampler import sample
from tests import tiny
from tests.audit.test_extraction import small


def chances(model: torch.nn.Module, start: int, end: int, length: int, top_k: int) -> dict[tuple[int, ...], float]:
    """Every text of at most `length` tokens and its probability, enumerated without a cache."""
    open_ones, done = {(): 1.0}, Counter()
    for _ in range(length):
        grown: dict[tuple[int, ...], float] = {}
        for text, chance in open_ones.items():
            with torch.no_grad():
                logits = model(torch.tensor([[start, *text]])).logits[0, -1].double().numpy()
            kept = np.argsort(-logits)[:top_k]
            weights = np.exp(logits[kept] - logits.max())
            for token, weight in zip(kept.tolist(), weights / weights.sum(), strict=True):
                if token == end:
                    done[text] += chance * weight
                else:
                    grown[(*text, token)] = chance * weight
        open_ones = grown
    return dict(done) | {text: done.get(text, 0.0) + chance for text, chance in open_ones.items()}


def p_value(drawn: list[list[int]], expected: dict[tuple[int, ...], float]) -> float:
    """χ² test that texts are drawn from `expected`; rare texts are taken together."""
    seen = Counter(map(tuple, drawn))
    assert set(seen) <= set(expected)
    common = [text for text, chance in expected.items() if chance * len(drawn) >= 5]
    counts = [seen[text] for text in common]
    wanted = [expected[text] * len(drawn) for text in common]
    counts.append(len(drawn) - sum(counts))
    wanted.append(len(drawn) - sum(wanted))
    return float(stats.chisquare(counts, wanted).pvalue)


@pytest.mark.parametrize("top_k", [3, 40])
def test_texts_are_drawn_as_the_softmax_says(top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "TOP_K", top_k)
    model = small()
    expected = chances(model, 0, 2, 3, top_k)
    assert sum(expected.values()) == pytest.approx(1)
    drawn = sample(model, 0, 2, 4000, 3, np.random.default_rng(0))
    assert len(drawn) == 4000
    assert p_value(drawn, expected) > 1e-3
    other = chances(small(seed=1), 0, 2, 3, top_k)  # the negative control: another model's texts are told apart
    other |= {text: 1e-9 for text in itertools.chain(expected) if text not in other}
    assert p_value(drawn, other) < 1e-6


def test_the_same_seed_gives_the_same_texts_whatever_the_cores() -> None:
    model, ticks = tiny.gpt2(), []
    one = sample(model, 0, 1, 130, 6, np.random.default_rng(5), tick=ticks.append)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert sample(model, 0, 1, 130, 6, np.random.default_rng(5)) == one
    finally:
        torch.set_num_threads(before)
    assert sample(model, 0, 1, 130, 6, np.random.default_rng(6)) != one
    assert sum(ticks) == 130 * 6
    assert all(len(text) <= 6 and 1 not in text for text in one)
