"""Records as token sequences with the labels that are learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

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
    end = cast(int, tokenizer.eos_token_id)
    ids.append(end)
    learned.append(learned[-1] if learned else True)
    room = max_tokens - 1
    over = len(ids) - room
    if over > 0:
        unlearned = next((i for i, flag in enumerate(learned) if flag), len(learned))
        head = min(over, max(0, unlearned - 1))
        ids, learned = ids[head:][:room], learned[head:][:room]
    start = end if tokenizer.bos_token_id is None else cast(int, tokenizer.bos_token_id)
    labels = [token if flag else IGNORED for token, flag in zip(ids, learned, strict=True)]
    return Example(record.id, record.unit, (start, *ids), (IGNORED, *labels), max(0, over))


def longest(examples: Iterable[Example]) -> int:
    """Tokens of the longest record."""
    return max(len(example.input_ids) for example in examples)


def pad(examples: Sequence[Example], padding: int, rows: int = 0, width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded `input_ids` and `labels`, both int64 [B, T]; padded labels are -100.

    With causal attention no token looks to its right, so right padding needs no mask. B is at least `rows` (the last ones then
    hold padding only), T at least `width`.
    """
    rows = max(rows, len(examples))
    width = max(width, longest(examples))
    ids = torch.full((rows, width), padding)
    labels = torch.full((rows, width), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids, labels


@dataclass(frozen=True, slots=True)
class Even:
    """Shapes of micro-batches that depend on a record alone, never on what else was drawn.

    The rounding of a product depends on the shapes that it was computed in. In float32 that moves a sum by a millionth of the
    clipping norm; in bfloat16 by almost a hundredth, which noise that is calibrated for real numbers does not cover. So each
    record is padded to a width that its own length gives, and each micro-batch to as many rows as `tokens` hold.
    """

    longest: int
    tokens: int

    def width(self, length: int) -> int:
        """The least of 32, 48, 64, 96, 128, 192, … that holds `length` tokens, at most `longest`.

        >>> [Even(100, 4096).width(length) for length in (5, 32, 33, 65, 97)]
        [32, 32, 48, 96, 100]
        """
        power = 32
        while power < length:
            power *= 2
        width = power * 3 // 4 if power > 32 and length <= power * 3 // 4 else power
        return min(width, self.longest)

    def rows(self, width: int) -> int:
        """Rows of a micro-batch of that width."""
        return max(1, self.tokens // width)
