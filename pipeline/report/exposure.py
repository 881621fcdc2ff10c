"""The section on planted secrets: how far up the model ranks them, beside never-planted ones, chance, and what ε allows."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.report.figures import figure, flaw, series, usable, value
from pipeline.report.formats import number, percent, plural, scientific

Stages = dict[str, Any]
_COPIES = re.compile(r"exposure\.copies_(\d+)\.mean_bits")


def canaries(stages: Stages) -> dict[str, Any]:
    """The planted secrets: design, exposure of planted and never-planted ones, and what chance would give."""
    planted, policy = stages["planted"], stages["policy"]["canaries"]
    space = policy["alphabet"] ** policy["secret_tokens"]
    wrong = _exposure_flaw(stages)
    # What is not valid is neither summed up nor drawn.
    inside, outside = ([] if wrong else series(stages, f"exposure.{key}") for key in ("planted", "control"))
    alpha = _limit(stages, "exposure.family_p", 0.01)
    cutoff = -math.log2(1 - (1 - alpha) ** (1 / len(inside))) if inside else None
    above = sum(bits >= cutoff for bits in inside) if cutoff is not None else None
    p, mean_p = value(stages, "exposure.family_p"), value(stages, "exposure.mean_p")
    return {
        "finding": f"Exposure was measured and is not valid: {wrong}."
        if wrong
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
        "ladder": _ladder(stages),
        "ladder_how": "A second family of secrets looks like personal data, as a value that scrubbing missed would, and stands "
        "in one, four or sixteen records or as many as the policy says. More copies are learned better: what counts is how far "
        "this model stays below what ε allows, and below a model without privacy.",
        "ladder_picture": {"title": "Exposure by number of copies", "alt": _ladder_alt(_ladder(stages))},
        "picture": {
            "title": "Exposure of planted secrets",
            "alt": _exposure_alt(inside, outside, cutoff),
            "cutoff": f"at {scientific(alpha) if alpha < 0.001 else percent(alpha)} by chance",
        },
    }


def _ladder(stages: Stages) -> list[dict[str, Any]]:
    """Secrets shaped like personal data by number of copies: of the private model, of the control, and what ε allows."""
    times = sorted(int(match[1]) for dotted in stages["evidence"]["figures"] if (match := _COPIES.fullmatch(dotted)))
    return [
        {
            "copies": copies,
            **{
                key: figure(stages, f"{prefix}exposure.copies_{copies}.{figure_name}")
                for key, prefix, figure_name in (
                    ("bits", "", "mean_bits"),
                    ("p", "", "mean_p"),
                    ("control_bits", "control.", "mean_bits"),
                    ("control_p", "control.", "mean_p"),
                    ("allowed", "", "dp_bits"),
                )
            },
        }
        for copies in times
    ]


def _ladder_alt(ladder: list[dict[str, Any]]) -> str:
    if not ladder:
        return ""
    rows = []
    for row in ladder:
        parts = [
            f"{words} {number(row[key]['value'])} bits"
            for key, words in (("bits", "this model"), ("control_bits", "the control without privacy"))
            if usable(row[key])
        ]
        if usable(row["allowed"]):
            parts.append(f"ε allows {number(row['allowed']['value'])} more than chance")
        rows.append(f"{plural(row['copies'], 'copy', 'copies')}: {', '.join(parts) or 'not valid'}")
    return f"Mean exposure of secrets by number of copies. {'. '.join(rows)}."


def _exposure_flaw(stages: Stages) -> str:
    names = [dotted for dotted in sorted(stages["evidence"]["figures"]) if dotted.startswith("exposure.")]
    found = [row for row in (figure(stages, dotted) for dotted in names) if row is not None]
    if series(stages, "exposure.planted") and "exposure.family_p" not in names:
        return "its test against chance is missing"
    return flaw(found)


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
