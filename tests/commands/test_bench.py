from __future__ import annotations

import json

import pytest
import torch

from pipeline import cli
from pipeline.bench import audit, train
from tests import tiny


def test_every_way_takes_a_step_and_the_ratios_are_of_the_medians(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(train.SHAPES, "nano", train.Shape(lambda: tiny.llama(layers=2), 2, 16))
    assert cli.main(["bench", "train", "--rounds", "1", "--threads", "1", "--no-memory", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["nano"]
    assert set(found["seconds"]) == set(train.WAYS)
    seconds = found["seconds"]
    assert found["ratios"]["private_to_stock"] == pytest.approx(seconds["stock"] / seconds["private"])
    assert found["ratios"]["private_to_best_opacus"] == pytest.approx(
        min(seconds["opacus_hooks"], seconds["opacus_ghost"]) / seconds["private"]
    )


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(train.torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "train", "--device", "cuda"]) == 2
    assert "There is no GPU here that computes in bfloat16" in capsys.readouterr().err


def test_every_way_runs_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's path but for the GPU: each way takes a step under autocast, here on the processor."""
    monkeypatch.setattr(train, "precision_on", lambda device: torch.bfloat16)
    shape = train.Shape(lambda: tiny.llama(layers=2), 2, 16)
    for make in train.WAYS.values():
        make(shape)()
    weights = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 32 * 64 * 3)  # two blocks: q and o, k and v, gate, up and down
    assert train._flops(shape) == 4 * (weights + 32 * len(tiny.tokenizer()))


def test_ranking_is_timed_against_the_same_candidates_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(audit.SHAPES, "nano", train.Shape(lambda: tiny.llama(layers=1), 2, 16))
    command = ["bench", "audit", "--shape", "nano", "--rounds", "1", "--batches", "2", "--canaries", "2", "--json"]
    assert cli.main(command) == 2  # one number shows no growth
    command += ["--canaries", "1"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["nano"]
    assert found["candidates"] == 48**3
    assert found["sample"]["scaled_by"] == 48**3 / 128
    seconds = found["seconds"]
    assert found["ratio"] == pytest.approx(seconds["plain_sample"] * 48**3 / 128 / seconds["packed"])
    assert found["agreement"]["largest_difference_nats"] < 1e-3
    assert set(found["canaries"]["seconds"]) == {"1", "2"}


@pytest.mark.parametrize("what", ["train", "audit"])
def test_an_unknown_shape_is_refused(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", what, "--shape", "huge"]) == 2
    assert "There is no shape huge" in capsys.readouterr().err


def test_scrubbing_is_timed_against_a_plain_loop(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": f"Ann Sample wrote from ann{n}@example.org."}) + "\n" for n in range(4)))
    text = "Write to Ann Sample at ann@example.org."
    gold = tmp_path / "gold.jsonl"
    spans = [{"start": 9, "end": 19, "label": "PERSON"}, {"start": 23, "end": 38, "label": "EMAIL"}]
    gold.write_text(json.dumps({"text": text, "spans": spans}) + "\n")
    command = ["bench", "scrub", str(data), "--rounds", "1", "--records", "3", "--gold", str(gold), "--json"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["seconds"]) == {"plain", "one core", "two cores"}
    assert found["records"] == 3
    assert found["covered"] == 1.0
    assert found["gold"]["ours"]["recall"] == {"EMAIL": 1.0, "PERSON": 1.0}
    assert set(found["gold"]["plain"]) == {"token_recall", "token_precision", "recall"}
    assert found["ratios"]["one core"] == pytest.approx(found["seconds"]["plain"] / found["seconds"]["one core"])
