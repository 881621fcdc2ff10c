"""Ids and units as they leave: scrubbed records carry both, and a mailbox or a person's name is often what they are.

    list(Labels(policy, key).replaced(records))

A rule of `data.columns` for the id or unit column decides. Without one a label stays, so that records can be joined with their
originals, unless it is plainly somebody's name, address or number: then a digest stands for it, equal ones alike, under a key
that is made for this one file and kept nowhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pipeline.corpus import Record
from pipeline.policy import Policy
from pipeline.scrub.detect import Span, load
from pipeline.scrub.keys import derived
from pipeline.scrub.operators import hashed

_BATCH, _CACHED = 256, 100_000
_WORD = re.compile(r"[^\W\d_]{3,}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]{16,}")
_NUMBER = re.compile(r"\d(?:[ .-]?\d){8}|[A-Za-z]{2}\d{2}[ ]?\w{4}")
_SURE = 0.85  # a score from which a finding is no guess
_DIRECT = ("EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN", "CREDIT_CARD", "IBAN_CODE", "STREET_ADDRESS", "DENIED")


class Labels:
    """What stands for ids and units in one exported file; `count` of them were replaced.

    Args:
        policy: `data.columns` may hold rules for the id and the unit column, `scrub` says how personal data is found.
        key: the home's key, which the rule `hash` needs.
    """

    def __init__(self, policy: Policy, key: bytes | None = None):
        data, self._scrub = policy.data, policy.scrub
        self._id, self._unit = (data.columns.get(column, "scrub") for column in (data.id_column, data.unit_column))
        self._key, self._own = key, secrets.token_bytes(32)
        self._tells: dict[str, bool] = {}
        self.count = 0

    def replaced(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records with ids and units as they may leave."""
        records, place, self.count = iter(records), 0, 0
        while batch := list(islice(records, _BATCH)):
            self._look(batch)
            for record in batch:
                place += 1
                name = self._new(record.id, self._id, f"r{place:06d}")
                alone = record.unit == record.id  # as the reader makes it where nothing says whose a record is
                unit = name if alone else self._new(record.unit, self._unit, name)
                self.count += (name != record.id) + (unit != record.unit and not alone)
                yield Record(name, unit, record.parts)

    def _new(self, label: str, rule: str, instead: str) -> str:
        if rule == "drop":
            return instead
        if rule == "hash":
            assert self._key is not None
            return hashed(self._key, label, "COLUMN", "")
        return f"label-{derived(self._own, label).hex()[:12]}" if rule == "scrub" and self._tells.get(label) else label

    def _look(self, records: Sequence[Record]) -> None:
        labels = {record.id for record in records if self._id == "scrub"}
        labels |= {record.unit for record in records if self._unit == "scrub"}
        if len(self._tells) > _CACHED:
            self._tells.clear()
        asked = sorted(label for label in labels if label not in self._tells and _could_tell(label, self._scrub.deny))
        if not asked:
            return
        spaced = [_spaced(label) for label in asked]
        found = iter(load(self._scrub).find([*asked, *spaced]))
        first = list(islice(found, len(asked)))
        for label, text, own, again in zip(asked, spaced, first, found, strict=True):
            self._tells[label] = _tells(label, own) or _tells(text, again)


def _spaced(label: str) -> str:
    """`ada_lovelace` as it would stand in a text."""
    return re.sub(r"[\W\d_]+", " ", label).strip().title()


def _could_tell(label: str, denied: Sequence[str]) -> bool:
    """Whether a detector need look at a label: counted and random ones, the most by far, name nobody."""
    if any(word.casefold() in label.casefold() for word in denied):
        return True
    named = "@" in label or len(_WORD.findall(label)) > 1 or _NUMBER.search(label) is not None
    return named and not _HEXADECIMAL.fullmatch(label)


def _tells(text: str, found: Sequence[Span]) -> bool:
    """Whether findings say who somebody is: an address or number, or two words of a name."""
    return any(
        (span.entity in _DIRECT and span.score >= _SURE)
        or (span.entity == "PERSON" and len(_WORD.findall(text[span.start : span.end])) > 1)
        for span in found
    )
