"""The sections on the audit and on the gates that judge it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.policy._section import Limit, Section, Share


class Audit(Section):
    """How hard the release candidate is attacked."""

    alpha: Share = Field(default=0.05, description="error probability of each bound")
    membership_records: int = Field(default=500, ge=50, description="members, and as many non-members, that are attacked")
    utility_records: int = Field(default=400, ge=20, description="held-out records on which perplexity is measured")
    completion_records: int = Field(
        default=100, ge=0, description="held-out prompts that are answered, where the data has prompts; 0: none"
    )
    completion_tokens: int = Field(default=48, ge=1, description="tokens of such an answer at most")
    exposure_canaries: int = Field(
        default=128, ge=8, description="canaries whose exact rank is computed, planted ones and controls"
    )
    extraction_records: int = Field(
        default=500, ge=20, description="training records, and as many never trained on, to be extracted"
    )
    prefix_tokens: int = Field(default=16, ge=1, description="tokens of a record that the extracting attacker knows at least")
    suffix_tokens: int = Field(default=16, ge=4, description="tokens that count as extracted when all of them come out")
    samples: int = Field(default=256, ge=1, description="texts drawn freely from the model and searched for removed values")
    games_values: int = Field(
        default=100, ge=1, description="removed values, and as many never trained on, to be reconstructed"
    )
    control: bool = Field(
        default=False,
        description="train a twin without privacy, in memory only, on which the attacks must see a leak; never released",
    )


class Gate(Section):
    """One rule of the verdict: a figure of the evidence, or a bound of it, against a limit.

    The limit `privacy.epsilon` is what the policy promises, so that the gate follows the promise.
    """

    figure: str
    judge: Literal["value", "low", "high"] = "value"
    at_most: Limit | Literal["privacy.epsilon"] | None = None
    at_least: Limit | None = None
    why: str = Field(min_length=8)
    owner: str = Field(min_length=2)
    waivable: bool = Field(default=False, description="whether a signed, dated waiver may let a run pass that this gate fails")

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("needs exactly one of at_most and at_least")
        return self
