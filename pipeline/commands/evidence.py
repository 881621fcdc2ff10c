"""`hushtune audit`: attack a run, a release, or an adapter from elsewhere."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline import policy as policies
from pipeline import runs
from pipeline.commands.common import answer, columns, quiet, watched
from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import Progress, Value, digest_file, digest_folder, finished, private_folder, silent

if TYPE_CHECKING:
    from pipeline.audit import Evidence
    from pipeline.canaries import Planted
    from pipeline.gates import Verdict
    from pipeline.policy import Policy
    from pipeline.train.loop import Trained

T = TypeVar("T", bound=Value)


def audit(arguments: argparse.Namespace) -> int:
    """Attack the adapter of a run, of a release or from elsewhere and judge it; returns 0, or 3 where a gate fails."""
    quiet()
    if arguments.self_test:
        return _self_test(arguments)
    if arguments.target is None:
        raise UsageError("Say what to audit: a run, a release, or the folder of an adapter; or give --self-test.")
    from pipeline.canaries import Planted
    from pipeline.train.loop import Trained

    adapter = _adapter(arguments)
    folder = audited_run(arguments.target, arguments.home) if adapter is None else runs.find(arguments.home, arguments.run)
    policy = policies.load(arguments.policy or folder / "policy.json")
    if adapter is None:
        trained = stored(folder, "trained", Trained)
    else:
        trained = _from_elsewhere(adapter, stored(folder, "planted", Planted), policy, arguments)
    with watched("audit") as line:
        evidence, verdict = again(folder, policy, arguments.home, trained, claimed=adapter is None, progress=line)
    content = {
        "run": folder.name,
        "adapter": str(trained.adapter),
        "status": verdict.status,
        "gates": {gate.name: gate.model_dump(mode="json", exclude={"name"}) for gate in verdict.gates},
        "reasons": verdict.reasons,
        "figures": {name: figure.model_dump(mode="json") for name, figure in evidence.figures.items()},
        "seconds": evidence.seconds,
        "evidence": str(evidence.folder),
    }
    rows = [(gate.name, "pass" if gate.passed else "waived" if gate.waiver else "FAIL", gate.why) for gate in verdict.gates]
    answer(arguments, content, columns(rows, ("gate", "", "why")) + f"\nEvidence: {evidence.folder / 'evidence.json'}")
    return 3 if verdict.status in ("rejected", "inconclusive") else 0


def again(
    folder: Path,
    policy: Policy,
    home: Path,
    trained: Trained,
    *,
    claimed: bool = True,
    seed: int | None = None,
    progress: Progress = silent,
) -> tuple[Evidence, Verdict]:
    """Attack a run's adapter, or another one, on the run's records, in a folder below RUN/audits, and judge what is found.

    Args:
        folder: the run's folder.
        policy: by which it is attacked and judged.
        home: whose waivers count.
        trained: the adapter; another than the run's own is not `claimed` to be trained as the run says.
        claimed: see `pipeline.audit.audit`.
        seed: of draws of its own, noted in the ledger; by default the draws are those of the run's first audit.
        progress: see `pipeline.audit.audit`.

    Raises:
        StageError: the run did not get so far.
    """
    from pipeline import audit as attacks
    from pipeline import gates, waivers
    from pipeline.canaries import Planted
    from pipeline.corpus import Corpus
    from pipeline.ledger import Ledger
    from pipeline.scrub import Scrubbed

    planted, scrubbed = stored(folder, "planted", Planted), stored(folder, "scrubbed", Scrubbed)
    corpus, ledger = stored(folder, "corpus", Corpus), Ledger(folder.parent.parent)
    registered = planted.manifest_digest in ledger.manifests(folder.name)
    fresh = private_folder(folder / "audits") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if seed is not None:
        ledger.note(folder.name, "audit again", {"seed": seed, "folder": fresh.name})  # before it is known how it ends
    evidence = attacks.audit(
        planted, trained, scrubbed, policy, fresh, registered=registered, claimed=claimed, corpus=corpus, seed=seed,
        progress=progress,
    )  # fmt: skip
    return evidence, gates.judge(policy, evidence, waivers.load(home, policy, ledger), ledger.now().date())


def _self_test(arguments: argparse.Namespace) -> int:
    from pipeline.audit import selftest

    with watched("self-test") as line:
        found = selftest.run(progress=line)
    passed = selftest.passed(found)
    content = {
        "passed": passed,
        "alpha": selftest.ALPHA,
        "checks": selftest.CHECKS,
        "steps": {name: tested.model_dump(mode="json") for name, tested in found.items()},
        "seconds": sum(tested.seconds for tested in found.values()),
    }
    rows = [(name, "flagged" if t.flagged else "clean", *(f"{t.p_values[c]:.2g}" for c in selftest.CHECKS))
            for name, t in found.items()]  # fmt: skip
    words = "Every planted fault was caught, and the correct step was not flagged."
    if not passed:
        words = "THE SELF-TEST FAILED: the correct step must be clean and every planted fault flagged."
    table = columns(rows, ("step", "", *(f"p, {check}" for check in selftest.CHECKS)))
    answer(arguments, content, f"{table}\nFlagged below p = {selftest.ALPHA / len(selftest.CHECKS):.2g}. {words}")
    return 0 if passed else 1


def _adapter(arguments: argparse.Namespace) -> Path | None:
    """The folder of an adapter from elsewhere; None for a run or a release.

    Raises:
        UsageError: it is not said on which run's records the adapter was trained.
    """
    folder = Path(arguments.target)
    if not (folder / "adapter_config.json").is_file() or (folder / "manifest.json").is_file():
        if arguments.run or arguments.base_model:
            raise UsageError("--run and --base-model are for the folder of an adapter: leave them out, or give such a folder.")
        return None
    if arguments.run is None:
        raise UsageError(
            f"{folder} is an adapter from elsewhere, and nothing is known of what it was trained on: train it on the "
            "planted/train.jsonl of a run, and name that run by --run."
        )
    return folder.absolute()


def _from_elsewhere(adapter: Path, planted: Planted, policy: Policy, arguments: argparse.Namespace) -> Trained:
    """An adapter as the audit reads it. Its mechanism is not known: the one of the policy gives the unit and δ alone."""
    from pipeline import models
    from pipeline.train.loop import Trained
    from pipeline.train.mechanism import calibrate

    base = models.resolve(arguments.base_model or policy.model, arguments.home)
    mechanism = calibrate(policy, planted.train_units)
    return Trained.model_construct(
        folder=adapter, adapter=adapter, adapter_digest=digest_folder(adapter), base=base, mechanism=mechanism,
        steps=0, epsilon=0.0, delta=mechanism.delta, manifest_digest=planted.manifest_digest,
    )  # fmt: skip


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


def audited_run(target: str, home: Path) -> Path:
    """The run folder of a run, or that of a release, whose adapter must be the run's.

    Raises:
        UsageError: there is no such run or release.
        IntegrityError: the release does not verify, or the run's adapter is another.
    """
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
