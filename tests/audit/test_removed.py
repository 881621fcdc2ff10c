"""Removed values: where they stood, whose they are, and which stand in the training text still."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit import removed
from pipeline.audit.removed import Phrases, Removed, gather, words_of
from pipeline.corpus import Part, Record, save_records
from pipeline.errors import IntegrityError

MARKED = re.compile(r"\[([^\]|]*)(?:\|([A-Z_]+))?\]")


def corpus(folder: Path, texts: dict[str, str], put: str = "<{}>") -> tuple[Path, Path]:
    """Originals and a scrubbed folder from texts in which [Ann Lee] or [Rome|LOCATION] was removed; `·` parts a record."""
    originals, scrubbed, lines = [], [], []
    for name, text in texts.items():
        unit = name.split("/")[0]
        parts, new, spans = [], [], []
        for index, marked in enumerate(text.split("·")):
            plain = ""
            end = 0
            for match in MARKED.finditer(marked):
                plain += marked[end : match.start()]
                entity = match[2] or "PERSON"
                spans.append(
                    {"start": len(plain), "end": len(plain) + len(match[1]), "entity": entity, "score": 1, "part": index}
                )
                plain += match[1]
                end = match.end()
            parts.append(Part("text", plain + marked[end:]))
            new.append(Part("text", MARKED.sub(lambda match: put.format(match[2] or "PERSON"), marked)))
        originals.append(Record(name, unit, tuple(parts)))
        scrubbed.append(Record(name, unit, tuple(new)))
        lines.append(json.dumps({"id": name, "spans": spans}) + "\n")
    (folder / "scrubbed").mkdir(parents=True, exist_ok=True)
    save_records(folder / "originals.jsonl", originals)
    save_records(folder / "scrubbed" / "records.jsonl", scrubbed)
    (folder / "scrubbed" / "spans.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "originals.jsonl", folder / "scrubbed"


def gathered(folder: Path, texts: dict[str, str], held_out: str = "", *, by_person: bool = False, put: str = "<{}>") -> Removed:
    sources = corpus(folder, texts, put)
    out = set(held_out.split())
    return gather(*sources, set(texts) - out, out, np.random.default_rng(0), by_person=by_person)


def texts_of(values: object) -> set[str]:
    return {value.text for value in values}  # type: ignore[attr-defined]


def test_a_value_belongs_to_the_side_of_its_only_unit(tmp_path: Path) -> None:
    texts = {
        "a/1": "I am [Ann Lee] of [Rome|LOCATION], wife of [Carl Moe]",
        "a/2": "Yours, [Ann Lee]",
        "b/1": "Ask [Bob Ray] or [Dora May] in [Rome|LOCATION]",
        "c/1": "[Eve Sun] knows Carl Moe",
    }
    found = gathered(tmp_path, texts, "b/1", by_person=True)
    assert texts_of(found.trained) == {"Ann Lee", "Eve Sun"}  # Carl Moe stands in what another person wrote, Rome in two
    assert texts_of(found.held_out) == {"Bob Ray", "Dora May"}
    assert texts_of(found.everything.values()) == {"Ann Lee", "Rome", "Carl Moe", "Eve Sun"}
    assert texts_of(found.left.values()) == {"Carl Moe"}
    by_record = gathered(tmp_path, texts, "b/1")
    assert texts_of(by_record.trained) == {"Eve Sun"}


def test_what_is_left_in_held_out_records_was_not_trained_on(tmp_path: Path) -> None:
    texts = {"a": "[Ann Lee] here", "b": "[Bob Ray] and Ann Lee, and Bob Ray again"}
    found = gathered(tmp_path, texts, "b")
    assert texts_of(found.held_out) == {"Bob Ray"}
    assert found.trained == []
    assert found.left == {}


def test_short_values_are_left_out(tmp_path: Path) -> None:
    found = gathered(tmp_path, {"a": "on [4 May|DATE_TIME] at [St. J|LOCATION] with [Anna] 4 May"})
    assert texts_of(found.everything.values()) == {"4 May", "Anna"}
    assert texts_of(found.left.values()) == {"4 May"}


@pytest.mark.parametrize("put", ["<{}>", "", "*****", "the [same]"])
def test_places_are_found_whatever_was_put_there(tmp_path: Path, put: str) -> None:
    texts = {
        "a": "[Anna Lee] and [Otto Ray]·[Ingrid Sol][Rome Way|LOCATION]",
        "b": "nothing here",
        "c": "first·Mr [Bert Moe], yes",
    }
    put = put.replace("[", "(").replace("]", ")")
    found = gathered(tmp_path, texts, put=put)
    assert len(found.trained) == 5
    for value in found.trained:
        scrubbed = value.record.parts[value.part].text
        whole = texts[value.record.id].split("·")[value.part]
        assert MARKED.sub(r"\1", whole)[value.start : value.end] == value.text
        if value.text not in ("Ingrid Sol", "Rome Way"):  # nothing stands between these two
            assert scrubbed[value.cut : value.resume] == put.format(value.entity)
        assert scrubbed[: value.cut] + value.text in MARKED.sub(
            lambda match, value=value: match[1] if match[1] == value.text else put.format(match[2] or "PERSON"), whole
        )


def test_records_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    texts = {"a": "I am [Ann Lee], hello", "b": "plain"}
    for name, old, new in (("records.jsonl", "hello", "hullo"), ("spans.jsonl", '"start": 5', '"start": 6'),
                           ("records.jsonl", "plain", "plane"), ("spans.jsonl", '"id": "b"', '"id": "c"')):  # fmt: skip
        originals, scrubbed = corpus(tmp_path, texts)
        content = (scrubbed / name).read_text()
        assert old in content
        (scrubbed / name).write_text(content.replace(old, new))
        with pytest.raises(IntegrityError, match="does not fit") as caught:
            gather(originals, scrubbed, {"a", "b"}, set(), np.random.default_rng(0), by_person=False)
        assert "Ann" not in str(caught.value)


WORD = st.sampled_from(["Ann", "Lee", "ann", "St", ".", "-", "12", "O'Neil"])


@given(st.lists(st.lists(WORD, min_size=1, max_size=3), max_size=5), st.lists(WORD, max_size=12), st.sampled_from([" ", "\n"]))
def test_phrases_are_found_word_for_word(phrases: list[list[str]], text: list[str], blank: str) -> None:
    whole = blank.join(text)
    words = words_of(whole)
    made = {words_of(" ".join(phrase)) for phrase in phrases}
    expected = {p for p in made if any(words[i : i + len(p)] == p for i in range(len(words)))}
    assert Phrases(made).within(whole) == expected


def test_a_name_inside_a_word_is_not_found() -> None:
    assert Phrases([("Ann",)]).within("Anna and McAnn, ANN") == set()
    assert Phrases([("Ann",)]).within("(Ann)") == {("Ann",)}


def test_figures_count_by_entity(tmp_path: Path) -> None:
    found = gathered(tmp_path, {"a": "[Anna Lee] in [Rome|LOCATION]", "b": "[Otto Ray] saw Anna Lee in [Oslo|LOCATION]"})
    figures = {figure.name: figure for figure in removed.figures(found)}
    name = "games.values_left_in_training"
    assert (figures[name].value, figures[name].n) == (1, 4)
    assert (figures[f"{name}.PERSON"].value, figures[f"{name}.PERSON"].n) == (1, 2)
    assert (figures[f"{name}.LOCATION"].value, figures[f"{name}.LOCATION"].n) == (0, 2)
    assert removed.figures(Removed()) == []
