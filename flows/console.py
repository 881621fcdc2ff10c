"""What a person sees of a run: one live row a stage, and the closing table."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.outcome import Outcome
from pipeline.display import Board, Line, Row

PRETRAIN = Row("pretrain", "steps")
ROWS = (
    Row("start"),
    Row("read"),
    Row("probe", "probes"),
    Row("scrub", "records", rated=True),
    Row("plant", "canaries"),
    Row("reserve"),
    Row("train", "steps"),
    Row("audit", "tokens"),
    Row("judge"),
    Row("report"),
    Row("publish"),
)

_VERDICTS = {
    "released": ("RELEASED", "bold green"),
    "rejected": ("REJECTED", "bold red"),
    "inconclusive": ("INCONCLUSIVE", "bold red"),
    "awaiting_approval": ("AWAITING APPROVAL", "bold yellow"),
}

_board: ContextVar[Board | None] = ContextVar("board", default=None)


@contextlib.contextmanager
def shown(rows: Sequence[Row] = ROWS, *, pretrains: bool = False) -> Iterator[Board]:
    """Draw the rows of a run on stderr while the context is open; Ctrl-C then stops the board, whatever swallows it.

    `pretrains` adds the row of continued pretraining, which most runs do without.
    """
    board = Board((*rows[:2], PRETRAIN, *rows[2:]) if pretrains else rows)

    def stop(number: int, frame: object) -> None:
        board.stopped = True
        raise KeyboardInterrupt

    def quiet(unraisable: "sys.UnraisableHookArgs") -> None:
        # Ctrl-C may land in a finaliser, which Python then prints and forgets; the board stops the run all the same.
        if not (board.stopped and unraisable.exc_type is KeyboardInterrupt):
            hook(unraisable)

    token = _board.set(board)
    hook, sys.unraisablehook = sys.unraisablehook, quiet
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:  # a job that its shell put in the background stays deaf
        signal.signal(signal.SIGINT, stop)
    try:
        with board:
            yield board
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook
        _board.reset(token)


@contextlib.contextmanager
def line(name: str) -> Iterator[Line]:
    """The row of a stage; without a board (a scheduled run), a row that shows nothing."""
    board = _board.get()
    if board is None:
        yield Line(Row(name))
        return
    with board.row(name) as row:
        yield row


def stopped() -> bool:
    """Whether Ctrl-C has stopped the board that is shown."""
    board = _board.get()
    return board is not None and board.stopped


def closing(outcome: Outcome, console: Console) -> None:
    """Print the verdict, what it cost, the gates and the paths."""
    words, style = _VERDICTS[outcome.status]
    console.print()
    console.print(Text.assemble((words, style), f"  {outcome.name} {outcome.version or ''}".rstrip()))
    console.print(_gates(outcome))
    rows = {
        "privacy": f"ε {outcome.epsilon:.3f} at δ {outcome.delta:.2g} for each {outcome.unit}",
        "lifetime": f"ε {outcome.lifetime_spent:.3f} of {outcome.lifetime_cap:g} in budget {outcome.budget}",
        "release": outcome.release,
        "report": outcome.report,
        "run": outcome.folder,
        "next": outcome.next_step,
    }
    failed = outcome.reasons if outcome.status in ("rejected", "inconclusive") else ()
    for name, words in [*(("reason", reason) for reason in failed), *rows.items()]:
        if words:
            # Never wrapped or folded: a path must stay whole to be copied or parsed.
            console.print(Text.assemble((f" {name:<9}", "dim"), str(words)), soft_wrap=True)


def _gates(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=True, header_style="dim")
    for head, justify in (("gate", "left"), ("value", "right"), ("judged", "right"), ("limit", "right"), ("", "left")):
        table.add_column(head, justify=justify)
    for name, gate in outcome.gates.items():
        mark = Text("✓ pass", "green") if gate.passed else Text("✗ fail", "red")
        table.add_row(name, _number(gate.value), _number(gate.bound), f"{gate.rule} {gate.limit:g}", mark)
    return table


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
