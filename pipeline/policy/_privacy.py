"""The section on what is promised, in one run and over all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.errors import InputError
from pipeline.policy._section import NAME, Section


class Lifetime(Section):
    """The lifetime budget of the people in the data, kept in the ledger across runs."""

    budget: str = Field(default="default", pattern=NAME)
    also: tuple[Annotated[str, Field(pattern=NAME)], ...] = Field(
        default=(),
        description="other budgets that people of this data may be in; what they spent there counts here too, and back",
    )
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1e-3)
    on_exhausted: Literal["refuse"] = "refuse"

    def check(self, units: int) -> None:
        """Refuse a δ that would allow one of `units` units to be published outright.

        Raises:
            InputError: delta is not below 1/units.
        """
        if self.delta >= 1 / units:
            raise InputError(
                f"privacy.lifetime.delta is {self.delta:.4g} and must be below 1/n = {1 / units:.4g} for {units:,} units: "
                "lower it."
            )


class Privacy(Section):
    """The differential-privacy promise of one run."""

    epsilon: float = Field(gt=0, le=50)
    delta: float | Literal["auto"] = Field(default="auto", description="a probability below 1/n, or auto: 1/n^1.1")
    unit: Literal["record", "person"] = Field(description="what is protected: one record, or all records of a person")
    records_per_unit: int = Field(default=16, ge=1, description="records of a person that may contribute to one step")
    lifetime: Lifetime

    @field_validator("delta")
    @classmethod
    def _small(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value < 1e-3:
            raise ValueError("must lie between 0 and 0.001, or be auto")
        return value
