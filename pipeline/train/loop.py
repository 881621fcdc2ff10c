"""The training stage: DP-SGD until the mechanism's steps are taken, with checkpoints that a killed run continues from."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from peft import PeftModel

from pipeline import models
from pipeline._designs import PREFIX as CANARY
from pipeline.canaries import Planted
from pipeline.corpus import load_records
from pipeline.errors import InputError, StageError
from pipeline.folders import Progress, Value, digest_folder, private_folder, silent, write_json
from pipeline.policy import Policy
from pipeline.train import selection
from pipeline.train.checkpoint import NAME as CHECKPOINT
from pipeline.train.checkpoint import Checkpoint, fresh, weights
from pipeline.train.coverage import check_rows_are_independent, uncovered
from pipeline.train.distributed import ALONE, Alone
from pipeline.train.examples import Even, Example, encode
from pipeline.train.fallback import gradients_for
from pipeline.train.mechanism import Mechanism
from pipeline.train.reuse import EntryStates, first_adapted
from pipeline.train.sampling import PoissonSampler, microbatches
from pipeline.train.statement import statement

Spend = Callable[[int], None]
"""`spend(taken)` records durably that `taken` noisy steps have been taken in all, before the last one touches the weights."""

_STATES = "entry-states-{}.f32"
_GROUPS = (2, 10)
NO_PRIVACY = sys.float_info.max
"""ε of a training without clipping and noise: it fails every limit, and JSON has no infinity."""


class Trained(Value):
    """A private adapter and what it cost.

    `steps` are charged, and ε is theirs, by PLD; `noisy_steps` were taken, those that a kill lost included; `updates` are in
    the weights. The three differ only after a kill or where `train.selection` chose an earlier step.
    """

    folder: Path
    adapter: Path
    adapter_digest: str
    base: models.Base
    mechanism: Mechanism
    steps: int
    noisy_steps: int
    updates: int
    epsilon: float
    epsilon_prv: float
    delta: float
    group_epsilon: dict[str, float]
    records: int
    records_cut: int
    tokens_per_second: float
    seconds: float
    empty_draws: int
    lost_gradients: int
    gradients: str
    manifest_digest: str


def train(
    planted: Planted,
    base: models.Base,
    mechanism: Mechanism,
    policy: Policy,
    folder: Path,
    *,
    claim: str,
    spend: Spend,
    taken: int = 0,
    progress: Progress = silent,
    team: Alone = ALONE,
) -> Trained:
    """Fine-tune LoRA adapters of `base` on the planted records under DP-SGD (Abadi et al. 2016, Algorithm 1).

    A killed training continues from its last checkpoint when called again. Steps taken after that checkpoint are lost and
    stay charged: training ends when `mechanism.steps` noisy steps have been taken in all, so ε never exceeds the plan, and
    fewer than that are in the weights.

    Args:
        planted: the training records, canaries among them.
        base: the model to adapt.
        mechanism: sampling rate, noise, clipping norm and steps; the sampler, the optimizer and ε are built from it.
        policy: schedule, LoRA and data sections are read.
        folder: the stage's folder; holds adapter/, privacy.json and losses.jsonl, which is not private-safe and stays here.
        claim: id of the reservation in the ledger.
        spend: called with the running count of noisy steps before each update.
        taken: noisy steps that the ledger has already recorded for this claim.
        progress: called after each step with `epsilon`.
        team: the processes that train together; `spend` and `progress` are called by the leading one only. With
            `plain.Unprotected` the same steps are taken without clipping and noise: ε is NO_PRIVACY, which passes no gate, and
            no privacy.json is written.

    Raises:
        InputError: records are too long and the policy refuses to cut them.
        ModelError: the model mixes the rows of a batch, so that no clipping bounds a record.
        StageError: the weights did not move, so nothing was learned while ε was spent; every step was spent before one
            was saved; or the ledger holds fewer steps than the checkpoint.
    """
    inputs = {
        "planted": planted.digest,
        "base": base.digest,
        "adaptation": base.adaptation.digest if base.adaptation else None,
        "mechanism": mechanism.model_dump(mode="json"),
        "train": policy.train.model_dump(mode="json"),
        "data": policy.data.model_dump(mode="json"),
        "claim": claim,
        "public": selection.digest(policy),
    } | ({} if team.promises else {"unprotected": True})

    def work(partial: Path) -> Trained | None:
        return _train(planted, base, mechanism, policy, partial, folder, spend, taken, progress, team)

    with _only_one(folder.with_name("training.lock")) if team.leads else nullcontext():
        trained = team.stage(folder, Trained, inputs, work)
        if team.leads:  # not before the stage is whole in its place: a killed run finishes from it
            (folder / CHECKPOINT).unlink(missing_ok=True)
    return trained


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Keep out any other training of the same run, torchrun's processes that outlive their parent among them."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"Another process trains run {path.parent.name}: wait until it has ended, then run again."
            ) from None
        yield


def _train(
    planted: Planted,
    base: models.Base,
    mechanism: Mechanism,
    policy: Policy,
    partial: Path,
    folder: Path,
    spend: Spend,
    taken: int,
    progress: Progress,
    team: Alone,
) -> Trained | None:
    model, tokenizer = models.load(base)
    examples = training_examples(planted, tokenizer, policy, base)
    chooser = selection.chooser(policy, base, tokenizer, partial) if team.leads else selection.nobody()
    adapted = models.adapt(model, policy.train.lora, policy.train.seed)
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = team.optimizer(torch.optim.Adam(trainable, lr=policy.train.learning_rate, fused=False), mechanism)
    # Without the reused states first: they would hide a frozen layer that mixes the rows of a batch.
    _check_rows(gradients_for(adapted, mechanism.clipping_norm, int(tokenizer.pad_token_id)), examples, tokenizer)
    states = _entry_states(adapted, examples, policy, partial, team)
    even = Even(policy.data.max_tokens, policy.train.microbatch_tokens)
    gradients = team.gradients(adapted, mechanism.clipping_norm, int(tokenizer.pad_token_id), states, even)
    _check_rows(gradients, examples, tokenizer)
    if states is not None:
        states.forget()  # what the check made up: a record may bear the same id
    absent = planted.canaries - planted.included
    sampler = PoissonSampler(examples, mechanism, policy.privacy.records_per_unit, absent=absent)
    checkpoint = Checkpoint(adapted, optimizer, partial)
    state = checkpoint.load() if team.leads else fresh()
    if state["taken"] > taken:
        raise StageError(
            f"The checkpoint holds {state['taken']} charged steps and the ledger only {taken}: restore the ledger."
        )
    taken = team.begin(taken, trainable, optimizer)
    gradients.lost = state["lost_gradients"]
    chooser.resume(state["selection"])
    before = weights(adapted)
    epsilons = _EpsilonSoFar(mechanism) if team.promises else None
    losses = _appended(partial / "losses.jsonl") if team.leads else nullcontext()
    started = time.monotonic()
    tokens = 0
    first = taken
    with gradients.attached(), losses as written:
        while taken < mechanism.steps and not team.agree(chooser.stopped):
            units = team.draw(sampler)
            loss = 0.0
            for group in microbatches(team.share(units), policy.train.microbatch_tokens, gradients.even):
                loss += gradients.add(group)
            (loss,) = team.totals(loss)
            tokens += sum(len(example.input_ids) for unit in units for example in unit)
            taken += 1
            if team.leads:
                spend(taken)
            optimizer.step()  # of several processes, none can before the leading one has recorded the spend
            state["updates"] += 1
            state["empty_draws"] += not units
            if written:
                written.write(json.dumps({"step": taken, "units": len(units), "loss": loss / max(1, len(units))}) + "\n")
            if taken == first + 1 and all(torch.equal(a, b) for a, b in zip(before.values(), trainable, strict=True)):
                raise StageError("The first training step moved no weight: the adapter is not connected to its optimizer.")
            chooser.look(adapted, state["updates"], last=taken == mechanism.steps)
            if team.agree(checkpoint.due() or taken == mechanism.steps or chooser.stopped):
                team.check(trainable)
                lost = int(team.totals(gradients.lost)[0])
                state |= {"taken": taken, "lost_gradients": lost, "selection": chooser.state()}
                if team.leads:
                    checkpoint.save(state)
            if team.leads:
                progress(taken, mechanism.steps, **({"epsilon": epsilons(taken)} if epsilons else {}))
    if not team.leads:
        return None
    if state["updates"] == 0:
        raise StageError(
            "All reserved steps were spent by a run that was killed before its first checkpoint: start another run with --new, "
            "which reserves again."
        )
    updates = chooser.choose(adapted, state["updates"])
    models.save_adapter(adapted, private_folder(partial / "adapter"), base.adaptation)
    trained = Trained(
        folder=folder,
        adapter=folder / "adapter",
        adapter_digest=digest_folder(partial / "adapter"),
        base=base,
        mechanism=mechanism,
        # An early stop is charged in full: which step it stops at depends on the steps before it.
        steps=mechanism.steps,
        noisy_steps=taken,
        updates=updates,
        epsilon=mechanism.epsilon() if team.promises else NO_PRIVACY,
        epsilon_prv=mechanism.epsilon_prv() if team.promises else NO_PRIVACY,
        delta=mechanism.delta,
        group_epsilon=_group_epsilons(mechanism) if team.promises else {},
        records=len(examples),
        records_cut=sum(example.cut > 0 for example in examples),
        tokens_per_second=tokens / max(1e-9, time.monotonic() - started),
        seconds=state["seconds"],
        empty_draws=state["empty_draws"],
        lost_gradients=state["lost_gradients"],
        gradients=gradients.path,
        manifest_digest=planted.manifest_digest,
    )
    if team.promises:
        write_json(partial / "privacy.json", statement(trained, policy, chooser.statement()))
    for path in partial.glob(_STATES.format("*")):
        path.unlink()
    return trained


def _group_epsilons(mechanism: Mechanism) -> dict[str, float]:
    return {str(size): e for size in _GROUPS if math.isfinite(e := mechanism.group_epsilon(size))}


def rehearse(planted: Planted, base: models.Base, policy: Policy) -> None:
    """Refuse, before anything is reserved, what `train` would refuse of the records, the model and the policy.

    Raises:
        InputError: records are too long and the policy refuses to cut them, or canaries are too long to be judged.
        ModelError: the model lacks what the policy adapts, or mixes the rows of a batch.
    """
    examples = training_examples(planted, models.load_tokenizer(base), policy, base)
    long = sum(example.id.startswith(CANARY) and example.cut > 1 for example in examples)  # the end token may go
    if long:
        raise InputError(
            f"{long} canaries are longer than data.max_tokens = {policy.data.max_tokens}, so that no audit could judge them: "
            "raise it, or lower canaries.prefix_tokens and set canaries.repeated to 0."
        )
    model, tokenizer = models.load(base)
    adapted = models.adapt(model, policy.train.lora, policy.train.seed)
    _check_rows(gradients_for(adapted, policy.train.clipping_norm, int(tokenizer.pad_token_id)), examples, tokenizer)


def _check_rows(gradients: Any, examples: list[Example], tokenizer: Any) -> None:
    with gradients.attached():
        check_rows_are_independent(gradients, max(len(example.input_ids) for example in examples), len(tokenizer))


def training_examples(planted: Planted, tokenizer: Any, policy: Policy, base: models.Base) -> list[Example]:
    """The planted records as tokens.

    Raises:
        InputError: records are longer than the model's context or than the policy lets be cut.
    """
    most = policy.data.max_tokens
    if most > base.context:
        raise InputError(f"data.max_tokens is {most} and the context of {base.name} is {base.context}: lower data.max_tokens.")
    examples = encode(load_records(planted.folder / "train.jsonl"), tokenizer, most)
    long = [number for number, example in enumerate(examples, 1) if example.cut]  # an id may be private
    if long and policy.data.overlong == "refuse":
        raise InputError(
            f"{len(long)} records are longer than data.max_tokens = {most} tokens (the first is number {long[0]:,}): "
            "shorten them, raise data.max_tokens, or set data.overlong to cut."
        )
    return examples


def _entry_states(model: PeftModel, examples: list[Example], policy: Policy, folder: Path, team: Alone) -> EntryStates | None:
    free = shutil.disk_usage(folder).free // 2  # the file fills as records are seen, and a full disk then kills the training
    cap = min(int(policy.train.reuse_gigabytes * 1e9), free) // team.size
    if not cap or uncovered(model) or not first_adapted(model):
        return None
    longest = max(len(example.input_ids) for example in examples)
    states = EntryStates(model, folder / _STATES.format(team.rank), longest, cap, len(examples))
    return states if states.faithful(cast(Any, model.get_base_model()).config.vocab_size) else None


class _EpsilonSoFar:
    """ε after some steps, for the progress display: on a coarse grid and rounded up to a tenth of the run, never below."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self._known: dict[int, float] = {}

    def __call__(self, steps: int) -> float:
        every = max(1, self._mechanism.steps // 10)
        point = min(self._mechanism.steps, -(-steps // every) * every)
        if point not in self._known:
            self._known[point] = self._mechanism.epsilon(point, grid=1e-2)
        return self._known[point]


def _appended(path: Path) -> TextIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", buffering=1)
