"""Data from, and copies of releases on, a store that a URL names: `s3://BUCKET/PATH` and whatever else fsspec reads.

    with a URL in place of a data file        it is copied, in bounded memory, to HOME/fetched/ (mode 0700) while it is read
    HUSHTUNE_RELEASE_STORE=s3://BUCKET/PATH   every release is copied to PATH/NAME/VERSION/, and PATH/NAME/latest names it last
    hushtune verify s3://BUCKET/PATH/NAME     the same checks as on a folder

The home itself, with its run folders, stays on a file system: an object store has neither modes nor locks nor renames, and
keeps what is deleted. Credentials come from where the store's own client looks for them (environment, profile, role). A URL
that holds one is refused, and no message repeats it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline import _manifest, runs
from pipeline._attestation import SIGNATURES
from pipeline._manifest import MANIFEST, Manifest
from pipeline.errors import HushtuneError, InputError, IntegrityError, StageError, UsageError
from pipeline.folders import Progress, private_folder, silent

STORE = "HUSHTUNE_RELEASE_STORE"
LATEST = "latest"
REVOKED = ".revoked.jsonl"
_URL = re.compile(r"[A-Za-z][\w+.:-]+://")
_BLOCK = 1 << 20  # bytes in memory
_UNREAD = "could not be read: check the URL, and who may read it"
_SMALL = 1 << 20  # a manifest, and a list of revocations, are smaller

T = TypeVar("T")


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL and no path.

    >>> is_url("s3://bucket/notes.jsonl"), is_url("notes.jsonl"), is_url("C:/notes.jsonl")
    (True, False, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def check(url: str) -> str:
    """The URL, if it holds no secret and names one place.

    Raises:
        UsageError: it holds a user, a password, a query or a fragment, a chain of protocols, or no place.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or "::" in url or not (parts.netloc or parts.path.strip("/")):
        raise UsageError("The URL is not understood: give one such as s3://BUCKET/PATH.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"The URL {parts.scheme}://… holds a user, a password, a signature or other parameters: leave them out, and put "
            "credentials where the store's client looks for them (AWS_ACCESS_KEY_ID, a profile or a role)."
        )
    return url.rstrip("/")


def store() -> str | None:
    """The store that releases are copied to, or None.

    Raises:
        UsageError: what HUSHTUNE_RELEASE_STORE names holds a secret, or is no URL.
    """
    named = os.environ.get(STORE, "").strip()
    if named and not is_url(named):
        raise UsageError(f"{STORE} is not a URL: set it to one such as s3://BUCKET/PATH, or file:///PATH.")
    return check(named) if named else None


def local(data: str | Path, home: Path, *, progress: Progress = silent) -> Path:
    """A data file as a path: that of a URL is copied into the home, and goes when this process ends, however it ends.

    What a run is known by is the content, so that the same URL with the same bytes takes up the same run.

    Args:
        data: a path, which is returned as it is, or a URL.
        home: HUSHTUNE_HOME; the copy lies in `home`/fetched, mode 0700, and has the name that the URL ends with.
        progress: told bytes copied of bytes in all.

    Raises:
        UsageError: the URL holds a secret, or its protocol is not known or not installed.
        InputError: there is no such file, it may not be read, or it broke off or changed on the way; then no copy is left.
    """
    if not isinstance(data, str) or not is_url(data):
        return Path(data)
    url = check(data)
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    shelf = private_folder(runs.open_home(home) / "fetched")
    _sweep(shelf)
    folder = private_folder(shelf / secrets.token_hex(8))
    runs.hold(folder)
    atexit.register(_drop, folder)
    path = folder / (unquote(parts.path).rsplit("/", 1)[-1] or "data")
    try:
        _told(url, InputError, _UNREAD, lambda: _download(*_open(url), path, progress))
    except BaseException:
        _drop(folder)
        raise
    return path


def publish(home: Path, folder: Path, manifest: Manifest) -> str | None:
    """Copy a release to the store that HUSHTUNE_RELEASE_STORE names; returns its URL there, None where none is named.

    The manifest follows all other files, and `latest` follows the manifest: whoever reads by either meets whole releases only.
    What was copied before is left as it is. `latest` never goes back to an older version.

    Raises:
        UsageError: the URL holds a secret, or its protocol is not known or not installed.
        IntegrityError: the store holds another release under this name and version.
        StageError: the copy broke off; the release stands in the home, and the next try goes on.
    """
    root = store()
    if root is None:
        return None
    shelf = f"{root}/{manifest.name}"
    url = f"{shelf}/{manifest.version}"
    again = f"could not be written: release {manifest.name} {manifest.version} stands in {home}; the same command tries again"
    _told(url, StageError, again, lambda: _publish(url, folder, manifest))
    return url


def _publish(url: str, folder: Path, manifest: Manifest) -> None:
    there, place = _open(url)
    held = _small(there, f"{place}/{MANIFEST}")
    if held is None:
        for name in sorted(path.name for path in folder.iterdir() if path.name != MANIFEST):
            _upload(there, f"{place}/{name}", folder / name)
        _upload(there, f"{place}/{MANIFEST}", folder / MANIFEST)
    elif held != (folder / MANIFEST).read_bytes():
        raise IntegrityError(f"{url} holds another release of that name and version: use a store, or a path, of its own.")
    pointer = f"{place.rsplit('/', 1)[0]}/{LATEST}"
    newest = (_small(there, pointer) or b"0").decode(errors="replace").strip()
    if not newest.isdecimal() or int(newest) < int(manifest.version):
        there.pipe_file(pointer, f"{manifest.version}\n".encode())


