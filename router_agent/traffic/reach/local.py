"""This host, or a network namespace on it."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.reach.errors import CommandError, ReachError, UnreachableError
from router_agent.traffic.reach.reach import COMMAND_S, MOST_OUTPUT, Completed
from router_agent.traffic.reach.session import SEND_S, Session

_GRACE_S = 1.0
"""For a command to end after its input has."""

_PIPE_BYTES = 4096
"""A pipe that select(2) calls writable takes as much without waiting: PIPE_BUF."""


class LocalReach:
    """This host; see `reach.Reach`.

    Args:
        namespace: network namespace that commands run in; None is the current one.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace
        self._sessions: list[Session] = []

    @property
    def host(self) -> str:
        """The host as people call it."""
        return f"namespace {self._namespace}" if self._namespace else "this host"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what was opened."""
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = COMMAND_S,
        exit_codes: Sequence[int] = (0,),
    ) -> Completed:
        """Run a command to its end; see `reach.Reach`."""
        with self._start(argv) as session:
            stdout = session.read_all(stdin, timeout_s, MOST_OUTPUT)
            try:
                code = session.exit_code(timeout_s)
            except TimeoutError:
                raise session.overdue(timeout_s) from None
            if code not in exit_codes:
                raise session.failure(code)
            return Completed(tuple(argv), code, stdout, session.errors)

    def open(self, argv: Sequence[str]) -> Session:
        """Start a command and talk to it; see `reach.Reach`."""
        session = self._start(argv)
        self._sessions.append(session)
        return session

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file; see `reach.Reach`."""
        self._copy(local, Path(remote), mode)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file; see `reach.Reach`."""
        self._copy(Path(remote), local, 0o644)

    def _copy(self, source: Path, target: Path, mode: int) -> None:
        try:
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            try:
                with source.open("rb") as content, os.fdopen(descriptor, "wb") as copy:
                    shutil.copyfileobj(content, copy)
                    os.fchmod(copy.fileno(), mode)
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ReachError(self.host, f"cannot copy {source} to {target}: {error.strerror}") from error

    def _start(self, argv: Sequence[str]) -> Session:
        try:
            with inside(self._namespace):
                # a process group of its own: Ctrl-C is for the coordinator, and close() ends children too
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    process_group=0,
                )
        except NamespaceError as error:
            raise UnreachableError(self.host, str(error)) from error
        except FileNotFoundError as error:
            raise CommandError(
                self.host, f"found no program {argv[0]!r} on PATH: install it there, or give its path", 127
            ) from error
        except OSError as error:
            raise CommandError(self.host, f"cannot run {argv[0]!r}: {error.strerror}") from error
        return Session(self.host, argv, _Pipes(process))


class _Pipes:
    """A child process's standard streams; see `session.Wire`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._writing, self._reading = threading.Lock(), threading.Lock()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        with self._writing:
            if self._stdin.closed:
                raise BrokenPipeError(errno.EPIPE, "its input was closed")
            while view:
                _, ready, _ = select.select([], [self._stdin.fileno()], [], SEND_S)
                if not ready:
                    raise TimeoutError(errno.ETIMEDOUT, f"it reads nothing for {SEND_S:.0f} s")
                view = view[os.write(self._stdin.fileno(), view[:_PIPE_BYTES]) :]

    def end_input(self) -> None:
        with self._writing:
            self._stdin.close()

    def receive(self, most: int, timeout_s: float | None) -> bytes:
        with self._reading:
            if self._stdout.closed:
                return b""
            descriptor = self._stdout.fileno()
            ready, _, _ = select.select([descriptor], [], [], timeout_s)
            if not ready:
                raise TimeoutError
            return os.read(descriptor, most)

    def receive_error(self, most: int) -> bytes:
        data = os.read(self._stderr.fileno(), most)
        if not data:
            self._stderr.close()
        return data

    def exit_code(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def close(self) -> None:
        # the end of its input is what a command is told to end by; one that is stuck in writing is not told
        if self._writing.acquire(blocking=False):
            self._stdin.close()
            self._writing.release()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # nobody is left at the other ends, so who reads or writes is through with it
        for lock, end in ((self._writing, self._stdin), (self._reading, self._stdout)):
            if lock.acquire(timeout=_GRACE_S):
                end.close()
                lock.release()
