"""Signatures of releases, waivers and revocations: one EC P-256 key, model-signing over a folder, DSSE envelopes over JSON.

    HOME/keys/release.key        the private key, mode 0600; or the organisation's, by HUSHTUNE_SIGNING_KEY
    HOME/keys/<fingerprint>.pub  public keys that are trusted here; a replaced key's stays, for what it has signed

All of it works offline. An envelope has one spelling, so that a change to any of its bytes shows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import IntegrityError, StageError, UsageError
from pipeline.folders import canonical, private_folder, write_text

IN_TOTO = "application/vnd.in-toto+json"
_PRIVATE = "release.key"
_ADVICE = "give a PEM file of an EC P-256 key without a passphrase, or make one by `hushtune keys new`"


def new_key(home: Path, *, replace: bool = False) -> Path:
    """Make a key pair in HOME/keys and return the path of the public key.

    Raises:
        UsageError: there is a key and `replace` is false.
        StageError: the files cannot be written.
    """
    path = home / "keys" / _PRIVATE
    if path.exists() and not replace:
        raise UsageError(f"There is a key in {path}: use it, or make another in its place by --replace.")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    try:
        private_folder(path.parent)
        public = _trust(home, key.public_key())  # before the private one: nothing is ever signed that nobody trusts
        write_text(path, pem, mode=0o600)
    except OSError as error:
        raise StageError(f"The key {path} cannot be made ({error.strerror}): make room or rights in the home folder.") from None
    return public


def signing_key(home: Path) -> Path:
    """The path of the private key that signs here, which is made where there is none; its public key is trusted from now on.

    Raises:
        UsageError: HUSHTUNE_SIGNING_KEY, or the key of this home, is no such key, or others may read it.
    """
    named = os.environ.get("HUSHTUNE_SIGNING_KEY")
    path = Path(named) if named else home / "keys" / _PRIVATE
    if not named and not path.exists():
        new_key(home)
    _trust(home, _load(path).public_key())
    return path


def check_key(path: Path) -> str:
    """The fingerprint of a private key that can sign.

    Raises:
        UsageError: it is no such key, or others may read it.
    """
    return fingerprint(_load(path).public_key())


def trusted_keys(home: Path | None, more: Sequence[Path] = ()) -> list[Path]:
    """Public keys to verify with: those that are given, or else those of a home."""
    if more:
        return list(more)
    return sorted((home / "keys").glob("*.pub")) if home is not None else []


def seal(content: Mapping[str, Any], kind: str, key: Path) -> str:
    """A signed DSSE envelope around the canonical JSON of `content`, of the payload type `kind`; ends with a newline."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

    envelope = Envelope(canonical(dict(content)).encode(), kind, {})
    envelope.sign(CryptoSigner(_load(key)))
    return _spelled(envelope.to_dict())


def unseal(text: str, kind: str, keys: Sequence[Path], where: Path) -> dict[str, Any]:
    """The content of an envelope that one of `keys` signed.

    Raises:
        IntegrityError: it was changed, is of another kind, or was signed by nobody who is trusted here; names `where`.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import Key, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

    public: list[Key] = [SSlibKey.from_crypto(_load_public(path)) for path in keys]
    try:
        envelope = Envelope.from_dict(json.loads(text))
        whole = envelope.payload_type == kind and _spelled(envelope.to_dict()) == text
        whole = whole and not any(signature.unrecognized_fields for signature in envelope.signatures.values())
        content = json.loads(envelope.payload)
    except (ValueError, LookupError, TypeError, AttributeError, Error):
        whole, envelope, content = False, None, {}
    if not whole or envelope is None or not isinstance(content, dict):
        raise IntegrityError(f"{where} was changed after it was signed: do not use it; restore it.")
    try:
        envelope.verify(public, 1)
    except (ValueError, Error):
        raise IntegrityError(
            f"The signature of {where} is by none of the {len(public)} keys that are trusted here, or it was changed: do not "
            "use it, or give the public key of who signed it."
        ) from None
    return content


def sign_folder(folder: Path, signature: str, left_out: Sequence[str], key: Path) -> None:
    """Sign all files of a folder but `left_out` by model-signing, into FOLDER/`signature`."""
    from model_signing import signing

    config = signing.Config().set_hashing_config(_hashing([signature, *left_out]))
    try:
        config.use_elliptic_key_signer(private_key=key).sign(folder, folder / signature)
    except ValueError:
        raise UsageError(f"The key {key} cannot sign a release: {_ADVICE}.") from None


def check_folder(folder: Path, signature: str, left_out: Sequence[str], keys: Sequence[Path]) -> None:
    """Check a folder against its model-signing signature.

    Raises:
        IntegrityError: no trusted key has signed these files.
    """
    from model_signing import verifying

    for key in keys:
        config = verifying.Config().set_hashing_config(_hashing([signature, *left_out]))
        try:
            config.use_elliptic_key_verifier(public_key=key).verify(folder, folder / signature)
        except Exception:  # whatever the bytes make it raise, they are not what this key signed
            continue
        return
    raise IntegrityError(f"{folder / signature} is no signature of these files by a key that is trusted here: do not use it.")


def fingerprint(public: ec.EllipticCurvePublicKey) -> str:
    """The first 16 digits of the SHA-256 of a public key's DER form."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def _hashing(left_out: Sequence[str]) -> Any:
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(max_workers=1)
    return config.set_ignored_paths(paths=list(left_out), ignore_git_paths=False)


def _trust(home: Path, public: ec.EllipticCurvePublicKey) -> Path:
    path = home / "keys" / f"{fingerprint(public)}.pub"
    if not path.exists():
        private_folder(path.parent)
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_text(path, pem.decode(), mode=0o644)
    return path


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"Others than its owner may read the key {path}: chmod 600 it, and replace it if they did.")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is no key that can sign: {_ADVICE}.")
    return key


def _load_public(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path} is no public key to verify with: give the .pub file of an EC P-256 key.")
    return key


def _spelled(envelope: Mapping[str, Any]) -> str:
    return json.dumps(envelope, indent=2, sort_keys=True) + "\n"
