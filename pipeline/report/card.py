"""The model card of a release (README.md), in the Hugging Face format, from the report's content; made offline."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel

from pipeline.report.build import plain_value
from pipeline.report.figures import usable
from pipeline.report.formats import FORMATS, show

# The identifiers of the Hub that base models of this size carry; anything else is "other" with its name beside it.
_LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "openrail",
    "llama3.2",
    "gemma",
}
_TAGS = ["lora", "peft", "differential-privacy", "dp-sgd", "hushtune"]


def card(content: Mapping[str, Any], base: BaseModel | Mapping[str, Any]) -> str:
    """The text of the card.

    Args:
        content: what `build` returned.
        base: `Base` of the run, or a mapping with its name and licence.

    Returns:
        Markdown with a YAML head that the Hub accepts; ends with a newline.
    """
    fields = plain_value(base)
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {**FORMATS, "show": show, "safe_text": _text}
    body = environment.get_template("card.md.j2").render(report=content, base=fields, gates=gate_table(content))
    return str(ModelCard(f"---\n{_head(content, fields).to_yaml()}\n---\n\n{body}")).rstrip("\n") + "\n"


def gate_table(content: Mapping[str, Any]) -> str:
    """The gates as a Markdown table: what was judged, the limit, the result; the same in the card and in Prefect."""
    rows = [
        f"| {_text(gate['title'])} | {show(gate['bound'], gate['format'])}"
        f"{'' if gate['judge'] == 'value' else ' (' + gate['judged'] + ')'} | "
        f"{'at least' if gate['rule'] == 'at_least' else 'at most'} "
        f"{show(gate['limit'], 'share' if gate['format'] == 'percent' else 'plain')} | {gate['outcome']} |"
        for gate in content["verdict"]["gates"]
    ]
    return "\n".join(["| Gate | Judged | Limit | Result |", "|---|---:|---:|---|", *rows])


def _head(content: Mapping[str, Any], base: Mapping[str, Any]) -> ModelCardData:
    licence = str(base["licence"]).lower()
    known = licence in _LICENCES
    named: dict[str, Any] = {} if known else {"license_name": re.sub(r"[^\w.-]+", "-", licence) or "unknown"}
    return ModelCardData(
        base_model=re.sub(r"[^\w./-]", "-", str(base["name"])),
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-generation",
        language="en",
        license=licence if known else "other",
        tags=_TAGS,
        model_name=re.sub(r"[^\w .,()+-]+", "-", content["run"]["name"]) or "hushtune adapter",
        eval_results=_results(content["utility"]) or None,
        **named,
    )


def _results(utility: Mapping[str, Any]) -> list[EvalResult]:
    shown = {"perplexity": ("perplexity", "Perplexity"), "accuracy": ("accuracy", "Next-token accuracy")}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="private",
            dataset_name="held-out records (private)",
            metric_type=kind,
            metric_name=title,
            metric_value=round(utility[key]["value"], 4),
        )
        for key, (kind, title) in shown.items()
        if usable(utility[key])
    ]


def _text(value: Any) -> str:
    """Text of a caller inside Markdown: no tag, no code, no link, no table cell, one line."""
    flat = " ".join(html.escape(str(value), quote=False).split())
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat)
