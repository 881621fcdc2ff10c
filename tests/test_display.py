"""Progress on a terminal, in a pipe, and without colour."""

import io

import pytest

from pipeline.display import Board, Line, Row

ROWS = (Row("read"), Row("scrub", "records", rated=True), Row("train", "steps"))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO) -> str:
    board = Board(ROWS, stream)
    with board:
        with board.row("scrub") as line:
            line(50, 200)
            line(200, 200)
            line.say("400 values replaced")
        with board.row("train") as line:
            line(40, 40, epsilon=7.98765)
    return stream.getvalue()


def test_a_pipe_gets_one_plain_line_a_stage():
    text = work(io.StringIO())
    scrub, train = text.splitlines()
    assert scrub.split()[0] == "scrub"
    assert "200/200 records" in scrub
    assert "400 values replaced" in scrub
    assert "ε 7.99" in train
    assert "\x1b" not in text


def test_a_terminal_gets_live_rows(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = work(Terminal())
    assert "✓" in text
    assert "400 values replaced" in text
    assert "\x1b[32m" in text


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in work(Terminal())


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in work(Terminal())


def test_a_stage_that_raises_is_marked():
    stream = io.StringIO()
    board = Board(ROWS, stream)

    def fail() -> None:
        with board, board.row("read"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert stream.getvalue().split()[-1] == "stopped"


def test_a_stopped_board_ends_the_running_row_and_begins_no_other():
    board = Board(ROWS, io.StringIO())
    reached = []

    def work() -> None:
        with board, board.row("read") as line:
            line(1, 2)
            board.stopped = True
            line(2, 2)
            reached.append("end of read")

    with pytest.raises(KeyboardInterrupt):
        work()
    with pytest.raises(KeyboardInterrupt), board.row("train"):
        reached.append("train")
    assert reached == []


def test_a_rated_row_shows_its_rate(monkeypatch):
    line = Line(Row("scrub", "records", rated=True))
    monkeypatch.setattr(line, "seconds", lambda: 2.0)
    line(1000, 2000, found=12)
    assert line.text() == "500 records/s · found 12"
