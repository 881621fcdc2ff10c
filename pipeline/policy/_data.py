"""The sections on text: how it is read, and what is replaced in it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from pipeline.policy._section import Section


class Data(Section):
    """How records are read, grouped into people and split."""

    provenance: str | None = Field(default=None, max_length=600, description="source, purpose and basis of the data")
    text_column: str = "text"
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    messages_column: str = "messages"
    id_column: str = "id"
    unit_column: str = "unit"
    unit_pattern: str | None = Field(default=None, description="regular expression; its first match in the column is the unit")
    columns: dict[str, Literal["drop", "keep", "scrub", "hash"]] = Field(
        default_factory=dict,
        description="what `hushtune scrub` does with further columns of a structured file (those not named are dropped) and "
        "with ids and units (of those not named, it replaces what is plainly somebody's name, address or number)",
    )
    limit: int | None = Field(default=None, ge=1, description="read at most this many records")
    held_out: float = Field(default=0.1, gt=0, le=0.5, description="share of the units kept out of training, for the audit")
    max_tokens: int = Field(default=128, ge=8, description="tokens of a record that are trained on")
    overlong: Literal["cut", "refuse"] = Field(default="cut", description="what to do with records over max_tokens")
    malformed: Literal["refuse", "skip"] = Field(default="refuse", description="what to do with lines that are no records")

    @field_validator("unit_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is not a regular expression ({error})") from error
        return value


class Scrub(Section):
    """What counts as personal data and what stands in its place."""

    detector: Literal["default", "high_recall", "fast"] = "default"
    model: str | None = Field(
        default=None,
        description="spacy:NAME|PATH, transformers:PATH or gliner:PATH, installed here, in place of the bundled spaCy model",
    )
    language: Literal["en"] = "en"
    entities: tuple[str, ...] = Field(min_length=1, description="Presidio entity types to replace")
    minimum_score: float = Field(default=0.35, ge=0, le=1)
    operator: Literal["placeholder", "redact", "mask", "hash", "encrypt", "surrogate"] = "placeholder"
    consistency: Literal["person", "corpus"] = Field(
        default="person", description="within what equal values get equal hashes, ciphertexts and surrogates"
    )
    locale: str = Field(default="en_US", pattern=r"^[a-z]{2,3}_[A-Z]{2}$", description="of surrogates")
    rescan: Literal["auto", "off"] = Field(
        default="auto",
        description="scan the scrubbed records again with another detector than the one that scrubbed, where one is installed",
    )
    rescan_records: int | None = Field(
        default=2000, ge=1, description="scrubbed records that are scanned again, drawn by their ids; null: all of them"
    )
    sample: int = Field(
        default=200, ge=0, description="records in which values are planted and detectors compared, to measure what is missed"
    )
    allow: tuple[str, ...] = Field(default=(), description="words that are never replaced")
    deny: tuple[str, ...] = Field(default=(), description="words that are always replaced, in any case")
    countries: tuple[str, ...] = Field(
        default=(), description="countries whose identifiers are looked for besides `entities`: uk, germany…"
    )
    recognizers: str | None = Field(default=None, description="a YAML file of custom recognisers in Presidio's format")
    probes: int = Field(default=280, ge=0, description="known personal values planted before scrubbing, to measure recall")
