"""A real browser that opens a page and says what it saw: Chromium, by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 60.0
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"),
)


@dataclass
class Seen:
    """What happened while a page was open.

    Attributes:
        errors: What the console or the page itself reported as wrong.
        requests: Addresses that were asked for, but for the page itself and data within it.
    """

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number, self._seen, self._loaded = socket, 0, Seen(), False
        self._page = ""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, page: Path, *, width: int, dark: bool = False) -> Seen:
        """Open a file in a window so many pixels wide, until it is loaded."""
        self._page, self._seen, self._loaded = page.resolve().as_uri(), Seen(), False
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=self._page)
        while not self._loaded:
            self._hear(json.loads(self._socket.recv()))
        self.value("document.fonts.ready.then(() => 1)")  # what came meanwhile was heard, too
        return self._seen

    def value(self, expression: str) -> Any:
        """What a piece of JavaScript is, once it is known."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def ask(self, method: str, **options: Any) -> dict[str, Any]:
        """Send one command of the protocol and wait for its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": options}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._hear(said)

    def _hear(self, said: dict[str, Any]) -> None:
        method, facts = said.get("method"), said.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            address = facts["request"]["url"]
            if not address.startswith("data:") and address != self._page:
                self._seen.requests.append(address)
        elif method == "Log.entryAdded" and facts["entry"]["level"] in {"error", "warning"}:
            self._seen.errors.append(facts["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self._seen.errors.append(json.dumps(facts))
        elif method == "Runtime.consoleAPICalled" and facts["type"] in {"error", "warning"}:
            self._seen.errors.append(json.dumps(facts["args"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser whose files lie in `folder`; a test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium")
    websocket = pytest.importorskip("websocket", reason="needs websocket-client: '.[dev]'")
    with subprocess.Popen(
        [found, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            address = _address(process)
            with urllib.request.urlopen(f"http://{address}/json", timeout=_SECONDS) as answer:
                tabs = json.load(answer)
            tab = next(tab for tab in tabs if tab["type"] == "page")
            socket = websocket.create_connection(
                tab["webSocketDebuggerUrl"], timeout=_SECONDS, suppress_origin=True
            )
            try:
                yield Browser(socket)
            finally:
                socket.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _address(process: subprocess.Popen[bytes]) -> str:
    said = b""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
            return found[1].decode()
    raise AssertionError(f"the browser did not start: {said.decode(errors='replace')}")
