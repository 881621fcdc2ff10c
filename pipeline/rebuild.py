"""A ledger that is lost, with no backup or one that is too old: charge again, in full, all that the home and its copies show.

    the home's reservations.jsonl      every reservation of its runs
    claim.json of each run             its reservation
    the attestation of each release    the mechanism of a run whose folder is gone

Whom a run was about is lost with the ledger, so what is rebuilt counts for everybody, in every budget (see `pipeline._lost`).
What no file shows cannot be charged: a person says that there is nothing else, and the chain notes who and why. Each home of a
team rebuilds its own; a release that attests more runs than the ledger then charges keeps its home locked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline import _journal, _manifest, anchors, backup, revocation, signing
from pipeline import policy as policies
from pipeline._journal import Cap, Reserved
from pipeline._shelf import note_release
from pipeline.composition import Spend
from pipeline.errors import UsageError
from pipeline.folders import digest_file
from pipeline.ledger import Claim, Ledger
from pipeline.release import releases


def rebuild(
    home: Path,
    *,
    by: str,
    why: str,
    file: Path | None = None,
    copies: Sequence[Path] = (),
    keys: Sequence[Path] = (),
) -> list[Claim]:
    """Charge what the ledger of a home no longer holds; returns the claims that were charged again.

    Args:
        home: HUSHTUNE_HOME.
        by: who says that nothing else was spent.
        why: what that rests on.
        file: a backup to begin with, however old.
        copies: folders of releases that were kept elsewhere.
        keys: public keys that signed the copies; the home's by default.

    Raises:
        UsageError: `by` or `why` is missing, a copy is no release, or nothing is missing from the ledger.
        IntegrityError: the ledger, the backup, a claim or an attestation was changed, or the backup is of another ledger.
    """
    by, why = " ".join(by.split()), " ".join(why.split())
    if not (by and 4 <= len(why) <= 500 and why.isprintable()):
        raise UsageError("Rebuilding a ledger needs a name and a reason of 4 to 500 characters: give --by NAME --why TEXT.")
    ledger = Ledger(home)
    if file is not None:
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=home) as folder:
            old = backup.opened(file, Path(folder))
            if not ledger.holds(old.head()):  # an earlier try may have come so far
                backup.bring(old, ledger, backup.word(by, why, file, old))
    ledger.verify()
    own, public = signing.trusted_keys(home), signing.trusted_keys(home, keys)
    shown = [(one.folder, *anchors.attested(one.folder, own)) for one in releases(home)]
    shown += [(folder, *anchors.attested(folder, public)) for folder in copies]
    known = ledger.claims()
    lost: dict[str, Reserved] = {}
    for one in _shown(home):
        if one.claim.id not in known:
            lost.setdefault(one.claim.id, one)
    runs = {claim.run for claim in known.values()} | {one.claim.run for one in lost.values()}
    for folder, _, predicate in shown:
        if predicate["run"] not in runs:
            one = _released(folder, predicate)
            lost.setdefault(one.claim.id, one)
    heads = [head for _, head, _ in shown] + [one.head for one in _journal.read(home) if one.head is not None]
    known_lost = anchors.lost(ledger)
    gone = [head for head in heads if not ledger.holds(head) and head not in known_lost]
    if lost or gone:
        ledger.rebuild(list(lost.values()), gone, {"by": by, "why": why})
    elif file is None:
        raise UsageError(f"The ledger {ledger.name} holds all that {home} shows: there is nothing to rebuild.")
    _note_again(home, ledger)
    return [one.claim for one in lost.values()]


def _shown(home: Path) -> Iterator[Reserved]:
    """What the home's own files say was reserved, the record that is nearest to the ledger first."""
    yield from _journal.read(home)
    for path in sorted((home / "runs").glob("*/claim.json")):
        rules = policies.load(path.parent / "policy.json")
        lifetime = rules.privacy.lifetime
        cap = Cap(epsilon=lifetime.epsilon, delta=lifetime.delta)
        yield Reserved(claim=anchors.claim_in(path), unit=rules.privacy.unit, cap=cap, policy=rules.digest)


def _released(folder: Path, predicate: dict[str, Any]) -> Reserved:
    """What a release attests of the mechanism of its run."""
    promise, mechanism, lifetime = predicate["promise"], predicate["mechanism"], predicate["lifetime"]
    claim = Claim(
        id=digest_file(folder / anchors.ATTESTATION)[:16],
        budget=lifetime["name"],
        run=predicate["run"],
        mechanism=Spend(**{key: mechanism[key] for key in Spend.model_fields}),
        epsilon=promise["epsilon"],
        delta=promise["delta"],
    )
    cap = Cap(epsilon=lifetime["epsilon_cap"], delta=lifetime["delta"])
    return Reserved(claim=claim, unit=promise["unit"], cap=cap, policy=predicate["policy"]["digest"])


def _note_again(home: Path, ledger: Ledger) -> None:
    """Note the releases and revocations of the home that the ledger no longer notes."""
    for made in releases(home):
        note_release(ledger, made, _manifest.read(made.folder))
    noted = {entry.detail["manifest"] for entry in ledger.notes("revocation")}
    for one in revocation.read(home / "releases" / revocation.LIST, signing.trusted_keys(home)):
        if one.manifest not in noted:
            ledger.note("", "revocation", one.model_dump(mode="json"))
