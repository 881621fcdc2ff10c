"""`hushtune budget show | history | verify | backup | restore | rebuild`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline import runs
from pipeline.commands.common import answer, columns
from pipeline.errors import UsageError


def budget(arguments: argparse.Namespace) -> int:
    """Show where the budgets stand or what was charged, check the ledger, back it up, or bring it back."""
    action, file = arguments.action, arguments.file
    if (action in ("backup", "restore")) != (file is not None):
        wants = f"`hushtune budget {action}` needs one FILE" if file is None else f"`hushtune budget {action}` takes no FILE"
        raise UsageError(f"{wants}: see `hushtune budget --help`.")
    if action in ("restore", "rebuild"):
        return {"restore": _restore, "rebuild": _rebuild}[action](arguments)
    from pipeline.ledger import Ledger

    missed = action in ("verify", "backup") and _shows_runs(arguments.home)  # then a ledger that is gone is missed
    if not (missed or (arguments.home / "ledger.db").exists() or os.environ.get("HUSHTUNE_LEDGER_URL")):
        answer(arguments, [], "No run has spent yet.")
        return 0
    ledger = Ledger(arguments.home)
    return {"show": _show, "history": _history, "verify": _verify, "backup": _backup}[action](arguments, ledger)


def _backup(arguments: argparse.Namespace, ledger) -> int:
    from pipeline import anchors, backup

    anchors.expect(arguments.home.absolute(), ledger)  # a backup of a ledger that has forgotten would pass for a good one
    head = backup.write(ledger, arguments.file)
    said = (
        f"Wrote {head.entries} entries to {arguments.file}. Keep it on another disk, with a copy of {arguments.home / 'keys'}."
    )
    answer(arguments, head.model_dump(mode="json") | {"file": str(arguments.file)}, said)
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from pipeline import backup

    home, copies, keys = runs.open_home(arguments.home), arguments.release or (), arguments.key or ()
    head = backup.restore(home, arguments.file, by=arguments.by or "", why=arguments.why or "", copies=copies, keys=keys)
    said = f"The ledger is back, with {head.entries} entries; every claim that was open is charged in full."
    answer(arguments, head.model_dump(mode="json"), said)
    return 0


def _rebuild(arguments: argparse.Namespace) -> int:
    from pipeline import rebuild

    claims = rebuild.rebuild(
        runs.open_home(arguments.home),
        by=arguments.by or "",
        why=arguments.why or "",
        file=arguments.backup,
        copies=arguments.release or (),
        keys=arguments.key or (),
    )
    rows = [(one.budget, one.run, one.mechanism.steps) for one in claims]
    text = columns(rows, ("budget", "run", "steps charged to everybody")) if rows else "No run had to be charged again."
    answer(arguments, [one.model_dump(mode="json") for one in claims], text)
    return 0


def _show(arguments: argparse.Namespace, ledger) -> int:
    named = [arguments.budget] if arguments.budget else ledger.budgets()
    found = [ledger.standing(name) for name in named]
    rows = [
        (one.budget, one.runs, f"{one.epsilon_spent:.3f}", f"{one.epsilon_cap:g}", f"{one.epsilon_left:.3f}", f"{one.delta:g}",
         f"{one.epsilon_sum:.3f}")
        for one in found
    ]  # fmt: skip
    text = (
        columns(rows, ("budget", "runs", "ε spent", "of", "left", "at δ", "(plain sum)")) if rows else "No run has spent yet."
    )
    answer(arguments, [one.model_dump(mode="json") for one in found], text)
    return 0


def _history(arguments: argparse.Namespace, ledger) -> int:
    charges = [
        charge for name in ([arguments.budget] if arguments.budget else ledger.budgets()) for charge in ledger.charges(name)
    ]
    rows = []
    for one in charges:
        plan, state = one.claim.mechanism, "closed" if one.closed else "open: charged in full"
        noise, rate = f"{plan.noise_multiplier:g}", f"{plan.sampling_rate:.4g}"
        rows.append((one.claim.budget, one.claim.run, f"{one.charged} of {plan.steps}", noise, rate, state))
    text = columns(rows, ("budget", "run", "steps charged", "σ", "q", "")) if rows else "No run has spent yet."
    answer(arguments, [one.model_dump(mode="json") for one in charges], text)
    return 0


def _shows_runs(home: Path) -> bool:
    """Whether runs have spent here, whatever became of the ledger."""
    from pipeline import release

    return any((home / "runs").glob("*/claim.json")) or bool(release.releases(home))


def _verify(arguments: argparse.Namespace, ledger) -> int:
    from pipeline import anchors

    home = arguments.home.absolute()
    head, held = anchors.check(home, ledger, arguments.release or (), arguments.key or ())
    said = [
        f"The ledger is whole: {head.entries} entries, each follows from the one before, and it holds what "
        f"{held} releases and runs say of it."
    ]
    words = [(one.at[:10], one.detail) for what in ("restored", "rebuilt") for one in ledger.notes(what)]
    said += [f"It was {word['what']} on {at}; {word['by']} says why: {word['why']}" for at, word in words if word["by"]]
    given = [{"at": at, **{key: word[key] for key in ("what", "by", "why")}} for at, word in words]
    answer(arguments, head.model_dump(mode="json") | {"anchors": held, "brought_back": given}, "\n".join(said))
    return 0
