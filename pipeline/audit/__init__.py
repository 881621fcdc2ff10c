"""Attacks on the release candidate, and the evidence they leave.

`figures` holds the values; `scoring` and `tree` run the model; `epsilon`, `exposure`, `membership`, `utility` and `splitter`
turn scores into figures; `canary` and `records` make the figures of one run; `stage` does everything in order.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.audit.figures import Evidence, Figure
    from pipeline.audit.stage import audit

__all__ = ["Evidence", "Figure", "audit"]

_HOMES = {"Evidence": "figures", "Figure": "figures", "audit": "stage"}


def __getattr__(name: str) -> Any:
    """Import on first use: the statistics serve commands that must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
