"""Base models: found or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import models
from pipeline.errors import ModelError
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    return models.resolve(str(tiny.save(tmp_path_factory.mktemp("models") / "tiny")), Path("nowhere"))


def test_a_folder_is_described_and_its_digest_follows_its_bytes(base: models.Base, tmp_path: Path) -> None:
    other = models.resolve(str(tiny.save(tmp_path / "tiny", tiny.llama(seed=1))), tmp_path)
    assert base.name == other.name == "tiny"
    assert base.context == 128
    model = tiny.llama()
    assert base.parameters == sum(p.numel() for p in model.parameters())
    assert base.digest != other.digest


def test_a_pulled_model_is_found_by_name(tmp_path: Path) -> None:
    tiny.save(tmp_path / "models" / "ours")
    assert models.resolve("ours", tmp_path).folder == (tmp_path / "models" / "ours").resolve()


def test_the_bundled_model_is_here_and_small() -> None:
    nano = models.resolve("nano", Path("nowhere"))
    assert 6e6 <= nano.parameters <= 10e6
    assert (nano.folder / "model.safetensors").stat().st_size <= 20e6
    facts = json.loads((nano.folder / "pretraining.json").read_text())
    assert facts["bits_per_byte"] <= 2.0
    assert nano.licence != "not stated"


def test_unknown_and_unfit_models_are_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no base model gigantic here: give nano, smollm2-135m"):
        models.resolve("gigantic", tmp_path)
    with pytest.raises(ModelError, match="fetch it with `hushtune models pull smollm2-360m`"):
        models.resolve("smollm2-360m", tmp_path)
    with pytest.raises(ModelError, match="fetch it with `hushtune models pull some-house/some-model`"):
        models.resolve("some-house/some-model", tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json is unfit"):
        models.resolve(str(tmp_path / "bad"), tmp_path)
    folder = tiny.save(tmp_path / "weightless")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        models.resolve(str(folder), tmp_path)
