"""Policies: one YAML file, resolved through one parent, validated into one frozen object whose hash names it.

    policy = load("default")                       # a preset of policies/
    policy = load("our-hospital.yaml")             # a file that may say `extends: hipaa-safe-harbor`, and then only tighten it
    policy.privacy.epsilon, policy.digest

Every choice that changes what is promised stands in the policy; command-line flags only override `data` columns and the base
model, and the override becomes part of the resolved policy and of its digest.
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import PolicyError
from pipeline.folders import digest
from pipeline.policy._audit import Audit, Gate
from pipeline.policy._canaries import Canaries
from pipeline.policy._data import Data, Scrub
from pipeline.policy._files import presets, resolve
from pipeline.policy._privacy import Lifetime, Privacy
from pipeline.policy._release import Release, Retention
from pipeline.policy._section import NAME, Section, wrong_key
from pipeline.policy._train import ContinuedPretraining, Lora, Selection, Train
from pipeline.strictness import STARTING_VALUES, only_tighter

__all__ = [
    "Audit",
    "Canaries",
    "ContinuedPretraining",
    "Data",
    "Gate",
    "Lifetime",
    "Lora",
    "Policy",
    "Privacy",
    "Release",
    "Retention",
    "Scrub",
    "Section",
    "Selection",
    "Train",
    "load",
    "presets",
    "schema",
    "wrong_key",
]


class Policy(Section):
    """A resolved policy. `digest` is the SHA-256 of its canonical JSON and names it in ledger, report and caches."""

    name: str = Field(pattern=NAME)
    description: str = Field(min_length=8)
    model: str = Field(default="nano", description="base model: a name of `hushtune models list`, or a Hugging Face folder")
    data: Data = Data()
    scrub: Scrub
    canaries: Canaries = Canaries()
    privacy: Privacy
    continued_pretraining: ContinuedPretraining | None = Field(
        default=None, description="train the base model on public text of the domain first; null leaves it as it is"
    )
    train: Train
    audit: Audit = Audit()
    gates: dict[Annotated[str, Field(pattern=NAME)], Gate] = Field(min_length=1)
    release: Release = Release()
    retention: Retention = Retention()

    @model_validator(mode="after")
    def _sums(self) -> Policy:
        """A release is the sum of a public and a private adapter, and not everything can be added."""
        if self.continued_pretraining is not None and (self.train.lora.dora or self.train.lora.also_train):
            raise ValueError(
                "has continued_pretraining, whose adapter is added to that of train.lora, which holds for plain LoRA only: set "
                "train.lora.dora to false and train.lora.also_train to []"
            )
        return self

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
        add = "add it, or extend a policy that has it"
        raise PolicyError(wrong_key(error, where, keys="`hushtune policy schema`", add=add)) from error
