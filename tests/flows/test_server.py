"""Our own Prefect server: private, quiet, and gone with the process that started it."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Starts the server, prints its URL, and then waits to be killed or closes it.
SCRIPT = """
import os, sys
from pathlib import Path
from flows import server
home = Path(sys.argv[1])
with server.running(home, lambda: None):
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
    print(PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value() or "", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(f"{url}/health", timeout=10).status == 200
    except urllib.error.URLError:
        return False


def gone(url: str, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not answers(url):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_the_server_ends_with_its_run_however_that_ends(ending, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
    )
    url = process.stdout.readline().strip()
    assert answers(url), process.stderr.read()
    if ending == "kill":
        process.send_signal(signal.SIGKILL)
    else:
        process.stdin.close()
    process.wait(timeout=30)
    assert gone(url)
    assert process.stderr.read() == ""
    prefect = tmp_path / "prefect"
    assert stat.S_IMODE(prefect.stat().st_mode) == 0o700
    assert (prefect / "prefect.db").exists()


def call(home: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home), "end"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment() | environment,
        check=False,
    )


def test_a_server_that_is_named_is_used_and_none_is_started(tmp_path):
    there = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{there.server_port}/api"
    made = call(tmp_path, PREFECT_API_URL=url)
    there.shutdown()
    assert made.stdout.strip() == url, made.stderr
    assert not (tmp_path / "prefect" / "server.log").exists()


@pytest.mark.parametrize("login", ["me:mine", "me:wrong"])
def test_the_login_of_a_server_beside_us_is_used_and_a_wrong_one_is_one_sentence(tmp_path, login):
    class Asks(BaseHTTPRequestHandler):
        def do_GET(self):
            mine = self.path.endswith("/health") or self.headers["Authorization"] == "Basic bWU6bWluZQ=="
            self.send_response(200 if mine else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    there = ThreadingHTTPServer(("127.0.0.1", 0), Asks)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{there.server_port}/api"
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "up.json").write_text(json.dumps({"url": url, "login": login}))
    made = call(tmp_path)
    there.shutdown()
    if login == "me:mine":
        assert made.stdout.split() == [url, login], made.stderr
    else:
        assert made.returncode == 1
        assert "set PREFECT_API_AUTH_STRING" in made.stderr.splitlines()[-1]


def test_a_named_server_that_is_not_there_is_one_sentence(tmp_path):
    made = call(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert made.returncode == 1
    assert "http://127.0.0.1:9/api does not answer" in made.stderr.splitlines()[-1]


def test_a_server_that_cannot_start_is_one_sentence(tmp_path):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "prefect.db").write_text("not a database " * 100)
    made = call(tmp_path)
    assert made.returncode == 1
    assert "server.log" in made.stderr.splitlines()[-1]
