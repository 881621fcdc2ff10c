"""Pretraining learns, resumes, is measured in bits per byte, and refuses what is not text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import pretrain as module
from pipeline.errors import InputError
from pipeline.pretrain import Recipe, bits_per_byte, pretrain
from tests import tiny

RECIPE = Recipe(layers=1, width=16, heads=2, vocab=320, context=16, tokens=16 * 4 * 60, batch=4, held_out=0.1, warmup=5)


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(20):
        (folder / f"{index}.txt").write_text("the cat sat on the mat and the dog sat on the log. " * 8)
    return sorted(folder.glob("*.txt"))


def test_a_model_learns_and_is_saved_in_bf16(texts: list[Path], tmp_path: Path) -> None:
    made = pretrain(texts, tmp_path / "out", RECIPE)
    assert made.bits_per_byte < 1.5  # uniform bytes would cost 8
    model = AutoModelForCausalLM.from_pretrained(made.folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) <= model.config.vocab_size == 320
    assert tokenizer.decode(tokenizer("Ünïcode 🙂 123")["input_ids"]) == "Ünïcode 🙂 123"
    assert not (made.folder / ".pretrain").exists()


def test_a_killed_run_goes_on_from_its_checkpoint(texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 10)
    whole = pretrain(texts, tmp_path / "whole", RECIPE)

    def killed(figures: dict[str, float]) -> None:
        if figures["tokens"] >= 16 * 4 * 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(texts, tmp_path / "parts", RECIPE, progress=killed)
    seen: list[float] = []
    resumed = pretrain(texts, tmp_path / "parts", RECIPE, progress=lambda f: seen.append(f["tokens"]))
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
        pretrain([path], tmp_path / "out", RECIPE)


def test_too_little_text_and_an_odd_architecture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("too short")
    with pytest.raises(InputError, match="too little"):
        pretrain([tmp_path / "a.txt"], tmp_path / "out", RECIPE)
    with pytest.raises(InputError, match="--width"):
        Recipe(width=30, heads=4)
    with pytest.raises(InputError, match="--vocab"):
        Recipe(vocab=100_000)
