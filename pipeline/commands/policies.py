"""`hushtune policy list | show | diff | check | schema`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import yaml

from pipeline import policy as policies
from pipeline.commands.common import answer, columns
from pipeline.strictness import changes, check_name

_WAYS = {"tighter": "tighter", "looser": "LOOSER", "incomparable": "cannot be compared", "free": "changes no protection"}


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
    """Say in words what differs between two resolved policies, and which way."""
    found = changes(policies.load(arguments.old), policies.load(arguments.new))
    content = {one.key: {"old": one.old, "new": one.new, "direction": one.direction, "about": one.about} for one in found}
    lines = [f"{one.key}: {_word(one.old)} → {_word(one.new)}, {_WAYS[one.direction]}: {one.about}" for one in found]
    answer(arguments, content, "\n".join(lines) or "The policies do not differ.")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Validate a policy; an invalid one is an error that names the key."""
    policy = policies.load(arguments.policy)
    check_name(policy)
    answer(
        arguments,
        {"name": policy.name, "digest": policy.digest},
        f"Policy {policy.name} is valid; its digest is {policy.digest}.",
    )
    return 0


def waive(arguments: argparse.Namespace) -> int:
    """Sign a waiver of one gate of a policy."""
    from pipeline import runs, waivers
    from pipeline.ledger import Ledger

    policy, home = policies.load(arguments.policy), runs.open_home(arguments.home)
    today = Ledger(home).now().date()
    why = {"by": arguments.by, "why": arguments.why, "days": arguments.days}
    made, path = waivers.waive(home, policy, arguments.gate, **why, today=today)
    said = f"Gate {made.gate} of policy {policy.name} is waived by {made.by} until {made.expires}: {path}"
    answer(arguments, made.model_dump(mode="json") | {"file": str(path)}, said)
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of a policy file."""
    content = policies.schema()
    answer(arguments, content, json.dumps(content, indent=2, ensure_ascii=False))
    return 0


def _word(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
