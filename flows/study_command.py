"""`hushtune study`: the study flow with its own server, live progress, and the path of the page.

The command line finds `study` through the entry-point group "hushtune.commands".
"""

import argparse
import contextlib
import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from flows import console, server
from pipeline import runs
from pipeline.commands.common import answer, columns, quiet
from pipeline.display import Row
from pipeline.errors import HushtuneError, StageError
from pipeline.report.formats import number, percent
from pipeline.study import grid
from pipeline.study import spec as specs

ROWS = (Row("start"), Row("models", "tokens", rated=True), Row("read"), Row("cells", "cells"), Row("draw"))


def study(arguments: argparse.Namespace) -> int:
    """Do a study, or what is left of it; returns 0.

    Raises:
        HushtuneError: the spec is refused, or a cell failed; finished cells stay.
        KeyboardInterrupt: with a sentence that says what stays.
    """
    quiet()
    if arguments.spec is None:
        print(f"No SPEC given: running the bundled study, {specs.bundled().name}.", file=sys.stderr)
    spec = specs.load(arguments.spec or specs.bundled())
    home = runs.open_home(arguments.home)
    folder = grid.start(spec, home)
    runs.hold(folder)
    try:
        made = _flow(spec, folder, home, arguments.output.absolute() if arguments.output else None)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped by you: finished cells stay, and the same command does the others.") from None
    finally:
        runs.let_go(folder)
    content = json.loads(made.with_name("study.json").read_text(encoding="utf-8"))
    short = {"study": spec.name, "page": str(made), **_short(content)}
    answer(arguments, short, f"{_table(content)}\n\n{_words(content)}{made}")
    return 0


def _flow(spec: specs.Spec, folder: Path, home: Path, output: Path | None) -> Path:
    with console.shown(ROWS) as board, contextlib.ExitStack() as until_the_end:
        with board.row("start"):
            until_the_end.enter_context(server.running(home, functools.partial(importlib.import_module, "flows.study")))
        from prefect.task_runners import ThreadPoolTaskRunner

        from flows.study import study as flow

        grown = flow.with_options(task_runner=ThreadPoolTaskRunner(max_workers=spec.parallel))
        state = grown(folder=folder, home=home, output=output, return_state=True)
        result: Any = state.result(raise_on_failure=False)
    if isinstance(result, Path):
        return result
    if board.stopped:
        raise KeyboardInterrupt
    raise result if isinstance(result, HushtuneError) else StageError(f"Prefect ended study {spec.name} as {state.name}.")


def _short(content: dict[str, Any]) -> dict[str, Any]:
    return {key: content[key] for key in ("planned", "done", "findings", "contrasts", "groups")}


def _table(content: dict[str, Any]) -> str:
    most = str(max(content["copies"], default=0))
    rows = [
        (
            group["model"], group["label"], number(group["perplexity"]["value"]) if group["perplexity"] else "–",
            percent(group["kept"]) if group["kept"] is not None else "–",
            number(group["exposure"][most]["value"]) if most in group["exposure"] else "–",
            f"{group['busy_seconds']:.0f} s", f"{group['peak_megabytes']:,.0f} MB",
        )
        for group in content["groups"]
    ]  # fmt: skip
    return columns(rows, ("model", "privacy", "perplexity", "gain kept", f"bits at {most} copies", "busy", "peak"))


def _words(content: dict[str, Any]) -> str:
    return "".join(f"{finding}\n" for finding in content["findings"])
