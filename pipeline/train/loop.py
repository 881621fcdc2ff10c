"""The training stage: DP-SGD until the mechanism's steps are taken, with checkpoints that a killed run continues from."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from pipeline import models
from pipeline.canaries import Planted
from pipeline.corpus import load_records
from pipeline.errors import InputError, StageError
from pipeline.folders import Progress, Value, digest_folder, private_folder, silent, stage, write_json
from pipeline.policy import Policy
from pipeline.train.examples import Example, encode
from pipeline.train.fallback import gradients_for
from pipeline.train.gradients import check_rows_are_independent
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.reuse import EntryStates, first_adapted
from pipeline.train.sampling import PoissonSampler, microbatches
from pipeline.train.statement import statement

Spend = Callable[[int], None]
"""`spend(taken)` records durably that `taken` noisy steps have been taken in all, before the last one touches the weights."""

_CHECKPOINT_SECONDS = 20.0
_STATES = "entry-states.f32"
_GROUPS = (2, 10)


class Trained(Value):
    """A private adapter and what it cost. `steps` counts noisy steps, replayed ones included; ε is theirs, by PLD."""

    folder: Path
    adapter: Path
    adapter_digest: str
    base: models.Base
    mechanism: Mechanism
    steps: int
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
) -> Trained:
    """Fine-tune LoRA adapters of `base` on the planted records under DP-SGD (Abadi et al. 2016, Algorithm 1).

    A killed training continues from its last checkpoint when called again. Steps taken after that checkpoint are lost and
    stay charged: training ends when `mechanism.steps` noisy steps have been taken in all, so ε never exceeds the plan.

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

    Raises:
        InputError: records are too long and the policy refuses to cut them.
        ModelError: the model mixes the rows of a batch, so that no clipping bounds a record.
        StageError: the weights did not move, so nothing was learned while ε was spent.
    """
    inputs = {
        "planted": planted.digest,
        "base": base.digest,
        "mechanism": mechanism.model_dump(mode="json"),
        "train": policy.train.model_dump(mode="json"),
        "data": policy.data.model_dump(mode="json"),
        "claim": claim,
    }

    def work(partial: Path) -> Trained:
        return _train(planted, base, mechanism, policy, partial, folder, spend, taken, progress)

    return stage(folder, Trained, inputs, work)


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
) -> Trained:
    model, tokenizer = models.load(base)
    examples = training_examples(planted, tokenizer, policy, base)
    adapted = models.adapt(model, policy.train.lora, policy.train.seed)
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = UnitOptimizer(torch.optim.Adam(trainable, lr=policy.train.learning_rate, fused=False), mechanism)
    states = _entry_states(adapted, examples, policy, partial)
    gradients = gradients_for(adapted, mechanism.clipping_norm, int(tokenizer.pad_token_id), states)
    absent = planted.canaries - planted.included
    sampler = PoissonSampler(examples, mechanism, policy.privacy.records_per_unit, absent=absent)
    state = _resume(adapted, optimizer, partial)
    gradients.lost = state["lost_gradients"]
    before = [parameter.detach().clone() for parameter in trainable]
    epsilons = _EpsilonSoFar(mechanism)
    losses = (partial / "losses.jsonl").open("a", encoding="utf-8")
    os.chmod(partial / "losses.jsonl", 0o600)
    saved = started = time.monotonic()
    tokens = 0
    first = taken
    with gradients.attached(), losses:
        check_rows_are_independent(gradients, max(len(e.input_ids) for e in examples), len(tokenizer))
        while taken < mechanism.steps:
            units = sampler.draw()
            loss = 0.0
            for group in microbatches(units, policy.train.microbatch_tokens):
                loss += gradients.add(group)
                tokens += sum(len(example.input_ids) for unit in group for example in unit)
            taken += 1
            spend(taken)
            optimizer.step()
            state["updates"] += 1
            state["empty_draws"] += not units
            losses.write(json.dumps({"step": taken, "units": len(units), "loss": loss / max(1, len(units))}) + "\n")
            progress(taken, mechanism.steps, epsilon=epsilons(taken))
            if taken == first + 1 and all(torch.equal(a, b) for a, b in zip(before, trainable, strict=True)):
                raise StageError("The first training step moved no weight: the adapter is not connected to its optimizer.")
            if time.monotonic() - saved > _CHECKPOINT_SECONDS or taken == mechanism.steps:
                state["lost_gradients"] = gradients.lost
                state["seconds"] += time.monotonic() - saved
                saved = time.monotonic()
                _checkpoint(adapted, optimizer, partial, state)
    if state["updates"] == 0:
        raise StageError(
            "All reserved steps were spent by a run that was killed before its first checkpoint: start a new run, which "
            "reserves again."
        )
    models.save_adapter(adapted, private_folder(partial / "adapter"))
    trained = Trained(
        folder=folder,
        adapter=folder / "adapter",
        adapter_digest=digest_folder(partial / "adapter"),
        base=base,
        mechanism=mechanism,
        steps=taken,
        epsilon=mechanism.epsilon(taken),
        epsilon_prv=mechanism.epsilon_prv(taken),
        delta=mechanism.delta,
        group_epsilon={str(size): e for size in _GROUPS if math.isfinite(e := mechanism.group_epsilon(size))},
        records=len(examples),
        records_cut=sum(example.cut > 0 for example in examples),
        tokens_per_second=tokens / max(1e-9, time.monotonic() - started),
        seconds=state["seconds"],
        empty_draws=state["empty_draws"],
        lost_gradients=state["lost_gradients"],
        gradients=gradients.path,
        manifest_digest=planted.manifest_digest,
    )
    write_json(partial / "privacy.json", statement(trained, policy))
    (partial / _STATES).unlink(missing_ok=True)
    (partial / "checkpoint.pt").unlink()  # last: until here a killed run can finish from it
    return trained


def training_examples(planted: Planted, tokenizer: Any, policy: Policy, base: models.Base) -> list[Example]:
    """The planted records as tokens.

    Raises:
        InputError: records are longer than the model's context or than the policy lets be cut.
    """
    most = policy.data.max_tokens
    if most > base.context:
        raise InputError(f"data.max_tokens is {most} and the context of {base.name} is {base.context}: lower data.max_tokens.")
    examples = encode(load_records(planted.folder / "train.jsonl"), tokenizer, most)
    long = [example.id for example in examples if example.cut]
    if long and policy.data.overlong == "refuse":
        raise InputError(
            f"{len(long)} records are longer than data.max_tokens = {most} tokens (the first is record {long[0]}): "
            "shorten them, raise data.max_tokens, or set data.overlong to cut."
        )
    return examples


def _entry_states(model: PeftModel, examples: list[Example], policy: Policy, folder: Path) -> EntryStates | None:
    cap = int(policy.train.reuse_gigabytes * 1e9)
    if not cap or not first_adapted(model):
        return None
    longest = max(len(example.input_ids) for example in examples)
    states = EntryStates(model, folder / _STATES, longest, cap, len(examples))
    return states if states.faithful(model.get_base_model().config.vocab_size) else None


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


def _checkpoint(model: PeftModel, optimizer: UnitOptimizer, folder: Path, state: dict[str, Any]) -> None:
    content = {"adapter": get_peft_model_state_dict(model), "optimizer": optimizer.state_dict(), "state": state}
    torch.save(content, folder / "checkpoint.tmp")
    with (folder / "checkpoint.tmp").open("rb") as file:
        os.fsync(file.fileno())
    os.replace(folder / "checkpoint.tmp", folder / "checkpoint.pt")


def _resume(model: PeftModel, optimizer: UnitOptimizer, folder: Path) -> dict[str, Any]:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return {"updates": 0, "empty_draws": 0, "lost_gradients": 0, "seconds": 0.0}
    content = torch.load(path, map_location=models.device(), weights_only=True)
    set_peft_model_state_dict(model, content["adapter"])
    optimizer.load_state_dict(content["optimizer"])
    return content["state"]
