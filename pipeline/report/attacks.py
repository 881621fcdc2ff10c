"""The sections of the report that show what the attacks found: canaries, ε, membership, utility, and the table of all figures.

Figures are taken from the evidence by their dotted names; one that is absent is None and shown as not measured.
"""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.formats import join, lower, number, percent, plain, plural, scientific, share, upper
from pipeline.report.names import ATTACKS, METRICS, name, words

Stages = dict[str, Any]
_CONTROL = "splitter"


def figure(stages: Stages, dotted: str) -> dict[str, Any] | None:
    """One figure of the evidence with its plain title and format; None if it is absent."""
    content = stages["evidence"]["figures"].get(dotted)
    if content is None:
        return None
    known = name(dotted)
    fields = {key: content.get(key) for key in ("value", "low", "high", "ceiling", "n", "method", "seconds")}
    conditions = [{"name": words(key), "holds": bool(holds)} for key, holds in (content.get("conditions") or {}).items()]
    return {
        "figure": dotted,
        "title": known.title,
        "format": known.format,
        **fields,
        "resolvable": content.get("resolvable", True) and fields["value"] is not None,
        "valid": all(condition["holds"] for condition in conditions),
        "conditions": conditions,
    }


def usable(found: dict[str, Any] | None) -> bool:
    """Whether a figure is there, resolvable and valid in all its conditions."""
    return found is not None and found["resolvable"] and found["valid"]


def _flaw(found: list[dict[str, Any]]) -> str:
    """Why figures that are there are not usable: their broken conditions, or too few cases; empty if all are usable."""
    broken = [condition["name"].lower() for row in found for condition in row["conditions"] if not condition["holds"]]
    if broken:
        return join([f"{name} does not hold" for name in dict.fromkeys(broken)])
    return "" if all(usable(row) for row in found) else "too few cases to resolve it"


def _value(stages: Stages, dotted: str) -> float | None:
    found = figure(stages, dotted)
    return found["value"] if found is not None and usable(found) else None


def _series(stages: Stages, key: str) -> list[Any]:
    return stages["evidence"]["series"].get(key) or []


def figures(stages: Stages) -> list[dict[str, Any]]:
    """Every figure of the evidence, by name."""
    found = [figure(stages, dotted) for dotted in sorted(stages["evidence"]["figures"])]
    return [row for row in found if row is not None]


def canaries(stages: Stages) -> dict[str, Any]:
    """The planted secrets: design, exposure of planted and never-planted ones, and what chance would give."""
    planted, policy = stages["planted"], stages["policy"]["canaries"]
    space = policy["alphabet"] ** policy["secret_tokens"]
    flaw = _exposure_flaw(stages)
    # What is not valid is neither summed up nor drawn.
    inside, outside = ([] if flaw else _series(stages, f"exposure.{key}") for key in ("planted", "control"))
    alpha = _limit(stages, "exposure.family_p", 0.01)
    cutoff = -math.log2(1 - (1 - alpha) ** (1 / len(inside))) if inside else None
    above = sum(bits >= cutoff for bits in inside) if cutoff is not None else None
    p, mean_p = _value(stages, "exposure.family_p"), _value(stages, "exposure.mean_p")
    return {
        "finding": f"Exposure was measured and is not valid: {flaw}."
        if flaw
        else _exposure_finding(inside, outside, above, mean_p, alpha),
        "how": "Random secrets were made before training; for each, a fair coin decided whether it went in. A secret's "
        "exposure is how far up the model ranks it among all candidates of its kind: 0 bits is the last place, and each bit "
        "more halves the number of candidates ahead of it. A secret that was never seen has each rank with the same chance.",
        "count": planted["secrets"],
        "included": planted["secrets_included"],
        "share_of_units": planted["included"] / planted["train_units"] if planted["train_units"] else None,
        "space": space,
        "space_bits": math.log2(space),
        "guesses": policy["guesses"],
        "manifest_digest": planted["manifest_digest"],
        "alpha": alpha,
        "cutoff_bits": cutoff,
        "above_cutoff": above,
        "p": p,
        "mean_p": mean_p,
        "planted": _summary(inside),
        "control": _summary(outside),
        "series": {"planted": inside, "control": outside},
        "picture": {
            "title": "Exposure of planted secrets",
            "alt": _exposure_alt(inside, outside, cutoff),
            "cutoff": f"at {scientific(alpha) if alpha < 0.001 else percent(alpha)} by chance",
        },
    }


def _exposure_flaw(stages: Stages) -> str:
    names = [dotted for dotted in sorted(stages["evidence"]["figures"]) if dotted.startswith("exposure.")]
    found = [row for row in (figure(stages, dotted) for dotted in names) if row is not None]
    if _series(stages, "exposure.planted") and "exposure.family_p" not in names:
        return "its test against chance is missing"
    return _flaw(found)


def _summary(bits: list[float]) -> dict[str, Any]:
    if not bits:
        return {"n": 0, "mean": None, "most": None}
    return {"n": len(bits), "mean": sum(bits) / len(bits), "most": max(bits)}


def _exposure_finding(inside: list[float], outside: list[float], above: int | None, p: float | None, alpha: float) -> str:
    if not inside:
        return "Exposure was not measured in this run."
    both = f", {number(sum(outside) / len(outside))} for secrets never planted" if outside else ""
    mean = number(sum(inside) / len(inside))
    if above:
        return f"{plural(above, 'planted secret')} of {len(inside)} stand out beyond chance; the mean exposure is {mean} bits."
    if p is not None and p < alpha:
        return f"No single secret stands out, but together they rank higher than chance allows (p {number(p)})."
    return f"No planted secret stands out. Their mean exposure is {mean} bits{both}, and 1.44 by chance."


