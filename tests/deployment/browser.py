"""A browser without a screen, told what to do over its debugging port: it logs in on Prefect's page as a person does."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

from tests.deployment.harness import until

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
LOG_IN = """(word) => {
    const field = document.querySelector('input');
    const button = [...document.querySelectorAll('button')].find(one => /log ?in/i.test(one.textContent));
    if (!location.pathname.includes('login') || !field || !button) return false;
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, word);
    field.dispatchEvent(new Event('input', {bubbles: true}));
    button.click();
    return true;
}"""


class Browser:
    """One tab of Chromium with a profile of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Browser:
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.folder}",
            "--window-size=1400,1800", "--hide-scrollbars", "--no-proxy-server", "--remote-debugging-port=0",
            "--remote-allow-origins=*", "about:blank",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        noted = self.folder / "DevToolsActivePort"
        until("the browser's port", lambda: noted.exists() and len(noted.read_text().splitlines()) == 2, pause=0.1)
        port = noted.read_text().splitlines()[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
            (tab,) = (one for one in json.load(answer) if one["type"] == "page")
        self.socket = connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None)
        self.count = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=60)

    def tell(self, method: str, **parameters: Any) -> dict:
        """The answer to a command of the debugging protocol: `result`, or `error`."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=120))
            if answer.get("id") == self.count:
                return answer

    def evaluate(self, words: str) -> Any:
        """What a script returns; None where the page is on its way to another, and its scripts are gone."""
        found = self.tell("Runtime.evaluate", expression=words, returnByValue=True).get("result", {})
        assert "exceptionDetails" not in found, found
        return found.get("result", {}).get("value")

    def open(self, url: str) -> None:
        self.tell("Page.navigate", url=url)

    def page(self) -> str:
        return self.evaluate("document.documentElement ? document.documentElement.outerHTML : ''") or ""

    def log_in(self, login: str) -> None:
        """Type the login where the page asks for it, once it does."""
        until("the field for the login", lambda: self.evaluate(f"({LOG_IN})({json.dumps(login)})"))
        until("the page behind the login", lambda: self.evaluate("!location.pathname.includes('login')"))

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["result"]["data"]))
