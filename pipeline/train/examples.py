"""Records as token sequences with the labels that are learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.corpus import Part, Record

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One record for the model.

    `input_ids` are its tokens; `labels` the same tokens where they are learned and -100 where they are not (a prompt, the
    first token). As in Hugging Face models, `labels[i]` is predicted from the tokens before i. `cut` counts tokens left out.
    """

    id: str
    unit: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int = 0


def encode(records: Iterable[Record], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Example]:
    """Tokenise records to at most `max_tokens` tokens each: start token, parts, end token.

    Text, completions and assistant turns are learned; prompts and other turns are only read. A record that is too long
    loses the beginning of its prompt first, then its end.
    """
    records = list(records)
    pieces = [piece for record in records for piece in _pieces(record)]
    encoded = iter(tokenizer([text for text, _ in pieces], add_special_tokens=False)["input_ids"]) if pieces else iter(())
    return [_example(record, [(next(encoded), learned) for _, learned in _pieces(record)], tokenizer, max_tokens)
            for record in records]  # fmt: skip


def _pieces(record: Record) -> list[tuple[str, bool]]:
    """The record as (text, learned) pieces; a chat is written out with its roles."""
    if len(record.parts) == 1:
        return [(record.parts[0].text, True)]
    if {part.role for part in record.parts} <= {"prompt", "completion"}:
        return [(part.text, part.role == "completion") for part in record.parts]
    pieces = []
    for part in record.parts:
        pieces += [(_heading(part), False), (f"{part.text}\n", part.role == "assistant")]
    return pieces


def _heading(part: Part) -> str:
    return f"{part.role}: "


def _example(
    record: Record, pieces: Sequence[tuple[list[int], bool]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Example:
    ids = [token for tokens, _ in pieces for token in tokens]
    learned = [flag for tokens, flag in pieces for _ in tokens]
    ids.append(tokenizer.eos_token_id)
    learned.append(learned[-1] if learned else True)
    room = max_tokens - 1
    over = len(ids) - room
    if over > 0:
        unlearned = next((i for i, flag in enumerate(learned) if flag), len(learned))
        head = min(over, max(0, unlearned - 1))
        ids, learned = ids[head:][:room], learned[head:][:room]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    labels = [token if flag else IGNORED for token, flag in zip(ids, learned, strict=True)]
    return Example(record.id, record.unit, (start, *ids), (IGNORED, *labels), max(0, over))


def pad(examples: Sequence[Example], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded `input_ids` and `labels`, both int64 [B, T]; padded labels are -100.

    With causal attention no token looks to its right, so right padding needs no mask.
    """
    width = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), width), padding)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids, labels
