"""One policy and one detector for all tests of the scrubber: loading a detector takes seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import corpus as corpora
from pipeline import policy as policies
from pipeline.corpus import Corpus
from pipeline.policy import Policy
from pipeline.scrub import Detector, detect


@pytest.fixture(scope="session")
def policy() -> Policy:
    return policies.load("default")


@pytest.fixture(scope="session")
def detector(policy: Policy) -> Detector:
    return detect.load(policy.scrub)


@pytest.fixture
def read(tmp_path: Path, policy: Policy) -> Callable[..., Corpus]:
    """Reads rows (or texts) into a corpus, as a run does."""

    def reader(rows: list[dict[str, Any]] | list[str]) -> Corpus:
        data = tmp_path / "data.jsonl"
        lines = [{"text": row} if isinstance(row, str) else row for row in rows]
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return corpora.read(data, policy, tmp_path / "corpus")

    return reader
