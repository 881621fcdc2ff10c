"""Small frozen values, atomic files and stage folders: how every stage of the line writes its output.

A stage works in `FOLDER.partial` and renames it to `FOLDER` when it is whole, so that a reader never meets half a stage.
`FOLDER/stage.json` holds the digest of the stage's inputs and its value; a re-run with the same inputs returns that value.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.errors import UsageError


class Value(BaseModel):
    """Base of the small frozen values that pass between stages: paths, digests, counts and figures, never text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(Protocol):
    """What a stage calls while it works: `done` of `total` units of work, and figures worth showing (ε so far, say)."""

    def __call__(self, done: int, total: int, **figures: float | int | str) -> None:  # noqa: D102 - see the class
        ...


def silent(done: int, total: int, **figures: float | int | str) -> None:
    """The progress of a stage that nobody watches."""


T = TypeVar("T", bound=Value)


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: the one spelling whose digest is taken."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(content: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `content`."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 (hex) over the relative names and digests of all files below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): digest_file(path) for path in files})


def write_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a whole file atomically and durably: temporary file, fsync, rename."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """`write_text` for bytes."""
    partial = path.with_name(path.name + ".tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines, each with its own end, atomically and durably as they come, mode 0600; returns how many."""
    partial, count = path.with_name(path.name + ".tmp"), 0
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def write_json(path: Path, content: Any, *, mode: int = 0o600) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", mode=mode)


def check_parent(path: Path) -> None:
    """See that a file or folder can be made at `path`.

    Raises:
        UsageError: the folder that it would stand in does not exist or cannot be written to.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"The folder {parent} does not exist: make it, or write elsewhere.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {parent} cannot be written to: write elsewhere.")


def private_folder(path: Path) -> Path:
    """Make a folder (and its parents) that only its owner can enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's list of names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(folder: Path, kind: type[T], inputs: Mapping[str, Any], work: Callable[[Path], T]) -> T:
    """Do a stage's work once for its inputs.

    Args:
        folder: where the finished stage lives.
        kind: type of the stage's value.
        inputs: JSON-able description of everything that determines the output (digests, policy sections, seeds).
        work: given the folder to write in (`FOLDER.partial`, mode 0700, which keeps finished parts of an earlier try with
            the same inputs), returns the value, whose paths point into the final `folder`.

    Returns:
        The value, from `work` or from an earlier run with the same inputs.
    """
    key = digest(dict(inputs))
    partial = folder.with_name(folder.name + ".partial")
    if finished(partial, kind, key) is not None:
        _move(partial, folder)  # an earlier try was killed between its last word and the rename
    found = finished(folder, kind, key)
    if found is not None:
        return found
    marker = partial / "inputs.sha256"
    if partial.exists() and (not marker.exists() or marker.read_text() != key):
        shutil.rmtree(partial)
    private_folder(partial)
    write_text(marker, key)
    value = work(partial)
    write_json(partial / "stage.json", {"inputs": key, "value": value.model_dump(mode="json")})
    _move(partial, folder)
    return value


def _move(partial: Path, folder: Path) -> None:
    """Put a whole stage in its place; from here on only this may be repeated, never the work."""
    (partial / "inputs.sha256").unlink(missing_ok=True)
    for path in (partial, *partial.rglob("*")):
        sync(path)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    sync(folder.parent)


def finished(folder: Path, kind: type[T], key: str | None = None) -> T | None:
    """The value of a finished stage, or None; with `key`, only if the stage had those inputs."""
    path = folder / "stage.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if key is not None and content["inputs"] != key:
        return None
    return kind.model_validate(content["value"])
