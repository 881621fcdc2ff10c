"""Canaries: secrets that are in or out of training by fair coins, and show afterwards what the model remembers.

Personal values planted before scrubbing (`scrub.probes`) measure the scrubber; random words planted after it, which it leaves
as they are, measure the privacy of training; invented names and numbers planted after it, some of them repeated, measure what
a miss of the scrubber would cost. The manifest (texts, coins, number of guesses, score, level, and the seed of every lot that
the audit draws) is sealed by its digest before training: the digest goes into the ledger with the reservation, and the audit
refuses a manifest that differs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline._designs import PREFIX, Canary, Family, Space, Unchanged, draw
from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.errors import InputError, IntegrityError
from pipeline.folders import Progress, Value, digest, digest_file, silent, stage, write_json
from pipeline.models import Base, load_tokenizer
from pipeline.policy import Canaries, Policy
from pipeline.scrub import Detector, Scrubbed, load

__all__ = ["SCORE", "Canary", "Family", "Manifest", "Planted", "Space", "design", "load_manifest", "plant", "planted_records"]

SCORE = "log-likelihood of the canary under the tuned model minus under the base model"


class Manifest(Value):
    """The sealed design: the candidate space of each family and its canaries, the random ones first.

    `guesses`, `alpha` and `score` are those of the one-run audit; `seed` (256 bits, hex) seeds every lot that the audit draws;
    `scrubber` names the detector that left every random canary as it is, and is empty where none was asked.
    """

    tokenizer: str
    spaces: dict[Family, Space]
    canaries: tuple[Canary, ...]
    guesses: int
    alpha: float
    seed: str
    scrubber: str
    score: str = SCORE

    def of(self, family: Family) -> list[Canary]:
        """The canaries of one family."""
        return [canary for canary in self.canaries if canary.family == family]

    def units(self, unit: str) -> int:
        """Privacy units that the canaries hold, in or out: each copy is a record, and all copies of a secret are one person."""
        return len(self.canaries) if unit == "person" else sum(canary.copies for canary in self.canaries)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) that seals the manifest."""
        return digest(self.model_dump(mode="json"))


class Planted(Value):
    """The training records with the planted canaries among them, and the held-out ones.

    `secrets` counts canaries and `secrets_included` those in training; `canaries` counts the privacy units that they hold,
    in or out, and `included` those of them that are in training. `train_units` counts them all, those left out as units
    without records: so the mechanism does not depend on the coins.
    """

    folder: Path
    train_records: int
    train_units: int
    held_out_records: int
    held_out_units: int
    canaries: int
    included: int
    manifest_digest: str
    digest: str
    secrets: int = 0
    secrets_included: int = 0


def plant(scrubbed: Scrubbed, base: Base, policy: Policy, folder: Path, *, progress: Progress = silent) -> Planted:
    """Hold out some units, flip the canaries' coins, and write train.jsonl, held_out.jsonl and the sealed manifest.json.

    Secrets, coins and the held-out units come from the operating system's entropy.

    Raises:
        InputError: too few units to hold any out.
        ModelError: the tokenizer does not give words back as the same tokens.
    """
    inputs = {
        "scrubbed": scrubbed.digest,
        "tokenizer": base.digest,
        "canaries": policy.canaries.model_dump(mode="json"),
        "scrub": policy.scrub.model_dump(mode="json"),
        "held_out": policy.data.held_out,
        "unit": policy.privacy.unit,
        "alpha": policy.audit.alpha,
    }

    def work(partial: Path) -> Planted:
        chance = random.SystemRandom()
        scrubber = load(policy.scrub)
        manifest = design(
            policy.canaries, load_tokenizer(base), base.digest, policy.audit.alpha, chance, lambda texts: _kept(scrubber, texts)
        ).model_copy(update={"scrubber": scrubber.name})
        units = _units(scrubbed, policy)
        out = _held_out(units, policy, chance)
        planted = planted_records(manifest)
        unit = policy.privacy.unit
        train = save_records(partial / "train.jsonl", chain(_split(scrubbed, policy, units - out), planted))
        held = save_records(partial / "held_out.jsonl", _split(scrubbed, policy, out))
        write_json(partial / "manifest.json", manifest.model_dump(mode="json"))
        inside = manifest.model_copy(update={"canaries": tuple(c for c in manifest.canaries if c.included)}).units(unit)
        progress(len(manifest.canaries), len(manifest.canaries), planted=len(planted))
        return Planted(
            folder=folder,
            train_records=train,
            train_units=len(units) - len(out) + manifest.units(unit),
            held_out_records=held,
            held_out_units=len(out),
            secrets=len(manifest.canaries),
            secrets_included=sum(canary.included for canary in manifest.canaries),
            canaries=manifest.units(unit),
            included=inside,
            manifest_digest=manifest.digest,
            digest=digest([digest_file(partial / name) for name in ("train.jsonl", "held_out.jsonl")] + [manifest.digest]),
        )

    return stage(folder, Planted, inputs, work)


