"""Assemble `report.json`, the report's source of truth, from the values of the stages.

Only named fields are taken from each value, so that a path of the machine or a text can never slip in with a value that
grows. Figures are stored as they were computed; the page shows nothing that does not stand here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.errors import IntegrityError
from pipeline.policy import Policy
from pipeline.report import attacks, sections, training
from pipeline.report.coverage import coverage
from pipeline.report.exposure import canaries
from pipeline.report.figures import figures
from pipeline.report.formats import plural
from pipeline.report.leaks import extraction
from pipeline.report.promise import promise
from pipeline.report.schema import SCHEMA
from pipeline.report.scrubbing import scrubbing
from pipeline.report.utility import utility
from pipeline.report.verdict import missing
from pipeline.report.verdict import verdict as judged

Source = BaseModel | Mapping[str, Any]


def build(
    policy: Policy,
    corpus: Source,
    scrubbed: Source,
    planted: Source,
    trained: Source,
    evidence: Source,
    verdict: Source,
    standing: Source,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole content of a report.

    Args:
        policy: the resolved policy of the run.
        corpus: `Corpus`, or a mapping with its fields; likewise the next six, each the value of its stage.
        scrubbed: `Scrubbed`.
        planted: `Planted`.
        trained: `Trained`.
        evidence: `Evidence`; figures that are missing are shown as not measured, figures that are not known to the report
            are listed in its table of all figures.
        verdict: `Verdict`.
        standing: `Standing` of the lifetime budget after this run was charged.
        facts: what only the caller knows: `run` and `created` (text), `command` (text), `versions` and `hardware` (name →
            text), `seconds` (stage → seconds), and what `context.keep` returns. A missing one is left out of the page or
            said to be missing.

    Returns:
        JSON-able content with `"schema": "hushtune-report/1"`; non-finite numbers are None.

    Raises:
        IntegrityError: the audited canaries are not those that were sealed before training.
    """
    source = {
        "policy": policy,
        "corpus": corpus,
        "scrubbed": scrubbed,
        "planted": planted,
        "trained": trained,
        "evidence": evidence,
        "verdict": verdict,
        "standing": standing,
        "facts": facts,
    }
    stages = {key: plain_value(value) for key, value in source.items()}
    _check_seal(stages)
    data, scrubbed_section = sections.data(stages), scrubbing(stages)
    content = {
        "schema": SCHEMA,
        "run": sections.run(stages, policy.digest),
        "verdict": judged(stages),
        "promise": promise(stages["policy"], stages["trained"], data, scrubbed_section),
        "data": data,
        "scrubbing": scrubbed_section,
        "training": training.training(stages),
        "budget": training.budget(stages),
        "canaries": canaries(stages),
        "epsilon": attacks.epsilon(stages),
        "membership": attacks.membership(stages),
        "extraction": extraction(stages),
        "utility": utility(stages),
        "figures": figures(stages),
        "evidence_text": f"{plural(len(stages['evidence']['figures']), 'figure')} by name, each with its method",
        "reproduce": sections.reproduce(stages, policy.digest),
    }
    content["reproduce"]["changes"] = sections.changes(stages, content)
    content["verdict"]["missing"] = missing(content)
    content["coverage"] = coverage(content)
    return json.loads(json.dumps(content, allow_nan=False))


def plain_value(value: Any) -> Any:
    """A stage's value as plain JSON types: models dumped, tuples as lists, non-finite numbers None."""
    if isinstance(value, BaseModel):
        return plain_value(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _check_seal(stages: dict[str, Any]) -> None:
    if stages["planted"]["manifest_digest"] != stages["trained"]["manifest_digest"]:
        raise IntegrityError(
            "The canary manifest in planted/ is not the one that was sealed before training: run the audit again on the run's "
            "own folders, or train again."
        )
