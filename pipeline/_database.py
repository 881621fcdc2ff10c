"""The ledger's tables and transactions on SQLite (a file in WAL mode) or PostgreSQL: one writer at a time, every commit synced.

Writers queue: on SQLite at the file's write lock, on PostgreSQL at an advisory lock that is taken before the transaction's
first look at the data, so that what a writer has read cannot change before it commits and no transaction is ever rolled back
for another's sake. Readers see one state from beginning to end. All that belongs to one kind of database stands in this file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    URL,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
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

from pipeline.errors import IntegrityError, StageError, TransientError, UsageError

# How long a writer queues: the longest hold is a reservation that composes a long history.
_PATIENCE_SECONDS = 120
_MEND = "give one such as sqlite:////absolute/path/ledger.db or postgresql://user@host/database"
_LOCK = 0x68757368  # any number, the same for every writer of a ledger

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

# Who was in the runs, as cohorts of keyed hashes; what a cohort must hold stands in the chain. See `pipeline.cohorts`.
cohorts = Table(
    "cohorts",
    _schema,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("units", LargeBinary, nullable=False),  # sorted, 8 bytes each
)

# A guard against accidents; the hash chain is what finds an edit.
_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER entries_no_{verb.lower()} BEFORE {verb} ON entries "
        "BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION entries_are_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'ledger entries are append-only'; END $$",
        "CREATE TRIGGER entries_no_edit BEFORE UPDATE OR DELETE OR TRUNCATE ON entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION entries_are_append_only()",
    ],
}
for _dialect, _statements in _GUARDS.items():
    for _statement in _statements:
        event.listen(entries, "after_create", DDL(_statement).execute_if(dialect=_dialect))


class Database:
    """Transactions on the ledger's tables, which are made where they are missing.

    Args:
        where: the folder that holds `ledger.db`, or a database URL (`sqlite:////absolute/path`, `postgresql://…`).
        start: the hash before the first entry.

    Raises:
        UsageError: the URL is malformed, or is of a database that hushtune does not serve or that has no driver here.
        IntegrityError: the file is not a database.
        StageError: the database cannot be reached.
    """

    def __init__(self, where: Path | str, start: str) -> None:
        url = _url(where)
        self.name = str(url.database) if _is_file(url) else url.render_as_string(hide_password=True)
        if _is_file(url):
            _touch(Path(str(url.database)))
        self._engine = _sqlite(url) if _is_file(url) else _postgresql(url)
        self._pid = os.getpid()
        with self.read() as connection:
            missing = not inspect(connection).has_table("cohorts")
        if missing:
            with self.write() as connection:
                _schema.create_all(connection)
                if connection.execute(head.select()).first() is None and connection.execute(entries.select()).first() is None:
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

    def close(self) -> None:
        """Give up all connections; the next transaction opens one anew."""
        self._engine.dispose()

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
        said = " ".join(str(cause).split())
        if isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError):
            raise IntegrityError(
                f"The ledger {self.name} cannot be read as one ({said}): move it away and restore it from a backup."
            )
        kind = StageError if "full" in said else TransientError  # a full disk does not mend itself
        raise kind(f"The ledger {self.name} cannot be used ({said}): free the database or the disk and try again.")


def _url(where: Path | str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where) / "ledger.db"))
    try:
        url = make_url(where)
    except ArgumentError:
        raise UsageError(f"The ledger's URL is malformed: {_MEND}.") from None
    if url.get_backend_name() == "postgresql":
        if find_spec("psycopg") is None:
            raise UsageError("The ledger's URL names PostgreSQL, whose driver is not here: pip install 'hushtune[postgresql]'.")
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise UsageError(f"The ledger's URL names {url.get_backend_name()}, which is not served: {_MEND}.")
    if not url.database or url.database == ":memory:" or url.query:
        raise UsageError(f"The ledger's URL must name a file, and no options: {_MEND}.")
    return url


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


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


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _PATIENCE_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin_sqlite)
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


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _postgresql(url: URL) -> Engine:
    # A training may be silent for longer than a firewall keeps a connection: each one is tried before it is used.
    engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 20})
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # each statement sees all that is committed
    connection.exec_driver_sql("SET LOCAL synchronous_commit TO on")  # a spend is on disk before its step is applied
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
