"""The closing table and the JSON line."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows import console
from flows.commands import EXITS, _failure
from flows.outcome import Gate, Outcome
from pipeline.display import Board
from pipeline.errors import BudgetExhausted, StageError
from pipeline.runs import Run


def outcome(**changes) -> Outcome:
    content = {
        "status": "released",
        "name": "mail",
        "run": "mail-20250101-000000-abcd",
        "folder": Path("/home/runs/mail-20250101-000000-abcd"),
        "version": "3",
        "release": Path("/home/releases/mail/3"),
        "report": Path("/home/releases/mail/3/report.html"),
        "policy": "default",
        "policy_digest": "0" * 64,
        "epsilon": 7.91,
        "delta": 1.2e-5,
        "unit": "record",
        "adjacency": "add_or_remove_one",
        "budget": "default",
        "lifetime_spent": 9.5,
        "lifetime_cap": 32.0,
        "gates": {
            "exposure": Gate(passed=True, value=0.4, bound=0.4, limit=0.01, rule="≥", why="Fine."),
            "utility": Gate(passed=False, value=None, bound=None, limit=1, rule="≤", why="Missing."),
        },
        "reasons": ("Gate utility failed: [bracketed] sentence.",),
        "seconds": {"train": 12.5},
    }
    return Outcome(**(content | changes))


def closing(value: Outcome) -> str:
    stream = io.StringIO()
    console.closing(value, Console(file=stream, width=100))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("status", "words"),
    [("released", "RELEASED"), ("rejected", "REJECTED"), ("awaiting_approval", "AWAITING APPROVAL")],
)
def test_the_closing_table_says_verdict_privacy_gates_and_paths(status, words):
    text = closing(outcome(status=status))
    assert text.strip().startswith(words)
    assert "ε 7.910 at δ 1.2e-05 for each record" in text
    assert "9.500 of 32" in text
    for expected in ("exposure", "≥ 0.01", "✓ pass", "✗ fail", "none", "/home/releases/mail/3/report.html"):
        assert expected in text
    # Reasons are for those who must mend something; a pass is in the table.
    assert ("[bracketed]" in text) == (status == "rejected")


def test_a_path_is_never_broken():
    path = Path("/a-long-path") / ("x" * 200) / "report.html"
    assert str(path) in closing(outcome(report=path))


def test_a_run_that_waits_says_how_to_approve_it():
    assert "hushtune approve mail-20250101-000000-abcd --by NAME" in closing(outcome(status="awaiting_approval"))


def test_the_json_line_has_what_the_contract_names():
    content = outcome().model_dump(mode="json")
    assert {"status", "run", "release", "report", "epsilon", "delta", "unit", "gates"} <= content.keys()
    assert all({"passed", "value", "bound", "limit", "why"} <= gate.keys() for gate in content["gates"].values())
    assert outcome(release=None).model_dump(mode="json")["release"] is None


def test_a_failed_run_has_the_same_keys(tmp_path):
    run = Run(name="mail", id="mail-1", home=tmp_path)
    for error, status in ((StageError("Why."), "error"), (BudgetExhausted("Why."), "budget_exhausted")):
        content = _failure(run, error)
        assert {"status", "run", "release", "report", "epsilon", "delta", "unit", "gates"} <= content.keys()
        assert (content["status"], content["error"], content["run"]) == (status, "Why.", "mail-1")


def test_exit_codes_are_those_of_the_contract():
    assert EXITS == {"released": 0, "rejected": 3, "inconclusive": 3, "awaiting_approval": 5}


def test_without_a_board_a_line_shows_nothing(capsys):
    with console.line("train") as line:
        line(1, 2, epsilon=1.0)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_every_task_has_a_row():
    from flows import tasks

    names = {value.name for value in vars(tasks).values() if type(value).__name__ == "Task"} - {
        "open",
        "hold",
        "discard",
    }  # these share a row
    assert names == {row.name for row in (*console.ROWS, console.PRETRAIN)} - {"start"}
    assert Board(console.ROWS)
