"""One cell of a study: the ordinary stages on one model, ε and seed, and the figures that are kept of it.

A cell works in a process of its own, so that its peak memory is its own. What it leaves is a small JSON file named by the
digest of its inputs; texts and weights of a cell on public data are deleted with its work folder, and a cell on private data is
a run in HOME/runs, charged in the ledger, whose weights are deleted and whose texts the policy's retention deletes.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from pipeline import audit, canaries, corpus, facts, models, retention, runs, scrub
from pipeline.audit import Evidence
from pipeline.canaries import Planted
from pipeline.corpus import Corpus
from pipeline.errors import IntegrityError
from pipeline.folders import Progress, Value, digest, digest_file, private_folder, silent, write_json
from pipeline.ledger import Ledger
from pipeline.models import Base
from pipeline.policy import Policy
from pipeline.reserve import reserve
from pipeline.scrub import Scrubbed
from pipeline.study.spec import Point, Spec
from pipeline.train.distributed import ALONE
from pipeline.train.loop import Trained, rehearse, train
from pipeline.train.mechanism import calibrate
from pipeline.train.plain import Unprotected

_VERSION = "study/1"
_FIGURES = (
    "utility.base_perplexity",
    "utility.perplexity",
    "utility.base_accuracy",
    "utility.accuracy",
    "exposure.mean_bits",
    "exposure.control_mean_bits",
    "exposure.first",
    "exposure.first_control",
    "extraction.either",
    "extraction.either_control",
    "extraction.either_excess",
    "membership.worst.auc",
    "epsilon.lower_bound",
)
_NOT_HERE = {"manifest_in_ledger_before_training"}  # only a cell that is charged has a ledger to be in


class Number(Value):
    """A figure of the audit: value, confidence bounds where there are any, n; `failed` names conditions that do not hold."""

    value: float
    low: float | None
    high: float | None
    n: int
    resolvable: bool
    failed: tuple[str, ...] = ()


class Cell(Value):
    """What a cell found. `exposure` holds the bits of every ranked secret by its number of copies, 0 for never planted.

    `epsilon` is what was asked, None for neither clipping nor noise; `spent` is what the mechanism costs at `delta`, by PLD.
    `seconds` are wall time of planting, training and audit, `busy_seconds` those of the processor, or wall time on a GPU; of a
    `resumed` cell they are those of the last try alone.
    """

    inputs: str
    model: str
    parameters: int
    epsilon: float | None
    seed: int
    spent: float | None
    delta: float | None
    noise_multiplier: float
    sampling_rate: float
    expected_batch: int
    steps: int
    records: int
    units: int
    figures: dict[str, Number]
    exposure: dict[str, list[float]]
    space_bits: float
    training_seconds: float
    seconds: float
    busy_seconds: float
    tokens_per_second: float
    peak_megabytes: float
    device: str
    threads: int
    gradients: str
    run: str | None = None
    resumed: bool = False


class Ready(Value):
    """What cells share: the records, and them scrubbed or, where the study does not scrub, as they are."""

    corpus: Corpus
    scrubbed: Scrubbed


def prepare(spec: Spec, rules: Policy, folder: Path, home: Path, *, progress: Progress = silent) -> Ready:
    """Read the records, and scrub them if the study asks for it or they are private; once for all cells of public data."""
    private_folder(folder)
    found = corpus.read(source(spec), rules, folder / "corpus", progress=progress)
    if spec.scrub or not spec.data.is_public:
        key = scrub.key_for(rules, home)
        return Ready(
            corpus=found, scrubbed=scrub.scrub(found, rules, folder / "scrubbed", probes=None, progress=progress, key=key)
        )
    as_it_is = Scrubbed(
        folder=found.folder, records=found.records, changed=0, entities={}, detector="none", operator="none",
        digest=found.fingerprint, recall=(), seconds=0.0,
    )  # fmt: skip
    return Ready(corpus=found, scrubbed=as_it_is)


def source(spec: Spec) -> Path:
    """The file of the records."""
    from pipeline import example

    return spec.data.path or example.path()


def inputs(spec: Spec, point: Point, base: Base, data: str) -> str:
    """The digest that names a cell: everything that its figures depend on. `data` is the digest of the data file."""
    rules = spec.rules(point).model_dump(mode="json")
    kept = ("data", "scrub", "canaries", "privacy", "train", "audit")
    return digest(
        {
            "study": _VERSION,
            "point": point.model_dump(mode="json", exclude={"model"}),
            "base": base.digest,
            "records": data,
            "scrubbed": spec.scrub or not spec.data.is_public,
            "private": not spec.data.is_public,
            "policy": {name: rules[name] for name in kept},
            "threads": spec.threads,
        }
    )


def path_of(folder: Path, key: str) -> Path:
    """Where a study in `folder` keeps the cell with these inputs."""
    return folder / "cells" / f"{key[:32]}.json"


def stored(folder: Path, key: str) -> Cell | None:
    """A finished cell, or None.

    Raises:
        IntegrityError: the file was changed after it was written.
    """
    path = path_of(folder, key)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cell = Cell.model_validate(content["cell"])
        whole = content["digest"] == digest(content["cell"]) and cell.inputs == key
    except (ValueError, KeyError, TypeError):
        whole, cell = False, None
    if not whole:
        raise IntegrityError(f"The cell {path} was changed after it was written: delete the file, and it is done again.")
    return cell


def keep(folder: Path, cell: Cell) -> Path:
    """Write a finished cell, with the digest of what it says."""
    path = path_of(folder, cell.inputs)
    private_folder(path.parent)
    content = cell.model_dump(mode="json")
    write_json(path, {"cell": content, "digest": digest(content)})
    return path


def run(spec: Spec, point: Point, base: Base, folder: Path, home: Path, *, progress: Progress = silent) -> Cell:
    """Do a cell of a study that lives in `folder`, and keep its figures.

    Raises:
        BudgetExhausted: the lifetime budget does not hold a cell on private data.
        HushtuneError: a stage cannot be done.
    """
    torch.set_num_threads(spec.threads)
    rules = spec.rules(point).override(model=str(base.folder))
    key = inputs(spec, point, base, digest_file(source(spec)))
    if not spec.data.is_public:
        return _charged(spec, point, base, rules, folder, home, key, progress)
    ready = prepare(spec, rules, folder / "data", home)
    work = private_folder(folder / "work") / key[:32]
    shutil.rmtree(work, ignore_errors=True)  # of a try that was killed: what it cost would be missing from this one's seconds
    cell = _public(spec, point, base, rules, ready, private_folder(work), key, progress)
    keep(folder, cell)
    shutil.rmtree(work)
    return cell


def _public(
    spec: Spec, point: Point, base: Base, rules: Policy, ready: Ready, work: Path, key: str, progress: Progress
) -> Cell:
    clock = _Clock()
    planted = canaries.plant(ready.scrubbed, base, rules, work / "planted", progress=progress)
    rehearse(planted, base, rules)
    mechanism = calibrate(rules, planted.train_units)
    taught = train(
        planted, base, mechanism, rules, work / "trained", claim=key, spend=_nothing, progress=progress,
        team=Unprotected() if point.epsilon is None else ALONE,
    )  # fmt: skip
    evidence = audit.audit(
        planted, taught, ready.scrubbed, rules, work / "evidence", registered=False, claimed=point.epsilon is not None,
        progress=progress,
    )  # fmt: skip
    return _cell(spec, point, base, key, planted, taught, evidence, clock, None)


def _charged(
    spec: Spec, point: Point, base: Base, rules: Policy, folder: Path, home: Path, key: str, progress: Progress
) -> Cell:
    """A cell on private data, as a run of the home: reserved before its first step, every step spent, closed, kept forever."""
    ledger = Ledger(home)
    opened = runs.start(home, spec.name, f"{spec.name}-study-{key[:16]}")
    runs.hold(opened.folder)
    resumed = (opened.folder / "policy.json").exists()
    runs.keep_policy(opened.folder, rules)
    clock = _Clock()
    ready = prepare(spec, rules, opened.folder, home, progress=progress)
    planted = canaries.plant(ready.scrubbed, base, rules, opened.folder / "planted", progress=progress)
    rehearse(planted, base, rules)
    plan = reserve(opened, rules, ready.corpus, planted)
    mechanism, claim = plan.mechanism, plan.claim
    taught = train(
        planted, base, mechanism, rules, opened.folder / "trained", claim=claim.id,
        spend=lambda steps: ledger.spend(claim, steps), taken=ledger.taken(claim), progress=progress,
    )  # fmt: skip
    ledger.close(claim, taught.steps)
    evidence = audit.audit(
        planted, taught, ready.scrubbed, rules, opened.folder / "evidence", registered=True, corpus=None, progress=progress
    )
    cell = _cell(spec, point, base, key, planted, taught, evidence, clock, opened.id).model_copy(update={"resumed": resumed})
    keep(folder, cell)  # before the weights go, or a kill between the two would do the cell, and charge it, again
    retention.discard(opened.folder, rules.override(release__quarantine_days=0), ledger)
    runs.let_go(opened.folder)
    return cell


def _nothing(steps: int) -> None:
    """Public data has no budget to spend."""


def _cell(
    spec: Spec,
    point: Point,
    base: Base,
    key: str,
    planted: Planted,
    taught: Trained,
    evidence: Evidence,
    clock: _Clock,
    run: str | None,
) -> Cell:
    wall, busy = clock.read()
    on_gpu = models.device().type == "cuda"
    busy = wall if on_gpu else busy
    mechanism = taught.mechanism
    private = point.epsilon is not None
    ceilings = [figure.ceiling for name, figure in evidence.figures.items() if name.startswith("exposure.") and figure.ceiling]
    return Cell(
        inputs=key,
        model=point.model,
        parameters=base.parameters,
        epsilon=point.epsilon,
        seed=point.seed,
        spent=taught.epsilon if private else None,
        delta=taught.delta if private else None,
        noise_multiplier=mechanism.noise_multiplier if private else 0.0,
        sampling_rate=mechanism.sampling_rate,
        expected_batch=mechanism.expected_batch,
        steps=taught.updates,
        records=taught.records,
        units=mechanism.units,
        figures=_numbers(evidence, charged=run is not None),
        exposure={
            name.rpartition("_")[2]: bits for name, bits in evidence.series.items() if name.startswith("exposure.copies_")
        },  # type: ignore[misc]
        space_bits=max(ceilings, default=0.0),
        training_seconds=taught.seconds,
        seconds=wall,
        busy_seconds=busy,
        tokens_per_second=taught.tokens_per_second,
        peak_megabytes=facts.peak_megabytes(),
        device="cuda" if on_gpu else "cpu",
        threads=spec.threads,
        gradients=taught.gradients,
        run=run,
    )


def _exposures(evidence: Evidence) -> dict[str, list[float]]:
    series: Any = evidence.series
    return {name.rpartition("_")[2]: bits for name, bits in series.items() if name.startswith("exposure.copies_")}


def _numbers(evidence: Evidence, *, charged: bool) -> dict[str, Number]:
    found = {}
    for name in _FIGURES:
        if (figure := evidence.figures.get(name)) is not None:
            ignored = frozenset() if charged else _NOT_HERE
            failed = tuple(sorted(name for name, holds in figure.conditions.items() if not holds and name not in ignored))
            found[name] = Number(
                value=figure.value, low=figure.low, high=figure.high, n=figure.n, resolvable=figure.resolvable, failed=failed
            )
    return found


class _Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._busy = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._wall, time.process_time() - self._busy
