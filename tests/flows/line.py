"""A tiny model, short records and policies on which the whole line runs in seconds."""

import json
from pathlib import Path

import yaml

from tests import tiny

SENTINEL = "zqsentinelword"  # stands in every record and is no personal data, so that scrubbing leaves it in
ADDRESS = "ann.sample@private-mail.example"

# A tiny run shows that the line works, not that a two-layer random model is private or useful: gates are wide open.
OPEN_GATES = {
    "epsilon_spent": {"at_most": 8},
    "epsilon_bound": {"at_most": 1},  # less than sixteen guesses could show
    "exposure": {"at_least": 1e-4},  # more than no outcome could fall below
    # So few members differ from non-members by chance once in a while, which rightly voids the membership figure.
    "membership": {"figure": "privacy.epsilon", "judge": "value", "at_most": 8},
    "extraction": {"at_most": 1},
    "scrub_recall": {"at_least": 0},
    "utility": {"at_most": 1e9},
}


def make(folder: Path) -> Path:
    """Put data.jsonl, model/, and the policies open, closed, vague, asking and broke into a folder."""
    with (folder / "data.jsonl").open("w") as file:
        for index in range(320):
            file.write(json.dumps(record(index)) + "\n")
    tiny.save(folder / "model")
    policies = {
        "open": {},
        "closed": {"gates": OPEN_GATES | {"utility": {"at_most": 1e-6}}},
        # A limit that sixteen guesses could not break, so that the gate shows nothing.
        "vague": {"gates": OPEN_GATES | {"epsilon_bound": {"at_most": 7}}},
        "asking": {"release": {"approval": "required"}},
        "broke": {"privacy": {"lifetime": {"budget": "small", "epsilon": 0.5, "delta": 1e-4}}},
    }
    for name, changes in policies.items():
        write(folder / f"{name}.yaml", policy(folder) | {"name": name} | changes)
    return folder


def record(index: int) -> dict:
    """One of four records of a person."""
    text = f"{tiny.sentence(index, 12)} {SENTINEL} write to {ADDRESS}"
    return {"id": f"r{index}", "unit": f"u{index % 80}", "text": text}


def policy(folder: Path) -> dict:
    """What the tests' policies have in common."""
    return {
        "extends": "base",
        "model": str(folder / "model"),
        "data": {"max_tokens": 48, "held_out": 0.2},
        "scrub": {"probes": 30},
        "canaries": {"count": 32, "guesses": 16, "prefix_tokens": 4, "repeated": 0},
        "train": {"expected_batch": 32, "steps": 3},
        "audit": {"membership_records": 50, "utility_records": 20, "exposure_canaries": 8, "samples": 8, "games_values": 5},
        "gates": OPEN_GATES,
    }


def write(path: Path, content: dict) -> Path:
    """A policy file."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def holding(folder: Path, word: str) -> list[Path]:
    """The files below a folder that hold a word."""
    return [path for path in files(folder) if word.encode() in content(path)]


def content(path: Path) -> bytes:
    """What a file holds: nothing if it went since it was listed, as a closing database's own log files do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
