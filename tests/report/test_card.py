"""The model card: a head that the Hub reads, a body that says what is and is not promised."""

from __future__ import annotations

import re

import pytest
from huggingface_hub import ModelCard

from pipeline.report import card
from tests.report import sample


@pytest.mark.parametrize("make", [sample.released, sample.rejected, sample.bare])
def test_head_and_body(make):
    text = card(make(), sample.base())
    data = ModelCard(text).data
    assert (data.base_model, data.library_name, data.license) == ("nano", "peft", "apache-2.0")
    assert data.pipeline_tag == "text-generation"
    assert "differential-privacy" in data.tags
    assert text.endswith("\n")
    for heading in ("Intended use", "Privacy", "What is not promised", "Gates", "Training data"):
        assert f"## {heading}" in text
    assert not re.search(r"anonymous|anonymi[sz]ed|complian", text, re.I)
    assert "SENTINEL" not in text
    assert card(make(), sample.base()) == text


def test_figures_are_the_reports():
    content = sample.released()
    text = card(content, sample.base())
    assert "7.99, allowed 8" in text
    assert {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results} == {
        "perplexity": 96.7,
        "accuracy": 0.386,
    }


def test_unknown_licence_is_named_beside_other():
    data = ModelCard(card(sample.released(), sample.base() | {"licence": "Our Own 1.0"})).data
    assert (data.license, data.license_name) == ("other", "our-own-1.0")


def test_hostile_names_change_nothing():
    facts = sample.FACTS | {"run": "x\n---\nlicense: evil\n# <script>|`"}
    text = card(sample.released(facts=facts), sample.base() | {"name": "../../etc/<b>"})
    assert ModelCard(text).data.license == "apache-2.0"
    assert "<script>" not in text
    assert "<b>" not in text
    assert "\nlicense: evil" not in text.split("---\n\n", 1)[1]
