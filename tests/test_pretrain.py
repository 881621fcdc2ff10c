"""Pretraining learns, resumes, is measured in bits per byte, and refuses what is not text."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import pretrain as module
from pipeline.errors import InputError
from pipeline.pretrain import bits_per_byte, mix, pretrain
from pipeline.recipe import Recipe, check, load
from tests import tiny


def recipe(texts: list[Path], **schedule: object) -> Recipe:
    content = {
        "architecture": {"layers": 1, "width": 16, "heads": 2, "context": 16},
        "tokenizer": {"size": 320},
        "data": [{"files": [str(path) for path in texts]}],
        "held_out": 0.1,
        "schedule": {"tokens": 16 * 4 * 60, "batch": 4, "warmup": 5} | schedule,
    }
    return check(content, "the test's recipe")


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(20):
        (folder / f"{index}.txt").write_text("the cat sat on the mat and the dog sat on the log. " * 8)
    return sorted(folder.glob("*.txt"))


def test_a_model_learns_and_is_saved_in_bf16(texts: list[Path], tmp_path: Path) -> None:
    made = pretrain(recipe(texts), tmp_path / "out")
    assert made.bits_per_byte < 1.5  # uniform bytes would cost 8
    model = AutoModelForCausalLM.from_pretrained(made.folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) <= model.config.vocab_size == 320
    assert tokenizer.decode(tokenizer("Ünïcode 🙂 123")["input_ids"]) == "Ünïcode 🙂 123"
    assert not (made.folder / ".pretrain").exists()


def test_a_killed_run_goes_on_from_its_checkpoint(texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 10)
    whole = pretrain(recipe(texts), tmp_path / "whole")

    def killed(figures: dict[str, float]) -> None:
        if figures["tokens"] >= 16 * 4 * 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe(texts), tmp_path / "parts", progress=killed)
    with pytest.raises(InputError, match="another recipe"):  # the control: other work is not gone on with
        pretrain(recipe(texts, seed=1), tmp_path / "parts")
    seen: list[float] = []
    resumed = pretrain(recipe(texts, minutes=60), tmp_path / "parts", progress=lambda f: seen.append(f["tokens"]))
    assert seen[0] > 16 * 4 * 20
    assert resumed.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)


def test_bits_per_byte_of_a_uniform_model_is_log2_of_the_vocabulary_over_the_bytes_of_a_token() -> None:
    model = tiny.llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    tokens = np.arange(2, 66, dtype=np.uint16)
    expected = 63 * math.log2(len(tiny.tokenizer())) / 100
    assert bits_per_byte(model, tokens, 100, 16) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "content"), [("missing.txt", None), ("binary.txt", b"\xff\xfe\x00"), ("x.gz", b"no gzip")])
def test_what_is_not_text_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        pretrain(recipe([path]), tmp_path / "out")


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("too short")
    with pytest.raises(InputError, match="too little"):
        pretrain(recipe([tmp_path / "a.txt"]), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": {"width": 30, "heads": 4}}, "architecture width 30 must be an even multiple"),
        ({"tokenizer": {"size": 100_000}}, "tokenizer.size"),
        ({"schedule": {"tokens": 5, "epochs": 1}}, "schedule takes tokens or epochs"),
        ({"architecture": {"layer": 1}}, "architecture.layer is unknown"),
        ({"data": []}, "data"),
    ],
)
def test_what_a_recipe_cannot_be_is_refused_by_its_key(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check({"data": [{"files": ["a.txt"]}]} | changes, "the test's recipe")


def test_the_bundled_recipe_is_that_of_the_bundled_model() -> None:
    nano = load("nano")
    made = json.loads((Path(module.__file__).parent / "assets" / "nano" / "pretraining.json").read_text())
    shape, schedule = nano.architecture, nano.schedule
    assert [shape.layers, shape.width, shape.heads, shape.context] == [
        made[key] for key in ("layers", "width", "heads", "context")
    ]
    assert nano.tokenizer.size == made["vocab"]
    for key in ("tokens", "minutes", "batch", "learning_rate", "warmup", "cooldown", "seed"):
        assert getattr(schedule, key) == made[key]


def test_the_paths_of_a_recipe_are_seen_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("data: [{files: [a.txt]}, {files: [b.txt], weight: 3}]")
    made = load(tmp_path / "own.yaml")
    assert [text.files for text in made.data] == [(tmp_path / "a.txt",), (tmp_path / "b.txt",)]


def test_windows_follow_the_weights_and_visit_every_window_of_a_text_before_any_again() -> None:
    texts, starts = mix([1601, 801], [3, 1], 16, 4000, seed=1)
    assert abs(float((texts == 0).mean()) - 0.75) < 0.03  # four standard deviations
    for text, windows in ((0, 100), (1, 50)):
        own = starts[texts == text]
        assert set(own[:windows]) == set(range(0, 16 * windows, 16))
        assert (own[windows : 2 * windows] == own[:windows]).all()


def test_a_mix_with_a_taken_tokenizer_says_so_on_its_card(texts: list[Path], tmp_path: Path) -> None:
    tiny.save(tmp_path / "other")
    chosen = check(
        {
            "name": "mixed",
            "licence": "mit",
            "architecture": {"layers": 1, "width": 16, "heads": 2, "context": 16},
            "tokenizer": {"take": str(tmp_path / "other")},
            "data": [{"files": [str(path) for path in texts[:12]], "weight": 3}, {"files": [str(path) for path in texts[12:]]}],
            "held_out": 0.2,
            "schedule": {"epochs": 0.1, "batch": 4},
        },
        "the test's recipe",
    )
    made = pretrain(chosen, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(made.folder).get_vocab() == tiny.tokenizer().get_vocab()
    card = (made.folder / "README.md").read_text()
    assert "license: mit" in card
    for path in texts:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert str(tmp_path) not in card + (made.folder / "pretraining.json").read_text()
    assert made.recipe in card
    facts = json.loads((made.folder / "pretraining.json").read_text())
    total = sum(part["train_tokens"] for part in facts["texts"])
    assert 0.1 * total <= facts["trained_tokens"] < 0.1 * total + 64
