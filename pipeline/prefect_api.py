"""What the library asks a Prefect server over HTTP, and where it finds one: the library imports no Prefect."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

POOL = "hushtune"
_SECONDS = 5


class Server(NamedTuple):
    """Where a server's API is, and the login, NAME:PASSWORD, that it asks for, if any."""

    url: str
    login: str | None = None


def named(home: Path, url: str | None, login: str | None) -> Server | None:
    """The server of the settings given, else that of a `hushtune deploy --up` on the home, if it answers; else None."""
    there = beside(home)
    if url:
        return Server(url, login or (there.login if there and there.url == url else None))
    return there if there and answers(there.url, _SECONDS) else None


def beside(home: Path) -> Server | None:
    """What a `hushtune deploy --up` on the home has noted; one that was killed leaves its note behind."""
    folder = Path(os.environ.get("PREFECT_HOME") or home / "prefect").expanduser()
    try:
        noted = json.loads((folder / "up.json").read_text(encoding="utf-8"))
        return Server(noted["url"], noted.get("login"))
    except (OSError, ValueError, LookupError, AttributeError):
        return None


def answers(url: str, seconds: float) -> bool:
    """Whether a server is there; what it answers does not matter."""
    try:
        _open(urllib.request.Request(f"{url}/health"), seconds).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def lets_in(server: Server) -> bool:
    """Whether the server takes our login; one that does not answer, or asks for none, does not refuse it."""
    try:
        _ask(server, "/admin/version")
    except urllib.error.HTTPError as error:
        return error.code not in (401, 403)
    except (OSError, ValueError):
        pass
    return True


def workers(server: Server) -> dict[str, bool]:
    """Each worker of the work pool by name, and whether it is alive; none where there is no such pool.

    Raises:
        OSError: the server does not answer, or refuses.
        ValueError: what answers is no Prefect server.
    """
    _ask(server, "/health")
    pools = _ask(server, "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    if not pools:
        return {}
    return {one["name"]: one["status"] == "ONLINE" for one in _ask(server, f"/work_pools/{POOL}/workers/filter", {})}


def _ask(server: Server, path: str, content: dict[str, Any] | None = None) -> Any:
    if not server.url.startswith(("http://", "https://")):
        raise ValueError(server.url)
    headers = {"Content-Type": "application/json"}
    if server.login:
        headers["Authorization"] = "Basic " + base64.b64encode(server.login.encode()).decode()
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    body = None if content is None else json.dumps(content).encode()
    with _open(urllib.request.Request(f"{server.url}{path}", body, headers), _SECONDS) as answer:
        return json.loads(answer.read())


def _open(request: urllib.request.Request, seconds: float) -> Any:
    """Without a proxy: a server is never far."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds)