def _exposure_alt(inside: list[float], outside: list[float], cutoff: float | None) -> str:
    if not inside:
        return ""
    one, two = _summary(inside), _summary(outside)
    control = f" Controls: {two['n']}, mean {number(two['mean'])}, most {number(two['most'])} bits." if outside else ""
    return (
        f"Histogram of exposure beside the curve that chance gives (mean 1.44 bits). Planted secrets: {one['n']}, mean "
        f"{number(one['mean'])}, most {number(one['most'])} bits.{control} One of them reaching {number(cutoff or 0)} bits by "
        "chance would be rare."
    )


def _limit(stages: Stages, dotted: str, default: float) -> float:
    for gate in stages["policy"]["gates"].values():
        limit = gate["at_least"] if gate["at_least"] is not None else gate["at_most"]
        if gate["figure"] == dotted and 0 < limit < 1:
            return limit
    return default


def epsilon(stages: Stages) -> dict[str, Any]:
    """Claimed, spent, proven by attack, and the most that this attack could have proven."""
    allowed, spent = stages["policy"]["privacy"]["epsilon"], stages["trained"]["epsilon"]
    low, reachable = _value(stages, "epsilon.lower_bound"), _value(stages, "epsilon.reachable")
    found = figure(stages, "epsilon.lower_bound")
    if found is not None and found["ceiling"] is not None:
        reachable = found["ceiling"] if usable(found) else None
    flaw = _flaw([found]) if found is not None and found["value"] is not None else ""
    outcome = "invalid" if flaw else _outcome(spent, low, reachable)
    shown = [value for value in (allowed, spent, low, reachable) if value is not None]
    return {
        "finding": _EPSILON[outcome].format(low=lower(low or 0), spent=upper(spent), reach=lower(reachable or 0), flaw=flaw)
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
        "axis": [0.0, 1.12 * max(shown)],
        "picture": {
            "title": "Privacy loss: claimed, proven, provable",
            "alt": f"One axis of ε. Allowed: {plain(allowed)}. Spent: {upper(spent)}."
            + (f" Proven by attack: {lower(low)}." if low is not None else " No valid bound was measured.")
            + (f" Most that this audit could have proven: {lower(reachable)}." if reachable is not None else ""),
        },
    }


_EPSILON = {
    "violated": "An attack proves a privacy loss of at least {low}, more than the {spent} that was claimed: something is "
    "broken.",
    "consistent": "The attack proves a privacy loss of at least {low} and could have proven up to {reach}: it does not "
    "contradict the claim of {spent}. An attack that finds little proves nothing.",
    "limited": "The attack proves a privacy loss of at least {low}. It could have proven at most {reach}, less than the "
    "{spent} claimed: it would show a broken mechanism, but cannot test the claim to its full height.",
    "alone": "The attack proves a privacy loss of at least {low}, which does not contradict the claim of {spent}; how much it "
    "could have proven is not known.",
    "invalid": "A lower bound was measured and is not valid: {flaw}. The claim of {spent} rests on the proof alone.",
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
    flaw = _flaw([cell for row in rows for cell in row["metrics"] if cell and cell["figure"].endswith(".auc")])
    drawn = {row["attack"] for row in rows if _auc(row) is not None}
    curves = {attack: _series(stages, f"{prefix}{attack}.roc") if attack in drawn else [] for attack in attacks}
    return {
        "finding": f"The best attack tells members from others with an AUC of {number(_auc(best) or 0)}; a coin has 0.5, "
        "certainty 1."
        if best
        else f"Membership was attacked and is not valid: {flaw}."
        if flaw
        else "Membership was not attacked in this run.",
        "how": "Each attack scores records that were trained on and held-out records that were not, and guesses by the score. "
        "What matters is how many members it names while it hardly ever accuses a non-member: the left side of the "
        "curve. The control looks at words alone, without any model: if it told members apart, the attacks would show nothing.",
        "metrics": [{"metric": key, "title": METRICS.get(key, (words(key), ""))[0]} for key in metrics],
        "attacks": rows,
        "roc": [
            {
                "attack": attack,
                "title": ATTACKS.get(attack, words(attack)),
                "points": curves[attack],
                "band": _series(stages, f"{prefix}{attack}.roc_band"),
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


def utility(stages: Stages) -> dict[str, Any]:
    """What the training bought: perplexity and accuracy on held-out records, before and after."""
    keys = ("base_perplexity", "perplexity", "base_accuracy", "accuracy", "perplexity_ratio")
    found = {key: figure(stages, f"utility.{key}") for key in keys}
    before, after = (_value(stages, f"utility.{key}") for key in keys[:2])
    sentence, alt = "Utility was not measured in this run.", ""
    flaw = _flaw([item for key in keys[:2] if (item := found[key])])
    if flaw:
        sentence = f"Utility was measured and is not valid: {flaw}."
    if before is not None and after is not None:
        sentence = f"On held-out records, perplexity fell from {number(before)} to {number(after)}."
        if after >= before:
            sentence = f"On held-out records, perplexity did not fall: {number(before)} before, {number(after)} after."
        alt = f"Two bars. Perplexity of the base model {number(before)}, of the tuned model {number(after)}."
    return {
        "finding": sentence,
        "how": "Perplexity says among how many equally likely next tokens the model wavers on average; lower is better. It is "
        "measured on records that were never trained on.",
        **found,
        "picture": {"title": "Perplexity on held-out records", "alt": alt},
    }