def publish_revocations(home: Path) -> str | None:
    """Copy the home's list of revocations to the store, so that a copy there no longer verifies; None without a store.

    Raises:
        StageError: it could not be written.
    """
    root, source = store(), home / "releases" / REVOKED
    if root is None or not source.is_file():
        return None
    url = f"{root}/{REVOKED}"
    what = "could not be written: the release is revoked here, and the same command tries again"
    _told(url, StageError, what, lambda: _upload(*_open(url), source))
    return url


def fetch_release(url: str, folder: Path) -> tuple[Path, Path | None]:
    """Copy a release from a store, for `release.verify`, and the list of revocations beside it.

    Args:
        url: …/NAME, its latest version, or …/NAME/VERSION.
        folder: an empty one.

    Returns:
        The copy, in `folder`/NAME/VERSION, and the list or None. A store that withholds the list hides a revocation: whoever
        must know asks the home's.

    Raises:
        UsageError: there is no such release, or the URL is not understood.
        IntegrityError: a file is missing, or one is there that does not belong to the release.
        StageError: the store cannot be read.
    """
    url = check(url)
    return _told(url, StageError, _UNREAD, lambda: _fetch(url, folder))


def _fetch(url: str, folder: Path) -> tuple[Path, Path | None]:
    there, place = _open(url)
    newest = (_small(there, f"{place}/{LATEST}") or b"").decode(errors="replace").strip()
    if re.fullmatch(r"[1-9][0-9]{0,8}", newest):
        place = f"{place}/{newest}"
    shelf, name, version = place.rsplit("/", 2)
    head = _small(there, f"{place}/{MANIFEST}")
    if head is None or not re.fullmatch(runs.NAME, name) or not re.fullmatch(r"[1-9][0-9]*", version):
        raise UsageError(f"There is no whole release at {url}: give the URL of a name, or of one of its versions.")
    copy = folder / name / version
    copy.mkdir(parents=True)
    (copy / MANIFEST).write_bytes(head)
    manifest = _manifest.read(copy)
    if (manifest.name, manifest.version) != (name, version):
        raise IntegrityError(f"{url} holds {manifest.name} version {manifest.version}: do not use it; restore the release.")
    wanted = {*manifest.files, *SIGNATURES}
    found = {str(path).rsplit("/", 1)[-1] for path in there.ls(place, detail=False)} - {MANIFEST, ""}
    if odd := sorted(found ^ wanted):
        what = "is missing from" if odd[0] in wanted else "does not belong to"
        raise IntegrityError(f"{odd[0][:80]!r} {what} the release at {url}: do not use it; restore it or release anew.")
    for file in sorted(wanted):
        if "/" in file or file.startswith("."):
            raise IntegrityError(f"The manifest at {url} names a file elsewhere: do not use the release.")
        most = manifest.files[file].size if file in manifest.files else 64 * _SMALL
        _download(there, f"{place}/{file}", copy / file, silent, most=most)
    listed = _small(there, f"{shelf}/{REVOKED}", most=64 * _SMALL)
    if listed is None:
        return copy, None
    (folder / REVOKED).write_bytes(listed)
    return copy, folder / REVOKED


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it."""
    scheme = urlsplit(url).scheme
    try:
        import fsspec
    except ImportError:
        fsspec = None
    if fsspec is not None:
        with contextlib.suppress(ImportError, ValueError):
            # No listing is remembered: another process may have written since.
            return fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    raise UsageError(
        f"URLs of the kind {scheme}:// cannot be opened here: pip install 'hushtune[storage]' for s3://, or the fsspec package "
        "of that store."
    )


def _download(there: Any, place: str, path: Path, progress: Progress, most: int | None = None) -> None:
    size, copied = there.info(place)["size"], 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb") as target,
        there.open(place, "rb", block_size=8 * _BLOCK, cache_type="readahead") as source,
    ):
        while block := source.read(_BLOCK):
            copied += len(block)
            if most is not None and copied > most:
                break
            target.write(block)
            progress(copied, size or copied)
        target.flush()
        os.fsync(target.fileno())
    if copied != size if most is None else copied > most:
        raise OSError


def _upload(there: Any, place: str, source: Path) -> None:
    if "file" in there.protocol:  # an object store has no folders
        there.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    there.put_file(str(source), place)
    if there.info(place)["size"] != source.stat().st_size:
        raise OSError


def _small(there: Any, place: str, most: int = _SMALL) -> bytes | None:
    """The bytes of a small file, None where there is none."""
    try:
        if there.info(place)["size"] > most:
            raise OSError
        return there.cat_file(place)
    except (FileNotFoundError, IsADirectoryError):
        return None


def _told(url: str, kind: type[HushtuneError], what: str, work: Callable[[], T]) -> T:
    """Do what a store's client is for; its error, which may quote what it sent, becomes a sentence with its kind only."""
    try:
        return work()
    except HushtuneError:
        raise
    except Exception as error:
        cause = type(error).__name__
    raise kind(f"{url} {what} ({cause}).")  # outside of `except`, so that nothing hangs behind it


def _sweep(shelf: Path) -> None:
    """Remove the copies of processes that were killed."""
    for folder in shelf.iterdir():
        if (folder / "lock").exists() and not runs.is_held(folder) and folder not in runs._held:
            shutil.rmtree(folder, ignore_errors=True)


def _drop(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    runs.let_go(folder)
