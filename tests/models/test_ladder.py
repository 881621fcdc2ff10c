"""The ladder: names, places, and what a rung is expected to take."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from pipeline import models
from pipeline.bench.train import SHAPES
from pipeline.models import ladder


@pytest.mark.parametrize("ref", ["smollm2-135m", "Qwen/Qwen2.5-0.5B", "a-b/c.d_e-1"])
def test_names_of_the_ladder_and_ids_of_the_hub_can_be_pulled(ref: str) -> None:
    assert ladder.is_pullable(ref)


@pytest.mark.parametrize("ref", ["gigantic", "a/b/c", "../x", "/etc", "a/", "", "a b/c", "-a/b"])
def test_nothing_else_can(ref: str) -> None:
    assert not ladder.is_pullable(ref)


def test_a_pulled_model_lives_in_one_folder_below_models(tmp_path: Path) -> None:
    assert ladder.folder("house/model", tmp_path) == tmp_path / "models" / "house--model"
    assert ladder.folder("small", tmp_path) == tmp_path / "models" / "small"


def test_the_rungs_count_the_weights_of_their_shapes() -> None:
    """SmolLM2-135M, whose shape the benchmark builds: counted from the shape itself, tied embeddings once."""
    with torch.device("meta"):
        model = SHAPES["smollm2-135m"].make()
    rung = ladder.LADDER["smollm2-135m"]
    assert sum(parameter.numel() for parameter in model.parameters()) == rung.parameters
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (rung.layers, rung.width)


def test_the_ladder_climbs_and_every_rung_has_a_source_and_a_licence() -> None:
    rungs = list(ladder.LADDER.values())
    assert [rung.parameters for rung in rungs] == sorted(rung.parameters for rung in rungs)
    assert all(rung.repository and "/" in rung.repository and rung.licence for rung in rungs)
    assert all(name == rung.name for name, rung in ladder.LADDER.items())


def test_memory_and_speed_are_near_what_was_measured_for_the_bundled_shape() -> None:
    """RESULTS.md: 351 MB above the loaded model, and 4 products a weight at 0.9 of the rate of one large product."""
    nano = models.resolve("nano", Path("nowhere"))
    shape = AutoConfig.from_pretrained(nano.folder)
    above = ladder.memory(nano.parameters, shape.num_hidden_layers, shape.hidden_size) - 4 * nano.parameters
    assert 250e6 < above < 500e6
    assert ladder.tokens_per_second(nano.parameters, 190e9) == pytest.approx(6_180, rel=0.01)
    assert ladder.matrix_rate(64) > 0


def test_the_latest_speed_of_a_base_model_is_read_from_the_runs(tmp_path: Path) -> None:
    for run, speed, at in (("one", 100.0, 1), ("two", 200.0, 2)):
        path = tmp_path / "runs" / run / "trained" / "stage.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"value": {"base": {"digest": "d"}, "tokens_per_second": speed}}))
        os.utime(path, (at, at))
    assert ladder.measured(tmp_path) == {"d": 200.0}
    assert ladder.measured(tmp_path / "nowhere") == {}
