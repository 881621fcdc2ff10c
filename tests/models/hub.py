"""A Hub of one repository on this machine, whose connections can break and whose bytes can be wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "c0ffee" * 6 + "c0ff"
_LARGE = (".safetensors",)  # what a repository keeps under LFS


class Hub:
    """`files` by name; `limit` more bytes are sent before connections break (None: all); `wrong` names a file to falsify."""

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository, self.files = repository, files
        self.limit: int | None = None
        self.wrong = ""
        self.requests: list[str] = []
        self.sent = 0

    def about(self) -> dict:
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            one = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(_LARGE):
                one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(one)
        return {"id": self.repository, "sha": COMMIT, "siblings": siblings}

    def content(self, name: str) -> bytes:
        content = self.files[name]
        return content[:-1] + bytes([content[-1] ^ 1]) if name == self.wrong else content


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address of the Hub while it serves."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{hub.repository}"):
                return self.send(200, json.dumps(hub.about()).encode(), {"Content-Type": "application/json"}, body)
            found = re.fullmatch(rf"/{hub.repository}/resolve/[^/]+/(.+)", path)
            if not found or found[1] not in hub.files:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"}, body)
            content = hub.content(found[1])
            digest = hashlib.sha256(hub.files[found[1]]).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked:
                start = int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                return self.send(206, content[start:], headers, body)
            return self.send(200, content, headers, body)

        def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return
            if "api/" in self.path or hub.limit is None:
                self.wfile.write(content)
                return
            part = content[: hub.limit]
            hub.limit -= len(part)
            self.wfile.write(part)
            if len(part) < len(content):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
