"""privacy.json: what was promised, by which mechanism, and what stands outside the promise."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.policy import Policy

if TYPE_CHECKING:
    from pipeline.train.loop import Trained

PUBLIC = (
    "the number of privacy units, and what follows from it: sampling rate, delta, noise multiplier, automatic batch and steps",
    "the policy with its learning rate, clipping norm, steps and expected batch",
    "the base model and its tokenizer",
    "the canaries' texts, coins and scores",
)
OUTSIDE = (
    "counts of records, entities, tokens and lengths in the report",
    "perplexity, accuracy and membership figures measured on real records, and the verdict that rests on them",
    "empty_draws and lost_gradients in this file, which stay in the run folder",
    "the training loss in losses.jsonl, which never leaves the run folder",
    "tokens_per_second and the seconds of each stage, which depend a little on the units that were drawn",
)

_ARITHMETIC = (
    "epsilon is of exact arithmetic; gradients and sums are float32, squared norms float32 within pieces of at most 4,096 "
    "numbers and float64 over them, noise float64, rounded once after it is added"
)


def statement(trained: Trained, policy: Policy, selection: dict[str, Any] | None = None) -> dict[str, Any]:
    """The privacy statement of a run, as JSON: the mechanism as it was run, ε by two accountants, and the limits.

    `selection` says how the released step was chosen on public data, if it was (`selection.Chooser.statement`).
    """
    mechanism = trained.mechanism
    return {
        "schema": "hushtune-privacy/1",
        "mechanism": "DP-SGD: Poisson-subsampled Gaussian mechanism on " + _weights(policy),
        "unit": mechanism.unit,
        "records_per_unit": policy.privacy.records_per_unit if mechanism.unit == "person" else 1,
        "adjacency": mechanism.adjacency,
        "clipping_norm": mechanism.clipping_norm,
        "noise_multiplier": mechanism.noise_multiplier,
        "arithmetic": _ARITHMETIC,
        "noise_source": "AES-256 counter mode under a key from the operating system, four Gaussians summed and halved",
        "sampling_rate": mechanism.sampling_rate,
        "sampler": "Poisson, independent for each unit and step",
        "units": mechanism.units,
        "expected_batch": mechanism.expected_batch,
        "steps_planned": mechanism.steps,
        "steps_charged": trained.steps,
        "steps_taken": trained.noisy_steps,
        "updates": trained.updates,
        "stopped_early": trained.noisy_steps < mechanism.steps,
        "steps_in_words": _steps(trained),
        "selection": selection,
        "epsilon": trained.epsilon,
        "epsilon_by": "privacy loss distributions (dp_accounting)",
        "epsilon_prv": trained.epsilon_prv,
        "group_epsilon": trained.group_epsilon,
        "delta": trained.delta,
        "empty_draws": trained.empty_draws,
        "lost_gradients": trained.lost_gradients,
        "canary_manifest": trained.manifest_digest,
        "gradients": trained.gradients,
        "continued_pretraining": trained.base.adaptation
        and trained.base.adaptation.model_dump(mode="json", exclude={"folder", "seconds", "sharing"}),
        "public": [*PUBLIC, *_public_text(trained), *(["the records of train.selection.public_data"] if selection else [])],
        "outside_the_guarantee": list(OUTSIDE),
        "versions": {name: version(name) for name in ("torch", "opacus", "peft", "transformers", "dp-accounting")},
    }


def _public_text(trained: Trained) -> list[str]:
    return ["the text of continued_pretraining.public_data"] if trained.base.adaptation else []


def _weights(policy: Policy) -> str:
    whole = policy.train.lora.also_train
    return "LoRA weights" + (f" and the whole of {', '.join(whole)}" if whole else "")


def _steps(trained: Trained) -> str:
    planned, taken, updates = trained.mechanism.steps, trained.noisy_steps, trained.updates
    words = [f"{planned} steps were planned and are charged, {taken} were taken, and {updates} are in the released weights."]
    if taken < planned:
        words.append(
            "Training stopped early on public data; the stop depends on the noisy steps before it, so all are charged."
        )
    if updates < taken:
        words.append("The others were lost when the run was interrupted, or came after the step that public data chose.")
    return " ".join(words)
