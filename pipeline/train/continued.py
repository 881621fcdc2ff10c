"""Continued pretraining: the base model learns from PUBLIC text of the domain before private training begins.

Gururangan et al. 2020 ("Don't Stop Pretraining") call it domain-adaptive pretraining. What is learned is a LoRA adapter of its
own, trained without noise and kept in HOME/models/continued by the digest of base, text and settings, so that the next run
finds it. Private training starts from base and adapter together; what it saves is the sum of both adapters, over the base as it
is, so that a release needs nothing beside itself.

Public text is not charged and gets no canaries. A private record that stands in it would escape the accounting, so that each
run compares the two first.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy

from pipeline import corpus as corpora
from pipeline import models
from pipeline.corpus import Corpus, Record, load_records
from pipeline.errors import InputError, StageError
from pipeline.folders import Progress, digest, digest_file, digest_folder, private_folder, silent, stage, write_json
from pipeline.models import Adaptation, Base
from pipeline.overlap import runs, words
from pipeline.policy import ContinuedPretraining, Lora, Policy
from pipeline.train.checkpoint import NAME as CHECKPOINT
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.examples import encode

RUN_OF_WORDS = 13  # that two texts must share to count as overlapping: long enough not to be a set phrase
_TOKENS = 1024  # in a forward pass
_NAME = "continued.json"


def adapt(base: Base, policy: Policy, private: Corpus, folder: Path, home: Path, *, progress: Progress = silent) -> Base:
    """Train the base model on the policy's public text, or find that it was done before.

    Args:
        base: the base model as it is.
        policy: its section `continued_pretraining`; without one the base is returned as it is.
        private: what was read: none of its records may stand in the public text.
        folder: the run's folder, where the public text is read to, and where the adaptation is noted for `of_run`.
        home: HUSHTUNE_HOME, whose models/continued holds the adapters.
        progress: called with steps done and in all, and `loss`.

    Returns:
        The base model with its `adaptation`.

    Raises:
        InputError: the public file is missing or holds no records or too little text, or private records stand in it.
    """
    rules = policy.continued_pretraining
    if rules is None:
        return base
    file = Path(rules.public_data)
    if not file.is_file():
        raise InputError(f"continued_pretraining.public_data names {file}, which is not a file: give one of public records.")
    if rules.max_tokens > base.context:
        raise InputError(
            f"continued_pretraining.max_tokens is {rules.max_tokens}, and the context of {base.name} {base.context}: lower it."
        )
    changes = {
        "privacy": policy.privacy.model_copy(update={"unit": "record"}),
        "data": policy.data.model_copy(update={"limit": None}),
    }
    public = corpora.read(file, policy.model_copy(update=changes), folder / "public-text")
    sharing = check(rules, private.folder / "records.jsonl", public.folder / "records.jsonl")
    settings = rules.model_dump(mode="json", exclude={"public_data", "overlap"})
    inputs = {"stage": "continued/1", "base": base.digest, "public": public.fingerprint, "settings": settings}
    place = private_folder(home / "models" / "continued") / digest(inputs)[:32]

    def work(partial: Path) -> Adaptation:
        return _train(base, rules, public, digest_file(file), partial, place, progress)

    with _only_one(place.with_name(f"{place.name}.lock")):
        made = stage(place, Adaptation, inputs, work)
    made = made.model_copy(update={"sharing": sharing})
    write_json(folder / _NAME, made.model_dump(mode="json"))
    return base.model_copy(update={"adaptation": made})


def of_run(base: Base, policy: Policy, folder: Path) -> Base:
    """The base model with the adaptation that `adapt` noted in the run's folder, if the policy asks for one.

    Raises:
        StageError: none was made yet.
    """
    if policy.continued_pretraining is None:
        return base
    path = folder / _NAME
    if not path.is_file():
        raise StageError(f"Run {folder.name} has not trained on its public text yet: take the run up again.")
    return base.model_copy(update={"adaptation": Adaptation.model_validate_json(path.read_bytes())})


def check(rules: ContinuedPretraining, private: Path, public: Path) -> int:
    """Count the private records that share 13 words in a row with the public text, and refuse those that stand in it.

    A record stands in the public text if all its runs of 13 words do, or, where it is shorter, if a public record has just its
    words. Only hashes are held.

    Args:
        rules: `overlap` says whether sharing some words is refused as well.
        private: records.jsonl of the private corpus as it was read.
        public: that of the public one.

    Raises:
        InputError: records stand in the public text, or share words with it and the policy refuses that; with counts only.
    """
    wanted = set().union(*(_marks(record) for record in load_records(private)))
    known = {mark for record in load_records(public) for mark in _marks(record) if mark in wanted}
    found = [(marks & known, marks) for record in load_records(private) if (marks := _marks(record))]
    whole, sharing = sum(some == marks for some, marks in found), sum(bool(some) for some, _ in found)
    if whole:
        raise InputError(
            f"{whole:,} records of the data stand in continued_pretraining.public_data: trained on there, they would escape "
            "the accounting, so take them out of the public file."
        )
    if sharing and rules.overlap == "refuse":
        raise InputError(
            f"{sharing:,} records of the data share {RUN_OF_WORDS} words in a row with continued_pretraining.public_data: take "
            "the passages out, or, if they are set phrases that tell of nobody, set continued_pretraining.overlap to count."
        )
    return sharing


def _marks(record: Record) -> set[int]:
    """Hashes of a record's runs of words, or of all its words where it is shorter; empty where it has none."""
    some = words("\n".join(part.text for part in record.parts))
    if len(some) < RUN_OF_WORDS:
        return {hash(tuple(some))} if some else set()
    return {hash(run) for run in runs(some, RUN_OF_WORDS)}


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Wait for another run that trains the same adapter; then it is found made."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _train(
    base: Base, rules: ContinuedPretraining, public: Corpus, source: str, partial: Path, folder: Path, progress: Progress
) -> Adaptation:
    model, tokenizer = models.load(base)
    windows = _windows(load_records(public.folder / "records.jsonl"), tokenizer, rules)
    steps = math.ceil(rules.epochs * len(windows) / rules.batch) if isinstance(rules.steps, str) else rules.steps
    adapted = models.adapt(model, Lora(rank=rules.rank, alpha=2 * rules.rank), rules.seed)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rules.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    checkpoint = Checkpoint(adapted, cast(Any, optimizer), partial)
    state: dict[str, Any] = {"losses": []} | checkpoint.load()
    order = _order(len(windows), steps * rules.batch, rules.seed)
    for step in range(state["taken"], steps):
        rate = min(1.0, (step + 1) / max(1, math.ceil(rules.warmup * steps)), (steps - step) / steps)
        for group in optimizer.param_groups:
            group["lr"] = rules.learning_rate * rate
        rows = windows[order[step * rules.batch : (step + 1) * rules.batch]]
        optimizer.zero_grad(set_to_none=True)
        loss = _backward(adapted, rows)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if not math.isfinite(loss):
            raise StageError("The loss on continued_pretraining.public_data is no number any more: lower its learning_rate.")
        state["losses"].append(loss)
        state["taken"] = step + 1
        if checkpoint.due() or step + 1 == steps:
            checkpoint.save(state)
        progress(step + 1, steps, loss=round(loss, 3))
    (partial / CHECKPOINT).unlink(missing_ok=True)
    models.save_adapter(adapted, private_folder(partial / "adapter"))
    losses, tenth = state["losses"], max(1, steps // 10)
    return Adaptation(
        folder=folder / "adapter",
        digest=digest_folder(partial / "adapter"),
        source=Path(rules.public_data).name,
        source_digest=source,
        records=public.records,
        tokens=steps * rules.batch * windows.shape[1],
        steps=steps,
        loss=(sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth),
        seconds=state["seconds"],
    )


def _windows(records: Iterator[Record], tokenizer: Any, rules: ContinuedPretraining) -> torch.Tensor:
    """The public text as one stream of tokens, cut into windows, int64 [n, max_tokens]; what is left over is not used."""
    stream = [token for example in encode(records, tokenizer, 1 << 40) for token in example.input_ids]
    whole = len(stream) // rules.max_tokens
    if not whole:
        raise InputError(
            f"continued_pretraining.public_data holds {len(stream)} tokens, less than one window of max_tokens = "
            f"{rules.max_tokens}: give more public text."
        )
    return torch.tensor(stream[: whole * rules.max_tokens]).view(whole, rules.max_tokens)


def _order(windows: int, count: int, seed: int) -> torch.Tensor:
    """`count` windows, all of them before any again, in an order that the seed gives."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(windows, generator=generator) for _ in range(math.ceil(count / windows))]
    return torch.cat(rounds)[:count]


def _backward(model: Any, rows: torch.Tensor) -> float:
    """Add the gradient of the mean loss of a batch [B, T], some rows at a time; returns that loss, nats a token."""
    total = 0.0
    for some in rows.split(max(1, _TOKENS // rows.shape[1])):
        ids = some.to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) * len(some) / len(rows)
        loss.backward()
        total += float(loss.detach())
    return total
