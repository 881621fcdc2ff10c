"""Prefect's API for one command: the server that PREFECT_API_URL (or a profile) names, that of a `hushtune deploy --up` on the
same home, or one of our own that ends with the command.

Our own server is Prefect's ephemeral one, started in a session of its own, so that Ctrl-C reaches the run alone and the run's
last state is still recorded; it ends when our end of its standard input closes, however this process ends. Services that one
run does not need are off. Its database is PREFECT_HOME/prefect.db, HUSHTUNE_HOME/prefect unless set.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import prefect_api
from pipeline.errors import StageError
from pipeline.folders import private_folder
from pipeline.prefect_api import answers

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # logs go to the run's page; the terminal shows the progress
}
_OURS = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_LOGGER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
}


def configure(home: Path) -> None:
    """Set Prefect's environment where the user has not; call before Prefect is imported."""
    for name, value in {"PREFECT_HOME": str(home / "prefect"), **_QUIET}.items():
        os.environ.setdefault(name, value)
    private_folder(Path(os.environ["PREFECT_HOME"]).expanduser())
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach our server
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


_is_ours = False


def is_ours() -> bool:
    """Whether this process has a server of its own, which no other run uses and nobody looks at."""
    return _is_ours


@contextlib.contextmanager
def running(home: Path, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Provide Prefect's API while the context is open; `meanwhile` is called once, as our own server starts.

    Raises:
        StageError: the server that is named does not answer, or our own did not start; then the message names its log.
    """
    configure(home)
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    if server := prefect_api.named(home, PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()):
        if not answers(server.url, seconds=10):
            raise StageError(f"Prefect's server at {server.url} does not answer: start it, or unset PREFECT_API_URL.")
        if not prefect_api.lets_in(server):
            raise StageError(
                f"Prefect's server at {server.url} asks for another login: set PREFECT_API_AUTH_STRING to NAME:PASSWORD."
            )
        meanwhile()
        login = {PREFECT_API_AUTH_STRING: server.login} if server.login else {}
        with temporary_settings({PREFECT_API_URL: server.url, **login}):
            try:
                yield
            finally:
                _flush_logs()
        return
    with _process(Path(os.environ["PREFECT_HOME"]).expanduser() / "server.log") as (process, log):
        meanwhile()
        url = _wait(process, log)
        global _is_ours
        with temporary_settings({PREFECT_API_URL: url}):
            _is_ours = True
            try:
                yield
            finally:
                _is_ours = False
                _flush_logs()


@contextlib.contextmanager
def _process(log: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **_OURS},
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server answers and return its URL."""
    seconds = int(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
    port = process.stdout.readline().strip().decode()
    url = f"http://127.0.0.1:{port}/api"
    end = time.monotonic() + seconds
    while port and process.poll() is None and time.monotonic() < end:
        if answers(url, seconds):
            return url
        time.sleep(0.05)
    raise StageError(f"Prefect's server did not start within {seconds} s: see {log}, or name a running one by PREFECT_API_URL.")


def _flush_logs() -> None:
    """Send what Prefect's handlers still hold, before the server goes away."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def serve() -> None:
    """Run Prefect's server on a free port, print the port, and end when standard input closes."""
    import uvicorn

    os.umask(0o077)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads our output after the port
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def watch() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve()
