"""What the cells of a study say together: one group for each model and ε, and the largest model against the smallest.

A group pools the cells of all its seeds. Secrets of one cell share a model, and are counted as if they did not: the intervals
are over secrets, so that with few seeds they are too narrow rather than too wide, and the page says so.
"""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline.audit import canary, resample, shares
from pipeline.report.formats import join, number
from pipeline.study.cell import Cell
from pipeline.study.spec import Point, Spec, label
from pipeline.study.words import alts

SCHEMA = "hushtune-study/1"
_ALPHA = 0.05
_SEED = 20
_UTILITY = {
    "base_perplexity": "utility.base_perplexity",
    "perplexity": "utility.perplexity",
    "base_accuracy": "utility.base_accuracy",
    "accuracy": "utility.accuracy",
}
_SHARES = {"first": "exposure.first", "extraction": "extraction.either", "extraction_control": "extraction.either_control"}
_COSTS = ("busy_seconds", "seconds", "training_seconds", "tokens_per_second", "peak_megabytes")


def content(spec: Spec, cells: Mapping[Point, Cell]) -> dict[str, Any]:
    """Everything that the page says, as JSON.

    Args:
        spec: what was asked.
        cells: those of its cells that are done.
    """
    done = [cells[point] for point in spec.points() if point in cells]
    groups = [_group(mine, spec) for model in spec.models for epsilon in spec.epsilons
              if (mine := [cell for cell in done if cell.model == model.name and cell.epsilon == epsilon])]  # fmt: skip
    groups.sort(key=lambda group: (group["parameters"], group["model"], -(group["epsilon"] or math.inf)))
    for group in groups:
        group["kept"] = _kept(group, groups)
    copies = sorted({int(times) for group in groups for times in group["exposure"] if times != "0"})
    contrasts = [one for epsilon in spec.epsilons for times in copies
                 if (one := _contrast(epsilon, times, groups, done)) is not None]  # fmt: skip
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": spec.name,
        "description": spec.description,
        "spec": spec.model_dump(mode="json"),
        "data": _data(spec),
        "planned": len(spec.points()),
        "done": len(done),
        "missing": [point.name for point in spec.points() if point not in cells],
        "warnings": _warnings(done),
        "copies": copies,
        "space_bits": max((cell.space_bits for cell in done), default=0.0),
        "chance_bits": 1 / math.log(2),
        "watts": spec.watts,
        "groups": groups,
        "contrasts": contrasts,
        "findings": [one["sentence"] for one in contrasts if one["copies"] == max(copies, default=0)],
        "cells": [cell.model_dump(mode="json", exclude={"exposure"}) for cell in done],
        "machine": {"system": platform.system(), "machine": platform.machine(), "threads": spec.threads,
                    "versions": {name: version(name) for name in ("torch", "transformers", "peft", "opacus", "dp-accounting")}},
    }  # fmt: skip
    return found | {"alts": alts(found)}


def _data(spec: Spec) -> str:
    if spec.data.path is None:
        return "the bundled example, whose people and texts are invented"
    if spec.data.is_public:
        return f"{spec.data.path.name}, declared public by {spec.data.declared_by}"
    return f"{spec.data.path.name}, private: every cell is charged to a lifetime budget"


def _group(cells: Sequence[Cell], spec: Spec) -> dict[str, Any]:
    first = cells[0]
    rng = np.random.default_rng(_SEED)
    found: dict[str, Any] = {
        "model": first.model,
        "parameters": first.parameters,
        "epsilon": first.epsilon,
        "label": label(first.epsilon),
        "seeds": [cell.seed for cell in cells],
        "spent": max((cell.spent for cell in cells if cell.spent is not None), default=None),
        "noise_multiplier": max(cell.noise_multiplier for cell in cells),
        "steps": first.steps,
        "records": first.records,
        "lower_bound": _most([cell.figures.get("epsilon.lower_bound") for cell in cells]),
        "watt_hours": sum(cell.busy_seconds for cell in cells) / len(cells) * spec.watts / 3600,
    }
    found |= {name: _spread([cell.figures[figure].value for cell in cells if _known(cell, figure)])
              for name, figure in _UTILITY.items()}  # fmt: skip
    gains = [math.log(cell.figures[before].value / cell.figures[after].value) for cell in cells
             for before, after in [(_UTILITY["base_perplexity"], _UTILITY["perplexity"])]
             if _known(cell, before) and _known(cell, after)]  # fmt: skip
    found["gain"] = _spread(gains)
    times = sorted({name for cell in cells for name in cell.exposure}, key=int)
    most = max(cell.space_bits for cell in cells)
    found["exposure"] = {
        name: _bits([bits for cell in cells for bits in cell.exposure.get(name, [])], most, rng) for name in times
    }
    found |= {
        name: _share([cell.figures[figure] for cell in cells if figure in cell.figures]) for name, figure in _SHARES.items()
    }
    found |= {name: sum(getattr(cell, name) for cell in cells) / len(cells) for name in _COSTS}
    found["peak_megabytes"] = max(cell.peak_megabytes for cell in cells)
    return found


