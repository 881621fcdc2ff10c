"""What the tests of training share."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from pipeline import models
from pipeline.canaries import Planted
from pipeline.train.mechanism import Mechanism
from tests import tiny
from tests.train import interrupted


@pytest.fixture(scope="session")
def quick() -> Iterator[None]:
    """ε of one mechanism is computed once for all tests: it depends on nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("epsilon", "epsilon_prv", "group_epsilon"):
            patch.setattr(Mechanism, name, functools.cache(getattr(Mechanism, name)))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    folder = tiny.save(tmp_path_factory.mktemp("models") / "tiny", tiny.llama(layers=1, width=16))
    return models.resolve(str(folder), folder.parent)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return interrupted.plant(tmp_path_factory.mktemp("planted"))
