"""What can be done on a host, wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from router_agent.traffic.reach.session import Session

COMMAND_S = 60.0
"""How long a command may take where nobody says."""

MOST_OUTPUT = 64 << 20
"""Bytes that a command may write to its standard output."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended.

    Attributes:
        argv: what was run.
        exit_code: 0 to 255; negative, or 128 and the signal's number, when a signal ended it.
        stdout: all of it.
        stderr: the end of it, 64 KiB at most.
    """

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as UTF-8; what is not is replaced."""
        return self.stdout.decode(errors="replace")


class Reach(Protocol):
    """A host. A context manager that closes the connection on exit."""

    @property
    def host(self) -> str:
        """The host as people call it; appears in reports and errors."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = COMMAND_S,
        exit_codes: Sequence[int] = (0,),
    ) -> Completed:
        """Run a command to its end. No shell sees the words of `argv`.

        Args:
            argv: the program and its arguments.
            stdin: what it reads.
            timeout_s: it is ended after so long.
            exit_codes: those that are no failure.

        Raises:
            CommandError: it is not there, failed, took too long or said too much.
            LostError: the connection broke meanwhile.
        """

    def open(self, argv: Sequence[str]) -> Session:
        """Start a command and talk to it. It must end when its standard input does.

        Raises:
            CommandError: it is not there.
            LostError: the connection broke.
        """

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file there. Who reads it sees the old one or the whole new one.

        Raises:
            ReachError: it cannot be read or written.
        """

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from there. Who reads it sees the old one or the whole new one.

        Raises:
            ReachError: it cannot be read or written.
        """

    def close(self) -> None:
        """Give the connection back. What was opened ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
