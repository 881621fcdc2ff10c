"""Policies: one YAML file, resolved through one parent, validated into one frozen object whose hash names it.

    policy = load("default")                       # a preset of policies/
    policy = load("our-hospital.yaml")             # a file that may say `extends: hipaa-safe-harbor`, and then only tighten it
    policy.privacy.epsilon, policy.digest

Every choice that changes what is promised stands in the policy; command-line flags only override `data` columns and the base
model, and the override becomes part of the resolved policy and of its digest.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline._policy_files import presets as presets
from pipeline._policy_files import resolve, sentence
from pipeline.errors import InputError, PolicyError
from pipeline.folders import digest
from pipeline.strictness import STARTING_VALUES, only_tighter

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(allow_inf_nan=False)]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Section(BaseModel):
    """Base of the policy's sections: frozen, and a key that is not listed is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """How records are read, grouped into people and split."""

    provenance: str | None = Field(default=None, max_length=600, description="source, purpose and basis of the data")
    text_column: str = "text"
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    messages_column: str = "messages"
    id_column: str = "id"
    unit_column: str = "unit"
    unit_pattern: str | None = Field(default=None, description="regular expression; its first match in the column is the unit")
    columns: dict[str, Literal["drop", "keep", "scrub", "hash"]] = Field(
        default_factory=dict,
        description="what `hushtune scrub` does with further columns of a structured file (those not named are dropped) and "
        "with ids and units (of those not named, it replaces what is plainly somebody's name, address or number)",
    )
    limit: int | None = Field(default=None, ge=1, description="read at most this many records")
    held_out: float = Field(default=0.1, gt=0, le=0.5, description="share of the units kept out of training, for the audit")
    max_tokens: int = Field(default=128, ge=8, description="tokens of a record that are trained on")
    overlong: Literal["cut", "refuse"] = Field(default="cut", description="what to do with records over max_tokens")
    malformed: Literal["refuse", "skip"] = Field(default="refuse", description="what to do with lines that are no records")

    @field_validator("unit_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is not a regular expression ({error})") from error
        return value


class Scrub(Section):
    """What counts as personal data and what stands in its place."""

    detector: Literal["default", "high_recall", "fast"] = "default"
    model: str | None = Field(
        default=None,
        description="spacy:NAME|PATH, transformers:PATH or gliner:PATH, installed here, in place of the bundled spaCy model",
    )
    language: Literal["en"] = "en"
    entities: tuple[str, ...] = Field(min_length=1, description="Presidio entity types to replace")
    minimum_score: float = Field(default=0.35, ge=0, le=1)
    operator: Literal["placeholder", "redact", "mask", "hash", "encrypt", "surrogate"] = "placeholder"
    consistency: Literal["person", "corpus"] = Field(
        default="person", description="within what equal values get equal hashes, ciphertexts and surrogates"
    )
    locale: str = Field(default="en_US", pattern=r"^[a-z]{2,3}_[A-Z]{2}$", description="of surrogates")
    rescan: Literal["auto", "off"] = Field(
        default="auto",
        description="scan the scrubbed records again with another detector than the one that scrubbed, where one is installed",
    )
    rescan_records: int | None = Field(
        default=2000, ge=1, description="scrubbed records that are scanned again, drawn by their ids; null: all of them"
    )
    sample: int = Field(
        default=200, ge=0, description="records in which values are planted and detectors compared, to measure what is missed"
    )
    allow: tuple[str, ...] = Field(default=(), description="words that are never replaced")
    deny: tuple[str, ...] = Field(default=(), description="words that are always replaced, in any case")
    countries: tuple[str, ...] = Field(
        default=(), description="countries whose identifiers are looked for besides `entities`: uk, germany…"
    )
    recognizers: str | None = Field(default=None, description="a YAML file of custom recognisers in Presidio's format")
    probes: int = Field(default=280, ge=0, description="known personal values planted before scrubbing, to measure recall")


_CANARIES = {
    "small": {"count": 64, "guesses": 64, "repeated": 8},
    "standard": {"count": 256, "guesses": 128, "repeated": 12},
    "strong": {"count": 1000, "guesses": 500, "repeated": 24},
}


