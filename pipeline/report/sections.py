"""The sections of the report that describe the run itself: data, scrubbing, training, budget, and how to reproduce it.

Each begins with `finding`, the one sentence that the section shows; then its figures as they were computed.
"""

from __future__ import annotations

from typing import Any

from pipeline import __version__
from pipeline.report.formats import count, duration, join, lower, percent, plain, plural, upper
from pipeline.report.names import OPERATORS, words
from pipeline.report.names import entity as kind_name

Stages = dict[str, Any]


def run(stages: Stages) -> dict[str, Any]:
    """Who and what: names only."""
    facts, policy = stages["facts"], stages["policy"]
    return {
        "name": facts.get("run", ""),
        "created": facts.get("created", ""),
        "policy": policy["name"],
        "policy_description": policy["description"],
        "data": stages["corpus"]["source"],
        "base_model": stages["trained"]["base"]["name"],
        "hushtune": facts.get("versions", {}).get("hushtune", __version__),
    }


def data(stages: Stages) -> dict[str, Any]:
    """Counts of the records as they were read and as they were split."""
    corpus, planted, mechanism = stages["corpus"], stages["planted"], stages["trained"]["mechanism"]
    records, units = corpus["records"], corpus["units"]
    people = f" of {plural(units, 'unit')}" if corpus["has_units"] else ""
    repeated = corpus["duplicates"]
    return {
        "finding": f"{plural(records, 'record')}{people}; {plural(repeated, 'duplicate')} among them.",
        "note": "A unit is whose record it is: a person, a mailbox, whatever the data names. What the policy protects, a "
        "record or a person, is wholly in training or wholly held out. Without a unit column, every record is its own unit. "
        "Duplicates are memorised first; they are counted over exact text.",
        "source": corpus["source"],
        "shape": corpus["shape"],
        "records": records,
        "units": units,
        "has_units": corpus["has_units"],
        "records_per_unit": records / units if units else None,
        "largest_unit": corpus["largest_unit"],
        "characters": corpus["characters"],
        "characters_per_record": corpus["characters"] / records if records else None,
        "refused": [{"reason": reason, "count": number} for reason, number in corpus["refused"].items()],
        "refused_total": sum(corpus["refused"].values()),
        "duplicates": repeated,
        "duplicate_share": repeated / records if records else None,
        "train_records": planted["train_records"],
        "train_units": planted["train_units"],
        "held_out_records": planted["held_out_records"],
        "held_out_units": planted["held_out_units"],
        "canaries": planted["included"],
        "records_cut": stages["trained"]["records_cut"],
        "max_tokens": stages["policy"]["data"]["max_tokens"],
        "protected_units": mechanism["units"],
        "fingerprint": corpus["fingerprint"],
    }


def scrubbing(stages: Stages) -> dict[str, Any]:
    """Values replaced by kind, and recall on planted values with its lower bound."""
    scrubbed, policy = stages["scrubbed"], stages["policy"]["scrub"]
    recall = {row["entity"]: row for row in scrubbed["recall"]}
    kinds = sorted({*scrubbed["entities"], *recall} - {"ALL"}, key=lambda kind: (-scrubbed["entities"].get(kind, 0), kind))
    rows = [_entity(kind, scrubbed["entities"].get(kind, 0), recall.get(kind)) for kind in kinds]
    total = sum(row["count"] for row in rows)
    top = ", ".join(f"{row['title']} {count(row['count'])}" for row in rows[:3])
    weak = [row["title"] for row in rows if row["recall"] is not None and row["recall"] < 0.8]
    overall = _entity("ALL", total, recall.get("ALL")) if "ALL" in recall else None
    found = f" On values planted to test it, it found {percent(overall['recall'])}." if overall else ""
    return {
        "finding": f"{plural(total, 'personal value')} in {plural(scrubbed['changed'], 'record')} were replaced.{found}",
        "weak": f"Found least often: {join(weak)}." if weak else "",
        "records": scrubbed["records"],
        "changed": scrubbed["changed"],
        "changed_share": scrubbed["changed"] / scrubbed["records"] if scrubbed["records"] else None,
        "replaced": total,
        "detector": scrubbed["detector"],
        "operator": scrubbed["operator"],
        "operator_text": OPERATORS.get(scrubbed["operator"], scrubbed["operator"]),
        "minimum_score": policy["minimum_score"],
        "confidence": 0.95,  # of Recall.low
        "overall": overall,
        "entities": rows,
        "digest": scrubbed["digest"],
        "picture": {
            "title": "Values replaced, by kind",
            "alt": f"Bar chart of values replaced by kind; {plural(len(rows), 'kind')}, led by {top}." if rows else "",
        },
    }


def _entity(kind: str, replaced: int, recall: dict[str, Any] | None) -> dict[str, Any]:
    planted, found = (recall["planted"], recall["found"]) if recall else (None, None)
    return {
        "entity": kind,
        "title": kind_name(kind),
        "count": replaced,
        "planted": planted,
        "found": found,
        "recall": found / planted if planted else None,
        "low": recall["low"] if recall and planted else None,
    }


