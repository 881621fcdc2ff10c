"""What a report takes from beside the values of the stages: the budget's past, the course of ε, the last release, samples.

Kept once as context.json in the run's folder, so that a report that is written again says the same. Figures and checked
generations only: no text of the data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline._shelf import versions
from pipeline.errors import HushtuneError
from pipeline.folders import write_json
from pipeline.ledger import Ledger
from pipeline.report import samples
from pipeline.report.changes import summary

if TYPE_CHECKING:
    from pipeline.corpus import Corpus
    from pipeline.gates import Verdict
    from pipeline.policy import Policy
    from pipeline.train.loop import Trained
    from pipeline.train.mechanism import Mechanism

_NAME = "context.json"
_POINTS = 6
_GRID = 1e-3  # of the course: coarser than the final figure's, so never below it


def load(run: Path) -> dict[str, Any]:
    """What `keep` kept; empty where a run has none."""
    path = run / _NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(run: Path, home: Path, policy: Policy, corpus: Corpus, trained: Trained, verdict: Verdict) -> dict[str, Any]:
    """Gather it once, and return it: `past`, `course`, `previous` and `samples`, as `build` takes them among its facts.

    Args:
        run: the run's folder.
        home: HUSHTUNE_HOME, which holds ledger and releases.
        policy: the run's policy.
        corpus: what was read: generations that repeat it are withheld.
        trained: the audited adapter.
        verdict: generations are shown only of a model that no gate stops.
    """
    if not (run / _NAME).is_file():
        stopped = any(gate.stops for gate in verdict.gates)
        content = {
            "past": [past.model_dump(mode="json") for past in Ledger(home).past(policy.privacy.lifetime.budget)],
            "course": course(trained.mechanism, trained.steps),
            "previous": previous(home, run),
            "samples": samples.withheld() if stopped else samples.draw(trained, policy, corpus.folder / "records.jsonl"),
        }
        write_json(run / _NAME, content)
    return load(run)


def course(mechanism: Mechanism, steps: int) -> list[dict[str, float]]:
    """ε over the steps by two accountants: `steps`, `pld` and `prv`, at up to six numbers of steps and the last."""
    some = sorted({max(1, round(steps * part / _POINTS)) for part in range(1, _POINTS + 1)})
    return [{"steps": n, "pld": mechanism.epsilon(n, grid=_GRID), "prv": mechanism.epsilon_prv(n)} for n in some]


def previous(home: Path, run: Path) -> dict[str, Any] | None:
    """The `summary` of the newest release of the same name that was made before this run's report; None if there is none."""
    folder = home / "releases" / _name(run)
    for version in reversed(versions(folder) if folder.is_dir() else []):
        try:
            content = json.loads((version / "report.json").read_text(encoding="utf-8"))
            if content["run"]["name"] != run.name:
                return summary(content) | {"version": f"{folder.name} {version.name}"}
        except (OSError, ValueError, LookupError, HushtuneError):
            continue  # a damaged release is for `verify` to tell of
    return None


def _name(run: Path) -> str:
    """The name of a run's releases: its folder is NAME-YYYYMMDD-HHMMSS-xxxx."""
    return run.name.rsplit("-", 3)[0]
