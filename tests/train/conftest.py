"""What the tests of training share."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from pipeline.train.mechanism import Mechanism


@pytest.fixture(scope="session")
def quick() -> Iterator[None]:
    """ε of one mechanism is computed once for all tests: it depends on nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("epsilon", "epsilon_prv", "group_epsilon"):
            patch.setattr(Mechanism, name, functools.cache(getattr(Mechanism, name)))
        yield
