"""The published schema: valid, up to date, and true of every kind of report to the last key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.report.schema import SCHEMA, schema, schema_text
from tests.report import sample

MAKERS = [sample.released, sample.rejected, sample.awaiting, sample.inconclusive, sample.waived, sample.bare]
PUBLISHED = Path(__file__).parents[2] / "pipeline" / "report" / "report.schema.json"


def closed(part: Any) -> Any:
    """The schema with no key allowed that it does not name."""
    if isinstance(part, dict):
        content = {key: closed(value) for key, value in part.items()}
        return content | {"additionalProperties": False} if part.get("type") == "object" else content
    return [closed(item) for item in part] if isinstance(part, list) else part


def test_the_published_file_is_what_the_code_says():
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text()
    Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize("make", MAKERS)
def test_every_report_keeps_it_and_has_no_key_that_it_does_not_name(make):
    errors = [
        f"{error.json_path}: {error.message[:120]}" for error in Draft202012Validator(closed(schema())).iter_errors(make())
    ]
    assert errors == []


def test_a_report_that_lacks_or_retypes_a_key_is_caught():
    content = sample.released()
    del content["promise"]["delta"]
    content["verdict"]["gates"][0]["passed"] = "yes"
    assert len(list(Draft202012Validator(schema()).iter_errors(content))) == 2
