"""Which files a run reads: one file, or those of a drop folder.

    intake = of(Path("inbox"))                  # all files of the folder, in the order of their names
    rest = intake.without(released(home, "letters"))

A drop folder is read as one corpus. Names that begin with a dot or end in .part or .tmp are of files that are still being
written and are left out; rename a file when it is whole. A run keeps what it read in intake.json, by name and SHA-256, so that
a later run can leave out what a release of the same name was trained on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline._source import check
from pipeline.errors import InputError
from pipeline.folders import Value, digest, digest_file, write_json
from pipeline.ledger import Ledger

_UNFINISHED = (".part", ".tmp")


class File(Value):
    """One data file: its name, and the SHA-256 (hex) of its bytes."""

    name: str
    sha256: str


class Intake(Value):
    """The files of a run, in the order in which they are read; `path` is the file, or the `is_folder` that they lie in."""

    path: Path
    is_folder: bool
    files: tuple[File, ...]
    incremental: bool = False

    @property
    def digest(self) -> str:
        """What names the bytes read: the SHA-256 of the one file, or of the list of a folder's files."""
        return digest([[file.name, file.sha256] for file in self.files]) if self.is_folder else self.files[0].sha256

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in order."""
        return tuple(self.path / file.name for file in self.files) if self.is_folder else (self.path,)

    def without(self, read: set[str]) -> Intake:
        """The files whose SHA-256 is not among `read`, for an incremental run."""
        left = tuple(file for file in self.files if file.sha256 not in read)
        return self.model_copy(update={"files": left, "incremental": True})


def of(data: Path) -> Intake:
    """The intake of a data file, or of all files of a drop folder; a folder may be empty.

    Raises:
        InputError: the path does not exist or cannot be read, or a file is empty, binary or of an unknown format.
    """
    path = data.expanduser().absolute()
    if not path.is_dir():
        check(path)
        return Intake(path=path, is_folder=False, files=(File(name=path.name, sha256=digest_file(path)),))
    names: list[str] | None = None
    try:
        names = sorted(name for name in os.listdir(path) if not name.startswith(".") and not name.endswith(_UNFINISHED))
    except OSError:
        pass
    if names is None:
        raise InputError(f"{path} cannot be read: check who may list the folder.")
    for name in names:
        check(path / name)
    files = tuple(File(name=name, sha256=digest_file(path / name)) for name in names)
    return Intake(path=path, is_folder=True, files=files)


def check_unchanged(intake: Intake) -> None:
    """See that the files are still those that the run began with.

    Raises:
        InputError: one is gone or has changed.
    """
    for file, path in zip(intake.files, intake.paths, strict=True):
        if not path.is_file() or digest_file(path) != file.sha256:
            raise InputError(
                f"{path} was changed or removed since the run began: write files under a name that ends in .part, rename them "
                "when they are whole, and run again."
            )


def keep(folder: Path, intake: Intake) -> None:
    """Write intake.json into a run's folder."""
    write_json(folder / "intake.json", intake.model_dump(mode="json"))


def kept(folder: Path) -> Intake | None:
    """What a run reads, or None for a run of before there were intakes."""
    path = folder / "intake.json"
    return Intake.model_validate_json(path.read_bytes()) if path.is_file() else None


def released(home: Path, name: str) -> set[str]:
    """SHA-256 of the files that the released runs of a name have read; one that was revoked later is among them."""
    if not (home / "ledger.db").exists() and not os.environ.get("HUSHTUNE_LEDGER_URL"):
        return set()
    done = {entry.run for entry in Ledger(home).notes("release")}
    found: set[str] = set()
    for path in (home / "runs").glob("*/run.json"):
        noted = json.loads(path.read_text(encoding="utf-8"))
        if path.parent.name in done and noted["name"] == name:
            read = kept(path.parent)
            found |= {file.sha256 for file in read.files} if read else {noted["data"]}
    return found
