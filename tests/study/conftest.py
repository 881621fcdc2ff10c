"""A study of one tiny model on forty short records, small enough for the tests."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.study import cell, grid, spec
from pipeline.train.mechanism import Mechanism
from tests import tiny

SENTINEL = "zqsentinelword"


def content(folder: Path, **changes: object) -> dict:
    return {
        "name": "small",
        "description": "A study for the tests.",
        "data": {"path": "data.jsonl", "public": True, "declared_by": "Ada", "max_tokens": 96, "held_out": 0.2},
        "models": [{"name": "tiny", "ref": "model"}],
        "epsilons": ["none", 8],
        "seeds": [0],
        "canaries": {"count": 16, "guesses": 8, "prefix_tokens": 4, "repeated": 4, "repetitions": [1, 4]},
        "train": {"steps": 3, "expected_batch": 16, "learning_rate": 0.05},
        "audit": {"membership_records": 50, "utility_records": 20, "exposure_canaries": 8, "extraction_records": 20},
    } | changes


def make(folder: Path, **changes: object) -> Path:
    """data.jsonl, model/ and study.yaml in a folder; returns the path of the spec."""
    lines = ({"id": f"r{i}", "text": f"{tiny.sentence(i, 9)} {SENTINEL}"} for i in range(160))
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not (folder / "model").exists():
        tiny.save(folder / "model", tiny.llama(layers=1, width=16))
    (folder / "study.yaml").write_text(yaml.safe_dump(content(folder, **changes)))
    return folder / "study.yaml"


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """ε of one mechanism is computed once for all tests: it depends on nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("epsilon", "epsilon_prv", "group_epsilon"):
            patch.setattr(Mechanism, name, functools.cache(getattr(Mechanism, name)))
        yield


class Done:
    """A study whose cells were done in this process; `trees` holds a copy of each cell's work folder as it was at the end."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self.spec = spec.load(make(folder))
        self.folder = grid.start(self.spec, home)
        self.base = grid.base(self.spec, "tiny", self.folder, home)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Done:
    place = tmp_path_factory.mktemp("study")
    made = Done(place, place / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell.shutil, "rmtree", lambda *args, **kwargs: None)  # the stages stay, to be held against the cell
        for point in made.spec.points():
            cell.run(made.spec, point, made.base, made.folder, made.home)
    return made
