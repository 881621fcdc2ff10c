"""The batched recogniser against spaCy's own: the same entities, text for text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.example import generate
from pipeline.scrub import _greedy, _models


@pytest.fixture(scope="module")
def nlp() -> Any:
    return _models._bundled()


@pytest.fixture(scope="module")
def greedy(nlp: Any) -> _greedy.Greedy:
    return _greedy.Greedy(nlp)


def theirs(nlp: Any, texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
    return [[(one.start_char, one.end_char, one.label_) for one in doc.ents] for doc in nlp.pipe(texts)]


def ours(greedy: _greedy.Greedy, texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
    return [sorted(found) for found in greedy.find(texts)]


def test_the_entities_are_spacys_own(nlp: Any, greedy: _greedy.Greedy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_greedy, "TOKENS", 700)  # several batches, and texts longer than one
    texts = [line["text"] for line, _ in zip(generate(), range(150), strict=False)]
    texts += ["", " ", "Anna", "Rome", "\n \n", " ".join(texts[:20])]
    texts += ["Anna Smith of Acme Corp met Bob in New York City on Monday."]
    expected = theirs(nlp, texts)
    assert ours(greedy, texts) == expected
    assert {label for found in expected for *_, label in found} >= {"PERSON", "ORG", "GPE", "DATE"}


_WORDS = st.sampled_from(
    "Anna Smith of the New York Times on Monday , . \n   $ 5 million Dr. İ 👩 Bank's 12/3/64 ( ) Paris-based".split(" ")
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.lists(_WORDS, max_size=25).map(" ".join), st.text(max_size=40)), max_size=6))
def test_any_texts_give_spacys_entities(nlp: Any, greedy: _greedy.Greedy, texts: list[str]) -> None:
    assert ours(greedy, texts) == theirs(nlp, texts)


def test_another_kind_of_model_is_refused() -> None:
    import spacy

    blank = spacy.blank("en")
    blank.add_pipe("ner", config={"model": {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner",
                    "extra_state_tokens": True, "hidden_width": 8, "maxout_pieces": 2, "use_upper": True,
                    "tok2vec": {"@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 8, "depth": 1,
                                "embed_size": 10, "window_size": 1, "maxout_pieces": 2, "subword_features": True}}}
                   ).add_label("PERSON")  # fmt: skip
    blank.initialize()
    with pytest.raises(ValueError, match="three features"):
        _greedy.Greedy(blank)
