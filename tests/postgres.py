"""A PostgreSQL server of the tests' own, in a temporary folder, on a socket that only this machine sees."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

_numbers = count(1)


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps it out of the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server and yield a URL with `{name}` in the place of a database; skips where there is no PostgreSQL."""
    programs = _programs()
    if programs is None or find_spec("psycopg") is None:
        pytest.skip("PostgreSQL or its driver is not installed (apt-get install postgresql; pip install '.[postgresql]')")
    who = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = [name for name in ("postgres", "nobody") if any(entry.pw_name == name for entry in pwd.getpwall())]
        if not names:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
        who = {"user": names[0], "group": pwd.getpwnam(names[0]).pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="hushtune-pg-"))
    try:
        if who:
            shutil.chown(folder, who["user"])
        run = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **who}
        data, log = folder / "data", folder / "log"
        subprocess.run([programs / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "-N"], **run)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
        subprocess.run([programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start"], **run)
        try:
            yield f"postgresql://tests@/{{name}}?host={folder}"
        finally:
            subprocess.run([programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def database(url: str) -> str:
    """Make an empty database on a server and return its URL."""
    import psycopg

    name = f"ledger{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(url.format(name="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return url.format(name=name)
