from __future__ import annotations

import json

import pytest

from pipeline import cli
from pipeline.bench import train
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


def test_an_unknown_shape_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "train", "--shape", "huge"]) == 2
    assert "There is no shape huge" in capsys.readouterr().err
