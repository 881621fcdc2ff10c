"""Utility figures against a plain computation, and figures that are made fit for JSON."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit import utility
from pipeline.audit.figures import Figure, finite, gather
from pipeline.audit.scoring import Scores


def scores(rng: np.random.Generator, lengths: np.ndarray, mean: float) -> Scores:
    values = tuple(rng.normal(-mean, 0.3, length).astype(np.float32) for length in lengths)
    return Scores(values, np.array([rng.integers(0, length + 1) for length in lengths]))


def measured(count: int = 60, per_unit: int = 1) -> tuple[Scores, Scores, dict[str, Figure]]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, count)
    base, tuned = scores(rng, lengths, 5.0), scores(rng, lengths, 4.0)
    found = utility.measure(base, tuned, np.arange(count) // per_unit, alpha=0.05, rng=np.random.default_rng(1))
    return base, tuned, {figure.name: figure for figure in found}


def test_perplexities_are_per_token_over_all_records() -> None:
    base, tuned, figures = measured()
    flat = [np.concatenate(side.log_probs).astype(float) for side in (base, tuned)]
    assert figures["utility.base_perplexity"].value == pytest.approx(math.exp(-flat[0].mean()), rel=1e-9)
    assert figures["utility.perplexity"].value == pytest.approx(math.exp(-flat[1].mean()), rel=1e-9)
    ratio = math.exp(-flat[1].mean()) / math.exp(-flat[0].mean())
    assert figures["utility.perplexity_ratio"].value == pytest.approx(ratio, rel=1e-9)
    assert figures["utility.accuracy"].value == pytest.approx(tuned.hits.sum() / len(flat[1]), rel=1e-9)
    assert figures["utility.base_accuracy"].value == pytest.approx(base.hits.sum() / len(flat[0]), rel=1e-9)


def test_intervals_enclose_the_value_and_the_ratio_is_paired() -> None:
    _, _, figures = measured()
    for figure in figures.values():
        assert figure.low < figure.value < figure.high
        assert figure.n == 60
        assert figure.resolvable
    ratio, after = figures["utility.perplexity_ratio"], figures["utility.perplexity"]
    assert (ratio.high - ratio.low) / ratio.value < 2 * (after.high - after.low) / after.value


def test_few_records_are_not_resolvable() -> None:
    assert not any(figure.resolvable for figure in measured(19)[2].values())
    assert not any(figure.resolvable for figure in measured(60, per_unit=7)[2].values())  # many, of nine units
    assert all(figure.resolvable for figure in measured(60, per_unit=6)[2].values())


def test_a_diverged_model_yields_figures_that_no_gate_can_pass() -> None:
    base = scores(np.random.default_rng(0), np.full(30, 5), 5.0)
    for broken in (np.float32("nan"), np.float32(-2000), np.float32("-inf")):
        tuned = Scores(tuple(np.full(5, broken, np.float32) for _ in range(30)), np.zeros(30, np.int64))
        found = utility.measure(base, tuned, np.arange(30), alpha=0.05, rng=np.random.default_rng(1))
        evidence = gather(Path("here"), found, {}, {})
        ratio = evidence.figures["utility.perplexity_ratio"]
        assert not ratio.resolvable
        assert ratio.conditions == {"finite": False}
        assert evidence.figures["utility.base_perplexity"].resolvable


def test_finite_keeps_what_is_finite() -> None:
    figure = Figure(name="a.b", value=1.0, low=0.5, n=3, method="m")
    assert finite(figure) is figure
    changed = finite(figure.model_copy(update={"high": math.inf, "conditions": {"x": True}}))
    assert (changed.value, changed.low, changed.resolvable) == (0.0, None, False)
    assert changed.conditions == {"x": True, "finite": False}
    assert not finite(figure.model_copy(update={"ceiling": math.nan})).resolvable


def test_the_digest_covers_figures_and_pictures_and_not_seconds() -> None:
    figure = Figure(name="a.b", value=1.0, n=3, method="m", seconds=1.0)
    one = gather(Path("here"), [figure], {"s": [1.0]}, {"a": 1.0})
    slow = gather(Path("there"), [figure.model_copy(update={"seconds": 9.0})], {"s": [1.0]}, {"a": 9.0})
    assert one.digest == slow.digest
    assert one.digest != gather(Path("here"), [figure.model_copy(update={"value": 1.1})], {"s": [1.0]}, {}).digest
    assert one.digest != gather(Path("here"), [figure], {"s": [2.0]}, {}).digest
