"""What the audit hands on: one figure for each number, with its interval, its size and the conditions it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from pipeline.folders import Value, digest

Series = dict[str, list[float] | list[list[float]]]


class Figure(Value):
    """One number of the evidence.

    `low` and `high` are confidence bounds, None where there is none on that side. `ceiling` is the largest value that this
    measurement could have given however much had leaked, `floor` the smallest, None where it has no such end: an upper limit
    at or above the ceiling, or a lower one at or below the floor, can never be broken, so that a gate with that limit shows
    nothing. `n` counts what was measured (canaries, records, probes).
    `method` is one line with its source. A figure whose `conditions` do not all hold, or that is not `resolvable` at its n,
    shows nothing: no gate may pass on it. `word` says the value in a word, where it stands for one.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None
    floor: float | None = None
    n: int
    method: str
    conditions: dict[str, bool] = Field(default_factory=dict)
    resolvable: bool = True
    seconds: float = 0.0
    word: str | None = None


class Evidence(Value):
    """Every figure of one audit, by name. `series` holds numbers for pictures only, `seconds` the time of each attack."""

    folder: Path
    figures: dict[str, Figure]
    series: Series
    digest: str
    seconds: dict[str, float]


def finite(figure: Figure) -> Figure:
    """The figure, or, where its value or a bound is infinite or not a number, 0 marked as not resolvable.

    JSON cannot carry NaN, and a model that diverged must fail its gates rather than stop the audit.
    """
    numbers = (figure.value, figure.low, figure.high, figure.ceiling, figure.floor)
    if all(number is None or math.isfinite(number) for number in numbers):
        return figure
    ends = dict.fromkeys(("low", "high", "ceiling", "floor", "word"))
    changes = {"value": 0.0, "resolvable": False, **ends}
    return figure.model_copy(update=changes | {"conditions": figure.conditions | {"finite": False}})


def gather(folder: Path, figures: Iterable[Figure], series: Series, seconds: dict[str, float]) -> Evidence:
    """The evidence made of `figures`, each made finite; `digest` covers figures and series and leaves the timings out."""
    named = {figure.name: finite(figure) for figure in figures}
    content = {name: figure.model_dump(mode="json", exclude={"seconds"}) for name, figure in named.items()}
    seal = digest({"figures": content, "series": series})
    return Evidence(folder=folder, figures=named, series=series, digest=seal, seconds=seconds)
