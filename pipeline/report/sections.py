"""The sections of the report that describe the run itself: its name, its data, and how to reproduce it.

Each begins with `finding`, the one sentence that the section shows; then its figures as they were computed.
"""

from __future__ import annotations

from typing import Any

from pipeline import __version__
from pipeline.report.changes import differences, summary
from pipeline.report.formats import duration, plural
from pipeline.report.names import words

Stages = dict[str, Any]


def run(stages: Stages, policy_digest: str) -> dict[str, Any]:
    """Who and what: names and digests only."""
    facts, policy = stages["facts"], stages["policy"]
    return {
        "name": facts.get("run", ""),
        "created": facts.get("created", ""),
        "policy": policy["name"],
        "policy_digest": policy_digest,
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
        "provenance": stages["policy"]["data"].get("provenance"),
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


def changes(stages: Stages, content: dict[str, Any]) -> dict[str, Any]:
    """What differs from the last release of the same name; `previous` is None where there is none."""
    before = stages["facts"].get("previous")
    if not before:
        return {"finding": "There is no earlier release of this name to compare with.", "previous": None, "rows": []}
    rows = differences(before, summary(content))
    text = f"{plural(len(rows), 'figure')} differ from those of {before['version']}, the last release of this name."
    return {"finding": text, "previous": before["version"], "rows": rows}


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
        **({"Public adapter": adaptation["digest"]} if (adaptation := stages["trained"]["base"].get("adaptation")) else {}),
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
