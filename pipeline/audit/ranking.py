"""Ranks of secrets among the candidates that they could have been.

Where every candidate is one token and the model takes an ancestor mask, the rank is exact among all of them (`tree`). Where a
tokenizer or a model breaks that, the secret is ranked among itself and references drawn from the same candidates: a rank in
that smaller space has the same law under chance, so that every exposure and p-value holds, and only the resolution is less.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from pipeline.audit import exposure
from pipeline.audit.scoring import Sequenced, Tick, ignore, score, workers
from pipeline.audit.tree import CandidateTree
from pipeline.canaries import Canary, Space

TOLERANCE = 1e-3
"""Nats by which the tree may differ from plain scoring."""

_REFERENCES = 999
_MOST_SAMPLED = 8
_CHECKS = 32


@dataclass(frozen=True)
class Ranked:
    """Ranks of planted secrets and of controls, which were never planted, in a space of `space_size` places.

    `copies` gives the copies of each planted secret. `method` says how they were ranked, and why not exactly where it was
    not. `error` is the largest difference in nats between tree and plain scoring, over `checked` candidates.
    """

    planted: tuple[int, ...]
    copies: tuple[int, ...]
    control: tuple[int, ...]
    space_size: int
    method: str
    error: float
    checked: int
    seconds: float
    exact: bool = field(default=True)


def tokens(space: Space) -> int:
    """Tokens that ranking one secret runs through the model, its prefix aside."""
    if space.alphabet is None:
        return (_REFERENCES + 1) * len(space.secret([0] * len(space.slots)))
    return sum(math.prod(map(len, space.alphabet[:depth])) for depth in range(1, len(space.alphabet)))


def rank(
    model: nn.Module,
    space: Space,
    planted: Sequence[Canary],
    control: Sequence[Canary],
    start: int,
    rng: np.random.Generator,
    *,
    tick: Tick = ignore,
) -> Ranked:
    """Rank each secret after its own prefix.

    Args:
        model: the tuned model, in eval mode.
        space: the candidates.
        planted: canaries that were trained on.
        control: canaries that were not.
        start: token id that begins every sequence.
        rng: picks the candidates that are scored plainly, and the references.
        tick: called with 1 after each canary.
    """
    began = time.monotonic()
    every = [*planted, *control]
    why = "" if space.alphabet else "the tokenizer has too few words of one token"
    error, checked = 0.0, 0
    if not why and every:
        error, checked, why = _tried(model, space, every[:2], start, rng)
    if why:
        planted, control = _some(planted), list(control)[:_MOST_SAMPLED]
        ranks = [_sampled(model, space, canary, start, rng, tick) for canary in (*planted, *control)]
        size = _REFERENCES + 1
        method = f"rank among {_REFERENCES:,} candidates drawn at random and itself, since {why} (Phipson, Smyth 2010)"
    else:
        ranks, size = _exact(model, space, every, start, tick), space.size
        method = f"exact rank among {size:,} candidates by tree scoring, ties against the secret (Carlini et al. 2019)"
    return Ranked(
        planted=tuple(ranks[: len(planted)]),
        copies=tuple(canary.copies for canary in planted),
        control=tuple(ranks[len(planted) :]),
        space_size=size,
        method=method,
        error=error,
        checked=checked,
        seconds=time.monotonic() - began,
        exact=not why,
    )


def _tried(
    model: nn.Module, space: Space, some: Sequence[Canary], start: int, rng: np.random.Generator
) -> tuple[float, int, str]:
    """Largest difference between tree and plain scoring, over how many candidates, and why the tree cannot be used."""
    assert space.alphabet is not None
    tree, shape = CandidateTree(model, space.alphabet), [len(slot) for slot in space.alphabet]
    errors = []
    for canary in some:
        context = (start, *canary.prefix)
        try:
            table = tree.scores(context)
        except (
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
        ) as error:  # a model that knows no such mask
            return math.inf, 0, f"the model takes no ancestor mask ({type(error).__name__})"
        errors.append(tree.check(context, rng.integers(0, shape, (_CHECKS, len(shape))).tolist(), table))
    error, checked = float(np.max(errors)), _CHECKS * len(errors)
    heeded = not error > TOLERANCE  # a model that gives no numbers heeds no mask either; its ranks are the last ones
    return error, checked, "" if heeded else "the model does not heed an ancestor mask"


def _exact(model: nn.Module, space: Space, every: Sequence[Canary], start: int, tick: Tick) -> list[int]:
    assert space.alphabet is not None
    tree = CandidateTree(model, space.alphabet)
    ranks = []
    with workers(tree.device) as pool:
        for found in pool.map(lambda canary: exposure.rank_of(tree.scores((start, *canary.prefix)), canary.choice), every):
            ranks.append(found)
            tick(1)
    return ranks


def _sampled(model: nn.Module, space: Space, canary: Canary, start: int, rng: np.random.Generator, tick: Tick) -> int:
    picks = np.stack([rng.integers(0, len(slot), _REFERENCES) for slot in space.slots], axis=1).tolist()
    context = (start, *canary.prefix)
    secrets = [canary.secret, *(space.secret(pick) for pick in picks)]
    totals = score(model, [Sequenced((*context, *secret), len(context)) for secret in secrets]).totals
    tick(1)
    return exposure.rank_of(totals, (0,))


def _some(planted: Sequence[Canary]) -> list[Canary]:
    """At most eight at each number of copies: a reference costs a sequence of its own."""
    seen: Counter[int] = Counter()
    kept = []
    for canary in planted:
        seen[canary.copies] += 1
        if seen[canary.copies] <= _MOST_SAMPLED:
            kept.append(canary)
    return kept