def training(stages: Stages) -> dict[str, Any]:
    """The mechanism and its accounting, and what was trained.

    The counts of empty draws and lost gradients depend on who was drawn; they stay in the run folder's privacy.json.
    """
    trained, policy = stages["trained"], stages["policy"]
    mechanism = trained["mechanism"]
    rate = mechanism["expected_batch"] / mechanism["units"]
    gap = abs(trained["epsilon"] - trained["epsilon_prv"]) if trained["epsilon_prv"] is not None else None
    second = f"; a second accountant finds {upper(trained['epsilon_prv'])}" if gap is not None else ""
    return {
        "finding": f"{_steps(trained)} ε = {upper(trained['epsilon'])} of the "
        f"{plain(policy['privacy']['epsilon'])} that the policy allows{second}.",
        "mechanism": "DP-SGD: Poisson-subsampled Gaussian mechanism on LoRA weights",
        "how": f"In each step every {mechanism['unit']} is drawn with its own coin of probability q. Each one's gradient is "
        "clipped to length C, the clipped gradients are added up, and Gaussian noise of standard deviation σC is added to the "
        "sum. A step in which nobody is drawn is noise alone, and counts.",
        "unit": mechanism["unit"],
        "units": mechanism["units"],
        "sampling_rate": rate,
        "expected_batch": mechanism["expected_batch"],
        "noise_multiplier": mechanism["noise_multiplier"],
        "clipping_norm": mechanism["clipping_norm"],
        "noise_deviation": mechanism["noise_multiplier"] * mechanism["clipping_norm"],
        "steps": trained["steps"],
        "planned_steps": mechanism["steps"],
        "updates": trained["updates"],
        "gradients": trained["gradients"],
        "delta": trained["delta"],
        "epsilon": trained["epsilon"],
        "epsilon_prv": trained["epsilon_prv"],
        "accountants_gap": gap,
        "records": trained["records"],
        "tokens_per_second": trained["tokens_per_second"],
        "seconds": trained["seconds"],
        "learning_rate": policy["train"]["learning_rate"],
        "lora": policy["train"]["lora"],
        "base": {key: trained["base"][key] for key in ("name", "parameters", "context", "licence", "digest")},
        "adapter_digest": trained["adapter_digest"],
    }


def _steps(trained: dict[str, Any]) -> str:
    taken, charged = trained["noisy_steps"], plural(trained["steps"], "noisy step")
    if taken < trained["steps"]:
        return f"Training stopped on public data after {count(taken)} steps; all {charged} planned are charged:"
    return f"{charged} spent"


def budget(stages: Stages) -> dict[str, Any]:
    """The lifetime budget after this run was charged."""
    standing = stages["standing"]
    cap, spent, runs = standing["epsilon_cap"], standing["epsilon_spent"], standing["runs"]
    left = standing["epsilon_left"]
    return {
        "finding": f"After {plural(runs, 'run')}, {upper(spent)} of the lifetime ε of {plain(cap)} is spent; "
        f"{lower(left)} is left.",
        "note": "The budget belongs to the people in the data, not to a run, and stands where the most charged of them do. "
        "Runs are composed as mechanisms, which gives less than the plain sum of their ε; that holds for mechanisms whose "
        "parameters do not depend on earlier results. Nothing "
        "is refunded: a rejected or crashed run has spent too.",
        "name": standing["budget"],
        "epsilon_cap": cap,
        "delta": standing["delta"],
        "epsilon_spent": spent,
        "epsilon_sum": standing["epsilon_sum"],
        "epsilon_left": left,
        "runs": runs,
        "cohorts": standing.get("cohorts", 1),
        "this_run": stages["trained"]["epsilon"],
        "axis": [0.0, max(cap, spent) * 1.05],
        "picture": {
            "title": "Lifetime budget",
            "alt": f"Bar from zero to the cap of ε {plain(cap)}, filled to {upper(spent)}.",
        },
    }


def reproduce(stages: Stages, policy_digest: str) -> dict[str, Any]:
    """Digests, versions, machine, time and command."""
    facts = stages["facts"]
    seconds = facts.get("seconds") or {}
    digests = {
        "Policy": policy_digest,
        "Data, as read": stages["corpus"]["fingerprint"],
        "Data, scrubbed": stages["scrubbed"]["digest"],
        "Data, with planted secrets": stages["planted"]["digest"],
        "Canary manifest": stages["planted"]["manifest_digest"],
        "Base model": stages["trained"]["base"]["digest"],
        "Adapter": stages["trained"]["adapter_digest"],
        "Evidence": stages["evidence"]["digest"],
    }
    total = sum(seconds.values())
    took = f" The run took {duration(total)}." if seconds else ""
    return {
        "finding": f"Same policy, data and base model give the same mechanism and ε, never the same noise.{took}",
        "note": "The seed sets the first LoRA weights only. Noise and sampling come from an AES-256 counter-mode "
        "keystream under a key from the operating system that no one sees and that is never recorded: whoever knew it could "
        "undo the protection.",
        "command": facts.get("command", ""),
        "policy": stages["policy"]["name"],
        "seed": stages["policy"]["train"]["seed"],
        "digests": [{"name": name, "digest": digest} for name, digest in digests.items()],
        "versions": [{"name": name, "value": str(value)} for name, value in sorted((facts.get("versions") or {}).items())],
        "hardware": [{"name": words(name), "value": str(value)} for name, value in (facts.get("hardware") or {}).items()],
        "seconds": [{"stage": words(name), "seconds": float(value)} for name, value in seconds.items()],
        "total_seconds": float(total) if seconds else None,
    }
