"""Functions that other processes find here and do."""

import os
import time
from pathlib import Path

from pipeline.errors import InputError
from pipeline.scrub import _shards


def square(number: int) -> int:
    return number * number


def note(path: Path) -> int:
    """Write down, line by line, who worked on an item; returns how often one did."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return path.read_text().count("\n")


def die_once(path: Path) -> int:
    """As `note`, but the item called "bad" costs the first process its life, as a lack of memory would."""
    times = note(path)
    if path.name == "bad" and times == 1:
        os.kill(os.getpid(), 9)
    return times


def die(path: Path) -> int:
    """As `note`, but the item called "bad" costs each process its life."""
    times = note(path)
    if path.name == "bad":
        os.kill(os.getpid(), 9)
    return times


def refuse(path: Path) -> int:
    """As `note`, but the item called "bad" is refused."""
    if path.name == "bad":
        raise InputError("One sentence.")
    return note(path)


def leak(path: Path) -> int:
    """Fails as libraries do: with a text in its error."""
    raise LookupError(f"cannot parse {path.read_text()}")


def scrub(piece: _shards.Piece) -> object:
    """A piece of scrubbing, noted in the folder "worked"; the third shard costs the first process its life."""
    if piece.shard is not None and _shards.done(piece.shard) is None:
        times = note(piece.job.parents[2] / "worked" / piece.shard.stem)
        if piece.shard.stem == "00002" and times == 1:
            os.kill(os.getpid(), 9)
    return _shards.work(piece)


def hang(path: Path) -> None:
    """As `note`, but the item called "bad" never ends; one called "wrong" is refused once the other has begun."""
    note(path)
    while path.name == "wrong":
        if (path.parent / "bad").exists():
            raise InputError("One sentence.")
        time.sleep(0.05)
    while path.name == "bad":
        time.sleep(1)
