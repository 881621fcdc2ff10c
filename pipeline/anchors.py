"""Where the ledger stood, as it was written down elsewhere: a chain that was cut, written anew or exchanged shows.

The chain shows an edit in its middle. Whoever can write the database can also cut its end, or begin another one. So these are
held against it:

    the attestation of each release     the head of the chain when it was signed, and the ledger's note of the release
    the claim of each run               its reservation
    the home's reservations.jsonl       every reservation of its runs, and the head of the chain with it
    the list of revocations             a revocation that the ledger notes stands in the list

Where a lost ledger was rebuilt (see `pipeline.rebuild`), the heads of the old chain that its note names are accepted in the
place of entries, as long as it charges at least as many runs as the release attests.

A home is in its owner's hands, too. An attestation that has left the machine is in nobody's: `hushtune budget verify --release
COPY` asks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import _attestation, _journal, revocation, signing
from pipeline._attestation import ATTESTATION
from pipeline.errors import IntegrityError, UsageError
from pipeline.ledger import Claim, Head, Ledger
from pipeline.release import releases

_MEND = (
    "restore it by `hushtune budget restore BACKUP`, let HUSHTUNE_LEDGER_URL name the right one, or, where no backup holds it, "
    "charge it again by `hushtune budget rebuild`"
)


def check(home: Path, ledger: Ledger, copies: Iterable[Path] = (), keys: Sequence[Path] = ()) -> tuple[Head, int]:
    """Verify the whole ledger, and hold it against everything that was written down elsewhere.

    Args:
        home: HUSHTUNE_HOME, whose releases, runs and revocations are asked.
        ledger: the one to check.
        copies: folders of releases that were kept elsewhere.
        keys: public keys that signed the copies; the home's by default.

    Returns:
        The end of the chain, and how many attestations and claims lie on it.

    Raises:
        UsageError: a copy is no folder of a release, or there is no key to check it with.
        IntegrityError: the chain was edited, does not hold what a release or a run shows, or an attestation was changed.
    """
    end = ledger.verify()
    held = _held(home, ledger, strict=True)
    here = releases(home)  # before the notes: what is released while we look is no fault
    notes = ledger.notes("release")
    noted = {entry.detail["manifest"] for entry in notes}
    for made in here:
        if made.manifest_digest not in noted:
            raise IntegrityError(
                f"The ledger {ledger.name} does not note the release {made.folder}: its end was cut, or the release was never "
                f"finished, which the command that made it does; else {_MEND}."
            )
    public = signing.trusted_keys(home, keys)
    for folder in copies:
        _lies_on(ledger, folder, public)
        held += 1
    listed = {one.manifest for one in revocation.read(home / "releases" / revocation.LIST, signing.trusted_keys(home))}
    # A ledger may serve a team: what was released in another home is withdrawn on that one's list.
    own = {made.manifest_digest for made in here}
    own |= {entry.detail["manifest"] for entry in notes if (home / "runs" / entry.run).is_dir()}
    for entry in ledger.notes("revocation"):
        if entry.detail["manifest"] in own - listed:
            raise IntegrityError(
                f"The list of revocations of {home} lacks that of {entry.detail['name']} {entry.detail['version']}, which the "
                "ledger notes: restore the list, or revoke the release again."
            )
    return end, held


def witnessed(home: Path, ledger: Ledger, copies: Iterable[Path] = (), keys: Sequence[Path] = ()) -> None:
    """Refuse a ledger that lacks anything of what a home, or a release that was kept elsewhere, shows; `verify` first.

    Raises:
        UsageError: a copy is no folder of a release, or there is no key to check it with.
        IntegrityError: the ledger lacks it, or an attestation was changed.
    """
    _held(home, ledger, strict=True)
    public = signing.trusted_keys(home, keys)
    for folder in copies:
        _lies_on(ledger, folder, public)


def expect(home: Path, ledger: Ledger) -> None:
    """Refuse a ledger in which this home's releases and runs do not stand: it would have forgotten what was spent.

    Raises:
        IntegrityError: the ledger is another one, or its end was cut.
    """
    _held(home, ledger, strict=False)


def _held(home: Path, ledger: Ledger, *, strict: bool) -> int:
    """Hold the home's attestations and claims against the ledger and count them; `strict` also minds a damaged one."""
    held, keys = 0, signing.trusted_keys(home)
    for made in releases(home):
        try:
            _lies_on(ledger, made.folder, keys)
        except (Damaged, UsageError):
            if strict:
                raise
            continue  # `verify` and `budget verify` say so; the next run is about other bytes
        held += 1
    known = ledger.claims()
    for path in sorted((home / "runs").glob("*/claim.json")):
        claim = claim_in(path)
        if known.get(claim.id) != claim:
            raise IntegrityError(
                f"The ledger {ledger.name} does not hold what {path} reserved: its end was cut, or it is another ledger than "
                f"that of this home, so {_MEND}; a run that was copied here from another home belongs back there."
            )
        held += 1
    kept = _journal.read(home)
    gone = lost(ledger)
    for one in kept:
        if known.get(one.claim.id) != one.claim or not (one.head is None or one.head in gone or ledger.holds(one.head)):
            raise IntegrityError(
                f"The ledger {ledger.name} does not hold what run {one.claim.run} reserved, by {home / _journal.JOURNAL}: "
                f"its end was cut, it was written anew, or it is another ledger than that of this home, so {_MEND}."
            )
    return held


