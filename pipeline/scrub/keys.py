"""The secret key of replacements that must agree with each other: HOME/keys/scrub.key, 32 random bytes, mode 0600.

Who holds the key can link equal values and decrypt encrypted ones; without it a replacement tells nothing of its value.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import IntegrityError
from pipeline.folders import private_folder

BYTES = 32


def key_file(home: Path) -> Path:
    """Path of the home's key, made on first use."""
    path = private_folder(home / "keys") / "scrub.key"
    if not path.exists():
        partial = path.with_name(f"scrub.key.{secrets.token_hex(8)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # unlike a rename, never replaces a key that another process made meanwhile
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path


def read_key(path: Path) -> bytes:
    """The key's bytes.

    Raises:
        IntegrityError: the file is missing, has another length, or others may read it.
    """
    if not path.is_file() or path.stat().st_size != BYTES:
        raise IntegrityError(f"The scrubbing key {path} is missing or damaged: restore it from your backup.")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise IntegrityError(f"The scrubbing key {path} can be read by others: set its mode to 0600 and consider it known.")
    return path.read_bytes()


def fingerprint(key: bytes) -> str:
    """A name for the key that tells nothing of it: 16 hex digits."""
    return derived(key, "fingerprint").hex()[:16]


def derived(key: bytes, *context: str) -> bytes:
    """HMAC-SHA256 of the context's parts, each with its length, so that no two contexts run together."""
    message = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in context)
    return hmac.digest(key, message, "sha256")
