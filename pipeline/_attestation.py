"""The attestation of a release: an in-toto statement, of the predicate type dp-release/v1, in a signed DSSE envelope.

Its subjects are the files of the release with their SHA-256; its predicate says what was promised, by which mechanism, what
the lifetime budget then held, how each gate came out, and where the ledger stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import signing
from pipeline._manifest import MANIFEST, Manifest
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import digest_file
from pipeline.ledger import Head

ATTESTATION = "attestation.json"
SIGNATURE = "model.sig"
SIGNATURES = (SIGNATURE, ATTESTATION)
PREDICATE = "urn:hushtune:dp-release/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"


def attest(folder: Path, manifest: Manifest, report: Mapping[str, Any], head: Head, key: Path) -> str:
    """The signed attestation of a release whose manifest and model signature are in `folder`.

    Raises:
        StageError: the report lacks what an attestation must say.
    """
    try:
        predicate = _predicate(manifest, report, head)
    except (LookupError, TypeError):
        raise StageError(
            f"The report of run {manifest.run} lacks what its attestation must say: write it again by `hushtune report "
            f"{manifest.run}`."
        ) from None
    statement = {
        "_type": _STATEMENT,
        "subject": _subjects(folder, manifest),
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    return signing.seal(statement, signing.IN_TOTO, key)


def check(folder: Path, manifest: Manifest, keys: list[Path]) -> dict[str, Any]:
    """The predicate of a release's attestation, after checking its signature and that it is about these files.

    Raises:
        IntegrityError: it is missing, changed, signed by nobody who is trusted here, or about other files.
    """
    path = folder / ATTESTATION
    for one in (folder / name for name in SIGNATURES):
        if not one.is_file() or one.is_symlink():
            raise IntegrityError(f"{one} is missing from the release: do not use the release; restore it or release anew.")
    statement = read(path, keys)
    pairs = zip(statement["subject"], _subjects(folder, manifest), strict=False)
    wrong = [there["name"] for named, there in pairs if named != there]
    if wrong:
        raise IntegrityError(f"In {folder}, {', '.join(wrong)} is not what {ATTESTATION} attests: restore the release.")
    predicate = statement["predicate"]
    same = len(statement["subject"]) == len(manifest.files) + 2
    if not same or any(predicate[key] != getattr(manifest, key) for key in ("name", "version", "run")):
        raise IntegrityError(f"{folder / MANIFEST} is not that of the release which {path} attests: restore the release.")
    return predicate


def read(path: Path, keys: Sequence[Path]) -> dict[str, Any]:
    """The statement of an attestation, after checking its signature and kind, whatever became of the files it is about.

    Raises:
        IntegrityError: it was changed, is of another kind, or was signed by nobody who is trusted here.
    """
    try:
        text = path.read_bytes().decode()
    except ValueError:
        text = ""
    statement = signing.unseal(text, signing.IN_TOTO, keys, path)
    if (statement.get("_type"), statement.get("predicateType")) != (_STATEMENT, PREDICATE):
        raise IntegrityError(f"{path} is signed and is not the attestation of a release: do not use it; restore the release.")
    return statement


def _subjects(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    names = sorted([*manifest.files, MANIFEST, SIGNATURE])
    return [{"name": name, "digest": {"sha256": digest_file(folder / name)}} for name in names]


def _predicate(manifest: Manifest, report: Mapping[str, Any], head: Head) -> dict[str, Any]:
    promise, training, budget = report["promise"], report["training"], report["budget"]
    gates = [
        {key: gate[key] for key in ("name", "figure", "passed", "value", "judge", "bound", "rule", "limit", "owner")}
        for gate in report["verdict"]["gates"]
    ]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "run": manifest.run,
        "approval": manifest.approval.model_dump(mode="json") if manifest.approval else None,
        "promise": {key: promise[key] for key in ("epsilon", "delta", "unit", "adjacency")},
        "mechanism": {
            "name": training["mechanism"],
            **{key: training[key] for key in ("noise_multiplier", "sampling_rate", "clipping_norm", "steps", "units")},
            "accountant": "privacy loss distributions (dp_accounting)",
        },
        "lifetime": {key: budget[key] for key in ("name", "epsilon_spent", "epsilon_cap", "delta", "runs")},
        "policy": {"name": report["run"]["policy"], "digest": manifest.policy},
        "dataset": {"fingerprint": report["data"]["fingerprint"]},
        "base_model": {key: training["base"][key] for key in ("name", "digest")},
        "adapter": {"digest": manifest.adapter},
        "verdict": report["verdict"]["status"],
        "gates": gates,
        "waivers": report["verdict"].get("waivers", []),
        "ledger": head.model_dump(mode="json"),
    }
