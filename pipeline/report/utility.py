"""The section on utility: what the training bought on records it never saw, and what the model writes."""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import figure, flaw, value
from pipeline.report.formats import number, percent, plural
from pipeline.report.names import ANSWERS

Stages = dict[str, Any]


def utility(stages: Stages) -> dict[str, Any]:
    """What the training bought: perplexity and accuracy on held-out records, before and after."""
    found = {key: figure(stages, f"utility.{key}") for key in _KEYS}
    before, public, after = (value(stages, f"utility.{key}") for key in _KEYS[:3])
    sentence, alt = "Utility was not measured in this run.", ""
    wrong = flaw([item for key in _KEYS[:3] if (item := found[key])])
    if wrong:
        sentence = f"Utility was measured and is not valid: {wrong}."
    if before is not None and after is not None:
        sentence = f"On held-out records, perplexity fell from {number(before)} to {number(after)}."
        if after >= before:
            sentence = f"On held-out records, perplexity did not fall: {number(before)} before, {number(after)} after."
        alt = f"Two bars. Perplexity of the base model {number(before)}, of the tuned model {number(after)}."
        if public is not None:
            sentence = (
                f"On held-out records, perplexity went from {number(before)} to {number(public)} by public text, and to "
                f"{number(after)} by private training."
            )
            alt = (
                f"Three bars. Perplexity of the base model {number(before)}, after public text {number(public)}, of the tuned "
                f"model {number(after)}."
            )
    return {
        "finding": sentence,
        "how": "Perplexity says among how many equally likely next tokens the model wavers on average; lower is better. It is "
        "measured on records that were never trained on.",
        **found,
        "public": _public(stages),
        "completions": _completions(stages),
        "samples": _samples(stages),
        "picture": {"title": "Perplexity on held-out records", "alt": alt},
    }


_KEYS = (
    "base_perplexity",
    "public_perplexity",
    "perplexity",
    "base_accuracy",
    "public_accuracy",
    "accuracy",
    "public_ratio",
    "perplexity_ratio",
)


def _public(stages: Stages) -> str | None:
    """What the base model was trained on before, in the open; None where nothing."""
    made = stages["trained"]["base"].get("adaptation")
    if not made:
        return None
    shared = "No private record shares" if not made["sharing"] else f"{plural(made['sharing'], 'private record')} share"
    return (
        f"Before private training the base model learned from {plural(made['records'], 'public record')} "
        f"({made['source']}, SHA-256 {made['source_digest']}): {made['tokens']:,} tokens in {plural(made['steps'], 'step')}, "
        f"without noise and at no cost in privacy. {shared} 13 words in a row with them; one that stands there whole would "
        "have stopped the run. The released adapter is the sum of both trainings, over the base model as it is."
    )


def _completions(stages: Stages) -> dict[str, Any] | None:
    """How answers to held-out prompts compare with the records' own completions; None where the data has no prompts."""
    rows = [
        {
            "title": title,
            "base": figure(stages, f"utility.base_{key}"),
            "tuned": figure(stages, f"utility.{key}"),
            "control": figure(stages, f"control.utility.{key}"),
        }
        for key, title in ANSWERS.items()
    ]
    if not all(row["tuned"] for row in rows):
        return None
    shown = [(who, row) for who in ("base", "tuned", "control") if (row := rows[1][who]) is not None]
    alt = ", ".join(f"{_WHO[who]} {percent(row['value'])}" for who, row in shown)
    return {
        "text": f"{plural(rows[0]['tuned']['n'], 'held-out prompt')} answered greedily, and held against the records' own "
        "completions. Exact match forgives white space only; ROUGE-L is the longest common subsequence of words over both "
        "lengths (Lin 2004); next-token accuracy is of the completions' tokens. The control is a twin without privacy, kept in "
        "memory only, that learned the planted secrets by heart: it shows a leak, not the best that could be learned.",
        "rows": rows,
        "picture": {"title": "ROUGE-L of answers to held-out prompts", "alt": f"Bars. ROUGE-L of the {alt}."},
    }


_WHO = {"base": "base model", "tuned": "tuned model", "control": "control without privacy"}


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
