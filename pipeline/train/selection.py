"""Which step of a training is released: the last one, or one that public data chooses.

Choosing by a loss on PUBLIC records is post-processing of weights that are private already, and costs nothing. Choosing by a
loss on private records would spend privacy that no accountant here counts, so that a policy cannot ask for it. An early stop
is still charged for every planned step: the step at which it stops depends on the noisy steps before it, and the accounting
holds for a number of steps that was fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from pipeline import corpus as corpora
from pipeline import models
from pipeline.corpus import Record, load_records
from pipeline.errors import InputError
from pipeline.folders import digest_file
from pipeline.policy import Policy, Selection
from pipeline.train.checkpoint import put, weights
from pipeline.train.examples import IGNORED, Example, encode, pad

_TOKENS = 1024  # in a forward pass: its logits must fit beside the training


class Chooser:
    """Watches the loss on public records while a training goes on, and puts the best weights back at its end.

    Without examples it watches nothing and keeps the last step.
    """

    def __init__(self, rules: Selection | None, examples: Sequence[Example], padding: int) -> None:
        self._rules, self._examples, self._padding = rules, examples, padding
        self._best: dict[str, Any] | None = None
        self._looks = self._stale = 0

    @property
    def stopped(self) -> bool:
        """Whether early stopping has seen enough."""
        return self._rules is not None and self._rules.rule == "early_stopping" and self._stale >= self._rules.patience

    def look(self, model: PeftModel, updates: int, *, last: bool) -> None:
        """Measure the loss if it is time to, and remember the weights if they are the best so far."""
        if self._rules is None or (updates % self._rules.every and not last):
            return
        loss = public_loss(model, self._examples, self._padding)
        self._looks += 1
        self._stale += 1
        if self._best is None or loss < self._best["loss"]:
            self._best, self._stale = {"loss": loss, "updates": updates, "weights": weights(model)}, 0

    def choose(self, model: PeftModel, updates: int) -> int:
        """Put the best weights into the model; returns how many updates are in them."""
        if self._best is None:
            return updates
        put(model, self._best["weights"])
        return self._best["updates"]

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint must hold."""
        return None if self._rules is None else {"best": self._best, "looks": self._looks, "stale": self._stale}

    def resume(self, state: dict[str, Any] | None) -> None:
        """Go on from what a checkpoint held."""
        if self._rules is not None and state is not None:
            self._best, self._looks, self._stale = state["best"], state["looks"], state["stale"]

    def statement(self) -> dict[str, Any] | None:
        """How the released step was chosen, for the privacy statement."""
        if self._rules is None:
            return None
        file = Path(str(self._rules.public_data))
        return {
            **self._rules.model_dump(mode="json"),
            "public_data": file.name,
            "public_data_sha256": digest_file(file),
            "public_records": len(self._examples),
            "looks": self._looks,
            "cost": "none: a choice by public data is post-processing; every planned step is charged, whichever is released",
        }


def nobody() -> Chooser:
    """One that watches nothing: of the processes that do not lead a training."""
    return Chooser(None, (), 0)


def chooser(policy: Policy, base: models.Base, tokenizer: Any, folder: Path) -> Chooser:
    """The chooser that a policy asks for; its public records are read into `folder`.

    Raises:
        InputError: the public file is missing or holds no records.
    """
    rules = policy.train.selection
    padding = int(tokenizer.pad_token_id)
    if rules is None:
        return Chooser(None, (), padding)
    most = min(policy.data.max_tokens, base.context)
    return Chooser(rules, encode(public_records(policy, folder), tokenizer, most), padding)


def public_records(policy: Policy, folder: Path) -> Iterator[Record]:
    """The records of the policy's public file, read into `folder` with the columns that the private data has."""
    assert policy.train.selection is not None
    file = Path(str(policy.train.selection.public_data))
    if not file.is_file():
        raise InputError(f"train.selection.public_data names {file}, which is not a file: give one of public records.")
    read = corpora.read(file, policy.override(privacy__unit="record"), folder / "public")
    return load_records(read.folder / "records.jsonl")


def check(policy: Policy, private: Path, folder: Path) -> None:
    """Refuse a public file that is missing, or that holds a record of the private data (`private`: its records.jsonl).

    Raises:
        InputError: it does.
    """
    if policy.train.selection is None:
        return
    public = {record.parts for record in public_records(policy, folder)}
    shared = sum(record.parts in public for record in load_records(private))
    if shared:
        raise InputError(
            f"{shared} records of the data are also in train.selection.public_data: a choice made on private records would "
            "spend privacy that nobody counts, so take them out of the public file."
        )


def digest(policy: Policy) -> str | None:
    """SHA-256 (hex) of the policy's public file, or None where it has none."""
    if policy.train.selection is None or not Path(str(policy.train.selection.public_data)).is_file():
        return None
    return digest_file(Path(str(policy.train.selection.public_data)))


@torch.no_grad()
def public_loss(model: PeftModel, examples: Sequence[Example], padding: int) -> float:
    """Mean over the records of the mean loss of their learned tokens, in nats; dropout is off meanwhile."""
    training, total = model.training, 0.0
    model.eval()
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    width = len(ordered[-1].input_ids)
    for start in range(0, len(ordered), rows := max(1, _TOKENS // width)):
        ids, labels = pad(ordered[start : start + rows], padding)
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].transpose(1, 2).float()
        targets = labels[:, 1:].to(model.device)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
        total += float((losses.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)).sum())
    model.train(training)
    return total / len(ordered)
