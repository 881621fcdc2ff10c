"""privacy.json: what was promised, by which mechanism, and what stands outside the promise."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.policy import Policy

if TYPE_CHECKING:
    from pipeline.train.loop import Trained

PUBLIC = (
    "the number of privacy units, and what follows from it: sampling rate, delta, noise multiplier",
    "the policy with its learning rate, clipping norm, steps and expected batch",
    "the base model and its tokenizer",
    "the canaries' texts, coins and scores",
)
OUTSIDE = (
    "counts of records, entities, tokens and lengths in the report",
    "perplexity, accuracy and membership figures measured on real records, and the verdict that rests on them",
    "empty_draws and lost_gradients in this file, which stay in the run folder",
    "the training loss in losses.jsonl, which never leaves the run folder",
)


def statement(trained: Trained, policy: Policy) -> dict[str, Any]:
    """The privacy statement of a run, as JSON: the mechanism as it was run, ε by two accountants, and the limits."""
    mechanism = trained.mechanism
    return {
        "schema": "hushtune-privacy/1",
        "mechanism": "DP-SGD: Poisson-subsampled Gaussian mechanism on LoRA weights",
        "unit": mechanism.unit,
        "records_per_unit": policy.privacy.records_per_unit if mechanism.unit == "person" else 1,
        "adjacency": mechanism.adjacency,
        "clipping_norm": mechanism.clipping_norm,
        "noise_multiplier": mechanism.noise_multiplier,
        "noise_source": "AES-256 counter mode under a key from the operating system, four Gaussians summed and halved",
        "sampling_rate": mechanism.sampling_rate,
        "sampler": "Poisson, independent for each unit and step",
        "units": mechanism.units,
        "expected_batch": mechanism.expected_batch,
        "steps_planned": mechanism.steps,
        "steps_taken": trained.steps,
        "epsilon": trained.epsilon,
        "epsilon_by": "privacy loss distributions (dp_accounting)",
        "epsilon_prv": trained.epsilon_prv,
        "group_epsilon": trained.group_epsilon,
        "delta": trained.delta,
        "empty_draws": trained.empty_draws,
        "lost_gradients": trained.lost_gradients,
        "canary_manifest": trained.manifest_digest,
        "public": list(PUBLIC),
        "outside_the_guarantee": list(OUTSIDE),
        "versions": {name: version(name) for name in ("torch", "opacus", "peft", "transformers", "dp-accounting")},
    }
