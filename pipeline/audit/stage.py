"""The audit: every attack on one trained adapter, in order, and the evidence that they leave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.audit.attack import Attack
from pipeline.audit.figures import Evidence, Figure, Series, gather
from pipeline.canaries import Manifest, Planted, load_manifest
from pipeline.corpus import Corpus
from pipeline.errors import IntegrityError
from pipeline.folders import Progress, digest_folder, silent, stage, write_json, write_lines
from pipeline.policy import Policy
from pipeline.train.mechanism import accountants_agree

if TYPE_CHECKING:
    from pipeline.scrub import Scrubbed
    from pipeline.train.loop import Trained

_VERSION = "audit/9"


def audit(
    planted: Planted,
    trained: Trained,
    scrubbed: Scrubbed,
    policy: Policy,
    folder: Path,
    *,
    registered: bool,
    claimed: bool = True,
    corpus: Corpus | None = None,
    seed: int | None = None,
    progress: Progress = silent,
) -> Evidence:
    """Attack a trained adapter and write down what was found.

    Args:
        planted: the corpus with its canaries, and the held-out records.
        trained: the adapter and what it cost.
        scrubbed: the scrubber's recall on planted values.
        policy: the sections `audit` and `data` are read.
        folder: the stage's folder; holds evidence.json, and findings.jsonl: where in the originals the values stand that a
            game found (no text).
        registered: the ledger holds the manifest's digest, from before the first step (`Ledger.manifests`).
        claimed: False for an adapter whose training is not known: no figure then speaks of what was promised.
        corpus: what was read. Without it, the games on removed values are not played, and their figures are absent.
        seed: of the draws of an audit that is done again, which whoever draws it notes in the ledger. By default the sealed
            manifest's, so that a run's own audit cannot be drawn until one passes.
        progress: told tokens run of tokens in all, and the figures `attack` and, while they are ranked, `canaries`.

    Returns:
        The evidence. A figure that could not be had is absent or not resolvable, so that no gate passes on it.

    Raises:
        IntegrityError: the manifest or the adapter is not the one that training sealed.
        ModelError: the base model cannot be loaded, or is of a kind that cannot be audited.
    """
    inputs = {
        "stage": _VERSION,
        "planted": planted.digest,
        "manifest": planted.manifest_digest,
        "trained": trained.model_dump(mode="json", exclude={"folder", "adapter", "seconds", "tokens_per_second"}),
        "scrubbed": scrubbed.model_dump(mode="json", exclude={"folder", "seconds"}),
        "audit": policy.audit.model_dump(mode="json"),
        "max_tokens": policy.data.max_tokens,
        "train": policy.train.model_dump(mode="json"),
        "registered": registered,
        "claimed": claimed,
        "originals": corpus.fingerprint if corpus else None,
    }
    if seed is not None:
        inputs["seed"] = seed
    sources = (corpus.folder / "records.jsonl", scrubbed.folder) if corpus else None

    def work(partial: Path) -> Evidence:
        manifest = _sealed(planted, trained)
        attack = Attack(
            planted, trained, manifest, policy, progress, registered=registered, claimed=claimed, sources=sources, seed=seed
        )
        figures = [*(_promised(trained) if claimed else []), *_recall(scrubbed)]
        series: Series = {}
        parts = attack.canaries, attack.exposure, attack.membership, attack.extraction, attack.games
        for part in (*parts, attack.utility, attack.control):
            found, pictures = part()
            figures += found
            series |= pictures
        evidence = gather(folder, [*figures, *_residual(figures)], series, attack.seconds)
        write_lines(partial / "findings.jsonl", (json.dumps(found, ensure_ascii=False) + "\n" for found in attack.findings))
        write_json(partial / "evidence.json", evidence.model_dump(mode="json", exclude={"folder"}))
        return evidence

    return stage(folder, Evidence, inputs, work)


def _residual(figures: list[Figure]) -> list[Figure]:
    """What is left once both guards are counted: a value is missed, and the model then gives it first at its place.

    The product of two upper bounds, each at its own level, with the lowest recall of those that were measured.
    """
    named = {one.name: one for one in figures}
    recalls = [named[name] for name in ("scrub.recall", "scrub.context", "scrub.capture") if name in named]
    first, recalls = named.get("exposure.first"), [one for one in recalls if one.low is not None]
    if first is None or first.high is None or not recalls:
        return []
    worst = min(recalls, key=lambda one: (one.low, one.name))
    method = (
        f"share of values missed (1 - {worst.name}) times exposure.first, the upper bounds multiplied, each at its own level; "
        "assumes that a missed value is learned no better than the planted ones"
    )
    value, high = (1 - worst.value) * first.value, (1 - (worst.low or 0.0)) * first.high
    return [
        Figure(name="residual.risk", value=value, high=high, n=first.n, method=method, conditions=first.conditions,
               resolvable=first.resolvable and worst.resolvable)
    ]  # fmt: skip


def _sealed(planted: Planted, trained: Trained) -> Manifest:
    manifest = load_manifest(planted)
    if planted.manifest_digest != trained.manifest_digest:
        raise IntegrityError(
            f"The adapter in {trained.adapter} was trained under another canary manifest than the one in {planted.folder}: "
            "audit it with the planted folder that it was trained on."
        )
    if digest_folder(trained.adapter) != trained.adapter_digest:
        raise IntegrityError(f"The adapter in {trained.adapter} was changed after training: train again, or restore its files.")
    return manifest


def _promised(trained: Trained) -> list[Figure]:
    """ε and δ of the mechanism as it was run, computed again from it."""
    epsilon, other = trained.epsilon, trained.epsilon_prv
    again = trained.mechanism.epsilon(trained.steps)
    conditions = {
        "computed_again": math.isclose(again, epsilon, rel_tol=1e-6, abs_tol=1e-9),
        "accountants_agree": accountants_agree(epsilon, other),
        "steps_within_plan": trained.steps <= trained.mechanism.steps,
    }
    n = trained.mechanism.units
    method = f"privacy loss distributions (dp_accounting); PRV gives {other:.4g}; n units"
    return [
        Figure(name="privacy.epsilon", value=epsilon, n=n, method=method, conditions=conditions),
        Figure(name="privacy.delta", value=trained.delta, n=n, method="of the same mechanism"),
    ]


def _sampled(scrubbed: Scrubbed) -> list[Figure]:
    """What was measured on the data itself: recall in its contexts, capture and recapture, and what a re-scan finds."""
    from pipeline.scrub.sampled import figures

    methods = {
        "scrub.capture": "share of the values that two independent detectors suggest there are; Chapman's estimator",
        "scrub.context": "values planted in sampled records in the place of values found; Clopper-Pearson 95 % lower bound",
    }
    made = [
        Figure(name=name, value=value, low=low, n=n, method=methods[".".join(name.split(".")[:2])])
        for name, (value, low, n) in figures(scrubbed.sampled).items()
    ]
    if scrubbed.residual is not None and scrubbed.rescanned:  # a sample is read again, not all records
        left = sum(scrubbed.residual.values())
        method = f"findings of {scrubbed.rescanned_by} in a scrubbed record, of those read again; some are no personal values"
        made.append(Figure(name="scrub.residual", value=left / scrubbed.rescanned, n=scrubbed.rescanned, method=method))
    return made


def _recall(scrubbed: Scrubbed) -> list[Figure]:
    """Recall of the scrubber on planted values: over all entities, for each, and of the entity with the lowest bound."""
    method = "values planted beside the data and found; Clopper-Pearson one-sided 95 % lower bound"
    figures = [
        Figure(name="scrub.recall" if one.entity == "ALL" else f"scrub.recall.{one.entity}",
               value=one.found / one.planted, low=one.low, n=one.planted, method=method)
        for one in scrubbed.recall if one.planted
    ]  # fmt: skip
    figures += _sampled(scrubbed)
    probed = [one for one in scrubbed.recall if one.planted and one.entity != "ALL"]
    if not probed:
        return figures
    worst = min(probed, key=lambda one: (one.low, one.entity))
    figures.append(
        Figure(name="scrub.recall_worst", value=worst.found / worst.planted, low=worst.low, n=worst.planted,
               method=f"{worst.entity}, the lowest lower bound of {len(probed)} entities; {method}")
    )  # fmt: skip
    return figures
