"""One dpdk-testpmd: started in a directory of its own, told what to do on its console, ended in any case.

Its console is a pseudo-terminal, because only on a terminal does it write each line at once. What it answers
is checked; what it counts is read from its telemetry socket, never from its text.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.testpmd.telemetry import Telemetry

PROGRAM = "dpdk-testpmd"
PACKAGES = "dpdk-dev and librte-meta-net"
"""Debian packages with the program and its drivers."""

_PROMPT = b"testpmd>"
_READY_S = 60.0
_ANSWER_S = 20.0
_LEAVE_S = 10.0
_KEPT = 1 << 16
"""Bytes of its output that are kept for messages."""
_TAIL_LINES = 15


def installed() -> bool:
    """Return whether the program is on PATH."""
    return shutil.which(PROGRAM) is not None


class Testpmd:
    """One program, as a context manager.

    Args:
        directory: for its sockets; it must exist, and its path be short (unix(7): 107 bytes).
        devices: arguments that name its ports: ``--vdev=...``, ``-a ...``.
        lcores: CPUs of each of its threads, the first one's for its console.
        memory: its arguments about memory.
        options: those after ``--``.
        namespace: network namespace to run in; None for ours.
    """

    __test__ = False  # pytest: no test class

    def __init__(
        self,
        directory: Path,
        *,
        devices: Sequence[str],
        lcores: Sequence[Sequence[int]],
        memory: Sequence[str],
        options: Sequence[str],
        namespace: str | None = None,
    ) -> None:
        threads = ",".join(f"{i}@({','.join(map(str, cpus))})" for i, cpus in enumerate(lcores))
        self._argv = [
            *(PROGRAM, "--file-prefix=traffic", f"--lcores={threads}", *memory, *devices),
            *("--", "--interactive", "--disable-link-check", "--no-lsc-interrupt", "--no-flush-rx", *options),
        ]
        self._environment = os.environ | {"RUNTIME_DIRECTORY": str(directory)}
        self._socket = directory / "dpdk" / "traffic" / "dpdk_telemetry.v2"
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None
        self._console = -1
        self._said = b""
        self._telemetry: Telemetry | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            GeneratorError: it was not started.
        """
        if self._process is None:
            raise GeneratorError(f"{PROGRAM} was not started: use it in a `with` block")
        return self._process.pid

    def command(self, text: str, expected: str = "") -> str:
        """Have it do something and return what it says.

        Args:
            text: a command (doc/guides/testpmd_app_ug/testpmd_funcs.rst).
            expected: what it says when it has done it.

        Raises:
            GeneratorError: it said something else, ended, or did not answer.
        """
        try:
            os.write(self._console, text.encode() + b"\n")
        except OSError as error:
            raise self._ended() from error
        answer = self._until_prompt(_ANSWER_S)
        if expected not in answer:
            raise GeneratorError(f"{PROGRAM} answers {text!r} with {answer!r}, expected {expected!r}")
        return answer

    def ask(self, command: str, *arguments: int) -> Any:
        """Return what its telemetry says; see `Telemetry.ask`."""
        self.require_running()
        if self._telemetry is None:
            raise GeneratorError(f"{PROGRAM} was not started: use it in a `with` block")
        return self._telemetry.ask(command, *arguments)

    def require_running(self) -> None:
        """Check that it lives.

        Raises:
            GeneratorError: it has ended; with what it said last.
        """
        if self._process is not None and self._process.poll() is not None:
            raise self._ended()

    def pause(self, seconds: float) -> None:
        """Wait, or until it ends.

        Raises:
            GeneratorError: it has ended.
        """
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise self._ended()

    def close(self) -> None:
        """End it; idempotent. Threads that wait for frames from a FIFO must have been let go before."""
        if self._telemetry is not None:
            self._telemetry.close()
            self._telemetry = None
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            self._leave(process)
        if self._console >= 0:
            os.close(self._console)
            self._console = -1

    def _start(self) -> None:
        if not installed():
            raise GeneratorError(f"{PROGRAM} is not on PATH: install Debian's {PACKAGES}")
        self._console, theirs = pty.openpty()
        try:
            with inside(self._namespace):
                # a session of its own: Ctrl-C reaches whoever runs the check, and that ends it in order
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                    env=self._environment,
                    start_new_session=True,
                )
        except NamespaceError as error:
            raise GeneratorError(f"{PROGRAM}: {error}") from error
        finally:
            os.close(theirs)
        self._until_prompt(_READY_S)
        self._telemetry = Telemetry(self._socket)

    def _until_prompt(self, seconds: float) -> str:
        """Return what it says until it asks for the next command."""
        limit = time.monotonic() + seconds
        answer = b""
        while not answer.rstrip().endswith(_PROMPT):
            left = limit - time.monotonic()
            if left < 0:
                raise GeneratorError(
                    f"{PROGRAM} has not answered for {seconds:.0f} s; its console ends:\n{self._tail()}"
                )
            if not select.select([self._console], [], [], min(left, 1.0))[0]:
                self.require_running()
                continue
            answer += self._read()
        return answer.decode(errors="replace").replace("\r", "")

    def _read(self) -> bytes:
        try:
            found = os.read(self._console, _KEPT)
        except OSError as error:  # EIO: nobody holds the other end any more (pty(7))
            raise self._ended() from error
        self._said = (self._said + found)[-_KEPT:]
        return found

    def _leave(self, process: subprocess.Popen[bytes]) -> None:
        try:
            os.write(self._console, b"quit\n")
            limit = time.monotonic() + _LEAVE_S
            while process.poll() is None and time.monotonic() < limit:
                # its last words have to be taken, or it waits for room on the terminal
                if select.select([self._console], [], [], 0.05)[0]:
                    self._read()
        except (OSError, GeneratorError):
            pass  # the console is gone, and so is the program or soon will be
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ended(self) -> GeneratorError:
        code: Any = "none yet"
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1.0)
        return GeneratorError(f"{PROGRAM} has ended (exit code {code}); its console ends:\n{self._tail()}")

    def _tail(self) -> str:
        lines = self._said.decode(errors="replace").replace("\r", "").splitlines()
        return "\n".join(line for line in lines[-_TAIL_LINES:] if line.strip())
