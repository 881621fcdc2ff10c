"""What stands in the place of a value that was found.

    operate = operator("hash", key=key)
    replace("Call Ada now", [Span(5, 8, "PERSON", 0.85)], operate, "u1")     # 'Call <PERSON:9f2c01d47a3b> now'

Placeholder, redaction and mask carry nothing of the value. The three others need the secret key: equal values of one person
(or of the corpus, as the policy says) become equal replacements. Nothing that maps one to the other is ever stored.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable, Iterable

from pipeline.errors import IntegrityError, PolicyError
from pipeline.scrub._reading import plain
from pipeline.scrub.detect import Span
from pipeline.scrub.keys import derived

Operator = Callable[[str, str, str], str]
"""From a value, its entity and its privacy unit to what replaces it."""

KEYED = ("hash", "encrypt", "surrogate")
OPERATORS = ("placeholder", "redact", "mask", *KEYED)
_DIGITS = 12  # of a keyed hash: 48 bits, so that a million values of an entity collide once in about 560 tries


def operator(name: str, *, key: bytes | None = None, consistency: str = "person", locale: str = "en_US") -> Operator:
    """The operator of that name.

    Args:
        name: one of `OPERATORS`.
        key: the secret key; hash, encrypt and surrogate need it.
        consistency: `person`: equal values of a unit agree; `corpus`: equal values of all units do.
        locale: of surrogates, such as de_DE.

    Raises:
        PolicyError: the key is missing, or there are no surrogates for the locale.
    """
    if name in KEYED and key is None:
        raise PolicyError(f"scrub.operator {name} needs the secret key of a home folder: give one by --home.")
    everywhere = consistency == "corpus"
    if name == "placeholder":
        return lambda value, entity, unit: f"<{entity}>"
    if name == "redact":
        return lambda value, entity, unit: ""
    if name == "mask":  # the length stays, and so do later offsets
        return lambda value, entity, unit: "".join(character if character.isspace() else "*" for character in value)
    assert key is not None
    if name == "hash":
        return lambda value, entity, unit: hashed(key, value, entity, "" if everywhere else unit)
    if name == "encrypt":
        return lambda value, entity, unit: encrypted(key, value, entity, "" if everywhere else unit)
    from pipeline.scrub.surrogates import Surrogates

    return Surrogates(key, locale=locale, everywhere=everywhere)


def normalised(value: str) -> str:
    """The spelling under which two values are the same: what hides it, compatibility forms, case and blanks aside."""
    return " ".join(unicodedata.normalize("NFKC", plain(value)[0]).casefold().split())


def hashed(key: bytes, value: str, entity: str, scope: str) -> str:
    """`<PERSON:9f2c01d47a3b>`: HMAC-SHA256 of scope, entity and normalised value."""
    return f"<{entity}:{derived(key, 'hash', scope, entity, normalised(value)).hex()[:_DIGITS]}>"


def encrypted(key: bytes, value: str, entity: str, scope: str) -> str:
    """`<PERSON:…>` that `decrypted` turns back: AES-SIV (RFC 5297), deterministic, bound to entity and scope."""
    return f"<{entity}:{base64.urlsafe_b64encode(_cipher(key, scope).encrypt(value.encode(), [entity.encode()])).decode()}>"


def decrypted(key: bytes, replacement: str, scope: str = "") -> str:
    """The value behind a replacement of `encrypted`.

    Raises:
        IntegrityError: another key or unit, or not such a replacement.
    """
    from cryptography.exceptions import InvalidTag

    entity, _, token = replacement.strip("<>").partition(":")
    try:
        return _cipher(key, scope).decrypt(base64.urlsafe_b64decode(token), [entity.encode()]).decode()
    except (InvalidTag, ValueError):
        pass
    raise IntegrityError("A replacement cannot be decrypted: it was changed, or made with another key or for another person.")


def _cipher(key: bytes, scope: str):
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(derived(key, "encrypt 1", scope) + derived(key, "encrypt 2", scope))


def replace(text: str, spans: Iterable[Span], operate: Operator, unit: str) -> tuple[str, list[tuple[int, int]]]:
    """The text with each span (sorted, non-overlapping) replaced, and where in it the replacements stand.

    >>> replace("Call Ada now", [Span(5, 8, "PERSON", 0.85)], operator("placeholder"), "u1")
    ('Call <PERSON> now', [(5, 13)])
    """
    pieces, places, end, length = [], [], 0, 0
    for span in spans:
        kept, new = text[end : span.start], operate(text[span.start : span.end], span.entity, unit)
        length += len(kept)
        places.append((length, length + len(new)))
        length += len(new)
        pieces += [kept, new]
        end = span.end
    return "".join([*pieces, text[end:]]), places
