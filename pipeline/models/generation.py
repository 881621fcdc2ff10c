"""Text from a model: greedy, beam search or sampling; one prompt, many, as a stream, or in answer to a chat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Queue
from threading import Thread
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer

from pipeline.errors import ModelError, UsageError
from pipeline.folders import Value

Model = PreTrainedModel | PeftModel
Method = Literal["greedy", "sample", "beam"]


class Decoding(Value):
    """How the next token is chosen, and when to stop.

    `temperature`, `top_k` (0: all), `top_p` and `seed` serve sampling; `beams` beam search; `repetition_penalty` (1: none)
    all of them. Text ends before the first of the `stop` strings, which is left out.
    """

    method: Method = "greedy"
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.8, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    beams: int = Field(default=4, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """The same for `transformers`."""
        ways: dict[str, dict[str, Any]] = {
            "greedy": {"do_sample": False, "num_beams": 1},
            "sample": {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p},
            "beam": {"do_sample": False, "num_beams": self.beams, "early_stopping": True},
        }
        return {
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
            **ways[self.method],
            **({"stop_strings": list(self.stop)} if self.stop else {}),
        }


def generate(model: Model, tokenizer: PreTrainedTokenizerBase, prompt: str, decoding: Decoding = Decoding()) -> str:  # noqa: B008 - frozen
    """Continue one prompt; returns the new text only. An empty prompt starts from the beginning of a text.

    Raises:
        UsageError: the prompt leaves no room in the model's context.
    """
    return generate_all(model, tokenizer, [prompt], decoding)[0]


@torch.no_grad()
def generate_all(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    *,
    batch: int = 16,
) -> list[str]:
    """Continue many prompts, `batch` at a time, padded on the left; returns the new text of each, in order.

    Raises:
        UsageError: a prompt leaves no room in the model's context.
    """
    return continue_all(model, tokenizer, _rows(tokenizer, prompts), decoding, batch=batch)


@torch.no_grad()
def continue_all(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    *,
    batch: int = 16,
) -> list[str]:
    """`generate_all` for prompts that are tokens already, the one that begins a text first."""
    made: list[str] = []
    with torch.random.fork_rng():
        if decoding.seed is not None:
            torch.manual_seed(decoding.seed)
        for start in range(0, len(rows), batch):
            inputs = _aligned(model, tokenizer, rows[start : start + batch], decoding)
            new = _continued(model, tokenizer, inputs, decoding)
            texts = tokenizer.batch_decode(cast(Any, new), skip_special_tokens=True)
            made += [_until(cast(str, text), decoding.stop) for text in texts]
    return made


def _continued(
    model: Model, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, torch.Tensor], decoding: Decoding
) -> list[torch.Tensor]:
    """The new tokens of each row. Beam search can lose the greedy text although it is likelier: then that is kept."""
    start = inputs["input_ids"].shape[1]
    output = cast(Any, model).generate(**inputs, **_common(tokenizer, decoding))[:, start:]
    if decoding.method != "beam":
        return list(output)
    plain = _common(tokenizer, decoding.model_copy(update={"method": "greedy"}))
    greedy = cast(Any, model).generate(**inputs, **plain)[:, start:]
    better = _scores(model, tokenizer, inputs, output) >= _scores(model, tokenizer, inputs, greedy)
    return [beam if keep else other for beam, other, keep in zip(output, greedy, better.tolist(), strict=True)]


def _scores(
    model: Model, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, torch.Tensor], new: torch.Tensor
) -> torch.Tensor:
    """Mean log-likelihood of the new tokens [B, N] of each row up to and with the end of the text: beam search's own score."""
    ended = torch.eq(new, cast(int, tokenizer.eos_token_id)).long()
    counted = (ended.cumsum(1) - ended) == 0
    mask = torch.cat([inputs["attention_mask"], counted.long()], 1)
    logits = cast(Any, model)(
        input_ids=torch.cat([inputs["input_ids"], new], 1),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
    ).logits[:, -new.shape[1] - 1 : -1]
    own = logits.float().log_softmax(-1).gather(2, new[:, :, None])[:, :, 0]
    return (own * counted).sum(1) / counted.sum(1)


def stream(model: Model, tokenizer: PreTrainedTokenizerBase, prompt: str, decoding: Decoding = Decoding()) -> Iterator[str]:  # noqa: B008 - frozen
    """Continue one prompt, piece by piece; the pieces join to what `generate` returns.

    Raises:
        UsageError: beam search is asked for, which settles on its text only at the end; or the prompt leaves no room.
    """
    if decoding.method == "beam":
        raise UsageError("Beam search has no text before it ends: leave --stream out, or decode with greedy or sample.")
    inputs = _padded(model, tokenizer, [prompt], decoding)
    streamer = TextIteratorStreamer(cast(Any, tokenizer), skip_prompt=True, skip_special_tokens=True)
    failure: Queue[BaseException] = Queue()

    def work() -> None:
        try:
            with torch.no_grad(), torch.random.fork_rng():
                if decoding.seed is not None:
                    torch.manual_seed(decoding.seed)
                cast(Any, model).generate(**inputs, **_common(tokenizer, decoding), streamer=streamer)
        except BaseException as error:
            failure.put(error)
            streamer.end()

    thread = Thread(target=work, daemon=True)
    thread.start()
    yield from _before(iter(streamer), decoding.stop)
    thread.join()
    if not failure.empty():
        raise failure.get()


def chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    """The prompt that a conversation of {"role", "content"} is in the model's chat template, open for the answer.

    Raises:
        ModelError: the model has no chat template.
    """
    if not tokenizer.chat_template:
        raise ModelError("This model has no chat template: give a prompt, or a model that was made for conversation.")
    return cast(str, tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def _rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Prompts as tokens, after the one that begins a text."""
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    rows = cast(list[list[int]], [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts])
    return [row if row[:1] == [bos] else [cast(int, bos), *row] for row in rows]  # a chat template begins with its own


def _padded(
    model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], decoding: Decoding
) -> dict[str, torch.Tensor]:
    return _aligned(model, tokenizer, _rows(tokenizer, prompts), decoding)


def _aligned(
    model: Model, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], decoding: Decoding
) -> dict[str, torch.Tensor]:
    """Ids and mask [B, T], each prompt at the right end."""
    longest = max(map(len, rows))
    config = cast(Any, model).config
    context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if context is not None and longest + decoding.max_new_tokens > context:
        raise UsageError(
            f"A prompt of {longest} tokens and {decoding.max_new_tokens} new ones do not fit the model's context of {context}: "
            "shorten the prompt, or lower --max-new-tokens."
        )
    ids = torch.full((len(rows), longest), cast(int, tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.tensor(row)
        mask[place, longest - len(row) :] = 1
    device = cast(Any, model).device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _common(tokenizer: PreTrainedTokenizerBase, decoding: Decoding) -> dict[str, Any]:
    return decoding.options() | {"pad_token_id": tokenizer.pad_token_id} | ({"tokenizer": tokenizer} if decoding.stop else {})


def _until(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for at in (text.find(one) for one in stop) if at >= 0), default=len(text))]


def _before(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces of a text before its first stop string; what could be the start of one is held back until it is not."""
    held = ""
    for piece in pieces:
        held += piece
        if (end := len(_until(held, stop))) < len(held):
            yield held[:end]
            held = ""
            for _ in pieces:  # let the generation end
                pass
            return
        keep = max((n for one in stop for n in range(1, len(one)) if held.endswith(one[:n])), default=0)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            yield ready
    if held:
        yield held
