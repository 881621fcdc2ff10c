"""`hushtune audit` and `hushtune report`: work on the stored stages of a run."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pipeline import policy as policies
from pipeline import runs
from pipeline.commands.common import answer, columns, quiet, watched
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import Value, digest_file, finished, private_folder

T = TypeVar("T", bound=Value)


def audit(arguments: argparse.Namespace) -> int:
    """Attack the adapter of a run or a release again and judge it; returns 0, or 3 where a gate fails."""
    quiet()
    from pipeline import audit as attacks
    from pipeline import gates
    from pipeline.canaries import Planted
    from pipeline.corpus import Corpus
    from pipeline.scrub import Scrubbed
    from pipeline.train.loop import Trained

    folder = _audited_run(arguments.target, arguments.home)
    policy = policies.load(arguments.policy or folder / "policy.json")
    planted, scrubbed = stored(folder, "planted", Planted), stored(folder, "scrubbed", Scrubbed)
    corpus = stored(folder, "corpus", Corpus)
    trained = stored(folder, "trained", Trained)
    fresh = private_folder(folder / "audits") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with watched("audit") as line:
        evidence = attacks.audit(planted, trained, scrubbed, policy, fresh, corpus=corpus, progress=line)
    verdict = gates.judge(policy, evidence)
    content = {
        "run": folder.name,
        "status": verdict.status,
        "gates": {gate.name: gate.model_dump(mode="json", exclude={"name"}) for gate in verdict.gates},
        "reasons": verdict.reasons,
        "figures": {name: figure.model_dump(mode="json") for name, figure in evidence.figures.items()},
        "evidence": str(fresh),
    }
    rows = [(gate.name, "pass" if gate.passed else "FAIL", gate.why) for gate in verdict.gates]
    passed = all(gate.passed for gate in verdict.gates)
    answer(arguments, content, columns(rows, ("gate", "", "why")) + f"\nEvidence: {fresh / 'evidence.json'}")
    return 0 if passed else 3


def report(arguments: argparse.Namespace) -> int:
    """Write a run's report again from its stored stages."""
    quiet()
    folder = runs.find(arguments.home, arguments.run)
    from pipeline import facts, gates
    from pipeline import report as reports
    from pipeline.audit import Evidence
    from pipeline.canaries import Planted
    from pipeline.corpus import Corpus
    from pipeline.ledger import Standing
    from pipeline.scrub import Scrubbed
    from pipeline.train.loop import Trained

    content = reports.build(
        policies.load(folder / "policy.json"),
        stored(folder, "corpus", Corpus),
        stored(folder, "scrubbed", Scrubbed),
        stored(folder, "planted", Planted),
        stored(folder, "trained", Trained),
        stored(folder, "evidence", Evidence),
        _json(folder / "verdict.json", gates.Verdict),
        _json(folder / "standing.json", Standing),
        facts.for_report(folder),
    )
    path = reports.write(content, private_folder(folder / "report"))
    answer(arguments, {"run": folder.name, "report": str(path)}, str(path))
    return 0


def stored(folder: Path, name: str, kind: type[T]) -> T:
    """The value of a run's finished stage.

    Raises:
        StageError: the run did not get so far.
    """
    try:
        value = finished(folder / name, kind)
    except ValueError:
        raise StageError(f"The stage {name} of run {folder.name} was written by another version: run again.") from None
    if value is None:
        raise StageError(f"Run {folder.name} has no finished stage {name}: it stopped before; run it again from the start.")
    return value


def _json(path: Path, kind: type[T]) -> T:
    if not path.is_file():
        raise StageError(f"Run {path.parent.name} has no {path.name}: it stopped before; run it again from the start.")
    return kind.model_validate_json(path.read_text(encoding="utf-8"))


def _audited_run(target: str, home: Path) -> Path:
    """The run folder of a run, or that of a release, whose adapter must be the run's."""
    from pipeline import release
    from pipeline.commands.govern import release_folder

    folder = release_folder(target, home)
    if folder is None:
        return runs.find(home, target)
    release.verify(folder)
    run = runs.find(home, json.loads((folder / "report.json").read_text(encoding="utf-8"))["run"]["name"])
    name = "adapter_model.safetensors"
    if digest_file(folder / name) != digest_file(run / "trained" / "adapter" / name):
        raise IntegrityError(f"The adapter in {folder} is not the one that run {run.name} trained: restore the run's folder.")
    return run