def _known(cell: Cell, figure: str) -> bool:
    return figure in cell.figures and cell.figures[figure].resolvable and cell.figures[figure].value > 0


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean, smallest and largest over the seeds."""
    if not values:
        return None
    return {"value": sum(values) / len(values), "low": min(values), "high": max(values), "n": len(values)}


def _bits(bits: Sequence[float], most: float, rng: np.random.Generator) -> dict[str, Any]:
    low, high, way = canary.mean_interval(np.array(bits), most, _ALPHA, rng)
    return {"value": float(np.mean(bits)), "low": low, "high": high, "n": len(bits), "interval": way}


def _share(found: Sequence[Any]) -> dict[str, Any] | None:
    cases = sum(one.n for one in found)
    if not cases:
        return None
    hits = sum(round(one.value * one.n) for one in found)
    low, high = shares.below(hits, cases, _ALPHA / 2), shares.above(hits, cases, _ALPHA / 2)
    return {"value": hits / cases, "low": low, "high": high, "n": cases, "hits": hits}


def _most(found: Sequence[Any]) -> float | None:
    return max((one.value for one in found if one is not None), default=None)


def _kept(group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the model's gain without privacy, in nats, that is kept."""
    plain = next((one for one in groups if one["model"] == group["model"] and one["epsilon"] is None), None)
    if plain is None or not plain["gain"] or not group["gain"] or plain["gain"]["value"] <= 0:
        return None
    return group["gain"]["value"] / plain["gain"]["value"]


def _contrast(
    epsilon: float | None, times: int, groups: Sequence[Mapping[str, Any]], cells: Sequence[Cell]
) -> dict[str, Any] | None:
    """Mean exposure in the largest model minus that in the smallest, under one ε and number of copies, by a bootstrap."""
    mine = [group for group in groups if group["epsilon"] == epsilon and group["exposure"].get(str(times))]
    if len(mine) < 2 or mine[0]["parameters"] == mine[-1]["parameters"]:
        return None
    sides = [np.array([bits for cell in cells if cell.model == group["model"] and cell.epsilon == epsilon
                       for bits in cell.exposure.get(str(times), [])]) for group in (mine[-1], mine[0])]  # fmt: skip
    large, small = sides
    low, high, way = _difference(large, small, max(cell.space_bits for cell in cells))
    found = {
        "epsilon": epsilon, "label": label(epsilon), "copies": times, "large": mine[-1]["model"], "small": mine[0]["model"],
        "value": float(large.mean() - small.mean()), "low": low, "high": high, "n": [len(large), len(small)], "interval": way,
    }  # fmt: skip
    return found | {"sentence": _sentence(found)}


def _difference(large: np.ndarray, small: np.ndarray, most: float) -> tuple[float, float, str]:
    """Interval of a difference of means: by bootstrap, or, with fewer than ten secrets on a side, from one of each side."""
    rng = np.random.default_rng(_SEED)
    sides = [np.arange(len(side)) for side in (large, small)]
    if resample.enough(*sides):
        drawn = resample.bootstrap(lambda a, b: (a @ large) / a.sum(1) - (b @ small) / b.sum(1), sides, rng)
        return *resample.interval(drawn, _ALPHA, resample.fewest(*sides)), "bootstrap"
    above, below = (canary.mean_interval(side, most, _ALPHA / 2, rng) for side in (large, small))
    return above[0] - below[1], above[1] - below[0], "from an interval of each side"


def _sentence(found: Mapping[str, Any]) -> str:
    """What a contrast says, and whether it says anything."""
    how = "Without privacy" if found["epsilon"] is None else f"At ε {found['epsilon']:g}"
    records = "one record" if found["copies"] == 1 else f"{found['copies']} records"
    value, low, high = (number(found[key]) for key in ("value", "low", "high"))
    said = (
        f"{how}, secrets that stand in {records} have {value} bits more exposure in {found['large']} than in {found['small']} "
        f"(95 % interval {low} to {high}; {join([str(n) for n in found['n']])} secrets)"
    )
    if found["low"] > 0:
        return f"{said}: the larger model memorised more."
    if found["high"] < 0:
        return f"{said}: the smaller model memorised more."
    return f"{said}: the sizes cannot be told apart."


def _warnings(cells: Sequence[Cell]) -> list[str]:
    """Conditions of the audit that do not hold, and costs that are not whole."""
    found = sorted({f"{cell.model}, {label(cell.epsilon)}, seed {cell.seed}: {name} does not hold"
                    for cell in cells for figure in cell.figures.values() for name in figure.failed})  # fmt: skip
    again = [f"{cell.model}, {label(cell.epsilon)}, seed {cell.seed}: was interrupted; its seconds are those of the last try"
             for cell in cells if cell.resumed]  # fmt: skip
    return found + again


_TABLE = (
    "model", "parameters", "label", "spent", "noise_multiplier", "steps", "records", "base_perplexity", "perplexity", "gain",
    "kept", "accuracy", "first", "extraction", "busy_seconds", "seconds", "tokens_per_second", "peak_megabytes", "watt_hours",
)  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """The groups as CSV: a value, and beside it the ends of its interval or range, and n."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    rows = [_row(group, found["copies"]) for group in found["groups"]]
    if rows:
        writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
    return written.getvalue()


def _row(group: Mapping[str, Any], copies: Sequence[int]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    named = {name: group[name] for name in _TABLE} | {f"exposure_{n}": group["exposure"].get(str(n)) for n in (0, *copies)}
    for name, value in named.items():
        if isinstance(value, dict):
            row |= {name: value["value"]} | {f"{name}_{end}": value[end] for end in ("low", "high", "n")}
        elif value is None and name in {"gain", "accuracy", "perplexity", "base_perplexity", "first", "extraction"} | {
            f"exposure_{n}" for n in (0, *copies)
        }:
            row |= dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_n"))
        else:
            row[name] = value
    return row
