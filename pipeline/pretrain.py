"""Pretrain a small Llama-architecture base model, with its own tokenizer, on public text.

The bundled `nano` was made by this module; its model card gives the command. Nothing here is private: never point it at
text that may not leak, since no noise is added.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from pipeline import wikitext
from pipeline.errors import InputError

END = "<|endoftext|>"
PAD = "<|pad|>"
hf_logging.disable_progress_bar()
_EVERY = 100  # steps between checkpoints


@dataclass(frozen=True)
class Recipe:
    """Architecture and schedule of one pretraining run.

    `tokens` is the length of the run in training tokens; `minutes`, if given, ends it sooner. The learning rate warms up
    over `warmup` steps, stays at `learning_rate`, and falls linearly to zero over the last `cooldown` share of the run.
    """

    layers: int = 6
    width: int = 256
    heads: int = 4
    vocab: int = 8192
    context: int = 512
    tokens: int = 12_000_000
    minutes: float | None = None
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: int = 100
    cooldown: float = 0.4
    held_out: float = 0.01
    seed: int = 20

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(f"--width {self.width} must be an even multiple of --heads {self.heads}.")
        if not 300 <= self.vocab <= 65_535:
            raise InputError(f"--vocab {self.vocab} must lie between 300 and 65535.")

    def config(self) -> LlamaConfig:
        """The Hugging Face configuration: tied embeddings and a feed-forward width of 8/3, rounded up to 32."""
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            intermediate_size=32 * math.ceil(self.width * 8 / 3 / 32),
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining run made: the model folder and its held-out bits per byte."""

    folder: Path
    parameters: int
    tokens: int
    bits_per_byte: float
    seconds: float


def pretrain(
    texts: list[Path], output: Path, recipe: Recipe, *, progress: Callable[[dict[str, float]], None] | None = None
) -> Pretrained:
    """Train a tokenizer and a model on public text files and save a Hugging Face folder in bf16.

    A killed run continues from its last checkpoint when called again with the same arguments.

    Args:
        texts: plain-text files or MediaWiki XML dumps, gzipped or not.
        output: folder of the model; work files live in `output/.pretrain` and are removed at the end.
        recipe: architecture and schedule.
        progress: called every 10 steps with `tokens`, `total`, `loss` (nats a token) and `seconds`.

    Returns:
        The folder, size and held-out bits per byte.

    Raises:
        InputError: a text is missing, is not text, or is too short for the context.
    """
    work = output / ".pretrain"
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(texts, work, recipe)
    train, held_out, held_out_bytes = _encode(texts, work, tokenizer, recipe)
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(recipe.config())
    seconds, seen = _train(model, train, work, recipe, progress)
    bits = bits_per_byte(model, held_out, held_out_bytes, recipe.context)
    cast(Any, model).to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    parameters = sum(p.numel() for p in model.parameters())
    facts = asdict(recipe) | {
        "parameters": parameters,
        "trained_tokens": seen,
        "bits_per_byte": bits,
        "seconds": seconds,
    }
    (output / "pretraining.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    for leftover in work.iterdir():
        leftover.unlink()
    work.rmdir()
    return Pretrained(output, parameters, seen, bits, seconds)


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, tokens: np.ndarray, size: int, context: int) -> float:
    """Held-out bits per UTF-8 byte: the sum of −log2 p over `tokens` (shape [n]) in windows of `context`, over `size` bytes."""
    model.eval()
    nats = 0.0
    for start in range(0, len(tokens) - 1, context):
        window = torch.from_numpy(tokens[start : start + context + 1].astype(np.int64))[None]
        logits = model(window[:, :-1]).logits
        nats += torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum").item()
    return nats / math.log(2) / size


def _read(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"The text file {path} does not exist: give the path of a plain-text file or a MediaWiki dump.")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return file.read()
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise InputError(f"The file {path} is not UTF-8 text: convert it before pretraining.") from error


def _documents(texts: list[Path]) -> Iterator[str]:
    return wikitext.documents(_read(path) for path in texts)


def _tokenizer(texts: list[Path], work: Path, recipe: Recipe) -> PreTrainedTokenizerFast:
    path = work / "tokenizer.json"
    if not path.exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=recipe.vocab,
            special_tokens=[END, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(_documents(texts), trainer)
        bpe.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )


def _encode(
    texts: list[Path], work: Path, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, int]:
    """Token streams (uint16) for training and held-out documents, and the held-out size in bytes."""
    train_path, held_path, size_path = work / "train.npy", work / "held_out.npy", work / "held_out_bytes"
    if not size_path.exists():
        every = max(2, round(1 / recipe.held_out))
        train, held_out, size = [], [], 0
        for index, text in enumerate(_documents(texts)):
            ids = [*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]
            if index % every == every - 1:
                held_out.append(np.asarray(ids, np.uint16))
                size += len(text.encode()) + 1
            else:
                train.append(np.asarray(ids, np.uint16))
        if sum(map(len, train)) <= recipe.context * recipe.batch or not held_out:
            raise InputError(
                f"The text holds too little to pretrain on: at least {every} documents and "
                f"{recipe.context * recipe.batch} tokens are needed; add text or lower --context."
            )
        np.save(train_path, np.concatenate(train))
        np.save(held_path, np.concatenate(held_out))
        size_path.write_text(str(size))
    return np.load(train_path, mmap_mode="r"), np.load(held_path), int(size_path.read_text())


def _train(
    model: LlamaForCausalLM,
    tokens: np.ndarray,
    work: Path,
    recipe: Recipe,
    progress: Callable[[dict[str, float]], None] | None,
) -> tuple[float, int]:
    decay, plain = [], []
    for parameter in model.parameters():
        (decay if parameter.ndim > 1 else plain).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)
    step, spent = _resume(model, optimizer, work)
    per_step = recipe.batch * recipe.context
    order = np.random.default_rng(recipe.seed).permutation((len(tokens) - 1) // recipe.context)
    started = time.monotonic() - spent
    model.train()
    loss = torch.tensor(math.nan)
    while (done := _done(step * per_step, time.monotonic() - started, recipe)) < 1:
        rate = min(1.0, (step + 1) / recipe.warmup, (1 - done) / recipe.cooldown)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        picks = order[np.arange(step * recipe.batch, (step + 1) * recipe.batch) % len(order)] * recipe.context
        rows = np.stack([tokens[start : start + recipe.context + 1] for start in picks]).astype(np.int64)
        batch = torch.from_numpy(rows)
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if progress and step % 10 == 0:
            seconds = time.monotonic() - started
            progress({"tokens": step * per_step, "total": recipe.tokens, "loss": loss.item(), "seconds": seconds})
        if step % _EVERY == 0:
            _checkpoint(model, optimizer, work, step, time.monotonic() - started)
    return time.monotonic() - started, step * per_step


def _done(seen: int, seconds: float, recipe: Recipe) -> float:
    by_time = seconds / (60 * recipe.minutes) if recipe.minutes else 0.0
    return max(seen / recipe.tokens, by_time)


def _checkpoint(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, work: Path, step: int, seconds: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    torch.save(state, work / "checkpoint.tmp")
    os.replace(work / "checkpoint.tmp", work / "checkpoint.pt")


def _resume(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, work: Path) -> tuple[int, float]:
    path = work / "checkpoint.pt"
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]
