"""Records as tokens: what is learned, what is only read, what is cut."""

from __future__ import annotations

import pytest

from pipeline.corpus import Part, Record
from pipeline.train.examples import IGNORED, encode, pad
from tests import tiny

END = 0


def record(*parts: tuple[str, str]) -> Record:
    return Record("r1", "u1", tuple(Part(role, text) for role, text in parts))


def ids(text: str) -> list[int]:
    return tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_text_is_learned_whole_between_start_and_end() -> None:
    text = " " + tiny.sentence(1, 6)
    (example,) = encode([record(("text", text))], tiny.tokenizer(), 64)
    assert example.input_ids == (END, *ids(text), END)
    assert example.labels == (IGNORED, *ids(text), END)
    assert example.cut == 0


def test_a_prompt_is_read_and_its_completion_learned() -> None:
    (example,) = encode([record(("prompt", " " + tiny.sentence(1, 4)), ("completion", " baba"))], tiny.tokenizer(), 64)
    assert example.labels[-2:] == (*ids(" baba"), END)
    assert set(example.labels[:-2]) == {IGNORED}


def test_only_the_assistants_turns_of_a_chat_are_learned() -> None:
    chat = record(("user", " babe"), ("assistant", " babi"), ("user", " babo"), ("assistant", " babu"))
    (example,) = encode([chat], tiny.tokenizer(), 128)
    learned = tiny.tokenizer().decode([label for label in example.labels if label != IGNORED])
    assert learned == " babi\n babu\n<|endoftext|>"


@pytest.mark.parametrize("most", [8, 9, 20])
def test_a_long_text_is_cut_at_its_end_and_counted(most: int) -> None:
    text = " " + tiny.sentence(1, 30)
    (example,) = encode([record(("text", text))], tiny.tokenizer(), most)
    assert len(example.input_ids) == most
    assert example.input_ids == (END, *ids(text)[: most - 1])
    assert example.cut == 30 + 1 - (most - 1)


def test_a_long_prompt_loses_its_beginning_so_that_the_completion_stays() -> None:
    prompt, completion = " " + tiny.sentence(1, 40), " " + tiny.sentence(2, 5)
    (example,) = encode([record(("prompt", prompt), ("completion", completion))], tiny.tokenizer(), 16)
    assert example.labels[-6:] == (*ids(completion), END)
    assert len(example.input_ids) == 16


def test_padding_is_on_the_right_and_never_learned() -> None:
    examples = encode([record(("text", " baba")), record(("text", " " + tiny.sentence(3, 4)))], tiny.tokenizer(), 64)
    tokens, labels = pad(examples, 1)
    assert tokens.shape == labels.shape == (2, 6)
    assert tokens[0, 3:].tolist() == [1, 1, 1]
    assert labels[0, 3:].tolist() == [IGNORED] * 3
