"""The section on the secrets that are planted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.policy._section import Section

_CANARIES = {
    "small": {"count": 64, "guesses": 64, "repeated": 8},
    "standard": {"count": 256, "guesses": 128, "repeated": 12},
    "strong": {"count": 1000, "guesses": 500, "repeated": 24},
}


class Canaries(Section):
    """Secrets planted after scrubbing, each in or out of training by its own fair coin."""

    preset: Literal["small", "standard", "strong"] = Field(
        default="standard", description="sets count, guesses and repeated where they are not given: " + "; ".join(
            f"{name} {', '.join(str(value) for value in sizes.values())}" for name, sizes in _CANARIES.items()
        )
    )  # fmt: skip
    count: int = Field(default=256, ge=16, le=4096, description="random-token canaries, one copy each: they bound epsilon")
    prefix_tokens: int = Field(default=8, ge=1, le=32)
    secret_tokens: int = Field(default=3, ge=2, le=4)
    alphabet: int = Field(default=48, ge=8, le=128, description="candidates for each position of the secret")
    guesses: int = Field(
        default=128, ge=2, description="guesses of the one-run audit, fixed before training: half in, half out"
    )
    repetitions: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        default=(1, 4, 16),
        min_length=1,
        description="copies of the personal-data-shaped canaries, as of values that scrubbing misses",
    )
    repeated: int = Field(
        default=12, ge=0, le=256, description="personal-data-shaped canaries at each number of copies; 0: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        sizes = _CANARIES.get(content.get("preset", "standard"), {})
        return sizes | content

    @model_validator(mode="after")
    def _consistent(self) -> Canaries:
        if self.guesses > self.count:
            raise ValueError(f"guesses ({self.guesses}) cannot exceed count ({self.count})")
        if self.alphabet**self.secret_tokens < 100_000:
            raise ValueError("alphabet ** secret_tokens must be at least 100000, or exposure cannot reach its cutoff")
        return self

    def units(self, unit: str) -> int:
        """Privacy units that canaries hold, in or out: each copy is a record, and all copies of a secret are one person."""
        return self.count + self.repeated * (len(self.repetitions) if unit == "person" else sum(self.repetitions))
