"""The sections on what follows the verdict: who says yes, and how long files are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.policy._section import Section


class Release(Section):
    """Who must say yes, and what becomes of a run that is not released."""

    approval: Literal["none", "required"] = "none"
    approval_days: int = Field(default=14, ge=1, description="days after which a run can no longer be approved")
    four_eyes: bool = Field(default=True, description="the approver must be another than the submitter")
    inconclusive: Literal["reject", "release"] = Field(
        default="reject", description="a gate whose figure could not be resolved"
    )
    quarantine_days: int = Field(default=0, ge=0, description="days that the weights of a run that is not released are kept")


class Retention(Section):
    """Days that a run's private files are kept, None without end. Ledger, report and release stay."""

    raw_days: int | None = Field(default=90, ge=0, description="text as it was read, and planted probes")
    scrubbed_days: int | None = Field(default=90, ge=0, description="scrubbed and planted text")
    checkpoint_days: int | None = Field(default=14, ge=0, description="unfinished trainings")
    review_days: int | None = Field(default=30, ge=0, description="review pages and tracebacks, which quote text")
