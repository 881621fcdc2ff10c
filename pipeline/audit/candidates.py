"""Log-likelihood of many candidates of any length after one context, in one pass.

The candidates form a trie. Its nodes stand behind the context in one sequence: an ancestor mask lets each see the context,
the nodes above it and itself, and position ids give it the place that it has in its candidate. A last token is never run: its
probability is read off the node before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pipeline.audit.scoring import TOP_K, Sequenced, head_rows, score

Tokens = tuple[int, ...]


class Packed:
    """A context and the trie of its candidates, ready to run. `tokens` is the length of the sequence that is run."""

    def __init__(self, context: Tokens, candidates: Sequence[Tokens]) -> None:
        self.context, self.candidates = context, candidates
        nodes: dict[Tokens, int] = {(): len(context) - 1}
        self._parents: list[int] = []
        self._ids, self._depths = list(context), list(range(len(context)))
        for candidate in candidates:
            for depth in range(1, len(candidate)):
                if candidate[:depth] not in nodes:
                    nodes[candidate[:depth]] = len(self._ids)
                    self._parents.append(nodes[candidate[: depth - 1]])
                    self._ids.append(candidate[depth - 1])
                    self._depths.append(len(context) - 1 + depth)
        pairs = [(nodes[c[:depth]], c[depth], row) for row, c in enumerate(candidates) for depth in range(len(c))]
        self._at, self._wanted, self._row = np.array(sorted(pairs), np.int64).T
        self.tokens = len(self._ids)

    def mask(self) -> torch.Tensor:
        """Additive ancestor mask, [1, 1, tokens, tokens]."""
        known, size = len(self.context), self.tokens
        sees = torch.eye(size, dtype=torch.bool)
        sees[:known, :known].tril_().logical_or_(torch.ones(known, known, dtype=torch.bool).tril())
        for node, parent in enumerate(self._parents, known):
            sees[node] |= sees[parent]
        return torch.zeros(size, size).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]

    @torch.inference_mode()
    def run(self, decoder: nn.Module, head: nn.Module, barred: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score the candidates.

        Args:
            decoder: ids to hidden states.
            head: hidden states to logits.
            barred: a token that may not come right after the context; the others share its probability.

        Returns:
            Log-likelihood of each candidate, float64 [C]; and, of the tokens of the first candidate, whether each is ranked
            first and its log-probability where only the TOP_K most likely are drawn from, float64 [tokens, 2].
        """
        device = next(decoder.parameters()).device
        hidden = decoder(
            input_ids=torch.tensor([self._ids], device=device),
            attention_mask=self.mask().to(device),
            position_ids=torch.tensor([self._depths], device=device),
            use_cache=False,
        ).last_hidden_state[0]
        totals, steps = np.zeros(len(self.candidates)), []
        nodes = np.unique(self._at)
        for some in np.split(nodes, range(head_rows(head), len(nodes), head_rows(head))):
            logits = head(hidden[torch.from_numpy(some).to(device)]).float()
            if barred is not None and some[0] == len(self.context) - 1:
                logits[0, barred] = -torch.inf
            here = np.flatnonzero((self._at >= some[0]) & (self._at <= some[-1]))
            rows = torch.from_numpy(np.searchsorted(some, self._at[here])).to(device)
            chosen = logits[rows, torch.from_numpy(self._wanted[here]).to(device)]
            values = (chosen - logits.logsumexp(1)[rows]).double().cpu().numpy()
            np.add.at(totals, self._row[here], values)
            first = torch.from_numpy(np.flatnonzero(self._row[here] == 0)).to(device)
            steps.append(_details(logits[rows[first]], chosen[first]))
        return totals, np.concatenate(steps)

    def check(self, model: nn.Module, totals: np.ndarray) -> float:
        """Largest difference in nats between `totals`, got with nothing barred, and plain scoring one sequence each."""
        plain = score(model, [Sequenced((*self.context, *c), len(self.context)) for c in self.candidates])
        return float(np.abs(plain.totals - totals).max())


def _details(logits: torch.Tensor, chosen: torch.Tensor) -> np.ndarray:
    kept = logits.topk(min(TOP_K, logits.shape[1]), dim=1).values
    sampled = (chosen - kept.logsumexp(1)).masked_fill(chosen < kept[:, -1], -torch.inf)
    return torch.stack([(chosen >= kept[:, 0]).float(), sampled], 1).double().cpu().numpy()
