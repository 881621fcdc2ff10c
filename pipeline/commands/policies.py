"""`hushtune policy list | show | diff | check | schema`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import yaml

from pipeline import policy as policies
from pipeline.commands.common import answer, columns


def listing(arguments: argparse.Namespace) -> int:
    """List the presets."""
    loaded = [policies.load(name) for name in policies.presets()]
    rows = [(p.name, f"ε {p.privacy.epsilon:g}", p.privacy.unit, p.release.approval, p.description) for p in loaded]
    content = {p.name: {"description": p.description, "digest": p.digest} for p in loaded}
    answer(arguments, content, columns(rows, ("policy", "promise", "unit", "approval", "what it is for")))
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print a resolved policy as YAML, or as JSON."""
    policy = policies.load(arguments.policy)
    content = policy.model_dump(mode="json")
    written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    answer(arguments, content, f"# digest {policy.digest}\n{written}".rstrip())
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Say which keys differ between two resolved policies."""
    old, new = (_leaves(policies.load(name).model_dump(mode="json")) for name in (arguments.old, arguments.new))
    changed = {
        key: {"old": old.get(key), "new": new.get(key)}
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    lines = [f"{key}: {_word(change['old'])} → {_word(change['new'])}" for key, change in changed.items()]
    answer(arguments, changed, "\n".join(lines) or "The policies do not differ.")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Validate a policy; an invalid one is an error that names the key."""
    policy = policies.load(arguments.policy)
    answer(
        arguments,
        {"name": policy.name, "digest": policy.digest},
        f"Policy {policy.name} is valid; its digest is {policy.digest}.",
    )
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of a policy file."""
    content = policies.schema()
    answer(arguments, content, json.dumps(content, indent=2, ensure_ascii=False))
    return 0


def _leaves(content: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {path: content}
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        leaves |= _leaves(value, f"{path}.{key}" if path else key)
    return leaves


def _word(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
