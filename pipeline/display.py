"""Live progress on stderr: one row a stage on a terminal, one plain line at a stage's end elsewhere.

    board = Board([Row("scrub", "records")])
    with board, board.row("scrub") as progress:
        progress(10, 200)

Honours NO_COLOR and TERM=dumb. Shows counts and figures, never text of a record.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

_NAMES = {"epsilon": "ε", "delta": "δ"}


class Row(NamedTuple):
    """A stage: its name and what it counts. Units of `rated` rows also show a rate."""

    name: str
    unit: str = ""
    rated: bool = False


class Board:
    """The rows of a piece of work; a context manager that draws while it is open.

    Once `stopped` is set, the next row, or the next progress of the running one, raises KeyboardInterrupt: libraries with a
    bare `except:` swallow the one that Ctrl-C raises in them.
    """

    def __init__(self, rows: Sequence[Row], stream: TextIO | None = None) -> None:
        self.stopped = False
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self._rows = {row.name: row for row in rows}
        self._live = _live(self.console) if self.console.is_terminal and not self.console.is_dumb_terminal else None
        self._tasks: dict[str, TaskID] = {}
        if self._live is not None:
            self._tasks = {row.name: self._live.add_task(row.name, start=False, total=None, row=row) for row in rows}

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def row(self, name: str) -> Iterator[Line]:
        """Run a stage under its row; the row ends with a tick, or with a cross if the stage raised."""
        line = Line(self._rows[name], self._live, self._tasks.get(name), self)
        try:
            self.go_on()
            yield line
            self.go_on()
        except BaseException:
            line.end(well=False, console=self.console)
            raise
        line.end(well=True, console=self.console)

    def go_on(self) -> None:
        """Raise KeyboardInterrupt if the work is to stop."""
        if self.stopped:
            raise KeyboardInterrupt


class Line:
    """What a running stage does with its row: call it as its progress, and say in a few words what came out.

    A line of no board (`Line(Row("train"))`) shows nothing.
    """

    def __init__(self, row: Row, live: Progress | None = None, task: TaskID | None = None, board: Board | None = None) -> None:
        self.row = row
        self.told: Callable[[int, int], None] | None = None
        """Called with each progress, for whoever follows from elsewhere."""
        self._board = board
        self._live, self._task = live, task
        self._started = time.monotonic()
        self._done, self._total = 0, 0
        self._figures: dict[str, float | int | str] = {}
        self._words = ""
        if live is not None and task is not None:
            live.start_task(task)

    def __call__(self, done: int, total: int, **figures: float | int | str) -> None:
        """Show `done` of `total` and the figures."""
        if self._board is not None:
            self._board.go_on()
        self._done, self._total, self._figures = done, total, figures
        if self.told is not None:
            self.told(done, total)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total, words=self.text())

    def say(self, words: str) -> None:
        """Replace the figures of the row by its outcome."""
        self._words = words

    def said(self) -> str:
        """The outcome of the row, or its figures where none was given."""
        return self._words or self.text()

    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._started

    def text(self) -> str:
        """The figures of the row in words: a rate where the row has one, then what the stage passed."""
        parts = [f"{_NAMES.get(name, name)} {_short(value)}" for name, value in self._figures.items()]
        if self.row.rated and self._done and self.seconds() > 0.5:
            parts.insert(0, f"{self._done / self.seconds():,.0f} {self.row.unit}/s")
        return " · ".join(parts)

    def end(self, *, well: bool, console: Console) -> None:
        """Close the row: with a tick or a cross on a terminal, as one plain line elsewhere."""
        words = self.said()
        if self._live is not None and self._task is not None:
            total = self._total or 1
            done = total if well else self._done
            self._live.update(self._task, completed=done, total=total, words=words, well=well, took=self.seconds())
            self._live.stop_task(self._task)
            return
        count = f"{self._done:,}/{self._total:,} {self.row.unit}" if self._total else ""
        parts = [f"{self.row.name:<9}", f"{self.seconds():7.1f} s", f"{count:<22}", words if well else "stopped"]
        console.print("  ".join(parts).rstrip(), markup=False, soft_wrap=True)


def _live(console: Console) -> Progress:
    fit = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(_Mark(), _Name(), _Bar(), _Count(), _Took(), _Words(table_column=fit), console=console, expand=True)


class _Mark(ProgressColumn):
    def __init__(self) -> None:
        super().__init__()
        self._spinner = Spinner("dots", style="cyan")

    def render(self, task: Task) -> RenderableType:
        well = task.fields.get("well")
        if well is not None:
            return Text("✓", "green") if well else Text("✗", "red")
        return Text("·", "dim") if task.start_time is None else self._spinner.render(task.get_time())


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, "dim" if task.start_time is None else "bold")


class _Bar(ProgressColumn):
    def render(self, task: Task) -> ProgressBar | Text:
        if task.start_time is None:
            return Text(" " * 16)
        waiting = task.total is None
        return ProgressBar(total=task.total or 1, completed=task.completed, width=16, pulse=waiting)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        row: Row = task.fields["row"]
        if not task.total or not row.unit:
            return Text("")
        return Text(f"{int(task.completed):,}/{int(task.total):,} {row.unit}", justify="right")


class _Took(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.fields.get("took", task.elapsed)
        return Text("" if seconds is None else f"{seconds:.1f} s", "dim", justify="right")


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields.get("words", ""), "cyan" if "well" not in task.fields else "")


def _short(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value
