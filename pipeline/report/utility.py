"""The section on utility: what the training bought on records it never saw, and what the model writes."""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import figure, flaw, value
from pipeline.report.formats import number

Stages = dict[str, Any]


def utility(stages: Stages) -> dict[str, Any]:
    """What the training bought: perplexity and accuracy on held-out records, before and after."""
    keys = ("base_perplexity", "perplexity", "base_accuracy", "accuracy", "perplexity_ratio")
    found = {key: figure(stages, f"utility.{key}") for key in keys}
    before, after = (value(stages, f"utility.{key}") for key in keys[:2])
    sentence, alt = "Utility was not measured in this run.", ""
    wrong = flaw([item for key in keys[:2] if (item := found[key])])
    if wrong:
        sentence = f"Utility was measured and is not valid: {wrong}."
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
        "samples": _samples(stages),
        "picture": {"title": "Perplexity on held-out records", "alt": alt},
    }


def _samples(stages: Stages) -> dict[str, Any]:
    """A few texts of the model after neutral prompts, as they were checked."""
    kept = stages["facts"].get("samples") or {"shown": False, "checked_by": None, "samples": []}
    withheld = sum(row["text"] is None for row in kept["samples"])
    if not kept["shown"]:
        text = "No text of the model is shown: it is not released, or its texts could not be checked."
    else:
        text = (
            f"Written by the model after neutral prompts. What the detector {kept['checked_by']} finds in a text is replaced "
            f"by the name of its kind, and a text that repeats words of a record is withheld: {withheld} of "
            f"{len(kept['samples'])}. "
            "They show its manner, not its worth."
        )
    return {"text": text, "withheld": withheld, **kept}
