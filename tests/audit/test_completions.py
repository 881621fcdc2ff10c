"""Answers to prompts against hand-counted truths, and a control whose completions are shuffled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit import completions
from pipeline.audit.completions import Asked, answers, asked, exact_match, measure, rouge_l
from pipeline.audit.scoring import Scores
from pipeline.corpus import Part, Record
from pipeline.train.examples import encode
from tests import tiny


def common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    return int(table[-1, -1])


SENTENCES = st.lists(st.sampled_from(["ba", "ca", "da", "fa", "ga"]), min_size=1, max_size=9)


@given(SENTENCES, SENTENCES)
@settings(max_examples=50, deadline=None)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    shared = common(one, other)
    precision, recall = shared / len(other), shared / len(one)
    expected = 2 * precision * recall / (precision + recall) if shared else 0.0
    assert rouge_l([" ".join(one)], [" ".join(other)])[0] == pytest.approx(expected)


def test_exact_match_forgives_white_space_alone() -> None:
    assert exact_match("Paid  in full.", " Paid in full.\n")
    assert not exact_match("Paid in full.", "Paid in full")
    assert not exact_match("Paid in full.", "paid in full.")


def made(count: int = 40, per_unit: int = 1) -> tuple[list[Asked], list[str]]:
    """Records whose answers are right in one of two cases."""
    some = [Asked(i, f"u{i // per_unit}", (0, 2), tiny.sentence(i, 6)) for i in range(count)]
    return some, [one.completion if one.row % 2 else "other words" for one in some]


def scores(count: int) -> Scores:
    return Scores(tuple(np.full(4, -1.0, np.float32) for _ in range(count)), np.arange(count) % 5)


def measured(some: list[Asked], texts: list[str]) -> dict:
    rng = np.random.default_rng(0)
    found = measure("utility.", some, texts, scores(len(some)), tokens=48, alpha=0.05, rng=rng)
    return {figure.name.removeprefix("utility."): figure for figure in found}


def test_figures_are_shares_of_records_and_of_tokens() -> None:
    some, texts = made()
    figures = measured(some, texts)
    assert figures["exact_match"].value == pytest.approx(0.5)
    assert figures["rouge_l"].value == pytest.approx(0.5)
    assert figures["next_token_accuracy"].value == pytest.approx((np.arange(40) % 5).sum() / 160)
    for figure in figures.values():
        assert 0 < figure.low < figure.value < figure.high < 1
        assert (figure.n, figure.resolvable, figure.floor, figure.ceiling) == (40, True, 0, 1)


def test_none_of_n_is_bounded_as_a_share_and_not_by_a_bootstrap_that_sees_nothing() -> None:
    some, _ = made(40, per_unit=2)
    none, every = measured(some, ["nothing"] * 40), measured(some, [one.completion for one in some])
    assert (none["exact_match"].value, none["exact_match"].low) == (0, 0)
    assert none["exact_match"].high == pytest.approx(1 - 0.025 ** (1 / 20))  # twenty people
    assert every["exact_match"].low == pytest.approx(0.025 ** (1 / 20))


def test_few_records_are_not_resolvable() -> None:
    assert not any(figure.resolvable for figure in measured(*made(19)).values())


def records(count: int) -> list[Record]:
    """A prompt of one word, answered by two that follow from it."""
    words = tiny.words()
    return [
        Record(f"r{i}", f"u{i}", (Part("prompt", f" {words[i]}"), Part("completion", f" {words[i + 100]} {words[i + 200]}")))
        for i in range(count)
    ]


def test_only_records_with_prompts_are_asked_and_up_to_the_number_that_is_wanted() -> None:
    own = [
        *records(5),
        Record("t", "u", (Part("text", "baba"),)),
        Record("c", "u", (Part("user", "baba"), Part("assistant", "x"))),
    ]
    examples = encode(own, tiny.tokenizer(), 64)
    found = asked(own, examples, 4)
    assert [one.row for one in found] == [0, 1, 2, 3]
    assert len(asked(own, examples, 100)) == 5
    word = tiny.tokenizer()(f" {tiny.words()[2]}")["input_ids"]
    assert found[2].prompt == (0, *word)
    assert asked(own, encode(own, tiny.tokenizer(), 2), 100) == []  # nothing of the completion is left


def test_a_model_that_knows_the_answers_gives_them_and_shuffled_ones_score_lower() -> None:
    own = records(24)
    examples = encode(own, tiny.tokenizer(), 64)
    model = tiny.llama().train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    ids = torch.tensor([example.input_ids for example in examples])
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=torch.tensor([example.labels for example in examples])).loss.backward()
        optimizer.step()
    some = asked(own, examples, 100)
    texts = answers(model.eval(), tiny.tokenizer(), some, 8)
    right = measured(some, texts)
    assert right["exact_match"].value > 0.9
    shuffled = measured(some, texts[7:] + texts[:7])
    assert shuffled["exact_match"].value == 0
    assert shuffled["rouge_l"].high < right["rouge_l"].low
    assert measured(some, answers(tiny.llama(), tiny.tokenizer(), some, 8))["exact_match"].value == 0


def test_an_answer_is_as_long_as_it_may_be_and_a_long_prompt_loses_its_beginning() -> None:
    prompt = (0, *range(2, 130))
    told: list[int] = []
    (text,) = answers(tiny.llama(), tiny.tokenizer(), [Asked(0, "u", prompt, "x")], 5, tick=told.append)
    assert told == [5]
    short = Asked(0, "u", (0, *prompt[-(128 - 5 - 1) :]), "x")
    assert completions.answers(tiny.llama(), tiny.tokenizer(), [short], 5) == [text]
