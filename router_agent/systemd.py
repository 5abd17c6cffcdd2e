"""Telling systemd how the service is, and taking the sockets that it passes.

After sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). A notification is a datagram of ``KEY=value``
lines to the socket named in ``NOTIFY_SOCKET``. Written here because what PyPI has is unmaintained (sdnotify,
2017), needs a newer Python than Debian 12's (systemd-watchdog) or a C library (cysystemd), and the protocol
is a few lines.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from router_agent.events import Event, about

_PATIENCE_SECONDS = 5.0
"""How long a message that must arrive waits for a full queue of the service manager."""
_STATUS_CHARACTERS = 500

_log = logging.getLogger(__name__)


class Notifier:
    """Sends notifications; does nothing where nobody listens (not started by systemd).

    Nothing here raises: a service that cannot report is still a service. The first failure is logged.

    Args:
        environment: where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked up.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How often at the least `watchdog` must be called; None when systemd does not watch."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        self._status = ""
        self._failed = False

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """Say that start-up, or a reload, is complete."""
        self._send("READY=1", must_arrive=True)

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it (``Type=notify-reload``)."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}", must_arrive=True)

    def stopping(self) -> None:
        """Say that the service is going down."""
        self._send("STOPPING=1", must_arrive=True)

    def watchdog(self) -> None:
        """Show a sign of life. Call it from the loop that does the work, never from a thread of its own."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows; sent only when it differs from the last one."""
        line = " ".join(text.split())[:_STATUS_CHARACTERS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, message: str, *, must_arrive: bool = False) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.settimeout(_PATIENCE_SECONDS if must_arrive else 0)
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            if not self._failed:
                _log.warning(
                    "cannot notify systemd at %r: %s",
                    *(self._address, error),
                    extra=about(Event.SYSTEMD_UNHEARD, problem=str(error)),
                )
            self._failed = True
        else:
            self._failed = False


def _address(name: str) -> str | None:
    """Return the address of a NOTIFY_SOCKET: a path, or ``@name`` in the abstract namespace."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    if name.startswith("/"):
        return name
    if name:
        _log.warning(
            "found NOTIFY_SOCKET=%s, expected a path or @name; systemd is not notified",
            name,
            extra=about(Event.SYSTEMD_UNHEARD, problem="NOTIFY_SOCKET"),
        )
    return None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    watched = environment.get("WATCHDOG_PID", "")
    if not microseconds:
        return None
    if watched and watched != str(os.getpid()):
        return None  # meant for the process that started us
    if not microseconds.isdecimal() or int(microseconds) == 0:
        _log.warning(
            "found WATCHDOG_USEC=%s, expected microseconds; the watchdog is not fed",
            microseconds,
            extra=about(Event.SYSTEMD_UNHEARD, problem="WATCHDOG_USEC"),
        )
        return None
    return int(microseconds) / 1_000_000


_FIRST_PASSED = 3
"""``SD_LISTEN_FDS_START``."""


def passed_sockets(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the sockets that systemd made for this process (sd_listen_fds(3)); none where it made none."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "")
    if not count.isdecimal():
        _log.warning(
            "found LISTEN_FDS=%s, expected a number; no socket is taken from systemd",
            count,
            extra=about(Event.SYSTEMD_UNHEARD, problem="LISTEN_FDS"),
        )
        return []
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
