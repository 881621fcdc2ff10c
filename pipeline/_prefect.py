"""Whether a Prefect server answers and a worker is alive, asked over HTTP: the library imports no Prefect."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from typing import Any

POOL = "hushtune"
_SECONDS = 5


def workers(url: str) -> dict[str, bool]:
    """Each worker of the work pool by name, and whether it is alive; none where there is no such pool.

    Raises:
        OSError: the server does not answer, or refuses.
        ValueError: what answers is no Prefect server.
    """
    _ask(f"{url}/health")
    pools = _ask(f"{url}/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    if not pools:
        return {}
    return {one["name"]: one["status"] == "ONLINE" for one in _ask(f"{url}/work_pools/{POOL}/workers/filter", {})}


def _ask(url: str, content: dict[str, Any] | None = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    headers = {"Content-Type": "application/json"}
    if word := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = "Basic " + base64.b64encode(word.encode()).decode()
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # as `hushtune run` asks: a server is never far
    with opener.open(request, timeout=_SECONDS) as answer:
        return json.loads(answer.read())
