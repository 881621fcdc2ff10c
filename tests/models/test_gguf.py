"""GGUF files: converted to the same model, once, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import models
from pipeline.errors import ModelError
from pipeline.models import gguf
from tests import tiny


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gguf(tmp_path_factory.mktemp("gguf") / "Small.Model.gguf", rounded())


def rounded():
    """A tiny Llama whose weights bfloat16 holds exactly."""
    return tiny.llama().to(torch.bfloat16).float()


def test_a_converted_model_says_what_it_said(file: Path, tmp_path: Path) -> None:
    base = models.resolve(str(file), tmp_path)
    assert base.folder.parent == (tmp_path / "models").resolve()
    model, tokenizer = models.load(base)
    ids = torch.arange(2, 40)[None]
    assert torch.allclose(model(input_ids=ids).logits, rounded()(input_ids=ids).logits, atol=1e-5)
    assert tokenizer(" baba bab-\u00e9")["input_ids"] == tiny.tokenizer()(" baba bab-\u00e9")["input_ids"]
    assert tokenizer.eos_token_id == 0
    assert not list((tmp_path / "models").glob(".*"))


def test_it_is_converted_once_and_again_when_the_bytes_change(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = models.resolve(str(file), tmp_path)
    other = tiny.gguf(tmp_path / file.name, tiny.llama(seed=1))
    second = models.resolve(str(other), tmp_path)
    assert first.digest != second.digest
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("converted again"))
    assert models.resolve(str(file), tmp_path) == first


@pytest.mark.parametrize(
    "damage", [lambda content: b"not a model at all", lambda content: content[:-2_000], lambda content: b""]
)
def test_what_is_no_model_is_refused_and_leaves_nothing(file: Path, tmp_path: Path, damage) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be read as a language model"):
        models.resolve(str(bad), tmp_path)
    assert not list((tmp_path / "models").iterdir())
