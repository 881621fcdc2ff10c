"""A deployment as a user has it on one machine: `hushtune deploy --up`, seen from outside through Prefect's API and /proc."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parents[2]
SPY = Path(__file__).parent / "spy"
EVERY_MINUTE, NEVER = "* * * * *", "0 0 30 2 *"
UNREACHED = 599  # what a client says in place of a status
T = TypeVar("T")

# Machines are slow and noisy: a wait ends as soon as the thing is seen, and nothing is asserted on how long it took.
PATIENCE = float(os.environ.get("HUSHTUNE_TEST_PATIENCE", "900"))


def until(what: str, seen: Callable[[], T], *, seconds: float = PATIENCE, pause: float = 0.5) -> T:
    """Wait until `seen` returns something, and return it; AssertionError says what never came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := seen():
            return found
        time.sleep(pause)
    raise AssertionError(f"{what}: not seen within {seconds:.0f} s")


class Station:
    """Server, worker and deployments on one home.

    Args:
        folder: for what is beside the home: logs, temporary files and the count of steps.
        home: HUSHTUNE_HOME.
        data: what the weekly run reads.
        policy: a policy file.
        cron: when the weekly run runs.
        prefix: words before the command, `unshare --net` for one.
        name: what the releases are called.
        environment: more of it, for every process.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        data: Path,
        policy: Path,
        *,
        cron: str,
        name: str = "line",
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.home, self.data, self.policy, self.cron, self.name = folder, home, data, policy, cron, name
        self.prefix = prefix
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.steps, self.pace = folder / "up.log", folder / "steps", folder / "pace.json"
        self.steps.touch()
        self.port = free_port()
        (folder / "tmp").mkdir(exist_ok=True)
        self.environment = clean_environment() | {
            "HUSHTUNE_TEST_STEPS": str(self.steps), "HUSHTUNE_TEST_PACE": str(self.pace), "TMPDIR": str(folder / "tmp"),
        }  # fmt: skip
        self.environment |= environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(self.port, home / "prefect" / "login")

    def start(self) -> Station:
        """Bring everything up and wait until the worker has been started."""
        command = [
            *self.prefix, sys.executable, "-m", "pipeline", "deploy", "--up", "--home", self.home, "--data", self.data,
            "--policy", self.policy, "--name", self.name, "--cron", self.cron, "--audit-cron", NEVER,
            "--retention-cron", NEVER, "--port", self.port,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            until("`hushtune deploy --up` is up", lambda: self.ended() or self.is_up())
            assert not self.ended()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None
        return self

    def is_up(self) -> bool:
        return "Ctrl-C stops" in self.log.read_text()

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> int | None:
        """Stop as a service manager does; then end whatever is left of it. Returns the exit code."""
        if self.process is None:
            return None
        family = self.family()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(120)
        kill([*family, *self.family()])
        code, self.process = self.process.wait(), None
        return code

    # Processes

    def family(self) -> list[psutil.Process]:
        """Everything that descends from the command, and the command."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        return []

    def part(self, name: str) -> psutil.Process:
        """The process that is the server, or the worker; waits for it to be started again where it is dead."""
        return until(f"a {name} process", lambda: next((p for p in self.family() if is_prefect(p, name)), None))

    def kill_worker(self) -> int:
        """kill -9 of the worker and of every flow run under it, at once; returns how many there were."""
        worker = self.part("worker")
        found = [worker, *worker.children(recursive=True)]
        kill(found)
        return len(found)

    # Prefect's API

    def api(self, method: str, path: str, body: object = None) -> Any:
        """The answer of Prefect's API, asked again while it is busy; AssertionError for a status of 400 and more."""

        def asked() -> tuple[int, Any] | None:
            found = self.client.call(method, path, body)
            return None if found[0] in (429, 503, UNREACHED) else found

        status, answer = until(f"an answer to {method} {path}", asked, pause=2)
        assert status < 400, f"{method} {path}: {status} {answer}"
        return answer

    def deployments(self) -> dict[str, dict]:
        return {found["name"]: found for found in self.api("POST", "/deployments/filter", {})}

    def runs(self, **where: object) -> list[dict]:
        """Flow runs, the earliest first; `where` is Prefect's filter of flow runs."""
        body = {"flow_runs": where or None, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return self.api("POST", "/flow_runs/filter", body)

    def ends(self, **where: object) -> list[dict]:
        """Runs that have ended and were not merely taken back."""
        ended = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}
        return self.runs(state=ended, **where)

    def launch(self, deployment: str = "finetune-weekly", **job: object) -> str:
        """A run of a deployment, with some fields of its job replaced; its id."""
        found = self.deployments()[deployment]
        given = {"parameters": {"job": found["parameters"]["job"] | job}, "state": {"type": "SCHEDULED"}}
        return self.api("POST", f"/deployments/{found['id']}/create_flow_run", given)["id"]

    def end_of(self, run: str) -> dict:
        """The run of this id, once it has ended."""
        try:
            return until(f"the end of run {run}", lambda: next(iter(self.ends(id={"any_": [run]})), None))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def schedule(self, active: bool, deployment: str = "finetune-weekly") -> None:
        """Pause a deployment's schedule, or let it go on."""
        verb = "resume" if active else "pause"
        self.api("POST", f"/deployments/{self.deployments()[deployment]['id']}/{verb}_deployment")

    def story(self) -> str:
        """The ends of all logs, for a failure."""
        logs = [self.log, *sorted((self.home / "prefect").glob("*.log"))]
        return "\n".join(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]) for log in logs)

    def applied(self) -> int:
        """Noisy steps that really touched weights, by the spy's count."""
        return self.steps.stat().st_size


class Client:
    """Prefect's REST API in plain HTTP: no code of Prefect's between the test and what the server says.

    `login` is the file that holds the login; None sends none. `inside` is the id of a process whose network namespace the
    server lives in.
    """

    def __init__(self, port: int, login: Path | None) -> None:
        self.port, self.login = port, login
        self.inside: int | None = None

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and content; UNREACHED where the server does not answer."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            with contextlib.closing(connection), namespace(self.inside):
                connection.connect()
                connection.request(method, f"/api{path}", json.dumps(body), self.headers())
                answer = connection.getresponse()
                text = answer.read().decode()
                return answer.status, json.loads(text) if text else None
        except OSError as error:
            return UNREACHED, str(error)

    def headers(self) -> dict[str, str]:
        asked = {"Content-Type": "application/json"}
        if self.login is not None:
            asked["Authorization"] = "Basic " + base64.b64encode(self.login.read_bytes().strip()).decode()
        return asked


@contextlib.contextmanager
def namespace(process: int | None) -> Iterator[None]:
    """Be in another process's network namespace."""
    if process is None:
        yield
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{process}/ns/net") as theirs:
        assert libc.setns(theirs.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(ours.fileno(), 0) == 0


def clean_environment() -> dict[str, str]:
    """This environment without what would lead a deployment elsewhere, and with a proxy that leads nowhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "HUSHTUNE"))}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    path = os.pathsep.join([str(SPY), str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | nowhere | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def is_prefect(process: psutil.Process, name: str) -> bool:
    """Whether a process is Prefect's server, or worker, under the supervisor."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return "flows.supervisor" in words and name in words
    return False


def kill(processes: list[psutil.Process]) -> None:
    """kill -9 of processes, and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
