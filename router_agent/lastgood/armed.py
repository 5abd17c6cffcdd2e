"""The promise to go back: what to, when, and the timer that keeps it.

The promise is a file, so that it survives what the timer, which systemd-run makes, does not: a reboot. Time
is told by the kernel's monotonic clock, which nobody sets.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from router_agent.lastgood import durable
from router_agent.lastgood.commands import run
from router_agent.lastgood.copies import STATE, make_private
from router_agent.lastgood.entries import below

SCHEMA = "last-good/armed/1"
_SERVICE = "last-good@"


class ArmError(Exception):
    """The promise cannot be made or read; the message says what to do."""


@dataclass(frozen=True)
class Armed:
    """One promise.

    Attributes:
        copy: what to go back to.
        since: when it was made, in UTC.
        until: when it falls due, for people.
        deadline: the same in seconds of CLOCK_MONOTONIC, of the boot `boot`.
        boot: id of the boot it was made in.
        timer: unit that falls due then.
        links: the kernel's links then; see `links.read`.
        routes: and its routes.
        sessions: neighbours with an established BGP session of FRR then.
    """

    copy: str
    since: str
    until: str
    deadline: float
    boot: str
    timer: str
    links: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    @property
    def this_boot(self) -> bool:
        """Whether it was made in the boot that runs."""
        return self.boot == boot_id()

    @property
    def seconds_left(self) -> float:
        """Seconds until it falls due; 0 for one of another boot."""
        return max(0.0, self.deadline - time.monotonic()) if self.this_boot else 0.0

    @property
    def watched(self) -> bool:
        """Whether its timer runs."""
        return run("systemctl", "is-active", "--quiet", self.timer).ok

    def extended(self, seconds: float) -> Armed:
        """Return the same promise, due so many seconds from now, with a new timer."""
        return replace(self, **_due(seconds))


def boot_id() -> str:
    """Return the id of the boot that runs."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def promise(copy: str, seconds: float, **state: Any) -> Armed:
    """Return a promise that is made now; nothing is written and no timer started."""
    return Armed(copy=copy, since=now(), boot=boot_id(), **_due(seconds), **state)


def start_timer(armed: Armed) -> None:
    """Have systemd go back when the promise falls due.

    Raises:
        ArmError: systemd-run fails.
    """
    service = armed.timer.removesuffix(".timer") + ".service"
    # The service is the installed one: systemd-run makes nothing but its timer, gone after a reboot.
    delay = f"--on-active={armed.seconds_left:.0f}"
    done = run("systemd-run", "--quiet", delay, "--timer-property=AccuracySec=1s", f"--unit={service}")
    if not done.ok:
        raise ArmError(f"systemd-run made no timer: {done.said}; nothing is armed by this call")


def stop_timer(name: str = f"{_SERVICE}*.timer") -> None:
    """Stop a timer; all of ours when none is named."""
    run("systemctl", "stop", name)


class Promise:
    """The file that holds the promise.

    Args:
        root: where the host's files are.
    """

    def __init__(self, root: Path) -> None:
        self.path = below(root, STATE) / "armed.json"

    def read(self) -> Armed | None:
        """Return the promise, None when there is none.

        Raises:
            ArmError: the file cannot be understood.
        """
        try:
            found = json.loads(self.path.read_bytes())
            schema = found.pop("schema")
            armed = Armed(**found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArmError(
                f"{self.path}: found a damaged file ({error}); remove it to stay as the host is"
            ) from error
        if schema != SCHEMA:
            raise ArmError(f"{self.path}: found the form {schema}, expected {SCHEMA}; remove it to stay")
        return armed

    def write(self, armed: Armed) -> None:
        """Make the promise hold over a power cut.

        Raises:
            OSError: it cannot be written; the former one holds.
        """
        make_private(self.path.parent)
        durable.write(self.path, json.dumps(asdict(armed) | {"schema": SCHEMA}).encode())

    def take_back(self) -> None:
        """Forget the promise."""
        durable.remove(self.path)


def _due(seconds: float) -> dict[str, Any]:
    started = time.monotonic()
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "deadline": started + seconds,
        "until": until.isoformat(timespec="seconds"),
        # A name of its own: the former timer runs until this one does.
        "timer": f"{_SERVICE}timer{started * 1000:.0f}.timer",
    }
