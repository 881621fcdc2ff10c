"""`hushtune approve | verify | revoke | releases | keys | retention`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import runs
from pipeline.commands.common import answer, columns
from pipeline.errors import UsageError


def approve(arguments: argparse.Namespace) -> int:
    """Publish a run that awaits approval."""
    from pipeline import approval

    made = approval.approve(runs.find(arguments.home, arguments.run), arguments.by)
    answer(
        arguments,
        made.model_dump(mode="json"),
        f"Released {made.name} {made.version}, approved by {approval.approver(made)}: {made.folder}",
    )
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Check a release: its files, its signatures, and that it was not revoked."""
    if "://" in arguments.release:
        return _verify_url(arguments)
    folder = _release(arguments)
    check_release(folder, arguments.home, arguments.key or (), arguments.revoked)
    answer(arguments, {"release": str(folder), "verified": True}, f"{folder}: every file is as it was released and signed.")
    return 0


def _verify_url(arguments: argparse.Namespace) -> int:
    """Check a copy on a store, by the keys given or those of the home, and both lists of revocations."""
    from pipeline import release, signing, storage

    home = arguments.home.absolute()
    keys = signing.trusted_keys(home, arguments.key or ())
    if not keys:
        raise UsageError(
            "What lies beside a release on a store proves nothing: give the public key of who released it by --key, or the "
            "home that you trust by --home."
        )
    with TemporaryDirectory() as scratch:
        folder, listed = storage.fetch_release(arguments.release, Path(scratch))
        own = home / "releases" / storage.REVOKED
        lists = [path for path in (arguments.revoked, listed, own if own.is_file() else None) if path]
        for one in lists or [None]:
            made = release.verify(folder, keys=keys, revoked=one)
    answer(
        arguments,
        {"release": arguments.release, "version": made.version, "verified": True},
        f"{arguments.release}, version {made.version}: every file is as it was released and signed.",
    )
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    """Withdraw a release."""
    from pipeline import release

    made = release.revoke(_release(arguments), arguments.home.absolute(), arguments.why)
    answer(arguments, made.model_dump(mode="json"), f"{made.name} {made.version} is revoked and no longer verifies.")
    return 0


def keys_new(arguments: argparse.Namespace) -> int:
    """Make a key pair."""
    from pipeline import signing

    public = signing.new_key(runs.open_home(arguments.home), replace=arguments.replace)
    said = f"Made a key. Give its public half to whoever verifies releases: {public}"
    answer(arguments, {"public": str(public)}, said)
    return 0


def retention(arguments: argparse.Namespace) -> int:
    """Delete what the policies of the runs keep no longer, and say what."""
    from pipeline import retention as retain
    from pipeline.ledger import Ledger

    home, found = arguments.home.absolute(), []
    if (home / "runs").is_dir():
        found = retain.due(home, Ledger(home)) if arguments.dry_run else retain.sweep(home, Ledger(home))
    rows = [(one.run, one.path, one.files, one.bytes, one.why) for one in found]
    text = columns(rows, ("run", "what", "files", "bytes", "why")) if rows else "Nothing is due."
    answer(arguments, [one.model_dump(mode="json") for one in found], text)
    return 0


def releases(arguments: argparse.Namespace) -> int:
    """List the releases of this home."""
    from pipeline import release

    found = release.releases(arguments.home)
    page = _index(arguments.home) if arguments.html else None
    rows = [(made.name, made.version, made.manifest_digest[:12], made.folder) for made in found]
    text = columns(rows, ("name", "version", "manifest", "folder")) if rows else "Nothing was released yet."
    text += f"\n{page}" if page else ""
    answer(arguments, [made.model_dump(mode="json") for made in found], text)
    return 0


def _index(home: Path) -> Path:
    """Write HOME/releases.html."""
    from pipeline.commands.common import quiet
    from pipeline.report import compare

    quiet()
    return compare.write_index(compare.shelf(home.absolute()), runs.open_home(home) / "releases.html")


def _release(arguments: argparse.Namespace) -> Path:
    folder = release_folder(arguments.release, arguments.home)
    if folder is None:
        raise UsageError(f"There is no release {arguments.release} in {arguments.home / 'releases'}: see `hushtune releases`.")
    return folder


def check_release(folder: Path, home: Path, keys: Sequence[Path] = (), revoked: Path | None = None) -> None:
    """Verify a release by the keys given, or by those of the home that is trusted: never by what lies beside a stranger's.

    Raises:
        UsageError: it lies outside of the home, and no key is given.
        IntegrityError: it does not verify.
    """
    from pipeline import release

    if not keys and folder.parents[1] != (home / "releases").resolve():
        raise UsageError(
            f"{folder} lies outside of the home {home}, and what lies beside it proves nothing: give the public key "
            "of who released it by --key, or the home that you trust by --home."
        )
    release.verify(folder, keys=keys, revoked=revoked)


def release_folder(ref: str, home: Path) -> Path | None:
    """The folder of a release named NAME (its latest), NAME/VERSION, or by path; None if there is none."""
    for folder in (home / "releases" / ref / "latest", home / "releases" / ref, Path(ref)):
        if (folder / "manifest.json").is_file():
            return folder.resolve()
    return None
