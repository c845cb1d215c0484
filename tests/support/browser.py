"""A real Chromium without a window, driven over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.process import guard
from support.require import require
from support.wait import DEADLINE, until

FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--disable-extensions", "--hide-scrollbars",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.*", "--lang=en-GB",
)  # fmt: skip

# Runs before the page's own script: notes what the policy forbids, and lets a test hide the page.
SPY = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => violations.push(`${event.effectiveDirective} ${event.sample}`));
window.away = false;
Object.defineProperty(document, "hidden", {get: () => window.away});
window.asked = [];
const real = window.fetch;
window.fetch = async (...args) => {
  const answer = await real(...args);
  asked.push(answer.status);
  return answer;
};
"""

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "/": 191, " ": 32}


class Browser:
    """One Chromium. `call` sends it a command of the protocol, and returns the answer."""

    def __init__(self, folder: Path) -> None:
        to_child, self._out = _pipe()
        self._in, from_child = _pipe()
        words = ["chromium", *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        with (folder.parent / "chromium.log").open("wb") as log:
            self._popen = subprocess.Popen(
                ["bash", "-c", script, "bash", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(folder), "TZ": "UTC"},
                pass_fds=(to_child, from_child),
                start_new_session=True,
            )
        guard("+group", self._popen.pid)
        os.close(to_child)
        os.close(from_child)
        self._numbers = itertools.count(1)
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """The result of a command. Raises `AssertionError` if the browser refuses it."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        _write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._in, 1 << 20)
            assert got, "the browser has ended"
            self._rest += got
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def close(self) -> None:
        """End it."""
        os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(DEADLINE)
        guard("-group", self._popen.pid)
        os.close(self._out)
        os.close(self._in)


class Tab:
    """One page in a browser."""

    def __init__(self, browser: Browser, url: str, **screen: Any) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=SPY)
        self.screen(**screen)
        self.call("Page.navigate", url=url)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command for this page."""
        return self.browser.call(method, self._session, **params)

    def screen(self, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Change the window and the colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, expression: str) -> Any:
        """The value of an expression. A promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        return until(
            lambda: self.run(expression),
            lambda: f"{expression}; the page shows {self.text()}",
            ignore=(AssertionError,),
        )

    def text(self, selector: str = "body") -> str:
        """The text that is shown."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText"))

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go."""
        known = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
        text = {"Enter": "\r", "/": "/", " ": " "}.get(key)
        down = known | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Enter a text where the focus is."""
        self.call("Input.insertText", text=text)

    def screenshot(self, file: Path) -> None:
        """Write what is shown as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        file.write_bytes(base64.b64decode(shot["data"]))

    def errors(self) -> list[str]:
        """The exceptions in the page, and what its policy forbade."""
        found = [
            str(event["params"]["exceptionDetails"])
            for event in self.browser.events
            if event.get("sessionId") == self._session
            and event["method"] == "Runtime.exceptionThrown"
        ]
        return found + list(self.run("violations"))

    def close(self) -> None:
        """End the page."""
        self.browser.call("Target.closeTarget", targetId=self.target)


Open = Callable[..., Tab]


@contextmanager
def browsing(folder: Path) -> Iterator[Open]:
    """A function that opens pages in one browser, until the end of the block."""
    require("chromium", shutil.which("chromium"), "Debian's chromium")
    profile = folder / "profile"
    profile.mkdir()
    browser = Browser(profile)
    try:
        yield lambda url, **screen: Tab(browser, url, **screen)
    finally:
        browser.close()


def _pipe() -> tuple[int, int]:
    """A pipe above the numbers that the browser wants for its own."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]
