"""A short private training that tests interrupt."""

from __future__ import annotations

from pathlib import Path

from pipeline import policy
from pipeline.canaries import Planted
from pipeline.corpus import Part, Record, save_records
from pipeline.folders import digest_file
from pipeline.train.mechanism import Mechanism
from tests import tiny

RECORDS, STEPS = 40, 4
MECHANISM = Mechanism(
    unit="record", units=RECORDS, expected_batch=10, steps=STEPS, noise_multiplier=2.0, clipping_norm=0.1, delta=1e-3
)


class Killed(BaseException):
    """What stands for the kill: nothing in the code catches it."""


def plant(folder: Path) -> Planted:
    """Records planted without a canary, in a folder that is made."""
    folder.mkdir(exist_ok=True)
    texts = (Record(f"r{i}", f"r{i}", (Part("text", " " + tiny.sentence(i, 6)),)) for i in range(RECORDS))
    save_records(folder / "train.jsonl", texts)
    return Planted(
        folder=folder, train_records=RECORDS, train_units=RECORDS, held_out_records=0, held_out_units=0, canaries=0,
        secrets=0,
        secrets_included=0,
        included=0, manifest_digest="m", digest=digest_file(folder / "train.jsonl"),
    )  # fmt: skip


def rules(steps: int = STEPS) -> policy.Policy:
    return policy.load("default").override(
        train__learning_rate=0.05, train__expected_batch=10, train__steps=steps, data__max_tokens=16
    )
