"""Leaves a device as it was found, whatever becomes of the check; see `device_state`."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Self

from router_agent.traffic.reach import LostError, Reach, ReachError

AS_FOUND = "device left as found: links, settings and routes are what they were"
_SECONDS = 120.0


class AsFound:
    """A context manager around a check.

    Args:
        reach: the device's host, connected.
        namespace: network namespace that forwards.
        program: the kit's program there.

    Attributes:
        notes: what to tell the reader, once it was left.
    """

    def __init__(self, reach: Reach, *, namespace: str | None = None, program: str = "router-agent") -> None:
        self._reach = reach
        where = ["--namespace", namespace] if namespace else []
        self._argv = [program, "traffic", "device", *where]
        self._before = b""
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Read the device's state.

        Raises:
            ReachError: it cannot be read.
        """
        self._before = self._reach.run(self._argv, timeout_s=_SECONDS).stdout
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what differs. That it cannot be done is a note: the check has its own verdict."""
        try:
            self.notes = self._restore()
        except (ReachError, ValueError, KeyError) as failure:
            self.notes = (f"whether the device is as it was found is not known: {failure}",)

    def _restore(self) -> tuple[str, ...]:
        words = [*self._argv, "--compare", "-", "--put-back"]
        try:
            done = self._reach.run(words, stdin=self._before, timeout_s=_SECONDS, exit_codes=(0, 1))
        except LostError:
            # what broke the connection may be over: the device is worth another
            self._reach.close()
            with self._reach:
                done = self._reach.run(words, stdin=self._before, timeout_s=_SECONDS, exit_codes=(0, 1))
        found = json.loads(done.text)
        if found["as_found"]:
            return (AS_FOUND,)
        return (
            *(f"put back on the device: {what}" for what in found["put_back"]),
            *(f"DEVICE NOT LEFT AS FOUND: {what}" for what in found["different"]),
        )
