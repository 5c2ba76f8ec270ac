"""A small client of headless Chromium, over the DevTools protocol through a pipe.

No package and no port: Chromium reads commands from file descriptor 3 and answers on 4, JSON
messages that end with a zero byte. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TIMEOUT_SECONDS = 60.0
# Puts the pipe's ends where Chromium expects them, then becomes Chromium.
_START = """
import os, sys, fcntl
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 20) for fd in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def chromium_program() -> str | None:
    """The browser on this machine, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One page. Collects what the console says, every request, and uncaught errors."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        self._loaded = False
        self.requests.clear()
        self._call("Page.navigate", url=url)
        self._wait(lambda: self._loaded, f"{url} to load")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self._call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        self._wait(lambda: self.evaluate(f"Boolean({expression})"), expression)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def type(self, selector: str, text: str) -> None:
        """Put text into a field, as a person's typing would."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self._call("Input.insertText", text=text)

    def resize(self, width: int, height: int = 900, scale: float = 1) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def emulate_media(self, media: str = "", dark: bool = False) -> None:
        value = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save a PNG of the window or of the whole page."""
        answer = self._call(
            "Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole)
        )
        path.write_bytes(b64decode(answer["data"]))

    def pdf(self, path: Path) -> None:
        """Save the page as it prints."""
        answer = self._call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(b64decode(answer["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _wait(self, is_true: Any, what: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not is_true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {_TIMEOUT_SECONDS:.0f} s for {what}")
            with contextlib.suppress(TimeoutError):
                self._next(time.monotonic() + 0.02, what)

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while b"\0" not in self._pending:
            rest = max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], rest)[0]:
                raise TimeoutError(f"chromium did not answer {what}")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise AssertionError(f"chromium ended during {what}")
            self._pending += data
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded":
                self.complaints.append(str(parameters["entry"]))
            case "Page.javascriptDialogOpening":
                self.dialogs.append(parameters["message"])


@contextlib.contextmanager
def open_page(program: str, profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, which ends with the block."""
    browser_in, write = os.pipe()
    read, browser_out = os.pipe()
    flags = ["--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run"]
    flags += [f"--user-data-dir={profile}", "--disable-background-networking", "--lang=en"]
    if os.geteuid() == 0:
        # Chromium refuses to run as root in its sandbox, as containers do.
        flags.append("--no-sandbox")
    command = [sys.executable, "-c", _START, str(browser_in), str(browser_out), program, *flags]
    browser = subprocess.Popen(
        command,
        pass_fds=(browser_in, browser_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(browser_in)
    os.close(browser_out)
    try:
        yield Page(read, write)
    finally:
        browser.terminate()
        try:
            browser.wait(timeout=10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        os.close(read)
        os.close(write)
