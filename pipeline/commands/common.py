"""What several commands share: the policy with the flags laid over it, the data file, progress and answers."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import policy as policies
from pipeline.policy import Policy
from pipeline.strictness import check_name

if TYPE_CHECKING:
    from pipeline.display import Line

_DATA_FLAGS = (
    "text_column",
    "prompt_column",
    "completion_column",
    "messages_column",
    "id_column",
    "unit_column",
    "unit_pattern",
    "limit",
)

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


def resolved_policy(arguments: argparse.Namespace) -> Policy:
    """The policy named by --policy, with the column flags and --base-model laid over it.

    Raises:
        PolicyError: it cannot be read, or goes by the name of a preset and is laxer.
    """
    changes = {f"data__{flag}": getattr(arguments, flag, None) for flag in _DATA_FLAGS}
    base = getattr(arguments, "base_model", None)
    policy = policies.load(arguments.policy).override(model=base, **changes)
    check_name(policy)
    return policy


def data_file(arguments: argparse.Namespace, *, folder: bool = False) -> Path:
    """The data given (with `folder`, or a drop folder; of a URL, a copy that goes with this process), or the bundled example.

    Raises:
        UsageError: the URL holds a secret, or cannot be opened here.
        InputError: the file is missing, empty, binary or of an unknown format.
    """
    if arguments.data is None:
        from pipeline import example

        path = example.path()
        print(f"No DATA given: running on the bundled example, {path.name}.", file=sys.stderr)
        return path
    data = arguments.data
    if isinstance(data, str):
        from pipeline import storage

        data = storage.local(data, arguments.home)
    if not (folder and data.is_dir()):
        from pipeline._source import check

        check(data)
    return data.absolute()


def quiet() -> None:
    """Silence the libraries: their warnings and bars would break the progress, and could quote text."""
    warnings.simplefilter("ignore")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def watched(name: str, unit: str = "", *, rated: bool = False) -> Iterator[Line]:
    """One live progress row on stderr."""
    from pipeline.display import Board, Row

    board = Board([Row(name, unit, rated)])
    with board, board.row(name) as line:
        yield line


def answer(arguments: argparse.Namespace, content: Any, text: str) -> None:
    """Print the answer: `content` as one line of JSON with --json, else `text`."""
    print(json.dumps(content, ensure_ascii=False, sort_keys=True) if arguments.json else text)


def columns(rows: Sequence[Sequence[object]], heads: Sequence[str] = ()) -> str:
    """Rows as aligned plain columns.

    >>> print(columns([("a", 1), ("bcd", 22)], heads=("name", "n")))
    name  n
    a     1
    bcd   22
    """
    table = [[str(cell) for cell in row] for row in ([heads] if heads else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
