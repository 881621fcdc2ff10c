"""The manifest of a release: the SHA-256 and size of every file, and a digest of its own.

manifest.json has one spelling, so that a change to any of its bytes shows too.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from pipeline.errors import IntegrityError
from pipeline.folders import Value, digest, digest_file
from pipeline.folders import sync as sync_folder

__all__ = ["MANIFEST", "Approval", "File", "Manifest", "add_copy", "add_text", "check", "read", "sync_file", "sync_folder"]

MANIFEST = "manifest.json"


class File(Value):
    """One file of a release; `size` in bytes."""

    sha256: str
    size: int


class Approval(Value):
    """Who said yes, and when (UTC)."""

    by: str
    at: str


class Manifest(Value):
    """What a release is made of.

    `adapter` is `folders.digest_folder` of the trained adapter, `policy` the policy's digest; `version` and `created` are
    empty in a candidate, which is not released yet; `submitter` and `expires` are empty where nobody has to approve.
    """

    model_config = ConfigDict(populate_by_name=True)

    form: Literal["hushtune-release/1"] = Field(default="hushtune-release/1", alias="schema")
    name: str
    version: str = ""
    created: str = ""
    run: str
    adapter: str
    policy: str
    submitter: str = ""
    expires: str = ""
    approval: Approval | None = None
    files: dict[str, File]

    def text(self) -> str:
        """The one spelling of manifest.json."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content | {"digest": digest(content)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of a release or candidate, checked against its own digest.

    Raises:
        IntegrityError: manifest.json is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise IntegrityError(f"{path} is missing, so nothing shows that {folder} is whole: restore the release, or discard it.")
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        content.pop("digest", None)
        manifest = Manifest.model_validate(content)
    except (ValueError, AttributeError, ValidationError):
        manifest = None
    if manifest is None or manifest.text() != text:
        raise IntegrityError(f"{path} was changed after the release was made: do not use it; restore the release.")
    return manifest


def check(folder: Path, manifest: Manifest, beside: Sequence[str] = ()) -> None:
    """Compare every file of a folder with its manifest; `beside` are files that belong there and are checked elsewhere.

    Raises:
        IntegrityError: a file differs, is missing, is not a plain file, or does not belong there; the sentence names it.
    """
    found = set(os.listdir(folder)) - {MANIFEST, *beside}
    for name in sorted(found | set(manifest.files)):
        path, listed = folder / name, manifest.files.get(name)
        if listed is None:
            wrong = "does not belong to the release"
        elif name not in found:
            wrong = "is missing from the release"
        elif not stat.S_ISREG(path.lstat().st_mode):
            wrong = "is not a plain file"
        elif path.stat().st_size != listed.size or digest_file(path) != listed.sha256:
            wrong = "differs from the release's manifest"
        else:
            continue
        raise IntegrityError(f"{path} {wrong}: do not use the release; restore it or release anew.")


def add_text(folder: Path, name: str, text: str) -> File:
    """Write one file of a release, synced and read-only."""
    return _add(folder / name, [text.encode()])


def add_copy(folder: Path, source: Path) -> File:
    """Copy one file into a release, synced and read-only; the digest is that of the bytes written."""
    with source.open("rb") as file:
        return _add(folder / source.name, iter(lambda: file.read(1 << 20), b""))


def sync_file(path: Path) -> None:
    """Make a file that somebody else wrote durable and read-only."""
    os.chmod(path, 0o444)
    sync_folder(path)


def _add(path: Path, chunks) -> File:
    hashed, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        for chunk in chunks:
            hashed.update(chunk)
            size += len(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return File(sha256=hashed.hexdigest(), size=size)