class Canaries(Section):
    """Secrets planted after scrubbing, each in or out of training by its own fair coin."""

    preset: Literal["small", "standard", "strong"] = Field(
        default="standard", description="sets count, guesses and repeated where they are not given: " + "; ".join(
            f"{name} {', '.join(str(value) for value in sizes.values())}" for name, sizes in _CANARIES.items()
        )
    )  # fmt: skip
    count: int = Field(default=256, ge=16, le=4096, description="random-token canaries, one copy each: they bound epsilon")
    prefix_tokens: int = Field(default=8, ge=1, le=32)
    secret_tokens: int = Field(default=3, ge=2, le=4)
    alphabet: int = Field(default=48, ge=8, le=128, description="candidates for each position of the secret")
    guesses: int = Field(
        default=128, ge=2, description="guesses of the one-run audit, fixed before training: half in, half out"
    )
    repetitions: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        default=(1, 4, 16),
        min_length=1,
        description="copies of the personal-data-shaped canaries, as of values that scrubbing misses",
    )
    repeated: int = Field(
        default=12, ge=0, le=256, description="personal-data-shaped canaries at each number of copies; 0: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        sizes = _CANARIES.get(content.get("preset", "standard"), {})
        return sizes | content

    @model_validator(mode="after")
    def _consistent(self) -> Canaries:
        if self.guesses > self.count:
            raise ValueError(f"guesses ({self.guesses}) cannot exceed count ({self.count})")
        if self.alphabet**self.secret_tokens < 100_000:
            raise ValueError("alphabet ** secret_tokens must be at least 100000, or exposure cannot reach its cutoff")
        return self

    def units(self, unit: str) -> int:
        """Privacy units that canaries hold, in or out: each copy is a record, and all copies of a secret are one person."""
        return self.count + self.repeated * (len(self.repetitions) if unit == "person" else sum(self.repetitions))


class Lifetime(Section):
    """The lifetime budget of the people in the data, kept in the ledger across runs."""

    budget: str = Field(default="default", pattern=_NAME)
    also: tuple[Annotated[str, Field(pattern=_NAME)], ...] = Field(
        default=(),
        description="other budgets that people of this data may be in; what they spent there counts here too, and back",
    )
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1e-3)
    on_exhausted: Literal["refuse"] = "refuse"

    def check(self, units: int) -> None:
        """Refuse a δ that would allow one of `units` units to be published outright.

        Raises:
            InputError: delta is not below 1/units.
        """
        if self.delta >= 1 / units:
            raise InputError(
                f"privacy.lifetime.delta is {self.delta:.4g} and must be below 1/n = {1 / units:.4g} for {units:,} units: "
                "lower it."
            )


