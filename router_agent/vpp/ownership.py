"""One writer per FIB source: a lock beside the API socket, which goes with the process that holds it.

VPP itself cannot tell: it lets any client write under any source, and may list clients for a while after
they died.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from router_agent.fibs.fib import FibError


class Ownership:
    """The right to write under a FIB source of one VPP.

    Args:
        api_socket: the VPP's API socket.
        source: name of the FIB source.
    """

    def __init__(self, api_socket: Path, source: str) -> None:
        self._source = source
        self._path = api_socket.with_name(f"{api_socket.name}.{source.replace('/', '_')}.lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the right; nothing happens when it is held already.

        Raises:
            FibError: another agent holds it, or the lock cannot be made.
        """
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FibError(
                f"cannot make {self._path} ({error.strerror}), which keeps a second agent from writing FIB "
                f"source {self._source}: let the agent write to {self._path.parent}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise FibError(
                f"another agent (process {holder}) writes FIB source {self._source} of this VPP: stop it, or "
                f"give this one a source of its own"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def give_up(self) -> None:
        """Let the next agent have it; idempotent."""
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
