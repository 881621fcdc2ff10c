"""What the pictures of a study show, in words, for those who do not see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.formats import number, percent


def alts(content: Mapping[str, Any]) -> dict[str, str]:
    """A description by name of the picture."""
    groups, most = content["groups"], str(max(content["copies"], default=0))
    utility = [f"{_name(group)}: {number(group['perplexity']['value'])}" for group in groups if group["perplexity"]]
    bits = [f"{_name(group)}: {number(group['exposure'][most]['value'])}" for group in groups if most in group["exposure"]]
    shares = [
        f"{_name(group)}: secrets {percent(group['first']['value'])}, records {percent(group['extraction']['value'])}"
        for group in groups
        if group["first"] and group["extraction"]
    ]
    costs = [f"{_name(one)}: {number(one['busy_seconds'])} s, {number(one['peak_megabytes'])} MB" for one in groups]
    return {
        "frontier": f"Held-out perplexity after training. {'; '.join(utility)}.",
        "exposure": f"Mean exposure in bits at {most} copies, with 95 % intervals. {'; '.join(bits)}.",
        "extraction": f"Shares with 95 % intervals. {'; '.join(shares)}.",
        "cost": f"Means of a cell. {'; '.join(costs)}.",
    }


def _name(group: Mapping[str, Any]) -> str:
    return f"{group['model']}, {group['label']}"
