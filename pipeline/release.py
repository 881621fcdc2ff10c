"""Releases: whole or not there, immutable, and checkable to the last byte.

    HOME/releases/NAME/1/         adapter, report, policy, model card (README.md), manifest.json, model.sig, attestation.json
    HOME/releases/NAME/latest     a symbolic link to the newest version
    HOME/releases/.versions/      the highest version that each name ever had, so that none is used twice

A release is put together in a hidden folder beside its place, every file synced, its manifest written, signed, verified there
and moved by one rename. A crash at any point leaves no release or a whole one; the next publication sweeps the hidden
folder. What a person must approve waits in `pipeline.approval`; what was withdrawn stands in `pipeline.revocation`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import _attestation, _manifest, revocation, signing, storage
from pipeline._manifest import MANIFEST, Approval, File, Manifest
from pipeline._shelf import Adapter, Release, as_release, check, check_name, expect, fill, put, versions
from pipeline.errors import IntegrityError, UsageError
from pipeline.folders import digest_file
from pipeline.policy import Policy
from pipeline.runs import NAME

__all__ = [
    "Adapter",
    "Approval",
    "File",
    "Manifest",
    "Release",
    "attestation",
    "of_run",
    "publish",
    "releases",
    "revoke",
    "verify",
]


def publish(run: Path, name: str, trained: Adapter, report_folder: Path, policy: Policy, home: Path, card: str) -> Release:
    """Publish a run whose verdict is `released`, as the next version of `name`; a run is published once.

    Args:
        run: the run's folder, which holds verdict.json.
        name: the release's name.
        trained: the audited adapter.
        report_folder: holds report.html and report.json.
        policy: the run's resolved policy.
        home: HUSHTUNE_HOME.
        card: text of the model card, README.md.

    Returns:
        The new release, or the one that was made of the same run and bytes before.

    Raises:
        UsageError: the name holds other characters than letters, digits, dots, dashes and underscores.
        StageError: the run was not released by its gates, a file is missing, or the release cannot be written.
        IntegrityError: the adapter's bytes are not those that were audited.
    """
    check_name(name)
    expect(run, "released")
    if policy.release.approval == "required":
        raise IntegrityError(
            f"Policy {policy.name} asks for approval and run {run.name} has none: run again under this policy."
        )
    manifest = Manifest(name=name, run=run.name, adapter=trained.adapter_digest, policy=policy.digest, files={})
    return put(home, manifest, lambda folder: fill(folder, trained, report_folder, policy, card))


def verify(folder: Path, *, keys: Sequence[Path] = (), revoked: Path | None = None) -> Release:
    """Check a release: every byte against its manifest, manifest and files against both signatures, and that it still stands.

    Needs no network. `folder` may be `latest`.

    Args:
        folder: the release.
        keys: public keys to trust; those of the home that the release lies in by default. A copy elsewhere needs one.
        revoked: a list of revocations to ask instead of the home's.

    Raises:
        UsageError: there is no such folder, or no key to verify with.
        IntegrityError: a file differs, is missing or does not belong there, a signature is wrong or by somebody else, the
            release was moved to another name or version, or it was revoked; the sentence names it.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no release in {folder}: see `hushtune releases` for those there are.")
    folder = folder.resolve()
    home = folder.parents[2] if folder.parents[1].name == "releases" else None
    public = signing.trusted_keys(home, keys)
    if not public:
        raise UsageError(f"There is no public key to verify {folder} with: give the .pub file of who released it by --key.")
    manifest = _manifest.read(folder)
    check(folder, manifest, public)
    if home is not None and (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise IntegrityError(
            f"{folder / MANIFEST} is that of {manifest.name} version {manifest.version or 'none'}, not of the release it lies "
            "in: do not use it; restore the release."
        )
    found = as_release(folder, manifest.name, manifest.version)
    revocation.check(found.manifest_digest, home, revoked, public)
    return found


def attestation(folder: Path, *, keys: Sequence[Path] = ()) -> dict[str, Any]:
    """What a release attests (see `pipeline._attestation`), after `verify`."""
    found = verify(folder, keys=keys)
    home = found.folder.parents[2] if found.folder.parents[1].name == "releases" else None
    return _attestation.check(found.folder, _manifest.read(found.folder), signing.trusted_keys(home, keys))


def revoke(folder: Path, home: Path, why: str) -> revocation.Revocation:
    """Withdraw a release of this home; from then on it does not verify. Its files stay.

    Raises:
        UsageError: it is no release of this home, or the reason is missing.
        IntegrityError: its manifest, or the list of revocations, was changed.
        StageError: it is withdrawn here, and the store that releases are copied to does not know it yet.
    """
    folder = folder.resolve()
    if folder.parents[1] != (home / "releases").resolve() or not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} is no release of {home}: see `hushtune releases` for those there are.")
    manifest = _manifest.read(folder)
    made = revocation.revoke(home, manifest.name, manifest.version, digest_file(folder / MANIFEST), why)
    storage.publish_revocations(home)
    return made


def of_run(home: Path, name: str, run: str) -> Release | None:
    """The release called `name` that a run has become, as its manifest says; None before it is published."""
    for made in releases(home):
        with contextlib.suppress(IntegrityError):  # a damaged one is for `verify` to name
            if made.name == name and _manifest.read(made.folder).run == run:
                return made
    return None


def releases(home: Path) -> list[Release]:
    """All published versions, by name and version; nothing is verified."""
    shelves = sorted(path for path in (home / "releases").glob("*") if re.fullmatch(NAME, path.name))
    return [as_release(folder, shelf.name, folder.name) for shelf in shelves for folder in versions(shelf)]
