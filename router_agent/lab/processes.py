"""Processes in network namespaces of the lab: found and ended."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from router_agent.lab.commands import run
from router_agent.lab.errors import LabError

_END_SECONDS = 30.0
_POLL_SECONDS = 0.02


def end_processes(namespace: str) -> None:
    """End every process in a namespace. Nothing in it is worth the half minute zebra takes to clean up.

    Raises:
        LabError: one does not go.
    """
    deadline = time.monotonic() + _END_SECONDS
    while pids := _pids(namespace):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {pids} in {namespace} are still there {_END_SECONDS:.0f} s after SIGKILL"
            )
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in run(["ip", "netns", "pids", namespace]).split() if int(pid) != os.getpid()]
