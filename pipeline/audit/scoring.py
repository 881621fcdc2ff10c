"""Log-likelihoods of token sequences under a causal language model, in fp32 and in batches of similar length.

The model is used as decoder and head: hidden states are made for a batch, and logits only for some labelled rows at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.train.examples import IGNORED, pad

Tick = Callable[[int], None]

TOP_K = 40
"""Tokens that the sampling attacker draws from at each place, at temperature 1."""

FIRST, MEAN, SPREAD, SAMPLED = range(4)
"""Columns of `Scores.details`."""

_HEAD_BYTES = 8 << 20
"""Logits held at once: small enough to stay near the cores' caches, which is faster than one large block."""


class Labelled(Protocol):
    """A token sequence with labels: `labels[i]` is `input_ids[i]` where it is scored and -100 where it is not."""

    @property
    def input_ids(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[int]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Plain token ids, all but the first of which are scored; `unscored` more leave out a context."""

    input_ids: tuple[int, ...]
    unscored: int = 0

    @property
    def labels(self) -> tuple[int, ...]:
        """The ids, with -100 over the context."""
        return (IGNORED,) * self.unscored + self.input_ids[self.unscored :]


@dataclass(frozen=True)
class Scores:
    """Scores of n sequences, in the order in which they were given.

    `log_probs[i]` holds the natural log-probability of each labelled token of sequence i (fp32 [tokens of i]), `hits[i]`
    the number of them that the model ranks first. `details[i]`, where asked for, holds for each of these tokens (fp32
    [tokens of i, 4], columns FIRST, MEAN, SPREAD, SAMPLED): 1 if it is ranked first; mean and standard deviation of the
    log-probability over the vocabulary, under the model's own distribution; its log-probability where only the TOP_K most
    likely tokens are drawn from, −∞ if it is none of them.
    """

    log_probs: tuple[np.ndarray, ...]
    hits: np.ndarray
    details: tuple[np.ndarray, ...] = ()

    @functools.cached_property
    def totals(self) -> np.ndarray:
        """Log-likelihood of each sequence in nats, float64 [n]."""
        return np.array([values.sum(dtype=np.float64) for values in self.log_probs])

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """Labelled tokens of each sequence, int64 [n]."""
        return np.array([len(values) for values in self.log_probs], np.int64)

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Log-likelihood of each sequence per labelled token, float64 [n]; 0 where nothing is labelled."""
        return self.totals / np.maximum(self.tokens, 1)

    def pick(self, rows: Sequence[int] | np.ndarray) -> Scores:
        """The scores of some sequences."""
        details = tuple(self.details[row] for row in rows) if self.details else ()
        return Scores(tuple(self.log_probs[row] for row in rows), self.hits[np.asarray(rows, np.int64)], details)

    def joined(self, other: Scores) -> Scores:
        """These scores, then the others."""
        hits = np.concatenate([self.hits, other.hits])
        return Scores(self.log_probs + other.log_probs, hits, self.details + other.details)


def ignore(tokens: int) -> None:
    """The tick of a caller that does not watch."""


def score(
    model: nn.Module, sequences: Sequence[Labelled], *, budget: int = 2048, detailed: bool = False, tick: Tick = ignore
) -> Scores:
    """Score labelled sequences.

    Args:
        model: a Hugging Face causal LM, with or without a peft adapter, in eval mode.
        sequences: token ids and labels.
        budget: padded tokens in a batch; does not change the result.
        detailed: fill in `Scores.details` too.
        tick: called after each batch with the number of tokens in it.

    Returns:
        Scores in the order of `sequences`.

    Raises:
        ModelError: the model's logits are not a head applied to its last hidden states.
    """
    decoder, head = parts(model)
    device = next(decoder.parameters()).device
    log_probs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
    details: list[np.ndarray] = [np.zeros((0, 4), np.float32)] * len(sequences) if detailed else []
    hits = np.zeros(len(sequences), np.int64)

    @torch.inference_mode()
    def run(rows: list[int]) -> tuple[list[int], list[torch.Tensor]]:
        ids, labels = pad([sequences[row] for row in rows], 0)  # type: ignore[arg-type]  # reads ids and labels only
        hidden = decoder(input_ids=ids.to(device), use_cache=False).last_hidden_state[:, :-1]
        targets = labels[:, 1:].to(device)
        scored = targets != IGNORED
        found = read(head, hidden[scored], targets[scored], detailed=detailed)
        return rows, list(found.split(scored.sum(1).tolist()))

    with workers(device) as pool:
        for rows, found in pool.map(run, batches([len(sequence.input_ids) for sequence in sequences], budget)):
            for row, columns in zip(rows, found, strict=True):
                log_probs[row], hits[row] = columns[:, 0].numpy(), int(columns[:, 1].sum())
                if detailed:
                    details[row] = columns[:, 1:].numpy()
            tick(sum(len(sequences[row].input_ids) for row in rows))
    return Scores(tuple(log_probs), hits, tuple(details))


@contextmanager
def workers(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool with one thread a core, each of which runs whole batches on its own core (one thread on a GPU).

    Cores that share one operation wait for each other after every layer, which on a machine that does other work too is ten
    times slower than this; and what one core computes does not depend on how many there are.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores if device.type == "cpu" else 1) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of similar length, longest first, whose padded size stays within `budget` tokens (or one sequence)."""
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def parts(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Decoder (ids to hidden states) and head (hidden states to logits) of a causal LM, adapters included.

    Raises:
        ModelError: the model does something else to its logits, such as capping or scaling them.
    """
    whole: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    decoder, head = whole.base_model, whole.get_output_embeddings()
    with torch.inference_mode():
        probe = torch.arange(4, device=next(decoder.parameters()).device)[None]
        logits = whole(input_ids=probe, use_cache=False).logits
        ours = head(decoder(input_ids=probe, use_cache=False).last_hidden_state)
    if not torch.allclose(logits, ours, atol=1e-3, rtol=1e-4, equal_nan=True):
        kind = type(whole).__name__
        raise ModelError(
            f"Models of the kind {kind} cannot be audited: their logits are not a plain head; use another base model."
        )
    return decoder, head


def head_rows(head: nn.Module) -> int:
    """Rows of logits that fit the memory set aside for them."""
    vocabulary = int(head.weight.shape[0])  # type: ignore[union-attr,index]
    return max(16, _HEAD_BYTES // (4 * vocabulary))


def read(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, *, detailed: bool = False) -> torch.Tensor:
    """What the model says of each target, read off the hidden states before it, some rows of logits at a time.

    Args:
        head: hidden states to logits.
        hidden: hidden states, [N, d].
        targets: token ids, [N].
        detailed: compute MEAN, SPREAD and SAMPLED too.

    Returns:
        fp32 [N, 2] on the CPU: log-probability, and whether the target is ranked first; [N, 5] with the details.
    """
    found = [hidden.new_zeros(0, 5 if detailed else 2)]
    rows = head_rows(head)
    for some, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = head(some).float()
        chosen = logits.gather(1, wanted[:, None])[:, 0]
        total = logits.logsumexp(1)
        columns = [chosen - total, (logits.argmax(1) == wanted).float()]
        if detailed:
            columns += [*moments(logits - total[:, None]), _sampled(logits, chosen)]
        found.append(torch.stack(columns, 1))
    return torch.cat(found).cpu()


def moments(log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the log-probability of a token drawn from a distribution: [N, V] to two [N].

    The second pass takes squares of differences, since the difference of squares would cancel where a model is sure.
    """
    probs = log_probs.exp()
    mean = (probs * log_probs).sum(1)
    spread = (probs * (log_probs - mean[:, None]).square()).sum(1).sqrt()
    return mean, spread


def _sampled(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Log-probability [N] of tokens with logits `chosen` [N] where the TOP_K most likely ones are drawn from."""
    kept = logits.topk(min(TOP_K, logits.shape[1]), dim=1).values
    return (chosen - kept.logsumexp(1)).masked_fill(chosen < kept[:, -1], -torch.inf)
