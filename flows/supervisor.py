"""`hushtune deploy --up`: a server, the deployments and a worker on one machine, watched until Ctrl-C.

Server and worker are processes with a session of their own, so that Ctrl-C reaches this one alone, which then stops them in
order; they also end when their standard input closes, however this one ends. One that dies is started again, later each time.
Everything that Prefect keeps is in PREFECT_HOME, HOME/prefect unless set, mode 0700, with the logs of both.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from flows import server
from flows.deploy import POOL, Plan, say
from pipeline.errors import StageError, UsageError
from pipeline.folders import write_json, write_text

_HOST = "127.0.0.1"
_STEADY = 300.0  # seconds after which an earlier death is forgotten
_LONGEST = 60.0  # seconds between a death and the next start
_TIDY = 30.0  # seconds between two times that a child gives free memory back
_LOGINS = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")  # of the server, and of whoever asks it
_SERVER = {
    # In memory, the slots that were taken would stay taken for good when the server is started again.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # what a log is there for; a run's story is on its page
}


class Child:
    """A process of Prefect's that is started again when it ends."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._environment = command, environment
        self._wait, self._again = 1.0, 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; what it prints goes to its log."""
        self._started = time.monotonic()
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def watch(self) -> None:
        """Start the process again if it ended, and say so."""
        if self.process is None:
            if time.monotonic() >= self._again:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        if time.monotonic() - self._started > _STEADY:
            self._wait = 1.0
        say(f"The {self.name} ended ({_ended(code)}): see {self.log}; it is started again in {self._wait:.0f} s.")
        self.process, self._again = None, time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LONGEST)

    def stop(self, seconds: float) -> None:
        """End the process: by SIGTERM, and if that takes too long, at once."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def up(plan: Plan, port: int) -> int:
    """Run everything until Ctrl-C or SIGTERM; returns 0.

    Raises:
        UsageError: the port cannot be used, or another `deploy --up` runs on this home.
        StageError: the server does not start, or refuses the deployments; the message names its log.
    """
    from flows.apply import apply  # imports Prefect, once its environment is set

    state = Path(os.environ["PREFECT_HOME"]).expanduser()
    url, login = f"http://{_HOST}:{port}/api", _login(state)
    environment = _environment(plan, url, login)
    asking = {_LOGINS[0]: login} if login else {}
    serve = _prefect("server", "start", "--host", _HOST, "--port", str(port))
    children = [
        Child("server", serve, environment | asking, state / "server.log"),
        Child("worker", _prefect("worker", "start", "--pool", POOL, "--type", "process"), environment, state / "worker.log"),
    ]
    with _alone(state), _stoppable():
        _check_port(port)
        try:
            say(f"Starting Prefect's server on port {port} …")
            children[0].start()
            _wait(children[0], url)
            apply(plan, environment, state / "deploy.log")
            children[1].start()
            write_json(state / "up.json", {"url": url, "login": login})
            say(_welcome(plan, port, state, login))
            while True:
                for child in children:
                    child.watch()
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("Stopping the worker and the server …")
            return 0
        finally:
            (state / "up.json").unlink(missing_ok=True)
            for child in reversed(children):
                child.stop(20)


def _prefect(*arguments: str) -> list[str]:
    """The command of a child that is `prefect ARGUMENTS`; see `_child`."""
    return [sys.executable, "-m", "flows.supervisor", *arguments]


def _login(state: Path) -> str | None:
    """The login, NAME:PASSWORD, that the server asks for: without one, whoever has an account here could start runs.

    It is made once, and kept. PREFECT_SERVER_API_AUTH_STRING gives another one; where it is set to nothing, the server asks for
    none.
    """
    given = os.environ.get(_LOGINS[0])
    if given is not None:
        return given or None
    path = state / "login"
    if not path.exists():
        write_text(path, f"hushtune:{secrets.token_urlsafe(24)}\n")
    login = path.read_text(encoding="ascii").strip()
    if not re.fullmatch(r"[^:\s]+:\S{16,}", login):
        raise UsageError(f"{path} holds no login (NAME:PASSWORD, 16 characters or more): delete it, and a new one is made.")
    return login


def _environment(plan: Plan, url: str, login: str | None) -> dict[str, str]:
    """Of every child."""
    ours = {name: value for name, value in os.environ.items() if name not in _LOGINS}
    if login:
        ours["PREFECT_API_AUTH_STRING"] = login
    return {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60",
        **ours,
        **_SERVER,
        "PREFECT_API_URL": url,
        "HUSHTUNE_HOME": str(plan.home),
    }


def _welcome(plan: Plan, port: int, state: Path, login: str | None) -> str:
    where = f"what {_LOGINS[0]} says" if _LOGINS[0] in os.environ else f"the line in {state / 'login'}"
    asks = (f"It asks for a login once: {where}.",) if login else ()
    rows = [f"  {name:<17}{when}" for name, when in plan.schedules.items()]
    by_hand = f"  {'approve':<17}by hand, on that page"
    return "\n".join((f"Prefect's page: http://{_HOST}:{port}", *asks, *rows, by_hand, "Ctrl-C stops all of it."))


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Two servers on one SQLite file would schedule everything twice."""
    with open(os.open(state / "up.lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
        free = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        if not free:
            raise UsageError(f"Another `hushtune deploy --up` runs on {state}: stop it first, or give another --home.")
        yield


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which a service manager sends, stops like Ctrl-C; so does Ctrl-C in a job of the background."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise UsageError(f"{port} is no port: give a number from 1 to 65535 by --port.")
    why = None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    if why:
        raise UsageError(f"Port {port} {why}: stop what listens there, or give another one by --port.")


def _wait(child: Child, url: str) -> None:
    seconds = int(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
    end = time.monotonic() + seconds
    while child.process is not None and child.process.poll() is None and time.monotonic() < end:
        if server.answers(url, 5):
            return
        time.sleep(0.2)
    raise StageError(f"Prefect's server did not start within {seconds} s: see {child.log}.")


def _ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _child(arguments: list[str]) -> None:
    """Be `prefect ARGUMENTS`, until standard input closes."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    os.umask(0o077)
    threading.Thread(target=watch, daemon=True).start()
    threading.Thread(target=_give_back, daemon=True).start()
    sys.argv = ["prefect", *arguments]
    runpy.run_module("prefect", run_name="__main__")


def _give_back() -> None:
    """Return freed memory to the system now and then: by itself glibc keeps some 40 MB of it, more with every run at first."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim:
        time.sleep(_TIDY)
        trim(0)


if __name__ == "__main__":
    _child(sys.argv[1:])
