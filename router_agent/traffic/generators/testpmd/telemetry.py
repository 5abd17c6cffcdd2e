"""DPDK's telemetry socket: counters of a running DPDK program without a word on its console.

``/ethdev/stats,N`` and its like over a Unix socket that keeps message borders; answers are JSON
(doc/guides/howto/telemetry.rst of DPDK). A thread of the program answers, none that forwards.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from router_agent.traffic.generators.generator import GeneratorError

_ANSWER_S = 10.0
_GREETING_BYTES = 1024


class Telemetry:
    """A connection to one DPDK program.

    Args:
        path: its socket, ``dpdk_telemetry.v2`` in its runtime directory.

    Raises:
        GeneratorError: nobody answers there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_ANSWER_S)
        try:
            self._socket.connect(str(path))
            greeting = json.loads(self._socket.recv(_GREETING_BYTES))
        except (OSError, ValueError) as error:
            self._socket.close()
            raise GeneratorError(f"DPDK's telemetry at {path}: {error}") from error
        self.version: str = greeting["version"]
        """As it calls itself: "DPDK 22.11.11"."""
        self._most = int(greeting["max_output_len"])

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket.close()

    def ask(self, command: str, *arguments: int) -> Any:
        """Return the answer to one command, such as ``/ethdev/stats`` for port 1.

        Raises:
            GeneratorError: the program is gone, or knows no such command or port.
        """
        request = ",".join([command, *map(str, arguments)])
        try:
            self._socket.send(request.encode())
            answer = json.loads(self._socket.recv(self._most))
        except (OSError, ValueError) as error:
            raise GeneratorError(f"DPDK's telemetry at {self._path} does not answer: {error}") from error
        found = answer.get(command)
        if found is None:
            raise GeneratorError(f"DPDK's telemetry answers {request} with {answer}, expected {command}")
        return found
