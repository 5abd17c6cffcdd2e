"""QEMU's machine protocol (QMP, docs/interop/qmp-spec in QEMU): one JSON object a line on a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from router_agent.lab.errors import LabError


class QmpError(LabError):
    """QEMU does not answer, or refuses a command."""


class Qmp:
    """One connection; a context manager. QEMU serves one client at a time.

    Args:
        path: QEMU's socket.
        seconds: how long an answer may take.
    """

    def __init__(self, path: Path, *, seconds: float = 120.0) -> None:
        self._path = path
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> Self:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._seconds)
        try:
            connection.connect(str(self._path))
            self._socket = connection
            self._greet()
        except OSError as error:
            connection.close()
            raise QmpError(f"{self._path}: QEMU does not answer: {error}") from error
        except QmpError:
            connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command and return what it returns; events that come meanwhile are passed over.

        Raises:
            QmpError: QEMU refuses the command, or the connection ends.
        """
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self._send(message)
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpError(f"QEMU refuses {command}: {answer['error'].get('desc', answer['error'])}")
            if "return" in answer:
                return answer["return"]

    def wait_event(self, *names: str) -> dict[str, Any]:
        """Return the next event with one of these names.

        Raises:
            QmpError: none comes in time.
        """
        while True:
            message = self._read()
            if message.get("event") in names:
                return message

    def _greet(self) -> None:
        greeting = self._read()
        if "QMP" not in greeting:
            raise QmpError(f"{self._path}: found {greeting}, expected QEMU's greeting")
        self.execute("qmp_capabilities")

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{self._path}: QEMU went away: {error}") from error

    def _read(self) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._received:
            try:
                more = self._socket.recv(65536)
            except OSError as error:
                raise QmpError(f"{self._path}: no answer from QEMU: {error}") from error
            if not more:
                raise QmpError(f"{self._path}: QEMU closed the connection")
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise QmpError(f"{self._path}: found {line[:80]!r}, expected a JSON object")
        return message
