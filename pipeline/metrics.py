"""Figures of a home in Prometheus' text format: runs, gates, budgets, seconds, releases. Reads, and changes nothing.

    hushtune metrics --output /var/lib/node_exporter/hushtune.prom      # from cron, for node_exporter's textfile collector

Labels are names of states, gates, stages and budgets, which stand in policies: nothing of the data, of a run or of a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline import __version__
from pipeline._past import past
from pipeline.health import ledger_of
from pipeline.release import releases

_STATES = ("released", "rejected", "inconclusive", "awaiting_approval", "running", "interrupted", "abandoned")


class Metric(NamedTuple):
    """One metric: name without the prefix `hushtune_`, a word on it, and its samples by labels."""

    name: str
    words: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def gather(home: Path) -> list[Metric]:
    """The figures of a home; those of budgets are left out where there is no ledger."""
    found, made = past(home), releases(home)
    states = Counter(one.state for one in found)
    gates = Counter((gate, "passed" if well else "failed") for one in found for gate, well in one.gates.items())
    ended = [one for one in found if one.seconds]
    metrics = [
        Metric("info", "Version of hushtune.", (({"version": __version__}, 1),)),
        Metric("runs", "Runs in the home, by state.", _by("state", {state: states[state] for state in _STATES})),
        Metric(
            "gate_verdicts",
            "Verdicts of each gate over the runs in the home.",
            tuple(({"gate": gate, "result": result}, count) for (gate, result), count in sorted(gates.items())),
        ),
        Metric("stage_seconds", "Seconds of each stage of the last run.", _by("stage", ended[-1].seconds if ended else {})),
        Metric("last_run_timestamp_seconds", "When a run was last at work.", _one(found[-1].at.timestamp() if found else None)),
        Metric("releases", "Releases in the home.", _one(len(made))),
        Metric("last_release_timestamp_seconds", "When the last release was made.", _one(_newest(made))),
    ]
    return metrics + _budgets(home)


def _budgets(home: Path) -> list[Metric]:
    ledger = ledger_of(home)
    if ledger is None:
        return []
    standings = {name: ledger.standing(name) for name in ledger.budgets()}
    claims = [charge for name in standings for charge in ledger.charges(name)]
    opened = Counter(charge.claim.budget for charge in claims if not charge.closed)
    return [
        Metric("epsilon_spent", "Epsilon that the most charged people of a budget have spent.",
               _by("budget", {name: one.epsilon_spent for name, one in standings.items()})),
        Metric("epsilon_cap", "Epsilon that a budget allows.",
               _by("budget", {name: one.epsilon_cap for name, one in standings.items()})),
        Metric("budget_runs", "Runs charged to a budget.", _by("budget", {name: one.runs for name, one in standings.items()})),
        Metric("claims_open", "Reservations that are not closed, charged in full.",
               _by("budget", {name: opened[name] for name in standings})),
    ]  # fmt: skip


def text(metrics: Iterable[Metric]) -> str:
    """Prometheus' text exposition format, version 0.0.4."""
    lines = []
    for one in metrics:
        if one.samples:
            name = f"hushtune_{one.name}"
            lines += [f"# HELP {name} {one.words}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels(labels)} {float(value)!r}" for labels, value in one.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {key: value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for key, value in labels.items()}
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}" if escaped else ""


def _by(label: str, values: Mapping[str, float]) -> tuple[tuple[Mapping[str, str], float], ...]:
    return tuple(({label: key}, value) for key, value in values.items())


def _one(value: float | None) -> tuple[tuple[Mapping[str, str], float], ...]:
    return () if value is None else (({}, value),)


def _newest(made) -> float | None:
    return max(((one.folder / "manifest.json").stat().st_mtime for one in made if one.manifest_digest), default=None)
