"""Data, models and policies of the deployment tests, and independent readings of what a deployment left."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import torch

from tests import tiny
from tests.flows import line

LASTING = {"lifetime": {"epsilon": 10_000, "delta": 5e-5}}  # for many runs on the same data
# No text is read by a language model, and everything private is past its time at once.
UNGATED = {"figure": "privacy.epsilon", "judge": "value", "at_most": 8, "at_least": None}
LIGHT = {
    "scrub": {"probes": 0, "entities": ["EMAIL_ADDRESS"], "rescan": "off", "sample": 0},
    "gates": line.OPEN_GATES | {"scrub_recall": UNGATED},
    "retention": {"raw_days": 0, "scrubbed_days": 0, "checkpoint_days": 0, "review_days": 0},
}
STEPS = 40  # of the runs that are killed, so that a kill can land between two of them


def make(folder: Path) -> Path:
    """Put data, models and the policies open, asking, broke, light, slow, killed, leaking and sound into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.jsonl").open("w") as file:
        for index in range(320):
            record = line.record(index)
            file.write(json.dumps(record | {"id": f"{line.SENTINEL}r{index}", "unit": f"{line.SENTINEL}u{index % 80}"}) + "\n")
    tiny.save(folder / "model")
    common = line.policy(folder) | {"privacy": LASTING}
    policies = {
        "open": {},
        "asking": {"release": {"approval": "required"}},
        "broke": LIGHT | {"privacy": {"lifetime": {"budget": "small", "epsilon": 0.5, "delta": 1e-4}}},
        "light": LIGHT,
        "slow": LIGHT | {"train": common["train"] | {"steps": STEPS}},
        "killed": {"train": common["train"] | {"steps": STEPS}},
    }
    for name, changes in policies.items():
        line.write(folder / f"{name}.yaml", common | {"name": name} | changes)
    leaking(folder)
    return folder


def leaking(folder: Path) -> None:
    """Data of each of the two, a model and two policies, under one of which the model really learns by heart.

    Few short records, a wide layer, and so large a promise that the noise hides nobody: the strongest attack tells members from
    others with an AUC of 0.8 to 0.9. The policy sound differs in the promise alone, and there it is some 0.5.
    """
    model = tiny.llama(layers=1, width=64)
    model.config.tie_word_embeddings = False
    wide = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(0.3 * wide)
    tiny.save(folder / "wide-model", model)
    for name, first in (("leaking", 1000), ("sound", 2000)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for index in range(first, first + 250):
                file.write(json.dumps({"id": f"r{index}", "text": tiny.sentence(index, 5)}) + "\n")
    guesses = {"figure": "epsilon.correct_guesses", "at_most": 0.72, "owner": "tests",
               "why": "Nobody should tell which canaries were trained on."}  # fmt: skip
    content = line.policy(folder) | {
        "name": "leaking",
        "model": str(folder / "wide-model"),
        "data": {"max_tokens": 48, "held_out": 0.4},
        "scrub": {"probes": 30, "entities": ["EMAIL_ADDRESS"]},
        "privacy": {"epsilon": 50, "lifetime": {"budget": "leaky", "epsilon": 100, "delta": 9e-4}},
        "canaries": {"count": 96, "guesses": 64, "prefix_tokens": 4, "repeated": 0},
        "train": {
            "lora": {"rank": 32, "alpha": 64, "layers": "all"},
            "expected_batch": 120, "steps": 60, "learning_rate": 0.02, "clipping_norm": 1.0,
        },
        "audit": line.policy(folder)["audit"] | {"prefix_tokens": 1, "suffix_tokens": 4},
        "gates": line.OPEN_GATES
        | {"epsilon_spent": {"at_most": 50}, "membership": {"judge": "value", "at_most": 0.7}, "guesses": guesses},
    }  # fmt: skip
    line.write(folder / "leaking.yaml", content)
    sound = {"epsilon": 1, "lifetime": {"budget": "sound", "epsilon": 100, "delta": 9e-4}}
    line.write(folder / "sound.yaml", content | {"name": "sound", "privacy": sound})


def rows(home: Path) -> list[dict]:
    """The ledger's entries, read with nothing of the product's."""
    with closing(sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True, timeout=60)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("select * from entries order by seq")]


def charged(entries: Iterable[dict]) -> dict[str, int]:
    """Steps charged to each run: all that it reserved, or those taken once its claim is closed."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry["kind"] == "reserve":
            found[entry["run"]] = json.loads(entry["detail"])["steps"]
        elif entry["kind"] == "close":
            found[entry["run"]] = entry["steps"]
    return found


def taken(entries: Iterable[dict]) -> dict[str, int]:
    """The running total of noisy steps that each run has recorded."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry["kind"] in ("spend", "close"):
            found[entry["run"]] = max(found.get(entry["run"], 0), entry["steps"])
    return found


def versions(home: Path, name: str) -> list[str]:
    """The versions of a release that a reader sees, and nothing half made beside them."""
    shelf = home / "releases" / name
    if not shelf.is_dir():
        return []
    return sorted((path.name for path in shelf.iterdir() if path.name != "latest"), key=lambda name: (len(name), name))
