"""The sections on attacks: the lower bound on ε, and who can tell that a record was in the data."""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import figure, flaw, series, usable, value
from pipeline.report.formats import lower, number, plain, share, upper
from pipeline.report.names import ATTACKS, METRICS, words

Stages = dict[str, Any]
_CONTROL = "splitter"


def epsilon(stages: Stages) -> dict[str, Any]:
    """Claimed, spent, proven by attack, and the most that this attack could have proven."""
    allowed, spent = stages["policy"]["privacy"]["epsilon"], stages["trained"]["epsilon"]
    low, reachable = value(stages, "epsilon.lower_bound"), value(stages, "epsilon.reachable")
    found = figure(stages, "epsilon.lower_bound")
    if found is not None and found["ceiling"] is not None:
        reachable = found["ceiling"] if usable(found) else None
    wrong = flaw([found]) if found is not None and found["value"] is not None else ""
    outcome = "invalid" if wrong else _outcome(spent, low, reachable)
    shown = [value for value in (allowed, spent, low, reachable) if value is not None]
    return {
        "finding": _EPSILON[outcome].format(low=lower(low or 0), spent=upper(spent), reach=lower(reachable or 0), wrong=wrong)
        if reachable is not None or outcome != "limited"
        else _EPSILON["alone"].format(low=lower(low or 0), spent=upper(spent)),
        "how": "Guessing from the finished model which of the sealed secrets went in, better than a model with a given ε would "
        "allow, proves that ε is larger than that (Steinke, Nasr and Jagielski 2023). The number of guesses and the score were "
        f"fixed before training, and the bound holds with {share(1 - stages['policy']['audit']['alpha'])} confidence.",
        "outcome": outcome,
        "allowed": allowed,
        "spent": spent,
        "lower_bound": low,
        "reachable": reachable,
        "figure": found,
        "rows": _bounds(stages),
        "axis": [0.0, 1.12 * max(shown)],
        "picture": {
            "title": "Privacy loss: claimed, proven, provable",
            "alt": f"One axis of ε. Allowed: {plain(allowed)}. Spent: {upper(spent)}."
            + (f" Proven by attack: {lower(low)}." if low is not None else " No valid bound was measured.")
            + (f" Most that this audit could have proven: {lower(reachable)}." if reachable is not None else ""),
        },
    }


def _bounds(stages: Stages) -> list[dict[str, Any]]:
    """Every lower bound on ε, each with what it could have reached; the control's show what a leak would look like."""
    return [
        {"title": title, "figure": figure(stages, dotted)}
        for title, dotted in (
            ("One-run bound, which the gate judges", "epsilon.lower_bound"),
            ("One-run bound of a Gaussian trade-off curve", "epsilon.fdp_lower_bound"),
            ("Control without privacy, one-run bound", "control.epsilon.lower_bound"),
            ("Control without privacy, trade-off curve", "control.epsilon.fdp_lower_bound"),
        )
    ]


_EPSILON = {
    "violated": "An attack proves a privacy loss of at least {low}, more than the {spent} that was claimed: something is "
    "broken.",
    "consistent": "The attack proves a privacy loss of at least {low} and could have proven up to {reach}: it does not "
    "contradict the claim of {spent}. An attack that finds little proves nothing.",
    "limited": "The attack proves a privacy loss of at least {low}. It could have proven at most {reach}, less than the "
    "{spent} claimed: it would show a broken mechanism, but cannot test the claim to its full height.",
    "alone": "The attack proves a privacy loss of at least {low}, which does not contradict the claim of {spent}; how much it "
    "could have proven is not known.",
    "invalid": "A lower bound was measured and is not valid: {wrong}. The claim of {spent} rests on the proof alone.",
    "unmeasured": "No lower bound was measured; the claim of {spent} rests on the proof alone.",
}


def _outcome(spent: float, low: float | None, reachable: float | None) -> str:
    if low is None:
        return "unmeasured"
    if low > spent:
        return "violated"
    return "limited" if reachable is None or reachable < spent else "consistent"


def membership(stages: Stages) -> dict[str, Any]:
    """One row an attack, its metrics with intervals, and the ROC curves."""
    prefix = "membership."
    names = [dotted.split(".") for dotted in sorted(stages["evidence"]["figures"]) if dotted.startswith(prefix)]
    found = {parts[1] for parts in names if len(parts) == 3}
    attacks = [key for key in ATTACKS if key in found] + sorted(found - set(ATTACKS))
    metrics = list(METRICS) + sorted({parts[2] for parts in names if len(parts) == 3} - set(METRICS))
    metrics = [key for key in metrics if any(parts[1:] == [attack, key] for attack in attacks for parts in names)]
    rows = [
        {
            "attack": attack,
            "title": ATTACKS.get(attack, words(attack)),
            "metrics": [figure(stages, f"{prefix}{attack}.{metric}") for metric in metrics],
        }
        for attack in attacks
    ]
    real = [row for row in rows if row["attack"] != _CONTROL and _auc(row) is not None]
    best = max(real, key=lambda row: _auc(row) or 0, default=None)
    wrong = flaw([cell for row in rows for cell in row["metrics"] if cell and cell["figure"].endswith(".auc")])
    drawn = {row["attack"] for row in rows if _auc(row) is not None}
    curves = {attack: series(stages, f"{prefix}{attack}.roc") if attack in drawn else [] for attack in attacks}
    return {
        "finding": f"The best attack tells members from others with an AUC of {number(_auc(best) or 0)}; a coin has 0.5, "
        "certainty 1."
        if best
        else f"Membership was attacked and is not valid: {wrong}."
        if wrong
        else "Membership was not attacked in this run.",
        "how": "Each attack scores records that were trained on and held-out records that were not, and guesses by the score. "
        "What matters is how many members it names while it hardly ever accuses a non-member: the left side of the "
        "curve. The control looks at words alone, without any model: if it told members apart, the attacks would show nothing.",
        "best": _auc(best) if best else None,
        "metrics": [{"metric": key, "title": METRICS.get(key, (words(key), ""))[0]} for key in metrics],
        "attacks": rows,
        "roc": [
            {
                "attack": attack,
                "title": ATTACKS.get(attack, words(attack)),
                "points": curves[attack],
                "band": series(stages, f"{prefix}{attack}.roc_band"),
            }
            for attack in attacks
            if curves[attack]
        ],
        "picture": {
            "title": "Members found against false alarms",
            "alt": "ROC curves on logarithmic axes. "
            + " ".join(f"{row['title']}: AUC {number(_auc(row) or 0)}." for row in rows if _auc(row) is not None),
        },
    }


def _auc(row: dict[str, Any]) -> float | None:
    found = [cell["value"] for cell in row["metrics"] if cell and usable(cell) and cell["figure"].endswith(".auc")]
    return found[0] if found else None
