"""Pretrain a small Llama-architecture base model, with its own tokenizer, on public text, by a recipe.

The bundled `nano` was made by this module; its model card gives the command. Nothing here is private: never point it at
text that may not leak, since no noise is added.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from pipeline import models, wikitext
from pipeline.errors import InputError
from pipeline.folders import digest, digest_file, write_text
from pipeline.recipe import Recipe, Text

END = "<|endoftext|>"
PAD = "<|pad|>"
hf_logging.disable_progress_bar()
_EVERY = 100  # steps between checkpoints


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining run made: the model folder and its held-out bits per byte."""

    folder: Path
    parameters: int
    tokens: int
    bits_per_byte: float
    seconds: float
    recipe: str


@dataclass(frozen=True)
class Stream:
    """One text of the mix as tokens: for training [n] and held out [m], of `size` UTF-8 bytes."""

    train: np.ndarray
    held_out: np.ndarray
    size: int


def pretrain(
    recipe: Recipe,
    output: Path,
    home: Path = Path("hushtune-home"),
    *,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Pretrained:
    """Train a model, and a tokenizer unless one is taken, on public text files and save a Hugging Face folder in bf16.

    A killed run continues from its last checkpoint when called again with the same recipe and texts. The folder's card,
    README.md, lists the recipe and the digests of the texts.

    Args:
        recipe: architecture, tokenizer, data mix and schedule.
        output: folder of the model; work files live in `output/.pretrain` and are removed at the end.
        home: where a model whose tokenizer is taken is looked for.
        progress: called every 10 steps with `tokens`, `total`, `loss` (nats a token) and `seconds`.

    Returns:
        The folder, size and held-out bits per byte.

    Raises:
        InputError: a text is missing, is not text, or is too short for the context; or `output` holds the work of another
            recipe.
        ModelError: there is no model whose tokenizer could be taken.
    """
    sums = {path: _sum(path) for text in recipe.data for path in text.files}
    content = recipe.model_dump(mode="json", exclude={"data": {"__all__": {"files"}}})
    texts = [[sums[path] for path in text.files] for text in recipe.data]
    seal = digest(content | {"texts": texts})
    work = output / ".pretrain"
    _claim(work, digest(content | {"texts": texts, "schedule": content["schedule"] | {"minutes": None}}))
    tokenizer = _tokenizer(recipe, work, home)
    streams = _encode(recipe, work, tokenizer)
    torch.manual_seed(recipe.schedule.seed)
    ids = (cast(int, one) for one in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id))
    size = recipe.tokenizer.size if recipe.tokenizer.take is None else len(tokenizer)
    model = LlamaForCausalLM(recipe.architecture.config(size, *ids))
    seconds, seen = _train(model, [stream.train for stream in streams], work, recipe, progress)
    context = recipe.architecture.context
    each = [bits_per_byte(model, stream.held_out, stream.size, context) for stream in streams]
    sizes = [stream.size for stream in streams]
    bits = sum(one * size for one, size in zip(each, sizes, strict=True)) / sum(sizes)
    cast(Any, model).to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    facts = {
        "recipe": content | {"data": [_named(text) for text in recipe.data], "tokenizer": _tokens(recipe)},
        "recipe_digest": seal,
        "texts": [
            {"sha256": {path.name: sums[path] for path in text.files}, "train_tokens": len(stream.train), "bits_per_byte": one}
            for text, stream, one in zip(recipe.data, streams, each, strict=True)
        ],
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_tokens": seen,
        "bits_per_byte": bits,
        "seconds": seconds,
    }
    (output / "pretraining.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    (output / "README.md").write_text(card(recipe, facts), encoding="utf-8")
    shutil.rmtree(work)
    return Pretrained(output, facts["parameters"], seen, bits, seconds, seal)


def card(recipe: Recipe, facts: dict[str, Any]) -> str:
    """The model card: what it is, what it was trained on, and the whole recipe with digests."""
    shape = recipe.architecture
    taken = recipe.tokenizer.take
    words = (
        f"that of {Path(taken).name}" if taken else f"byte-level BPE of {recipe.tokenizer.size:,} tokens, trained on the texts"
    )
    weights = sum(text.weight for text in recipe.data)
    rows = [
        f"| {name} | {text.weight / weights:.0%} | {made['train_tokens']:,} | {made['bits_per_byte']:.3f} | `{sum_}` |"
        for text, made in zip(recipe.data, facts["texts"], strict=True)
        for name, sum_ in made["sha256"].items()
    ]
    spelled = yaml.safe_dump(facts["recipe"], sort_keys=False, allow_unicode=True)
    return f"""---
license: {recipe.licence or "other"}
library_name: transformers
tags: [causal-lm, small]
---
# {recipe.name}

A Llama-architecture language model of {facts["parameters"]:,} parameters, pretrained by `hushtune models pretrain` on public
text. No noise was added and no privacy is claimed for the texts.

| | |
|---|---|
| Architecture | {shape.layers} layers, width {shape.width}, {shape.heads} heads, context {shape.context}, tied embeddings |
| Tokenizer | {words} |
| Training | {facts["trained_tokens"]:,} tokens in {facts["seconds"] / 60:.1f} minutes |
| Held-out text | {facts["bits_per_byte"]:.3f} bits per byte |

| File | Share of the windows, its part | Tokens, its part | Held-out bits per byte | SHA-256 |
|---|---:|---:|---:|---|
{chr(10).join(rows)}

**Recipe**, digest `{facts["recipe_digest"]}` (over the recipe and the digests of its texts):

```yaml
{spelled}```
"""


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


def _sum(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"The text file {path} does not exist: give the path of a plain-text file or a MediaWiki dump.")
    return digest_file(path)


def _tokens(recipe: Recipe) -> dict[str, Any]:
    taken = recipe.tokenizer.take
    return {"take": Path(taken).name} if taken else {"size": recipe.tokenizer.size}


def _named(text: Text) -> dict[str, Any]:
    """A part of the mix as the card lists it: by names, without this machine's paths."""
    return {"files": [path.name for path in text.files], "weight": text.weight}


def _claim(work: Path, seal: str) -> None:
    """Take the work folder, or go on with what the same recipe left in it; only its time limit may change."""
    marker = work / "recipe.sha256"
    if marker.is_file() and marker.read_text() != seal:
        raise InputError(
            f"The folder {work} holds the unfinished work of another recipe or of other texts: remove it, or give another "
            "--output."
        )
    work.mkdir(parents=True, exist_ok=True)
    write_text(marker, seal)


def _read(path: Path) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return file.read()
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise InputError(f"The file {path} is not UTF-8 text: convert it before pretraining.") from error


def _documents(text: Text) -> Iterator[str]:
    return wikitext.documents(_read(path) for path in text.files)


def _tokenizer(recipe: Recipe, work: Path, home: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that is taken, or one that is trained on all the documents, whatever their weights."""
    if recipe.tokenizer.take is not None:
        taken = models.load_tokenizer(models.resolve(recipe.tokenizer.take, home))
        taken.bos_token = taken.bos_token or taken.eos_token
        taken.model_max_length = recipe.architecture.context
        return taken
    path = work / "tokenizer.json"
    if not path.exists():
        bpe = Tokenizer(BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=recipe.tokenizer.size,
            special_tokens=[END, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator((document for text in recipe.data for document in _documents(text)), trainer)
        bpe.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=recipe.architecture.context,
        clean_up_tokenization_spaces=False,
    )


def _encode(recipe: Recipe, work: Path, tokenizer: PreTrainedTokenizerFast) -> list[Stream]:
    """Each text as token streams for training and held-out documents."""
    streams = [_stream(text, work / f"{at}", tokenizer, recipe) for at, text in enumerate(recipe.data)]
    context, least = recipe.architecture.context, recipe.architecture.context * recipe.schedule.batch
    fit = all(len(one.train) > context and len(one.held_out) > 1 for one in streams)
    if not fit or sum(len(one.train) for one in streams) <= least:
        raise InputError(
            f"The text holds too little to pretrain on: each part of the data needs {_apart(recipe)} documents or passages and "
            f"{context} tokens, and all together {least}; add text or lower the context."
        )
    return streams


def _apart(recipe: Recipe) -> int:
    """One document in so many is held out."""
    return max(2, round(1 / recipe.held_out))


def _stream(text: Text, work: Path, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Stream:
    train_path, held_path, size_path = (work.with_name(f"{work.name}-{part}") for part in ("train.npy", "held.npy", "bytes"))
    if not size_path.exists():
        kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
        every, size = _apart(recipe), 0
        train, held_out = [np.zeros(0, kind)], [np.zeros(0, kind)]
        for index, document in enumerate(_documents(text)):
            row = tokenizer(document, verbose=False, add_special_tokens=False)["input_ids"]
            ids = np.asarray([*row, tokenizer.eos_token_id], kind)
            if index % every == every - 1:
                held_out.append(ids)
                size += len(document.encode()) + 1
            else:
                train.append(ids)
        np.save(train_path, np.concatenate(train))
        np.save(held_path, np.concatenate(held_out))
        size_path.write_text(str(size))
    return Stream(np.load(train_path, mmap_mode="r"), np.load(held_path), int(size_path.read_text()))


def mix(
    lengths: Sequence[int], weights: Sequence[float], context: int, windows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which text each training window comes from, and at which token it starts; the same for the same seed.

    Args:
        lengths: tokens of each text.
        weights: of each text; windows are drawn from the texts in this proportion.
        context: tokens of a window; a text's windows are visited in one random order, again and again.
        windows: how many.
        seed: of both lots.

    Returns:
        Text and start of each window, int64 [windows] each.
    """
    share = np.asarray(weights, float) / sum(weights)
    texts = np.random.default_rng(seed).choice(len(lengths), size=windows, p=share)
    starts = np.zeros(windows, np.int64)
    for text, length in enumerate(lengths):
        order = np.random.default_rng([seed, text]).permutation((length - 1) // context)
        rows = np.flatnonzero(texts == text)
        starts[rows] = order[np.arange(len(rows)) % len(order)] * context
    return texts, starts


def _train(
    model: LlamaForCausalLM,
    tokens: Sequence[np.ndarray],
    work: Path,
    recipe: Recipe,
    progress: Callable[[dict[str, float]], None] | None,
) -> tuple[float, int]:
    schedule, context = recipe.schedule, recipe.architecture.context
    decay, plain = [], []
    for parameter in model.parameters():
        (decay if parameter.ndim > 1 else plain).append(parameter)
    groups = [{"params": decay, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.95), fused=True)
    step, spent = _resume(model, optimizer, work)
    per_step = schedule.batch * context
    total = schedule.tokens or math.ceil((schedule.epochs or 1) * sum(map(len, tokens)))
    windows = math.ceil(total / per_step) * schedule.batch
    texts, starts = mix([len(one) for one in tokens], [one.weight for one in recipe.data], context, windows, schedule.seed)
    started = time.monotonic() - spent
    model.train()
    while (done := _done(step * per_step / total, time.monotonic() - started, schedule.minutes)) < 1:
        rate = min(1.0, (step + 1) / schedule.warmup, (1 - done) / schedule.cooldown)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rate
        picks = range(step * schedule.batch, (step + 1) * schedule.batch)
        rows = np.stack([tokens[texts[at]][starts[at] : starts[at] + context + 1] for at in picks]).astype(np.int64)
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
            progress({"tokens": step * per_step, "total": total, "loss": loss.item(), "seconds": seconds})
        if step % _EVERY == 0:
            _checkpoint(model, optimizer, work, step, time.monotonic() - started)
    return time.monotonic() - started, step * per_step


def _done(share: float, seconds: float, minutes: float | None) -> float:
    return max(share, seconds / (60 * minutes) if minutes else 0.0)


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
