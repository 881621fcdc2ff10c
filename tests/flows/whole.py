"""The line as the flow runs it, stage by stage on `pipeline/` alone: for tests that kill it, or run it many times."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import (
    audit,
    corpus,
    facts,
    gates,
    models,
    policy,
    release,
    report,
    retention,
    runs,
    scrub,
    waivers,
)
from pipeline.canaries import plant
from pipeline.folders import write_json
from pipeline.ledger import Ledger
from pipeline.reserve import reserve
from pipeline.train.loop import train

STAGES = ("read", "scrub", "plant", "reserve", "train", "audit", "judge", "report", "publish")


def run(home: Path, data: Path, rules_file: Path, name: str, run_id: str, *, attack: bool = True) -> str:
    """Run, or take up, the line and return the verdict's status; without `attack` it ends when the budget is charged."""
    job = runs.start(home, name, run_id)
    rules = policy.load(rules_file)
    runs.keep_policy(job.folder, rules)
    facts.start(job.folder, "hushtune run")
    base = models.resolve(rules.model, home)
    read = corpus.read(data, rules, job.folder / "corpus")
    scrubbed = scrub.scrub(read, rules, job.folder / "scrubbed", probes=None)
    planted = plant(scrubbed, base, rules, job.folder / "planted")
    plan, ledger = reserve(job, rules, read, planted), Ledger(home)
    claim = plan.claim
    trained = train(
        planted,
        base,
        plan.mechanism,
        rules,
        job.folder / "trained",
        claim=claim.id,
        spend=lambda steps: ledger.spend(claim, steps),
        taken=ledger.taken(claim),
    )
    ledger.close(claim, trained.steps)
    standing = ledger.standing(claim.budget, lifetime=rules.privacy.lifetime)
    if not attack:
        return "charged"
    registered = planted.manifest_digest in ledger.manifests(job.id)
    evidence = audit.audit(planted, trained, scrubbed, rules, job.folder / "evidence", registered=registered)
    ledger.note_once(job.id, "evidence", {"digest": gates.seal(evidence)})
    verdict = gates.judge(rules, evidence, waivers.load(home, rules, ledger), ledger.now().date())
    write_json(job.folder / "verdict.json", verdict.model_dump(mode="json"))
    known = facts.for_report(job.folder)
    content = report.build(rules, read, scrubbed, planted, trained, evidence, verdict, standing, known)
    page = report.write(content, job.folder / "report")
    if verdict.status == "released":
        card = report.card(json.loads((page.parent / "report.json").read_text()), base)
        release.publish(job.folder, job.name, trained, page.parent, rules, home, card)
    else:
        retention.discard(job.folder, rules, ledger)
    return verdict.status
