"""A command that runs and is talked to, here or on another host."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from router_agent.traffic.reach.errors import CommandError, LostError

_CHUNK = 65_536
_STDERR_BYTES = 65_536
"""Of what a command says on its standard error only the end is kept."""

NOT_FOUND = 127
"""Exit code of shells and of timeout(1) when there is no such program."""

BY_SIGNAL = 128
"""Exit codes above it, and it itself where the signal is not known, mean that a signal ended the command."""

SEND_S = 60.0
"""How long a command may leave its input unread."""


class Wire(Protocol):
    """The ends of a command's standard streams.

    Every method that waits raises TimeoutError when it has waited long enough, and OSError when the
    connection is gone.
    """

    def send(self, data: bytes) -> None:
        """Write to its standard input, all of it."""

    def end_input(self) -> None:
        """Close its standard input."""

    def receive(self, most: int, timeout_s: float | None) -> bytes:
        """Return what it has written, at least a byte; nothing at its end. None waits for ever."""

    def receive_error(self, most: int) -> bytes:
        """Return what it has written to its standard error; nothing at its end. Waits for ever."""

    def exit_code(self, timeout_s: float) -> int | None:
        """Wait for its end and return the exit code; None when the connection broke before it was told."""

    def close(self) -> None:
        """End the command, if it still runs, and wake everybody who waits."""


class Session:
    """A running command; a context manager that ends it.

    One thread may send while another receives. Standard error is read all the time, so a command that
    complains a lot does not come to a stop.

    Args:
        host: for messages.
        argv: what runs.
        wire: its standard streams.
    """

    def __init__(self, host: str, argv: Sequence[str], wire: Wire) -> None:
        self.host = host
        self._what = argv[0]
        self._words = shlex.join(argv)
        self._wire = wire
        self._said = bytearray()
        self._listener = threading.Thread(target=self._listen, name=f"stderr of {self._what}", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def errors(self) -> str:
        """The end of what it said on its standard error, so far."""
        return bytes(self._said).decode(errors="replace").strip()

    def send(self, data: bytes) -> None:
        """Write to its standard input.

        Raises:
            LostError: the connection broke.
            CommandError: the command has ended.
        """
        try:
            self._wire.send(data)
        except OSError as error:
            raise self._gone(error) from error

    def end_input(self) -> None:
        """Tell the command that nothing more comes."""
        try:
            self._wire.end_input()
        except OSError as error:
            raise self._gone(error) from error

    def receive(self, most: int = _CHUNK, *, timeout_s: float | None = None) -> bytes:
        """Return what the command has written, at least a byte; nothing at its end.

        Raises:
            TimeoutError: it has not written anything for so long.
            LostError: the connection broke.
        """
        try:
            data = self._wire.receive(most, timeout_s)
        except TimeoutError:
            raise
        except OSError as error:
            raise LostError(self.host, f"the connection broke while {self._what} ran: {error}") from error
        return data

    def exit_code(self, timeout_s: float) -> int:
        """Wait for the command's end and return its exit code.

        Raises:
            TimeoutError: it goes on for so long.
            LostError: the connection broke before.
        """
        code = self._wire.exit_code(timeout_s)
        if code is None:
            raise LostError(self.host, f"the connection broke while {self._what} ran")
        self._listener.join(timeout_s)
        return code

    def read_all(self, stdin: bytes, timeout_s: float, most: int) -> bytes:
        """Write all of the input, return all of the output.

        Raises:
            CommandError: it writes more than `most` bytes, or has no end.
            LostError: the connection broke.
        """
        deadline = time.monotonic() + timeout_s
        writer = threading.Thread(target=self._feed, args=(stdin,), daemon=True)
        writer.start()
        output = bytearray()
        try:
            while data := self.receive(timeout_s=max(0.0, deadline - time.monotonic())):
                output += data
                if len(output) > most:
                    raise CommandError(
                        self.host, f"{self._words}: found more than {most:,} bytes of output; it was ended"
                    )
        except TimeoutError:
            raise self.overdue(timeout_s) from None
        writer.join(max(0.0, deadline - time.monotonic()))
        return bytes(output)

    def overdue(self, timeout_s: float) -> CommandError:
        """Return the error for a command that takes too long."""
        said = f"; it said: {self.errors[-500:]}" if self.errors else ""
        return CommandError(self.host, f"{self._words}: no end after {timeout_s:g} s, it was ended{said}")

    def failure(self, code: int) -> CommandError:
        """Return the error for a command that ended with this code."""
        said = self.errors[-2000:] or "nothing"
        if code == NOT_FOUND:
            return CommandError(
                self.host,
                f"found no program {self._what!r} on PATH: install it there, or give its path ({said})",
                code,
            )
        how = f"ended with {code}" if 0 <= code < BY_SIGNAL else f"was ended by a signal ({code})"
        return CommandError(self.host, f"{self._words}: {how} and said: {said}", code)

    def close(self) -> None:
        """End the command, if it still runs."""
        self._wire.close()
        self._listener.join(5.0)

    def _feed(self, data: bytes) -> None:
        """Write the input; a command that does not want it says so with its exit code."""
        try:
            self._wire.send(data)
            self._wire.end_input()
        except OSError:
            return

    def _listen(self) -> None:
        try:
            while data := self._wire.receive_error(_CHUNK):
                self._said += data
                del self._said[:-_STDERR_BYTES]
        except OSError:
            return

    def _gone(self, error: OSError) -> CommandError | LostError:
        """Say what became of a command that takes no more input."""
        try:
            code = self._wire.exit_code(1.0)
        except TimeoutError:
            return CommandError(self.host, f"{self._words}: takes no input: {error}")
        if code is None:
            return LostError(self.host, f"the connection broke while {self._what} ran: {error}")
        self._listener.join(1.0)
        return self.failure(code)
