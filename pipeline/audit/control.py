"""The positive control: a twin without privacy, on which these attacks must see a leak, or their silence means nothing.

The twin is a fresh adapter on the same base model, trained on the same planted canaries and on some of the same records, with
neither clipping nor noise, until it has learned them by heart. It exists in memory only: it is never written to disk and never
released.

When that is so is told from the planted canaries alone, never from what an attack finds: its loss on those with the fewest
copies has fallen to the logarithm of the alphabet, nats a token. Whoever knows of a secret only which words it was drawn from
pays that much for each of its words, and more for those before it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from pipeline import models
from pipeline.folders import Progress, silent
from pipeline.policy import Policy
from pipeline.train.coverage import uncovered
from pipeline.train.examples import Example
from pipeline.train.fallback import gradients_for
from pipeline.train.plain import PlainGradients
from pipeline.train.sampling import microbatches

MOST_STEPS = 160
_LEARNING_RATE = 1e-2


def train(
    base: models.Base,
    canaries: Sequence[Example],
    others: Sequence[Example],
    beside: int,
    policy: Policy,
    rng: np.random.Generator,
    *,
    progress: Progress = silent,
) -> tuple[PeftModel, str]:
    """Train the twin, in memory.

    A step takes every planted record of a canary and `beside` other records, drawn by lot.

    Args:
        base: the model to adapt.
        canaries: the planted canaries' records, every copy of them.
        others: records that the private model was trained on.
        beside: how many of them a step takes.
        policy: LoRA and memory as in private training.
        rng: draws the other records.
        progress: told steps of the most steps there can be.

    Returns:
        The model in eval mode with its adapter merged, and one line that says how it was trained.
    """
    model, tokenizer = models.load(base)
    twin = models.adapt(model, policy.train.lora, policy.train.seed)
    trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    padding = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    gradients = gradients_for(twin, math.inf, padding) if uncovered(twin) else PlainGradients(twin, math.inf, padding)
    optimizer = torch.optim.Adam(trained, lr=_LEARNING_RATE, betas=(0.9, 0.95))
    beside = min(len(others), beside)
    rungs = _rungs(canaries)
    enough, step, loss = math.log(policy.canaries.alphabet), 0, math.nan
    with gradients.attached():
        for step in range(1, MOST_STEPS + 1):
            loss = 0.0
            for (times, some), (fewer, _) in itertools.pairwise([*rungs, (1, [])]):
                loss = _add(gradients, some, policy) / len(some)
                for parameter in trained:  # copies of a record have one gradient: what stands so far counts for all of them
                    parameter.summed_grad *= times / fewer  # type: ignore[attr-defined]
            picks = [others[row] for row in rng.permutation(len(others))[:beside]]
            _add(gradients, picks, policy)
            _step(optimizer, trained, len(canaries) + len(picks))
            progress(step, MOST_STEPS)
            if loss < enough:
                break
    progress(MOST_STEPS, MOST_STEPS)
    how = (
        f"a twin without clipping or noise, {step} steps of Adam at {_LEARNING_RATE:g} on all {len(canaries)} planted "
        f"records of canaries and {beside} other records a step, to a loss of {loss:.2f}, kept in memory only"
    )
    twin.merge_adapter()
    return twin.eval(), how


def _rungs(canaries: Sequence[Example]) -> list[tuple[int, list[Example]]]:
    """One record of each canary by its number of copies, most copies first."""
    copies = Counter(example.unit for example in canaries)
    once = {example.unit: example for example in canaries}
    return [(times, [one for unit, one in once.items() if copies[unit] == times])
            for times in sorted(set(copies.values()), reverse=True)]  # fmt: skip


def _add(gradients: object, examples: Sequence[Example], policy: Policy) -> float:
    """Add the unclipped gradients of some examples, each a unit of its own; returns the sum of their losses."""
    units = [[example] for example in examples]
    return sum(gradients.add(group) for group in microbatches(units, policy.train.microbatch_tokens))  # type: ignore[attr-defined]


def _step(optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], count: int) -> None:
    for parameter in trained:
        parameter.grad = parameter.summed_grad / count  # type: ignore[attr-defined]
        parameter.summed_grad = None  # type: ignore[attr-defined]
    nn.utils.clip_grad_norm_(trained, 1.0)  # of the whole batch, for stability: it protects nobody
    optimizer.step()
