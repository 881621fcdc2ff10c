"""Ranks of secrets: exact where the tokenizer and the model allow it, among sampled references where they do not."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline import policy
from pipeline.audit import Evidence, canary, exposure, ranking
from pipeline.canaries import Canary, Space, design
from pipeline.gates import judge
from pipeline.policy import Canaries
from tests import tiny


def spaces(seed: int = 0, alphabet: int = 48, tokens: int = 3) -> tuple[Space, list[Canary]]:
    rules = Canaries(count=32, prefix_tokens=3, secret_tokens=tokens, alphabet=alphabet, guesses=16, repeated=0)
    made = design(rules, tiny.tokenizer(), "t", 0.05, random.Random(seed))
    return made.spaces["random"], list(made.canaries)


def plain(model: torch.nn.Module, ids: tuple[int, ...], last: int) -> float:
    with torch.no_grad():
        logits = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return sum(logits[i - 1, ids[i]].item() for i in range(len(ids) - last, len(ids)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_token_words_are_ranked_exactly(family: str) -> None:
    space, made = spaces()
    found = ranking.rank(tiny.FAMILIES[family](), space, made[:3], made[3:6], 0, np.random.default_rng(0))
    assert found.exact
    assert found.space_size == space.size == 48**3
    assert found.error < ranking.TOLERANCE
    assert found.checked == 64
    assert ranking.tokens(space) == 48 + 48**2


def test_words_of_many_tokens_are_ranked_among_references_and_the_method_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_REFERENCES", 99)
    model = tiny.llama()
    space, made = spaces(alphabet=128)
    found = ranking.rank(model, space, made[:4], made[4:6], 0, np.random.default_rng(5))
    assert not found.exact
    assert "99 candidates drawn at random" in found.method
    assert "few words of one token" in found.method
    rng, expected = np.random.default_rng(5), []
    for one in made[:6]:  # the same lots, scored plainly one by one, by the definition of the sampled exposure
        picks = np.stack([rng.integers(0, 128, 99) for _ in range(3)], axis=1).tolist()
        context = (0, *one.prefix)
        secret, *others = (-plain(model, (*context, *tail), len(tail)) for tail in (one.secret, *map(space.secret, picks)))
        expected.append(exposure.sampled_exposure(secret, others)[0])
    bits = canary.exposures((*found.planted, *found.control), found.space_size)
    assert bits == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("refusal", [TypeError("no such argument"), ValueError("4-D masks are not supported")])
def test_a_model_that_takes_no_ancestor_mask_is_ranked_among_references(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_REFERENCES", 49)
    space, made = spaces()

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(ranking.CandidateTree, "scores", refuse)
    found = ranking.rank(tiny.llama(), space, made[:2], made[2:4], 0, np.random.default_rng(0))
    assert not found.exact
    assert f"takes no ancestor mask ({type(refusal).__name__})" in found.method


def test_a_model_that_does_not_heed_the_mask_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_REFERENCES", 49)
    space, made = spaces()
    heeded = ranking.CandidateTree._mask
    monkeypatch.setattr(ranking.CandidateTree, "_mask", lambda *a: torch.zeros_like(heeded(*a)))
    found = ranking.rank(tiny.llama(), space, made[:2], made[2:4], 0, np.random.default_rng(0))
    assert not found.exact
    assert "does not heed" in found.method
    assert found.error > ranking.TOLERANCE


def test_sampled_ranks_of_secrets_never_seen_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_REFERENCES", 19)
    monkeypatch.setattr(ranking, "_MOST_SAMPLED", 100)
    model, ranks = tiny.llama(), []
    for seed in range(6):
        space, made = spaces(seed, alphabet=128)
        ranks += ranking.rank(model, space, made[:16], made[16:], 0, np.random.default_rng(seed)).planted
    assert stats.chisquare(np.bincount(ranks, minlength=21)[1:]).pvalue > 1e-3


def ranked(planted: tuple[int, ...], copies: tuple[int, ...], size: int = 48**3, exact: bool = True) -> ranking.Ranked:
    control = tuple(int(size * (i + 0.5) / 8) for i in range(8))
    return ranking.Ranked(planted, copies, control, size, "method", 0.0, 64, 1.0, exact)


def test_the_ladder_has_a_rung_for_each_number_of_copies_with_its_ceiling() -> None:
    made = canary.ladder_figures(
        ranked((100, 50, 1, 2), (1, 1, 16, 16)), {1: 2.0, 16: math.inf}, {"sealed": True}, 0.05, np.random.default_rng(0)
    )
    figures = {figure.name: figure for figure in made}
    size = 48**3
    assert figures["exposure.copies_1.mean_bits"].value == pytest.approx(math.log2(size) - math.log2(math.sqrt(5000)))
    assert figures["exposure.copies_16.mean_bits"].value == pytest.approx(math.log2(size) - 0.5)
    assert figures["exposure.copies_16.mean_bits"].ceiling == math.log2(size)
    total = 2 * math.log(size) - math.log(2)
    assert figures["exposure.copies_16.mean_p"].value == pytest.approx(stats.gamma.sf(total, 2), rel=1e-9)
    assert figures["exposure.copies_1.dp_bits"].value == pytest.approx(2.0 * 1.442695, abs=1e-6)
    assert "exposure.copies_16.dp_bits" not in figures  # no ε is known of so many copies: no ceiling is drawn
    assert figures["exposure.copies_0.mean_bits"].n == 8
    assert "no exposure could contradict it" not in figures["exposure.copies_1.dp_bits"].method
    first = figures["exposure.first"]
    assert (first.value, first.n) == (0.25, 4)
    assert first.high == pytest.approx(stats.beta.ppf(0.95, 2, 3))
    assert figures["exposure.first_control"].value == 0


def test_the_mean_of_a_few_secrets_lies_within_its_bounds_as_often_as_they_say() -> None:
    """The four secrets of a rung, whatever the law of their ranks; a bootstrap of four (the control) covers too seldom."""
    rng, size, trials = np.random.default_rng(0), 48**3, 400
    for weight in (0.0, 0.5):  # ranked first, or by chance
        truth = weight * math.log2(size) + (1 - weight) / math.log(2)
        covered = plain = 0
        for _ in range(trials):
            ranks = np.where(rng.random(4) < weight, 1, rng.integers(1, size + 1, 4)).tolist()
            figure = canary._mean("m", ranks, ranked((1,), (1,)), {}, 0.05, rng)
            assert 0 <= figure.low <= figure.value <= figure.high <= figure.ceiling
            covered += figure.low <= truth <= figure.high
            bits = np.array(canary.exposures(ranks, size))
            low, high = np.quantile(rng.choice(bits, (200, 4)).mean(1), [0.025, 0.975])
            plain += low <= truth <= high
        assert covered >= 0.95 * trials
        assert plain < 0.9 * trials


def test_a_promise_beyond_what_exposure_can_reach_is_said_to_test_nothing() -> None:
    made = canary.ladder_figures(ranked((100,), (16,)), {16: 12.0}, {}, 0.05, np.random.default_rng(0))
    limit = next(figure for figure in made if figure.name == "exposure.copies_16.dp_bits")
    assert limit.value > math.log2(48**3)
    assert "no exposure could contradict it" in limit.method


def test_so_many_secrets_that_none_could_stand_out_cannot_pass_a_gate() -> None:
    """The best of 2,000 secrets is first of 110,592 by chance more often than once in a hundred audits."""
    for secrets, able in ((64, True), (2000, False)):
        made = canary.exposure_figures(ranked((5000,) * secrets, (1,) * secrets), {}, 0.05, np.random.default_rng(0))
        family = {figure.name: figure for figure in made}["exposure.family_p"]
        assert family.floor == pytest.approx(1 - (1 - 1 / 48**3) ** secrets)
        evidence = Evidence(folder=Path("x"), figures={family.name: family}, series={}, digest="", seconds={})
        result = next(one for one in judge(policy.load("default"), evidence).gates if one.name == "exposure")
        assert result.passed is able


def test_controls_that_are_not_uniform_or_not_there_void_the_figures() -> None:
    for control, valid in ((ranked((1,), (1,)).control, True), ((5, 9, 20, 3, 8, 1, 2, 7), False), ((), False)):
        found = dataclasses.replace(ranked((5,), (1,)), control=control)
        for made in (
            canary.exposure_figures(found, {}, 0.05, np.random.default_rng(0)),
            canary.ladder_figures(found, {}, {}, 0.05, np.random.default_rng(0)),
        ):
            judged = next(figure for figure in made if figure.name.endswith("mean_p"))
            assert judged.conditions["controls_uniform"] is valid


def test_references_that_cannot_resolve_the_family_void_the_figures() -> None:
    """Eight secrets among 1,000 places can fall below 1 %, twenty cannot: a gate on them could not fail."""
    for secrets, able in ((8, True), (20, False)):
        found = ranked((5,) * secrets, (1,) * secrets, 1000, exact=False)
        made = canary.exposure_figures(found, {}, 0.05, np.random.default_rng(0))
        family = next(figure for figure in made if figure.name == "exposure.family_p")
        assert family.conditions["references_resolve_the_family"] is able
        ladder = canary.ladder_figures(found, {}, {}, 0.05, np.random.default_rng(0))
        assert all(all(figure.conditions.values()) for figure in ladder)  # each rung has a floor of its own
    exact = canary.exposure_figures(ranked((5,) * 64, (1,) * 64), {}, 0.05, np.random.default_rng(0))
    cutoff = next(figure for figure in exact if figure.name == "exposure.family_cutoff")
    assert cutoff.value == pytest.approx(12.64, abs=0.01)
