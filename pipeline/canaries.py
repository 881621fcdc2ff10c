"""Canaries: random secrets, half of them planted by fair coins, that show afterwards what the model remembers.

A canary is a record of random words, `prefix` then `secret`. Each position of the secret has its own alphabet of candidate
tokens, so that the exact rank of the true secret among all candidates can be computed. The manifest (texts, coins, number of
guesses, score) is sealed by its digest before training, and the audit refuses a manifest that differs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.errors import InputError, IntegrityError, ModelError
from pipeline.folders import Progress, Value, digest, digest_file, silent, stage, write_json
from pipeline.models import Base, load_tokenizer
from pipeline.policy import Canaries, Policy
from pipeline.scrub import Scrubbed

SCORE = "log-likelihood of the canary under the tuned model minus under the base model"
_PREFIX = "hushtune-canary-"


class Canary(Value):
    """One canary: token ids of its prefix and secret, its text, and the fall of its coin."""

    id: str
    prefix: tuple[int, ...]
    secret: tuple[int, ...]
    text: str
    included: bool


class Manifest(Value):
    """The sealed design. `alphabet[i]` holds the candidate token ids of position i of every secret."""

    tokenizer: str
    alphabet: tuple[tuple[int, ...], ...]
    canaries: tuple[Canary, ...]
    guesses: int
    alpha: float
    score: str = SCORE

    @property
    def space_size(self) -> int:
        """Number of candidate secrets."""
        size = 1
        for candidates in self.alphabet:
            size *= len(candidates)
        return size

    @property
    def digest(self) -> str:
        """SHA-256 (hex) that seals the manifest."""
        return digest(self.model_dump(mode="json"))


class Planted(Value):
    """The training records with the planted canaries among them, and the held-out ones.

    `train_units` counts all canaries, those left out as units without records: so the mechanism does not depend on the coins.
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


def plant(scrubbed: Scrubbed, base: Base, policy: Policy, folder: Path, *, progress: Progress = silent) -> Planted:
    """Hold out some units, flip the canaries' coins, and write train.jsonl, held_out.jsonl and the sealed manifest.json.

    Secrets, coins and the held-out units come from the operating system's entropy.

    Raises:
        InputError: too few units to hold any out.
        ModelError: the tokenizer has too few plain words for the canaries' alphabets.
    """
    inputs = {
        "scrubbed": scrubbed.digest,
        "tokenizer": base.digest,
        "canaries": policy.canaries.model_dump(mode="json"),
        "held_out": policy.data.held_out,
        "unit": policy.privacy.unit,
        "alpha": policy.audit.alpha,
    }

    def work(partial: Path) -> Planted:
        chance = random.SystemRandom()
        manifest = design(policy.canaries, load_tokenizer(base), base.digest, policy.audit.alpha, chance)
        units = _units(scrubbed, policy)
        out = _held_out(units, policy, chance)
        planted = [_record(canary) for canary in manifest.canaries if canary.included]
        train = save_records(partial / "train.jsonl", chain(_split(scrubbed, policy, units - out), planted))
        held = save_records(partial / "held_out.jsonl", _split(scrubbed, policy, out))
        write_json(partial / "manifest.json", manifest.model_dump(mode="json"))
        progress(len(manifest.canaries), len(manifest.canaries), planted=len(planted))
        return Planted(
            folder=folder,
            train_records=train,
            train_units=len(units) - len(out) + len(manifest.canaries),
            held_out_records=held,
            held_out_units=len(out),
            canaries=len(manifest.canaries),
            included=len(planted),
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
    canaries: Canaries, tokenizer: PreTrainedTokenizerBase, tokenizer_digest: str, alpha: float, chance: random.Random
) -> Manifest:
    """Draw alphabets, prefixes, secrets and coins.

    Raises:
        ModelError: the tokenizer has too few words that stand as one token each.
    """
    words = _words(tokenizer)
    if len(words) < 4 * canaries.alphabet:
        raise ModelError(
            f"The tokenizer has {len(words)} plain one-token words and the canaries need {4 * canaries.alphabet}: lower "
            "canaries.alphabet and raise canaries.secret_tokens, or use another base model."
        )
    alphabet = tuple(tuple(sorted(chance.sample(words, canaries.alphabet))) for _ in range(canaries.secret_tokens))
    made: list[Canary] = []
    for _ in range(10 * canaries.count):
        if len(made) == canaries.count:
            break
        prefix = tuple(chance.choice(words) for _ in range(canaries.prefix_tokens))
        secret = tuple(chance.choice(candidates) for candidates in alphabet)
        text = tokenizer.decode([*prefix, *secret])
        if tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == (*prefix, *secret):
            included = chance.random() < 0.5
            name = f"{_PREFIX}{len(made) + 1:04}"
            made.append(Canary(id=name, prefix=prefix, secret=secret, text=text, included=included))
    if len(made) < canaries.count:
        raise ModelError("The tokenizer does not give random words back as the same tokens: use another base model.")
    return Manifest(tokenizer=tokenizer_digest, alphabet=alphabet, canaries=tuple(made), guesses=canaries.guesses, alpha=alpha)


def _words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that are a space and a lower-case word, and that text gives back as exactly themselves."""
    texts = {token: tokenizer.decode([token]) for token in range(len(tokenizer))}
    plain = {t: s for t, s in texts.items() if s[:1] == " " and s[1:].isascii() and s[1:].isalpha() and s.islower()}
    plain = {token: text for token, text in plain.items() if 4 <= len(text) <= 12}
    back = tokenizer(list(plain.values()), add_special_tokens=False)["input_ids"] if plain else []
    return [token for token, ids in zip(plain, back, strict=True) if list(ids) == [token]]


def _unit(record: Record, policy: Policy) -> str:
    """What is held out or trained on as a whole: the record's person, or the record itself."""
    return record.unit if policy.privacy.unit == "person" else record.id


def _units(scrubbed: Scrubbed, policy: Policy) -> set[str]:
    units = set()
    for record in load_records(scrubbed.folder / "records.jsonl"):
        if record.unit.startswith(_PREFIX) or record.id.startswith(_PREFIX):
            raise InputError(f"The data holds ids or units that begin with {_PREFIX}, which canaries use: rename them.")
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


def _record(canary: Canary) -> Record:
    return Record(canary.id, canary.id, (Part("text", canary.text),))