class Privacy(Section):
    """The differential-privacy promise of one run."""

    epsilon: float = Field(gt=0, le=50)
    delta: float | Literal["auto"] = Field(default="auto", description="a probability below 1/n, or auto: 1/n^1.1")
    unit: Literal["record", "person"] = Field(description="what is protected: one record, or all records of a person")
    records_per_unit: int = Field(default=16, ge=1, description="records of a person that may contribute to one step")
    lifetime: Lifetime

    @field_validator("delta")
    @classmethod
    def _small(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value < 1e-3:
            raise ValueError("must lie between 0 and 0.001, or be auto")
        return value


class Lora(Section):
    """Which weights are trained."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16, gt=0)
    layers: Literal["all", "top_half"] | Count = "all"
    dropout: float = Field(
        default=0, ge=0, lt=1, description="share of a layer's inputs that LoRA does not see; takes a slower path"
    )
    dora: bool = Field(default=False, description="also train the magnitude of each weight (DoRA); takes the slowest path")
    also_train: tuple[str, ...] = Field(default=(), description="modules to train whole, lm_head for one; takes a slower path")


class Selection(Section):
    """Which step is released, chosen by the loss on public records; without this section it is the last one."""

    rule: Literal["best_checkpoint", "early_stopping"] = Field(
        description="the best of all steps looked at; early_stopping also ends training, and is charged for every planned step"
    )
    public_data: str | None = Field(
        default=None, description="path of a file of PUBLIC records, in the form of the data; required"
    )
    every: int = Field(default=5, ge=1, description="steps between two looks at the public loss")
    patience: int = Field(default=3, ge=1, description="looks without a better loss after which early_stopping ends training")

    @model_validator(mode="after")
    def _public(self) -> Selection:
        if not self.public_data:
            raise ValueError(
                "needs public_data: a step chosen on private records would spend privacy that nobody counts, so name a file of "
                "public records or remove the section"
            )
        return self


class Train(Section):
    """DP-SGD: the schedule and the optimizer."""

    lora: Lora = Lora()
    epochs: float = Field(default=1, gt=0, description="expected visits of each unit, where expected_batch or steps is auto")
    expected_batch: Count | Literal["auto"] = Field(
        default="auto", description="expected number of units in a step (Poisson sampling)"
    )
    steps: Count | Literal["auto"] = Field(default="auto", description="noisy steps; auto takes as many as the noise bears")
    learning_rate: float = Field(gt=0)
    clipping_norm: float = Field(gt=0, allow_inf_nan=False)
    microbatch_tokens: int = Field(default=4096, ge=64, description="tokens held in memory at once; does not change the result")
    reuse_gigabytes: float = Field(
        default=4,
        ge=0,
        description="disk for the states of the layers below the first adapted one; 0 computes them at every visit",
    )
    selection: Selection | None = Field(
        default=None, description="choose the released step by public data; null takes the last one"
    )
    seed: int = Field(
        default=0, ge=0, description="seeds LoRA's initialisation only; noise and sampling are never seeded from it"
    )


class Audit(Section):
    """How hard the release candidate is attacked."""

    alpha: Share = Field(default=0.05, description="error probability of each bound")
    membership_records: int = Field(default=500, ge=50, description="members, and as many non-members, that are attacked")
    utility_records: int = Field(default=400, ge=20, description="held-out records on which perplexity is measured")
    exposure_canaries: int = Field(
        default=128, ge=8, description="canaries whose exact rank is computed, planted ones and controls"
    )
    extraction_records: int = Field(
        default=500, ge=20, description="training records, and as many never trained on, to be extracted"
    )
    prefix_tokens: int = Field(default=16, ge=1, description="tokens of a record that the extracting attacker knows at least")
    suffix_tokens: int = Field(default=16, ge=4, description="tokens that count as extracted when all of them come out")
    samples: int = Field(default=256, ge=1, description="texts drawn freely from the model and searched for removed values")
    games_values: int = Field(
        default=100, ge=1, description="removed values, and as many never trained on, to be reconstructed"
    )
    control: bool = Field(
        default=False,
        description="train a twin without privacy, in memory only, on which the attacks must see a leak; never released",
    )


class Gate(Section):
    """One rule of the verdict: a figure of the evidence, or a bound of it, against a limit.

    The limit `privacy.epsilon` is what the policy promises, so that the gate follows the promise.
    """

    figure: str
    judge: Literal["value", "low", "high"] = "value"
    at_most: Limit | Literal["privacy.epsilon"] | None = None
    at_least: Limit | None = None
    why: str = Field(min_length=8)
    owner: str = Field(min_length=2)
    waivable: bool = Field(default=False, description="whether a signed, dated waiver may let a run pass that this gate fails")

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("needs exactly one of at_most and at_least")
        return self


class Release(Section):
    """Who must say yes, and what becomes of a run that is not released."""

    approval: Literal["none", "required"] = "none"
    approval_days: int = Field(default=14, ge=1, description="days after which a run can no longer be approved")
    four_eyes: bool = Field(default=True, description="the approver must be another than the submitter")
    inconclusive: Literal["reject", "release"] = Field(
        default="reject", description="a gate whose figure could not be resolved"
    )
    quarantine_days: int = Field(default=0, ge=0, description="days that the weights of a run that is not released are kept")


class Retention(Section):
    """Days that a run's private files are kept, None without end. Ledger, report and release stay."""

    raw_days: int | None = Field(default=90, ge=0, description="text as it was read, and planted probes")
    scrubbed_days: int | None = Field(default=90, ge=0, description="scrubbed and planted text")
    checkpoint_days: int | None = Field(default=14, ge=0, description="unfinished trainings")
    review_days: int | None = Field(default=30, ge=0, description="review pages and tracebacks, which quote text")


class Policy(Section):
    """A resolved policy. `digest` is the SHA-256 of its canonical JSON and names it in ledger, report and caches."""

    name: str = Field(pattern=_NAME)
    description: str = Field(min_length=8)
    model: str = Field(default="nano", description="base model: a name of `hushtune models list`, or a Hugging Face folder")
    data: Data = Data()
    scrub: Scrub
    canaries: Canaries = Canaries()
    privacy: Privacy
    train: Train
    audit: Audit = Audit()
    gates: dict[Annotated[str, Field(pattern=_NAME)], Gate] = Field(min_length=1)
    release: Release = Release()
    retention: Retention = Retention()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved policy."""
        return digest(self.model_dump(mode="json"))

    def override(self, **changes: Any) -> Policy:
        """A copy with some keys replaced, named by dotted path with `__` (`data__text_column="body"`); None changes nothing.

        Raises:
            PolicyError: a value is out of range.
        """
        content = self.model_dump(mode="json")
        for path, value in changes.items():
            if value is None:
                continue
            *parents, key = path.split("__")
            section = content
            for parent in parents:
                section = section[parent]
            section[key] = value
        return _validate(content, f"policy {self.name} with the flags given")


def load(name: str | Path) -> Policy:
    """Read a preset by name or a policy file by path, resolve `extends`, and validate.

    Raises:
        PolicyError: the policy or its parent is missing, is not YAML, has an unknown key or a value out of range, or extends
            itself, or loosens its parent.
    """
    stages = resolve(str(name), ())
    policy = _validate(stages[-1][1], f"policy {name}")
    for (parent, old), (child, new) in pairwise(stages):
        if parent != STARTING_VALUES:
            only_tighter(parent, _validate(old, f"policy {parent}"), child, _validate(new, f"policy {child}"))
    return policy


def schema() -> dict[str, Any]:
    """JSON Schema of a policy file: every key of `Policy`, all optional, and `extends`."""
    content = Policy.model_json_schema()
    content["properties"]["extends"] = {"type": "string", "description": "name or path of the one parent policy"}
    for section in [content, *content["$defs"].values()]:
        section.pop("required", None)  # a child states only what it changes
    content["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    content["title"] = "hushtune policy"
    return content


def _validate(content: dict[str, Any], where: str) -> Policy:
    try:
        return Policy.model_validate_json(json.dumps(content))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise PolicyError(f"In {where}, a value is of a kind that YAML allows and a policy does not.") from error
        raise PolicyError(sentence(error, where)) from error