def lost(ledger: Ledger) -> list[Head]:
    """Ends of a chain that was lost, whose charges `rebuild` has put on this one."""
    return [Head(**head) for entry in ledger.notes("rebuilt") for head in entry.detail["heads"]]


def claim_in(path: Path) -> Claim:
    """The claim that a run keeps (IntegrityError: the file is none)."""
    try:
        return Claim.model_validate_json(path.read_bytes())
    except ValidationError:
        raise IntegrityError(f"{path} is not a claim: restore it, or find out who wrote to it.") from None


class Damaged(IntegrityError):
    """An attestation that cannot be read as one."""


def _lies_on(ledger: Ledger, folder: Path, keys: Sequence[Path]) -> None:
    """The ledger holds the head that a release attests, whose other files are for `release.verify` to check."""
    head, predicate = attested(folder, keys)
    if ledger.holds(head):
        return
    if head in lost(ledger):
        budget, runs = predicate["lifetime"]["name"], predicate["lifetime"]["runs"]
        if len(ledger.charges(budget)) >= runs:
            return
        raise IntegrityError(
            f"The rebuilt ledger {ledger.name} charges fewer runs to budget {budget} than the {runs} that "
            f"{folder / ATTESTATION} attests: rebuild it in every home that shared it, and from every run and "
            "release that was moved away."
        )
    raise IntegrityError(
        f"The ledger {ledger.name} does not hold entry {head.entries} as {folder / ATTESTATION} attests it: its end was cut, "
        f"it was written anew, or it is another ledger, so {_MEND}; a release of another home is kept outside of this one."
    )


def attested(folder: Path, keys: Sequence[Path]) -> tuple[Head, dict[str, Any]]:
    """Where the ledger stood when a release was signed, and all that it attests.

    Raises:
        Damaged: the attestation is missing, changed or signed by a stranger.
        UsageError: there is no key to check it with.
    """
    path = folder / ATTESTATION
    if not path.is_file():
        raise Damaged(f"{path} is missing, so nothing shows where the ledger stood: restore the release.")
    if not keys:
        raise UsageError(f"There is no public key to check {folder} with: give the .pub file of who released it by --key.")
    try:
        predicate = _attestation.read(path, keys)["predicate"]
        return Head.model_validate(predicate["ledger"]), predicate
    except (IntegrityError, LookupError, TypeError, ValidationError) as error:
        raise Damaged(str(error) if isinstance(error, IntegrityError) else f"{path} names no ledger: restore it.") from None
