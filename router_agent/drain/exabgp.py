"""ExaBGP and graceful shutdown: its process `exabgp_announcer` follows the mark, here is seen that it did.

ExaBGP is asked nothing itself: it runs without its command line. What it answered to the announcements is in
the status file of that process. Services that ExaBGP announces to FRR are not concerned: FRR adds the
community to all it announces, and whether a service is announced stays a matter of its health check.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from router_agent.drain.mark import Mark
from router_agent.drain.settings import ExaBgpSettings

_LOOK_SECONDS = 0.1
_LONGEST = 1 << 20


class ExaBgpError(Exception):
    """ExaBGP is not as it was asked to be; the message says what to do."""


class ExaBgp:
    """ExaBGP of this host.

    Args:
        settings: where its status is.
    """

    def __init__(self, settings: ExaBgpSettings) -> None:
        self._status = settings.status
        self._seconds = settings.seconds

    def wait(self, mark: Mark | None, pause: Callable[[float], object] = time.sleep) -> str:
        """Wait until ExaBGP announces as the mark says; return what it does, in words.

        Args:
            mark: of the drain in force, None for none.
            pause: called with seconds between two looks.

        Raises:
            ExaBgpError: it does not.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            problem = self._problem(mark)
            if problem is None:
                return self._said(mark)
            if time.monotonic() > deadline:
                raise ExaBgpError(
                    f"{problem}, {self._seconds:.0f} s after it was asked: 'journalctl -u exabgp' says what "
                    "became of it; 'systemctl restart exabgp' has it begin anew, as the mark says"
                )
            pause(_LOOK_SECONDS)

    def as_marked(self, mark: Mark | None) -> str:
        """Return what ExaBGP does, in words.

        Raises:
            ExaBgpError: it does not announce as the mark says.
        """
        problem = self._problem(mark)
        if problem is not None:
            raise ExaBgpError(problem)
        return self._said(mark)

    def _said(self, mark: Mark | None) -> str:
        found = self._read()
        if found is None:
            return f"ExaBGP does not run; it comes back {'drained' if mark else 'undrained'}"
        if mark is None:
            return "ExaBGP announces as configured"
        return f"ExaBGP has taken {found.get('taken')} announcements with 65535:0"

    def _problem(self, mark: Mark | None) -> str | None:
        found = self._read()
        if found is None:
            return None
        if found.get("refused"):
            return f"ExaBGP refuses: {found['refused']}"
        wanted = None if mark is None else mark.model_dump(mode="json")["since"]
        if found.get("mark") != wanted:
            return f"ExaBGP has announced for the mark of {found.get('mark')}, expected {wanted}"
        return None

    def _read(self) -> dict[str, object] | None:
        """Return the status; None when ExaBGP does not run: its directory goes with it.

        Raises:
            ExaBgpError: it is no status.
        """
        try:
            with self._status.open("rb") as file:
                found = json.loads(file.read(_LONGEST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ExaBgpError(f"{self._status}: cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise ExaBgpError(f"{self._status}: found no status, expected an object")
        return found
