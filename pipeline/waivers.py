"""Waivers: signed decisions that a run may pass although it fails a gate; each is dated, has a reason, and expires.

    HOME/waivers/GATE-YYYYMMDD-xxxxxxxx.json     a DSSE envelope; its place in time stands in the ledger, too

A waiver is given for one policy, named by its digest, and only for gates that the policy lets be waived.
"""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from pathlib import Path

from pydantic import ValidationError

from pipeline import signing
from pipeline.errors import IntegrityError, UsageError
from pipeline.folders import private_folder, write_text
from pipeline.gates import Waiver
from pipeline.ledger import Ledger
from pipeline.policy import Policy

KIND = "application/vnd.hushtune.waiver+json"
LONGEST = 365


def waive(home: Path, policy: Policy, gate: str, *, by: str, why: str, days: int, today: date) -> tuple[Waiver, Path]:
    """Sign a waiver, keep it, and note it in the ledger.

    Args:
        home: HUSHTUNE_HOME.
        policy: the policy that the waiver is for.
        gate: name of one of its gates.
        by: who decides.
        why: the reason, which stands first in the report.
        days: how long it holds, from 1 to 365.
        today: the day from which it holds, by `Ledger.now`.

    Raises:
        UsageError: the policy has no such gate, or does not let it be waived, or a name, reason or end is missing.
    """
    rule = policy.gates.get(gate)
    if rule is None:
        raise UsageError(f"Policy {policy.name} has no gate {gate}: choose one of {', '.join(policy.gates)}.")
    if not rule.waivable:
        raise UsageError(f"Policy {policy.name} does not let gate {gate} be waived: mend the run, or ask {rule.owner}.")
    by, why = by.strip(), " ".join(why.split())
    if not (0 < len(by) <= 200 and by.isprintable()) or not (8 <= len(why) <= 500 and why.isprintable()):
        raise UsageError("A waiver needs who gives it (--by) and a reason of 8 to 500 characters (--why).")
    if not 1 <= days <= LONGEST:
        raise UsageError(f"A waiver expires after 1 to {LONGEST} days: give --days.")
    waiver = Waiver(gate=gate, policy=policy.digest, by=by, why=why, issued=today, expires=today + timedelta(days=days))
    content = waiver.model_dump(mode="json")
    text = signing.seal(content, KIND, signing.signing_key(home))
    path = private_folder(home / "waivers") / f"{gate}-{today:%Y%m%d}-{secrets.token_hex(4)}.json"
    Ledger(home).note("", "waiver", content)
    write_text(path, text)
    return waiver, path


def load(home: Path, policy: Policy, ledger: Ledger) -> list[Waiver]:
    """The waivers of a policy, each with its signature checked and noted in the ledger.

    Raises:
        IntegrityError: a waiver was changed, was signed by nobody who is trusted here, or was given beside this ledger.
    """
    noted = [entry.detail for entry in ledger.notes("waiver")]
    keys, found = signing.trusted_keys(home), []
    for path in sorted((home / "waivers").glob("*.json")):
        content = signing.unseal(path.read_text(encoding="utf-8"), KIND, keys, path)
        try:
            found.append(Waiver.model_validate(content))
        except ValidationError:
            raise IntegrityError(f"{path} is signed and is not a waiver: remove it.") from None
        if {"what": "waiver", **content} not in noted:
            raise IntegrityError(
                f"The ledger {ledger.name} does not note the waiver {path}, which was given in another place or time: remove "
                "it, and give it here."
            )
    return [one for one in found if one.policy == policy.digest]
