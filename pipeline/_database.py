"""The ledger's tables and transactions: SQLite in WAL mode, one writer at a time, every commit synced to disk.

Everything that belongs to one kind of database stands in this file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from pipeline.errors import IntegrityError, StageError, UsageError

# How long a writer queues: the longest hold is a reservation that composes a long history.
_PATIENCE_SECONDS = 120
_MEND = "give one such as sqlite:////absolute/path/ledger.db"

_schema = MetaData()

entries = Table(
    "entries",
    _schema,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("budget", String(64), nullable=False),
    Column("claim", String(32), nullable=False),
    Column("run", String(128), nullable=False),
    Column("steps", Integer, nullable=False),  # the claim's running total after this entry
    Column("detail", Text, nullable=False),  # canonical JSON of what only this kind of entry has
    Column("hash", String(64), nullable=False),
    Index("entries_of_claim", "claim", "seq"),
    Index("entries_of_budget", "budget", "claim"),
)

# One row: how many entries there are and the hash of the last, so that a cut at the end of the chain is seen too.
head = Table(
    "head",
    _schema,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("entries", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

# A guard against accidents; the hash chain is what finds an edit.
for _verb in ("UPDATE", "DELETE"):
    event.listen(
        entries,
        "after_create",
        DDL(
            f"CREATE TRIGGER entries_no_{_verb.lower()} BEFORE {_verb} ON entries "
            "BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only'); END"
        ).execute_if(dialect="sqlite"),
    )


class Database:
    """Transactions on the ledger's tables, which are made where they are missing.

    Args:
        where: the folder that holds `ledger.db`, or a database URL (`sqlite:////absolute/path`).

    Raises:
        UsageError: the URL is malformed, or is of a database that hushtune does not serve.
        IntegrityError: the file is not a database.
    """

    def __init__(self, where: Path | str, start: str) -> None:
        self.path = _path(where)
        _touch(self.path)
        self._engine = _engine(self.path)
        self._pid = os.getpid()
        with self._told(), self._engine.begin() as connection:
            missing = not inspect(connection).has_table("head")
        if missing:
            with self.write() as connection:
                if not inspect(connection).has_table("head"):
                    _schema.create_all(connection)
                    connection.execute(head.insert().values(id=1, entries=0, hash=start))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the ledger from beginning to end."""
        with self._told(), self._own().begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the only writer's lock from its first statement; committed to disk at the end."""
        with self._told(), self._own().execution_options(writes=True).begin() as connection:
            yield connection

    def _own(self) -> Engine:
        if os.getpid() != self._pid:  # a connection must not be carried across a fork
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cause = error.orig
        except sqlite3.Error as error:
            cause = error
        else:
            return
        if isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError):
            raise IntegrityError(f"The ledger {self.path} cannot be read as one ({cause}): restore it from a backup.")
        raise StageError(f"The ledger {self.path} cannot be used ({cause}): free the file or the disk and try again.")


def _path(where: Path | str) -> Path:
    if isinstance(where, Path) or "://" not in where:
        return Path(where) / "ledger.db"
    try:
        url = make_url(where)
    except ArgumentError:
        raise UsageError(f"The ledger's URL is malformed: {_MEND}.") from None
    if url.get_backend_name() != "sqlite":
        raise UsageError(f"The ledger's URL names {url.get_backend_name()}, which is not served: {_MEND}.")
    if not url.database or url.database == ":memory:" or url.query:
        raise UsageError(f"The ledger's URL must name a file, and no options: {_MEND}.")
    return Path(url.database)


def _touch(path: Path) -> None:
    """Make an empty file that only its owner can read; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Only if it is not there: closing a second descriptor of an open database would drop SQLite's locks on it.
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        if path.is_file():  # another process was quicker
            return
        raise StageError(f"The ledger {path} cannot be made ({error.strerror}): choose another folder.") from None


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _PATIENCE_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for left in reversed(range(100)):
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # two processes that both find a new file: this change does not queue
            if not left:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=FULL")  # a spend is on disk before its step is applied


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