def load_manifest(planted: Planted) -> Manifest:
    """The sealed manifest of a planted corpus.

    Raises:
        IntegrityError: its bytes are not the ones that were sealed.
    """
    path = planted.folder / "manifest.json"
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError):
        raise IntegrityError(f"The canary manifest {path} cannot be read: run again from the start.") from None
    if manifest.digest != planted.manifest_digest:
        raise IntegrityError(f"The canary manifest {path} was changed after it was sealed: run again from the start.")
    return manifest


def design(
    canaries: Canaries,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_digest: str,
    alpha: float,
    chance: random.Random,
    unchanged: Unchanged | None = None,
) -> Manifest:
    """Draw spaces, texts and coins; `unchanged` says which texts the scrubber leaves as they are (None: all, unasked).

    Raises:
        ModelError: the tokenizer does not give words back as the same tokens.
    """
    spaces, made = draw(canaries, tokenizer, chance, unchanged or (lambda texts: [True] * len(texts)))
    return Manifest(
        tokenizer=tokenizer_digest,
        spaces=spaces,
        canaries=tuple(made),
        guesses=canaries.guesses,
        alpha=alpha,
        seed=f"{chance.getrandbits(256):064x}",
        scrubber="",
    )


def planted_records(manifest: Manifest) -> list[Record]:
    """The records of every canary whose coin said in: one for each copy, all under the canary's own unit."""
    return [
        Record(canary.id if canary.copies == 1 else f"{canary.id}-{copy:02}", canary.id, (Part("text", canary.text),))
        for canary in manifest.canaries
        if canary.included
        for copy in range(1, canary.copies + 1)
    ]


def _kept(scrubber: Detector, texts: Sequence[str]) -> list[bool]:
    return [not spans for spans in scrubber.find(texts)]


def _unit(record: Record, policy: Policy) -> str:
    """What is held out or trained on as a whole: the record's person, or the record itself."""
    return record.unit if policy.privacy.unit == "person" else record.id


def _units(scrubbed: Scrubbed, policy: Policy) -> set[str]:
    units = set()
    for record in load_records(scrubbed.folder / "records.jsonl"):
        if record.unit.startswith(PREFIX) or record.id.startswith(PREFIX):
            raise InputError(f"The data holds ids or units that begin with {PREFIX}, which canaries use: rename them.")
        units.add(_unit(record, policy))
    return units


def _held_out(units: set[str], policy: Policy, chance: random.Random) -> set[str]:
    share = policy.data.held_out
    count = round(share * len(units))
    if not 0 < count < len(units):
        raise InputError(
            f"The data holds {len(units)} units, too few to keep a share of {share:g} (data.held_out) for the audit: add data."
        )
    return set(chance.sample(sorted(units), count))


def _split(scrubbed: Scrubbed, policy: Policy, units: set[str]) -> Iterator[Record]:
    return (r for r in load_records(scrubbed.folder / "records.jsonl") if _unit(r, policy) in units)
