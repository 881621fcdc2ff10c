"""Cells that nobody trained, for tests of what is made of them."""

from __future__ import annotations

import random

from pipeline.study.cell import Cell, Number
from pipeline.study.spec import Point

SPACE = 16.75
SIZES = {"tiny": 12_704, "small": 684_480, "large": 6_917_376}


def cell(point: Point, inputs: str = "0" * 64, *, leaks: float = 0.0) -> Cell:
    """A cell whose secrets of sixteen copies have `leaks` bits more exposure than chance gives."""
    chance = random.Random(f"{point.name} {leaks}")
    private = point.epsilon is not None

    def number(value: float, n: int = 100) -> Number:
        return Number(value=value, low=0.9 * value, high=1.1 * value, n=n, resolvable=True)

    def bits(count: int, more: float = 0.0) -> list[float]:
        return [min(SPACE, more + chance.expovariate(0.6931)) for _ in range(count)]

    figures = {
        "utility.base_perplexity": number(200 + chance.random()),
        "utility.perplexity": number(60.0 if private else 40.0),
        "utility.base_accuracy": number(0.1),
        "utility.accuracy": number(0.2),
        "exposure.first": number(0.1, 20),
        "extraction.either": number(0.0),
        "extraction.either_control": number(0.0),
        "epsilon.lower_bound": number(0.5),
    }
    return Cell(
        inputs=inputs, model=point.model, parameters=SIZES[point.model], epsilon=point.epsilon, seed=point.seed,
        spent=point.epsilon and point.epsilon - 0.01, delta=1e-4 if private else None, noise_multiplier=0.7 if private else 0,
        sampling_rate=0.1, expected_batch=16, steps=3, records=160, units=180, figures=figures,
        exposure={"0": bits(12), "1": bits(6), "16": bits(6, leaks)}, space_bits=SPACE, training_seconds=3.0, seconds=9.0,
        busy_seconds=6.0 + chance.random(), tokens_per_second=1234.0, peak_megabytes=700.0 + SIZES[point.model] / 1e5,
        device="cpu", threads=1, gradients="direct",
    )  # fmt: skip
