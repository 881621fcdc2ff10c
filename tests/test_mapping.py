"""Pieces of work: in order, once each, and again only where a process was lost."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipeline import mapping
from pipeline.errors import InputError, StageError
from pipeline.mapping import here, processes
from tests import pieces

NAMES = ("a", "b", "bad", "c", "d")


def items(folder: Path) -> list[Path]:
    return [folder / name for name in NAMES]


def test_processes_give_what_one_gives_in_the_order_of_the_items():
    told: list[tuple[int, int]] = []
    expected = [number * number for number in range(20)]
    assert here(pieces.square, range(20), lambda *one: told.append(one)) == expected
    assert told == list(enumerate(expected))
    told.clear()
    assert processes(2)(pieces.square, range(20), lambda *one: told.append(one)) == expected
    assert sorted(told) == list(enumerate(expected))
    assert processes(2)(pieces.square, [], lambda *one: told.append(one)) == []


def test_each_item_is_worked_on_once_and_not_here(tmp_path):
    assert processes(2)(pieces.note, items(tmp_path), lambda *_: None) == [1] * 5
    workers = {path.read_text() for path in items(tmp_path)}
    assert f"{os.getpid()}\n" not in workers
    assert len(workers) <= 2


def test_only_the_item_of_a_process_that_dies_is_done_again(tmp_path):
    assert processes(2)(pieces.die_once, items(tmp_path), lambda *_: None) == [1, 1, 2, 1, 1]
    assert len(set((tmp_path / "bad").read_text().split())) == 2  # by another process


def test_an_item_that_costs_three_processes_their_lives_ends_the_work(tmp_path):
    with pytest.raises(StageError, match="three times"):
        processes(1)(pieces.die, items(tmp_path), lambda *_: None)
    assert (tmp_path / "bad").read_text().count("\n") == mapping.TRIES
    assert not (tmp_path / "c").exists()


def test_an_error_keeps_its_kind_and_stops_the_work(tmp_path):
    with pytest.raises(InputError, match=r"One sentence\."):
        processes(1)(pieces.refuse, items(tmp_path), lambda *_: None)
    assert (tmp_path / "b").exists()  # the control: what came before was done
    assert not (tmp_path / "c").exists()


def test_a_stop_ends_a_process_that_hangs(tmp_path):
    queue = mapping.Queue(pieces.hang, items(tmp_path), lambda *_: None)
    with ThreadPoolExecutor(1) as threads:
        driver = threads.submit(queue.drive)
        while not (tmp_path / "bad").exists():
            time.sleep(0.05)
        assert not driver.done()  # the control: it would go on
        queue.stop()
        assert driver.result(timeout=300) == 2
    with pytest.raises(StageError, match="not worked on"):
        queue.results()
    number = int((tmp_path / "bad").read_text())
    assert not psutil.pid_exists(number)
    assert not (tmp_path / "c").exists()


def test_an_error_is_told_although_another_process_hangs(tmp_path):
    names = [tmp_path / "bad", tmp_path / "wrong"]
    with pytest.raises(InputError, match=r"One sentence\."):
        processes(2)(pieces.hang, names, lambda *_: None)
