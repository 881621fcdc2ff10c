"""Packed candidates against plain scoring, one sequence each, and against a hand-written softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.audit import candidates, scoring
from pipeline.audit.candidates import Packed
from pipeline.audit.scoring import parts
from tests import tiny

CONTEXT = (0, 40, 17, 300, 5)
TRIE = [(9, 8, 7), (9,), (9, 8), (4, 4, 4, 4), (9, 8, 6), (300,), (4, 5)]


def log_probs(model: torch.nn.Module, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def plainly(model: torch.nn.Module, candidate: tuple[int, ...]) -> float:
    table = log_probs(model, CONTEXT + candidate)
    return sum(table[len(CONTEXT) - 1 + i, token].item() for i, token in enumerate(candidate))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen"])
@pytest.mark.parametrize("rows", [2, 1000])
def test_packed_candidates_score_as_one_by_one(family: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "head_rows", lambda head: rows)
    model = tiny.FAMILIES[family]()
    packed = Packed(CONTEXT, TRIE)
    totals, steps = packed.run(*parts(model))
    assert packed.tokens == len(CONTEXT) + 5  # 9, 9 8, 4, 4 4 and 4 4 4: each once, and no last token
    assert totals == pytest.approx([plainly(model, candidate) for candidate in TRIE], abs=1e-4)
    assert len(steps) == 3
    assert packed.check(model, totals) < 1e-4
    assert packed.check(model, totals + np.eye(7)[3]) == pytest.approx(1, abs=1e-4)


def test_steps_are_those_of_the_first_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "TOP_K", 5)
    model = tiny.llama()
    best: tuple[int, ...] = ()
    for _ in range(3):
        best = (*best, int(log_probs(model, CONTEXT + best)[-1].argmax()))
    table = log_probs(model, CONTEXT + best)
    _, steps = Packed(CONTEXT, [best, (3, 3)]).run(*parts(model))
    assert steps[:, 0].tolist() == [1, 1, 1]
    for i, token in enumerate(best):
        row = table[len(CONTEXT) - 1 + i]
        expected = row[token] - row.topk(5).values.logsumexp(0)
        assert steps[i, 1] == pytest.approx(expected.item(), abs=1e-4)
    _, steps = Packed(CONTEXT, [(int(table[len(CONTEXT) - 1].argmin()),), best]).run(*parts(model))
    assert steps.tolist() == [[0.0, -np.inf]]


def test_a_barred_token_leaves_its_probability_to_the_others() -> None:
    model = tiny.llama()
    first = log_probs(model, CONTEXT)[-1]
    order = first.argsort(descending=True).tolist()
    barred, second = order[0], order[1]
    totals, steps = Packed(CONTEXT, [(second,), (order[5], 7)]).run(*parts(model), barred)
    assert steps[0, 0] == 1
    assert totals[0] == pytest.approx((first[second] - torch.log1p(-first[barred].exp())).item(), abs=1e-4)
    plain, steps = Packed(CONTEXT, [(second,), (order[5], 7)]).run(*parts(model))
    assert steps[0, 0] == 0
    assert totals - plain == pytest.approx([totals[0] - plain[0]] * 2, abs=1e-4)  # no rank changes


def test_top_k_is_the_same_everywhere() -> None:
    assert candidates.TOP_K == scoring.TOP_K
