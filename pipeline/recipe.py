"""The recipe of a pretraining: architecture, tokenizer, data mix and schedule, from one YAML file.

recipe = load("pipeline/assets/recipes/nano.yaml")
recipe.architecture.width, recipe.schedule.tokens
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator
from transformers import LlamaConfig

from pipeline.errors import InputError
from pipeline.policy import Section, wrong_key
from pipeline.policy._files import Once


class Architecture(Section):
    """A Llama with tied embeddings."""

    layers: int = Field(default=6, ge=1)
    width: int = Field(default=256, ge=2, description="of the hidden states; an even multiple of heads")
    heads: int = Field(default=4, ge=1)
    context: int = Field(default=512, ge=8, description="tokens that the model sees at once, and of a training window")
    feed_forward: int | None = Field(default=None, ge=1, description="null: 8/3 of the width, rounded up to a multiple of 32")

    @model_validator(mode="after")
    def _even(self) -> Architecture:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads}")
        return self

    def config(self, vocabulary: int, begin: int, end: int, padding: int) -> LlamaConfig:
        """The Hugging Face configuration for a tokenizer of `vocabulary` tokens and its three special ones."""
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward or 32 * math.ceil(self.width * 8 / 3 / 32),
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=padding,
        )


class Vocabulary(Section):
    """A byte-level BPE tokenizer trained on the data, or that of another model."""

    size: int = Field(default=8192, ge=300, le=65_535, description="tokens of the one that is trained")
    take: str | None = Field(
        default=None, description="instead: the model whose tokenizer is taken, as `hushtune models list` or a folder names it"
    )


class Text(Section):
    """A part of the mix: one or several public files, and their share of the training windows beside the other weights."""

    files: tuple[Path, ...] = Field(min_length=1)
    weight: float = Field(default=1, gt=0, allow_inf_nan=False)


class Schedule(Section):
    """How long and how fast; the rate warms up, stays, and falls linearly to zero over the last `cooldown` share."""

    tokens: int | None = Field(default=None, ge=1, description="to train on, in all")
    epochs: float | None = Field(default=None, gt=0, description="the same as visits of the whole data; null for both: 1")
    minutes: float | None = Field(default=None, gt=0, description="ends the run sooner")
    batch: int = Field(default=8, ge=1, description="windows in a step")
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup: int = Field(default=100, ge=1, description="steps")
    cooldown: float = Field(default=0.4, gt=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    seed: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> Schedule:
        if self.tokens is not None and self.epochs is not None:
            raise ValueError("takes tokens or epochs, not both")
        return self


class Recipe(Section):
    """Everything that makes a pretrained model, but for the bytes of its texts."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    licence: str | None = Field(default=None, max_length=64, description="of the model, for its card")
    architecture: Architecture = Architecture()
    tokenizer: Vocabulary = Vocabulary()
    data: tuple[Text, ...] = Field(min_length=1, description="public text: plain, or MediaWiki XML dumps, gzipped or not")
    held_out: float = Field(default=0.01, gt=0, le=0.5, description="share of the documents that measures the model")
    schedule: Schedule = Schedule()


def load(ref: str | Path) -> Recipe:
    """Read a recipe by path, or a bundled one by name; the paths in a file are seen from its folder.

    Raises:
        InputError: there is none, it is not YAML, or a key is unknown, missing or out of range.
    """
    path = Path(ref)
    if not is_recipe(path):
        raise InputError(f"There is no recipe {ref}: give the path of a .yaml file.")
    bundled = not path.is_file()
    if bundled:
        path = _bundled(str(ref))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Once)
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise InputError(f"The recipe {path} is missing, not YAML, or says a key twice: mend it and try again.") from None
    recipe = check(content, f"recipe {path.name}")
    if bundled:
        return recipe  # its texts are looked for in the current folder
    beside = path.parent
    data = tuple(text.model_copy(update={"files": tuple(beside / file for file in text.files)}) for text in recipe.data)
    return recipe.model_copy(update={"data": data})


def check(content: Any, where: str) -> Recipe:
    """The recipe that plain content spells.

    Raises:
        InputError: a key is unknown, missing or out of range; the sentence names it.
    """
    try:
        return Recipe.model_validate_json(json.dumps(content))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise InputError(f"In {where}, a value is of a kind that YAML allows and a recipe does not.") from None
        raise InputError(wrong_key(error, where, keys="the bundled nano.yaml")) from None


def is_recipe(path: Path) -> bool:
    """Whether a path on the command line is a recipe rather than a text: by its ending, or as the name of a bundled one."""
    return path.suffix in (".yaml", ".yml") or (not path.is_file() and _bundled(str(path)).is_file())


def _bundled(name: str) -> Path:
    return Path(str(files("pipeline"))) / "assets" / "recipes" / f"{Path(name).name}.yaml"
