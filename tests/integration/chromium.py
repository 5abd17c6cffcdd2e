"""A real Chromium, driven over a pipe (Chrome DevTools Protocol): what a page shows, says and asks for.

Nothing listens for it, nothing of it is left: profile and process go with the block.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_SECONDS = 60.0
_READ_BYTES = 1 << 20


class ChromiumError(Exception):
    """Chromium did not do what it was asked."""


class Chromium:
    """A browser without a window.

    Args:
        directory: for its profile and its log.
        options: further command line options.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._targets: list[str] = []
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        assert PROGRAM is not None
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        # The shell's redirections give it the pipe as descriptors 3 and 4, where it looks for it.
        command = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self._process = subprocess.Popen(
            [
                *("bash", "-c", command, "chromium", PROGRAM, "--headless", "--remote-debugging-pipe"),
                *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
                *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",),
                *(f"--user-data-dir={self._directory / 'profile'}", *self._options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._directory / "chromium.log").open("wb"),
            pass_fds=(their_in, their_out),
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def page(self, url: str, *, width: int = 1280, height: int = 900, script: bool = True) -> Page:
        """Open a page and wait until it has loaded.

        Args:
            url: of the page.
            width: of the window, in CSS pixels.
            height: likewise.
            script: whether JavaScript runs.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._targets.append(target)
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        page.show()
        page.go(url)
        return page

    def close_pages(self) -> None:
        """Close every page, so that none goes on asking."""
        while self._targets:
            self.call("Target.closeTarget", targetId=self._targets.pop())
        self.events.clear()

    def call(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Give a command and return its result.

        Raises:
            ChromiumError: it refuses, or does not answer.
        """
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": arguments}
        if session is not None:
            request["sessionId"] = session
        os.write(self._out, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + _SECONDS
        while True:
            message = self._message(deadline)
            if message.get("id") != number:
                self.events.append(message)
                continue
            if "error" in message:
                raise ChromiumError(f"{method}: {message['error']}")
            found: dict[str, Any] = message["result"]
            return found

    def wait(self, happened: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Return the next event of a kind; those before it are kept."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                message = self._message(deadline)
            except ChromiumError as error:
                raise ChromiumError(f"waited for {what}: {error}") from error
            self.events.append(message)
            if happened(message):
                return message

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChromiumError(f"no answer within {_SECONDS:g} s")
            chunk = os.read(self._in, _READ_BYTES)
            if not chunk:
                log = (self._directory / "chromium.log").read_text(errors="replace")
                raise ChromiumError(f"it ended; its log ends: {log[-2000:]}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found


class Page:
    """One page."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Give a command to this page."""
        return self._browser.call(method, self._session, **arguments)

    def go(self, url: str) -> None:
        """Load a page, and wait for that."""
        self.call("Page.navigate", url=url)
        self._browser.wait(lambda event: self._is(event, "Page.loadEventFired"), f"{url} to load")

    def show(self) -> None:
        """Have it be the tab that is seen."""
        self.call("Page.bringToFront")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives, promises awaited.

        Raises:
            ChromiumError: it throws.
        """
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise ChromiumError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_until(self, expression: str, *, seconds: float = _SECONDS) -> Any:
        """Return what an expression gives as soon as that is true; of an element ask ``!!``.

        Raises:
            ChromiumError: it does not become true; with the text of the page.
        """
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            if time.monotonic() > deadline:
                text = self.value("document.body.innerText")
                raise ChromiumError(f"waited {seconds:g} s for {expression}; the page says:\n{text}")
            time.sleep(0.1)
        return found

    def text(self, selector: str = "body") -> str:
        """Return what an element shows."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def move_mouse(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what it looks like as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> list[str]:
        """What was said on the console, thrown, or refused (the page's policy too), so far."""
        self.value("0")  # what came before the answer has been read then
        found = []
        for event in self._browser.events:
            match event:
                case {"method": "Runtime.consoleAPICalled", "params": said} if self._ours(event):
                    found.append(json.dumps(said["args"]))
                case {"method": "Runtime.exceptionThrown", "params": thrown} if self._ours(event):
                    found.append(json.dumps(thrown["exceptionDetails"]))
                case {"method": "Log.entryAdded", "params": {"entry": entry}} if self._ours(event):
                    found.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        return found

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and address of everything the page has asked for."""
        self.value("0")
        sent = [e for e in self._browser.events if self._is(e, "Network.requestWillBeSent")]
        return [(e["params"]["request"]["method"], e["params"]["request"]["url"]) for e in sent]

    def _ours(self, event: dict[str, Any]) -> bool:
        return event.get("sessionId") == self._session

    def _is(self, event: dict[str, Any], method: str) -> bool:
        return self._ours(event) and event.get("method") == method
