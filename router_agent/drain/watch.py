"""The watcher of a host's FIB: looks at the agent, and asks for what `fail_safe` decides.

It runs without any right but to ask the agent. What it wants is a file, ``request``; systemd starts a service
of root's when that is written (router-agent-fail-safe.path), which runs `act`.

    {"want": "drain", "reason": "...", "drains": [86400.5]}

It asks again while it is not heeded, so that a service that failed once is started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.drain.drain import Done, Host
from router_agent.drain.fail_safe import Finding, Health, Judge, Wish, finding_of, recent
from router_agent.drain.files import replace
from router_agent.drain.mark import FAIL_SAFE, Mark, MarkError, Marks, now
from router_agent.drain.settings import Settings

AGAIN_SECONDS = 15.0
"""How long a wish that nothing came of waits before it is written again."""
_ANSWER_SECONDS = 10.0
_LONGEST = 64 << 10

_log = logging.getLogger(__name__)


class RequestError(Exception):
    """The watcher's request cannot be understood; the message says why."""


class Request(BaseModel):
    """What the watcher asks for; ``nothing`` only keeps the times of drains."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    want: Literal["drain", "undrain", "nothing"] = "nothing"
    reason: str = ""
    drains: tuple[float, ...] = ()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watcher:
    """Looks at the agent from time to time.

    Args:
        settings: of the host.
        alive: called after each look, for systemd's watchdog.
        clock: seconds since the host was started: times of drains outlive the watcher, and a host that
            sets its clock right is not to count that as time.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        alive: Callable[[str], None] = lambda _words: None,
        clock: Callable[[], float] = _since_boot,
    ) -> None:
        self._settings = settings.fail_safe
        self._marks = Marks(settings.mark)
        self._client = ControlClient(self._settings.control_socket, timeout_seconds=_ANSWER_SECONDS)
        self._alive = alive
        self._clock = clock
        self._judge = Judge(self._settings, self._former_drains())
        self._asked: tuple[str, float] | None = None
        self._said = ""

    def run(self, pause: Callable[[float], object] = time.sleep) -> None:
        """Look until the process ends."""
        while True:
            self.look()
            pause(self._settings.interval_seconds)

    def look(self) -> None:
        """Take one look, and ask for what follows from it."""
        finding = self._ask()
        try:
            mark = self._marks.read()
        except MarkError as error:
            # A mark that cannot be read is somebody else's: hands off.
            _log.warning("%s", error)
            mark = Mark(since=now(), by="unknown")
        at = self._clock()
        before = list(self._judge.drains)
        wish = self._judge.look(at, finding, mark)
        self._tell(finding, mark)
        if wish is None:
            # What was asked for is no longer wanted, so nobody is to find it there.
            if self._asked is not None or self._judge.drains != before:
                self._write(Request(drains=tuple(self._judge.drains)))
            self._asked = None
        elif self._due(wish, at):
            self._asked = (wish.what, at)
            _log.warning("asking for: %s: %s", wish.what, wish.words)
            drains = tuple(self._judge.drains)
            self._write(Request(want=wish.what, reason=wish.words, drains=drains))

    def _ask(self) -> Finding:
        try:
            status = self._client.status()
        except (ControlError, RefusedError) as error:
            return Finding(Health.SILENT, f"the agent does not answer: {error}")
        return finding_of(status, wrong_seconds=self._settings.wrong_seconds)

    def _due(self, wish: Wish, at: float) -> bool:
        if self._asked is None or self._asked[0] != wish.what:
            return True
        return not 0 <= at - self._asked[1] < AGAIN_SECONDS

    def _tell(self, finding: Finding, mark: Mark | None) -> None:
        drained = "" if mark is None else ", drained by itself" if mark.own else ", drained"
        words = f"{finding.health.value}{drained}" + (f": {finding.words}" if finding.words else "")
        if finding.health.value + drained != self._said:
            self._said = finding.health.value + drained
            (_log.info if finding.health is Health.RIGHT else _log.warning)("the FIB is %s", words)
        self._alive(words)

    def _write(self, request: Request) -> None:
        try:
            replace(self._settings.request, request.model_dump_json() + "\n")
        except OSError as error:
            _log.error("cannot write %s: %s; nothing comes of it", self._settings.request, error.strerror)

    def _former_drains(self) -> list[float]:
        try:
            former = read_request(self._settings.request)
        except RequestError as error:
            _log.warning("%s; the host's former drains are forgotten", error)
            return []
        return recent(former.drains, self._clock(), self._settings.forget_seconds)


def read_request(path: Path) -> Request:
    """Return what the watcher asked for last; nothing when there is no such file.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return Request.model_validate_json(file.read(_LONGEST))
    except FileNotFoundError:
        return Request()
    except (OSError, ValidationError) as error:
        raise RequestError(f"{path}: found no request of the watcher: {error}") from error


def act(settings: Settings) -> Done | None:
    """Do what the watcher asked for; return what was done, None when it asked for nothing.

    Raises:
        DrainError: nothing was done.
        RequestError: the request cannot be understood.
    """
    request = read_request(settings.fail_safe.request)
    host = Host(settings)
    if request.want == "undrain":
        return host.undrain(only_own=True)
    if request.want == "drain":
        return host.drain(by=FAIL_SAFE, reason=request.reason[:500], keep=None)
    return None
