"""One PostgreSQL under Prefect and under the ledger: a run is released through it, and no private text stands in it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import prefect_api
from pipeline.ledger import Ledger
from tests import postgres
from tests.flows.line import ADDRESS, SENTINEL, holding

ROOT = Path(__file__).parents[2]
PLANTED = "zqplantedword"


@contextlib.contextmanager
def prefect_server(home: Path, database: str) -> Iterator[dict[str, str]]:
    """A Prefect server that keeps its state in a PostgreSQL database; yields the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "HUSHTUNE"))}
    clean |= {
        "PREFECT_HOME": str(home),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "NO_PROXY": "127.0.0.1",
    }
    url = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            env=clean | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database},
            stdout=log,
            stderr=log,
            cwd=home,
        )
    try:
        end = time.monotonic() + 240
        while True:
            try:
                prefect_api.workers(prefect_api.Server(url))
                break
            except OSError:
                assert server.poll() is None, (home / "server.log").read_text()[-2000:]
                assert time.monotonic() < end, "Prefect's server did not start"
                time.sleep(0.5)
        yield clean | {"PREFECT_API_URL": url}
    finally:
        server.terminate()
        server.wait(timeout=60)


def dumped(url: str) -> str:
    """A whole database as text; bytes in it are spelled in hexadecimal digits."""
    name, folder = url.split("@/")[1].split("?host=")
    beside = postgres._programs() / "pg_dump"
    program = beside if beside.exists() else shutil.which("pg_dump")
    made = subprocess.run([program, "-h", folder, "-U", "tests", name], capture_output=True, text=True, check=True)
    assert "PostgreSQL database dump complete" in made.stdout
    return made.stdout


def spellings(word: str) -> list[str]:
    """How a word can stand in a dump: plainly, in bytes, or in base64 at any of the three offsets."""
    inside = [base64.b64encode(b"\0" * shift + word.encode())[4 if shift else 0 : -4].decode() for shift in range(3)]
    return [word, word.encode().hex(), *inside]


@pytest.mark.slow
def test_a_run_is_released_through_postgresql_and_leaves_no_text_in_it(place, tmp_path):
    import psycopg

    with postgres.server() as server:
        prefect, ledger = postgres.database(server), postgres.database(server)
        (tmp_path / "prefect").mkdir()
        home = tmp_path / "home"
        database = prefect.replace("postgresql://", "postgresql+asyncpg://")
        with prefect_server(tmp_path / "prefect", database) as clients:
            call = ["run", place / "data.jsonl", "--policy", place / "open.yaml", "--home", home, "--json"]
            made = subprocess.run(
                [sys.executable, "-m", "pipeline", *map(str, call)],
                env=clients | {"HUSHTUNE_LEDGER_URL": ledger},
                capture_output=True,
                text=True,
                cwd=ROOT,
                check=False,
            )
            assert made.returncode == 0, made.stderr[-2000:]
        outcome = json.loads(made.stdout.splitlines()[-1])
        assert outcome["status"] == "released"
        assert not (home / "ledger.db").exists()
        (charge,) = Ledger(ledger).charges(outcome["budget"])
        assert (charge.claim.run, charge.closed) == (outcome["run"], True)
        assert not (tmp_path / "prefect" / "prefect.db").exists()
        dumps = {url: dumped(url) for url in (prefect, ledger)}
        assert outcome["run"] in dumps[prefect]  # the run is in there
        assert outcome["run"] in dumps[ledger]
        for word in (SENTINEL, ADDRESS):
            assert holding(home / "runs", word)  # there was something to leak
            for dump in dumps.values():
                assert not [spelling for spelling in spellings(word) if spelling in dump]
        # The control: a word that is put there is found, plain, in bytes and in base64.
        with psycopg.connect(prefect, autocommit=True) as connection:
            connection.execute("CREATE TABLE planted (plain text, bytes bytea, coded text)")
            coded = base64.b64encode(f"dear {PLANTED} of".encode()).decode()
            connection.execute("INSERT INTO planted VALUES (%s, %s, %s)", (f"dear {PLANTED}", PLANTED.encode(), coded))
        dump = dumped(prefect)
        assert PLANTED in dump
        assert PLANTED.encode().hex() in dump
        assert any(spelling in dump for spelling in spellings(PLANTED)[2:])
