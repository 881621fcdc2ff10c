"""Free sampling: texts that the model writes on its own, many at a time, each step from the keys and values kept so far."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.audit.scoring import TOP_K, Tick, ignore, parts, workers

_BATCH = 64


def sample(
    model: nn.Module, start: int, end: int, count: int, length: int, rng: np.random.Generator, *, tick: Tick = ignore
) -> list[list[int]]:
    """Draw texts from the model at temperature 1, each token from the TOP_K most likely ones.

    Args:
        model: a Hugging Face causal LM, in eval mode.
        start: token id that begins every text.
        end: token id that ends one.
        count: how many texts.
        length: tokens of each at most.
        rng: seeds the draws; the same generator gives the same texts, however many cores there are.
        tick: called after each batch with the number of tokens asked for.

    Returns:
        Token ids of each text, without `start` and `end`.
    """
    decoder, head = parts(model)
    device = next(decoder.parameters()).device

    @torch.inference_mode()
    def batch(job: tuple[int, int]) -> list[list[int]]:
        rows, seed = job
        generator = torch.Generator(device).manual_seed(seed)
        ids = torch.full((rows, 1), start, device=device)
        ended = torch.zeros(rows, dtype=torch.bool, device=device)
        cache, drawn = None, []
        for _ in range(length):
            step = decoder(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            kept = head(step.last_hidden_state[:, -1]).float().topk(min(TOP_K, head.weight.shape[0]), dim=1)  # type: ignore[union-attr,index]
            picks = torch.multinomial(kept.values.softmax(1), 1, generator=generator)
            ids = kept.indices.gather(1, picks)
            drawn.append(ids)
            ended |= ids[:, 0] == end
            if ended.all():
                break
        return [row[: row.index(end)] if end in row else row for row in torch.cat(drawn, 1).tolist()] if drawn else [[]] * rows

    sizes = [min(_BATCH, count - first) for first in range(0, count, _BATCH)]
    seeds = rng.integers(0, 2**63 - 1, len(sizes)).tolist()
    texts = []
    with workers(device) as pool:
        for size, found in zip(sizes, pool.map(batch, zip(sizes, seeds, strict=True)), strict=True):
            texts += found
            tick(size * length)
    return texts
