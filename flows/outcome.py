"""How a run ended: the value behind the closing table, the JSON line and the flow's final state."""

from pathlib import Path
from typing import Literal

from pipeline.folders import Value

Status = Literal["released", "rejected", "inconclusive", "awaiting_approval"]


class Gate(Value):
    """One gate: the figure's value, the bound of it that was judged, the limit, its direction (≤ or ≥), and why."""

    passed: bool
    value: float | None
    bound: float | None
    limit: float
    rule: Literal["≤", "≥"]
    why: str


class Outcome(Value):
    """Verdict, privacy spent, gates and paths of one finished run. `seconds` is by stage."""

    status: Status
    name: str
    run: str
    folder: Path
    version: str | None = None
    release: Path | None = None
    report: Path
    policy: str
    policy_digest: str
    epsilon: float
    delta: float
    unit: str
    adjacency: str
    budget: str
    lifetime_spent: float
    lifetime_cap: float
    gates: dict[str, Gate]
    reasons: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def next_step(self) -> str:
        """What the user can do now, where there is something."""
        if self.status == "awaiting_approval":
            return f"read the report, then `hushtune approve {self.run} --by NAME`"
        if self.status in ("rejected", "inconclusive"):
            return "the report says which gate did not pass and what to try"
        return f'hushtune generate {self.name} --prompt "…"'
