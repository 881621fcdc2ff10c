"""The candidate tree against naive scoring of every candidate, and what it shows of a model that memorised."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.audit import exposure
from pipeline.audit.scoring import Sequenced, score
from pipeline.audit.tree import CandidateTree
from tests import tiny

SHAPES = [(7, 5), (5, 4, 6), (3, 4, 2, 5), (9,)]


def alphabet(shape: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(np.arange(2, len(tiny.tokenizer())), size, replace=False).tolist() for size in shape]


def naively(model: nn.Module, context: tuple[int, ...], candidates: list[list[int]]) -> np.ndarray:
    """Every candidate as a whole sequence of its own."""
    sequences = [Sequenced((*context, *secret), len(context)) for secret in product(*candidates)]
    return score(model, sequences).totals.reshape([len(some) for some in candidates])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen"])
def test_tree_scores_equal_naive_scores(family: str, shape: tuple[int, ...]) -> None:
    model, candidates = tiny.FAMILIES[family](), alphabet(shape)
    for context in ((0, 9, 8, 7, 30, 31), (0,)):
        found = CandidateTree(model, candidates).scores(context)
        expected = naively(model, context, candidates)
        assert found.shape == shape
        assert np.abs(found - expected).max() < 1e-4
        index = tuple(size // 2 for size in shape)
        assert exposure.rank_of(found, index) == exposure.rank_of(expected, index)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("budget", [1, 13, 100_000])
def test_the_budget_does_not_change_the_result(family: str, budget: int) -> None:
    model, candidates = tiny.FAMILIES[family](), alphabet((5, 4, 6))
    found = CandidateTree(model, candidates, budget=budget).scores((0, 5, 6))
    assert found == pytest.approx(CandidateTree(model, candidates).scores((0, 5, 6)), abs=1e-5)


def test_eager_attention_reads_the_same_mask() -> None:
    model, candidates = tiny.llama(), alphabet((5, 4, 6))
    expected = naively(model, (0, 5, 6), candidates)
    model.set_attn_implementation("eager")
    assert np.abs(CandidateTree(model, candidates).scores((0, 5, 6)) - expected).max() < 1e-4


def test_scores_are_log_probabilities_of_the_whole_vocabulary() -> None:
    model = tiny.llama()
    everything = list(range(len(tiny.tokenizer())))
    whole = CandidateTree(model, [everything, [3, 4, 5]]).scores((0, 9))
    assert (np.exp(whole).sum(1) < 1).all()  # three of many: not renormalised
    assert np.exp(CandidateTree(model, [everything]).scores((0, 9))).sum() == pytest.approx(1, abs=1e-5)


def test_the_running_check_notices_a_tree_that_is_wrong() -> None:
    tree = CandidateTree(tiny.llama(), alphabet((5, 4, 6)))
    table = tree.scores((0, 5, 6))
    picks = [(0, 0, 0), (4, 3, 5), (2, 1, 3)]
    assert tree.check((0, 5, 6), picks, table) < 1e-4
    table[2, 1, 3] += 0.01
    assert tree.check((0, 5, 6), picks, table) == pytest.approx(0.01, abs=1e-3)


def test_the_last_level_is_never_run() -> None:
    model, seen = tiny.llama(), []
    hook = model.model.register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    tree = CandidateTree(model, alphabet((6, 5, 40)))
    seen.clear()
    tree.scores((0, 9, 9))
    hook.remove()
    assert sum(seen) == 3 + 6 + 6 * (1 + 5)


def secrets(count: int, seed: int) -> tuple[list[list[int]], list[tuple[int, ...]], list[tuple[int, int, int]]]:
    """A space of 48³ candidates, and canaries: contexts and the index of each secret."""
    rng = np.random.default_rng(seed)
    contexts = [(0, *rng.integers(2, len(tiny.tokenizer()), 8).tolist()) for _ in range(count)]
    return alphabet((48, 48, 48), seed + 1000), contexts, [tuple(rng.integers(0, 48, 3).tolist()) for _ in range(count)]  # type: ignore[misc]


def ranks(
    model: nn.Module, space: list[list[int]], contexts: list[tuple[int, ...]], picks: list[tuple[int, int, int]]
) -> list[int]:
    tree = CandidateTree(model, space)
    return [exposure.rank_of(tree.scores(context), pick) for context, pick in zip(contexts, picks, strict=True)]


def test_a_model_that_memorised_is_seen_and_one_that_did_not_is_not() -> None:
    space, contexts, picks = secrets(16, seed=4)
    model = tiny.llama(layers=1)
    planted, control = slice(0, 8), slice(8, 16)
    fresh = ranks(model, space, contexts, picks)
    assert exposure.family_p(fresh, 48**3) > 0.01
    assert exposure.mean_p(fresh, 48**3) > 0.01
    texts = [
        [*c, *(space[i][p] for i, p in enumerate(pick))] for c, pick in zip(contexts[planted], picks[planted], strict=True)
    ]
    batch = torch.tensor(texts)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()
    after = ranks(model.eval(), space, contexts, picks)
    inside, outside = after[planted], after[control]
    assert exposure.family_p(inside, 48**3) < 0.01
    assert np.mean([exposure.exposure_bits(rank, 48**3) for rank in inside]) > 10
    assert exposure.family_p(outside, 48**3) > 0.001


@pytest.mark.slow
def test_ranks_of_the_bundled_shape_equal_naive_ranks() -> None:
    """48³ candidates one sequence each, on a model of the bundled model's depth."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=6,
                                         num_attention_heads=4, max_position_embeddings=64)).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    space = [rng.choice(512, 48, replace=False).tolist() for _ in range(3)]
    context = (0, *rng.integers(2, 512, 8).tolist())
    found, expected = CandidateTree(model, space).scores(context), naively(model, context, space)
    assert np.abs(found - expected).max() < 1e-4
