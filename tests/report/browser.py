"""A real browser for the tests: headless Chromium, driven through its DevTools protocol; skipped where it is not installed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
ROOT = Path(__file__).parents[2]


def axe() -> str:
    """The source of axe-core, from `npm install axe-core` in the repository or the file that HUSHTUNE_AXE names."""
    for path in (Path(os.environ.get("HUSHTUNE_AXE", "-")), ROOT / "node_modules" / "axe-core" / "axe.min.js"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    pytest.skip("axe-core is not here: npm install --no-save axe-core, or name axe.min.js by HUSHTUNE_AXE")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with one empty tab."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    with tempfile.TemporaryDirectory(prefix="hushtune-browser-") as folder:
        flags = [*FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        process = subprocess.Popen([program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = _port(Path(folder) / "DevToolsActivePort", process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                tab = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            process.wait(20)


def _port(path: Path, process: subprocess.Popen) -> str:
    for _ in range(300):
        if path.is_file() and (lines := path.read_text().splitlines()):
            return lines[0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.skip("Chromium is installed and does not start here")


class Browser:
    """One tab: `show` a page at a size and scheme, `run` a script in it, `picture` it. `said` and `asked` are what it did."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self.said: list[str] = []
        self.asked: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")

    def show(self, path: Path, width: int = 1280, height: int = 900, *, scheme: str = "light", media: str = "screen") -> None:
        """Load a file."""
        self.said.clear(), self.asked.clear()
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._do("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._do("Emulation.setEmulatedMedia", media=media, features=features)
        self._do("Page.navigate", url=path.absolute().as_uri())
        for _ in range(200):
            if self.run("document.readyState") == "complete":
                return
            time.sleep(0.05)
        raise AssertionError(f"{path} does not load")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        answer = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of the first screen, or of the whole page."""
        answer = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def paper(self, path: Path) -> Path:
        """The page as Chromium prints it, as PDF."""
        self._do("Emulation.setEmulatedMedia", media="")
        answer = self._do("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        wide, high = self.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        return {"clip": {"x": 0, "y": 0, "width": wide, "height": high, "scale": 1}}

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        if kind in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(about)[:300])
