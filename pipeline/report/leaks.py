"""The section on extraction: what comes out word for word, which removed values come back, and the upper bound where none did.

Bounds by kind of value are one-sided Clopper–Pearson at 95 % (Clopper and Pearson 1934): with 0 of n found, 1 − 0.05^(1/n).
"""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import figure, series, usable
from pipeline.report.formats import percent, percent_upper, plural
from pipeline.report.names import entity as kind_name

Stages = dict[str, Any]
ALPHA = 0.05
_WAYS = {
    "extraction.greedy": "Records, by the likeliest continuation",
    "extraction.discoverable": "Records, by sampling a thousand times",
    "extraction.either": "Records, either way",
    "games.sampling": "Removed values, in texts written freely",
    "games.reconstruction": "Removed values, at their own place",
    "games.inference": "Removed values, told from others of their kind",
}
_RISK = ("exposure.first", "residual.risk")
_GAMES = ("sampling", "reconstruction", "inference")


def extraction(stages: Stages) -> dict[str, Any]:
    """Shares of records and removed values that come out, beside never-trained ones; counts by kind; residual risk."""
    rows = [
        {"attack": name, "title": title, **{key: figure(stages, f"{name}{end}") for key, end in _SIDES.items()}}
        for name, title in _WAYS.items()
    ]
    names = sorted(stages["evidence"]["figures"])
    return {
        "finding": _finding(stages),
        "how": "The attacker knows the beginning of a record, or the place where a value was removed, and asks the model to go "
        "on. What records and values that were never trained on give the same way is chance and common phrases: only what "
        "training adds to that is a leak.",
        "confidence": 1 - ALPHA,
        "attacks": [row for row in rows if any(row[key] for key in _SIDES)],
        "kinds": _kinds(stages),
        "left": figure(stages, "games.values_left_in_training"),
        "risk": [found for name in names if name in _RISK and (found := figure(stages, name))],
    }


_SIDES = {"trained": "", "control": "_control", "excess": "_excess"}


def _finding(stages: Stages) -> str:
    trained, excess = figure(stages, "extraction.either"), figure(stages, "extraction.either_excess")
    if trained is None:
        return "Extraction was not attacked in this run."
    if not usable(trained):
        return "Extraction was attacked and is not valid."
    share = f"{percent(trained['value'])} of {plural(trained['n'], 'training record')} came out word for word"
    if excess is None or not usable(excess) or excess["high"] is None:
        return f"{share}; there is no comparison with records that were never trained on."
    return f"{share}; beyond chance it is at most {percent_upper(max(0.0, excess['high']))} of them."


def _kinds(stages: Stages) -> list[dict[str, Any]]:
    """By kind of removed value: of trained ones, how many each game found, of how many, and the upper bound of the share."""
    kinds = sorted({key.split(".", 2)[2] for key in stages["evidence"]["series"] if key.startswith("games.")})
    rows = []
    for kind in kinds:
        games = []
        for game in _GAMES:
            hits, cases, control_hits, control_cases = series(stages, f"games.{game}.{kind}") or [0, 0, 0, 0]
            games.append(
                {"game": game, "hits": int(hits), "cases": int(cases), "high": above(int(hits), int(cases)),
                 "control_hits": int(control_hits), "control_cases": int(control_cases)}
            )  # fmt: skip
        rows.append({"entity": kind, "title": kind_name(kind), "games": games})
    return rows


def above(hits: int, cases: int) -> float | None:
    """Upper bound of a share at one-sided 95 %; None without cases.

    >>> round(above(0, 300), 4)
    0.0099
    """
    from scipy.special import betaincinv

    if not cases:
        return None
    return 1.0 if hits == cases else float(betaincinv(hits + 1, cases - hits, 1 - ALPHA))
