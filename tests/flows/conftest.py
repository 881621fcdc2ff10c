"""Prefect in a home of the tests' own, with one server for all of them; the user's ~/.prefect is never touched."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from flows import server
from pipeline import cli
from tests.flows import line

HOME = Path(tempfile.mkdtemp(prefix="hushtune-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for name in [name for name in os.environ if name.startswith("PREFECT")]:
    del os.environ[name]
server.configure(HOME)


@pytest.fixture(scope="session")
def prefect_home():
    """PREFECT_HOME of a server that runs for the whole session."""
    with server.running(HOME, lambda: None):
        yield HOME / "prefect"


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with data, a tiny model and policies; see `tests.flows.line`."""
    return line.make(tmp_path_factory.mktemp("line"))


@pytest.fixture
def hushtune(prefect_home, monkeypatch):
    """Run a command in this process, with the tests' server."""
    from flows import commands

    monkeypatch.setattr(cli, "_plugin", lambda name: getattr(commands, name))
    return cli.main


@pytest.fixture(autouse=True)
def hearing():
    """A suite that runs in the background of its shell is born deaf to Ctrl-C; the tests must not be."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
