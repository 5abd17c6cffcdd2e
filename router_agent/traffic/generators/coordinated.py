"""A process of a generator: it does what its coordinator says, and ends when their connection closes."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Ready:
    """The process is set up, or began a job."""


@dataclass(frozen=True)
class Failed:
    """The process cannot go on, and why."""

    reason: str
    trace: str


def coordinated(descriptor: int, serve: Callable[[Connection], None]) -> int:
    """Serve the coordinator at the other end of a socket; return an exit code.

    Args:
        descriptor: of the socket.
        serve: does what the coordinator says, and raises EOFError when it closes.
    """
    with Connection(descriptor) as parent:
        try:
            serve(parent)
        except (EOFError, KeyboardInterrupt):
            return 0
        except Exception as error:  # noqa: BLE001  the coordinator raises it again
            with contextlib.suppress(OSError):
                parent.send(Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
            return 1
    return 0
