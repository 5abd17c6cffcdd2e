"""Daemons of the lab: start, watch, end, and show what they said."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from router_agent.lab.commands import inside, require
from router_agent.lab.errors import LabError

_POLL_SECONDS = 0.05
_STOP_SECONDS = 15.0
_TAIL_LINES = 15


class Daemon:
    """One foreground process in a network namespace, with its output in a file.

    Args:
        name: shown in messages; names the log file.
        argv: program and arguments; it must stay in the foreground.
        namespace: network namespace to run in; None for ours.
        directory: where its log goes.
        environment: the whole environment of the next start; None for ours.
        stop_seconds: how long it may take to end after SIGTERM before it is killed.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        namespace: str | None,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        stop_seconds: float = _STOP_SECONDS,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._argv = [*argv]
        self._namespace = namespace
        self.environment = environment
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            LabError: it was not started.
        """
        if self._process is None:
            raise LabError(f"{self.name} was not started")
        return self._process.pid

    def start(self) -> None:
        """Start the process; it has its own session, so a Ctrl-C at the terminal does not reach it.

        Raises:
            LabError: it is not installed, or runs already.
        """
        if self.running:
            raise LabError(f"{self.name} runs already (pid {self.pid})")
        require(self._argv[0])
        argv = inside(self._namespace, *self._argv) if self._namespace else self._argv
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=None if self.environment is None else dict(self.environment),
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running process.

        Raises:
            LabError: it does not run.
        """
        self.require_running()
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the process with SIGTERM, with SIGKILL if it does not go; idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would; idempotent."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def require_running(self) -> None:
        """Check that the process lives.

        Raises:
            LabError: it ended; the message has its status and the end of its log.
        """
        if not self.running:
            status = self._process.returncode if self._process else None
            raise LabError(
                f"{self.name} is not running (status {status}); its log {self.log} ends:\n{self.tail()}"
            )

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines it printed."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(
    happened: Callable[[], bool],
    what: str,
    *,
    seconds: float,
    daemons: Iterable[Daemon] = (),
    poll_seconds: float = _POLL_SECONDS,
    found: Callable[[], str] | None = None,
) -> None:
    """Return as soon as `happened` says so.

    Args:
        happened: cheap observation of the system.
        what: what is waited for, for the message.
        seconds: how long at most.
        daemons: processes that must live meanwhile.
        poll_seconds: time between two observations.
        found: describes the state when it did not happen.

    Raises:
        LabError: it did not happen in time, or a daemon ended; with the ends of their logs.
    """
    daemons = tuple(daemons)
    deadline = time.monotonic() + seconds
    while not happened():
        for daemon in daemons:
            daemon.require_running()
        if time.monotonic() > deadline:
            state = f"; found {found()}" if found else ""
            logs = "".join(f"\n{daemon.log} ends:\n{daemon.tail()}" for daemon in daemons)
            raise LabError(f"waited {seconds:.0f} s for {what}{state}{logs}")
        time.sleep(poll_seconds)
