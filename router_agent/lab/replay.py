"""Replaying: messages that were encoded beforehand go out when they are due.

Whoever replays notes when each went out, so that somebody else can say how long it took to get somewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router_agent.lab.churn import Churn
from router_agent.model import I64, U8, Family

_TICK_SECONDS = 0.001
"""How often a replay looks what is due."""

MOST_AT_ONCE = 1000
"""Messages handed over at once: a kernel holds its lock for as long as it works on them."""


@dataclass(frozen=True, eq=False)
class Script:
    """Messages of a stream in the order in which they go out. Columns have m rows, one a message.

    Attributes:
        data: every message, back to back.
        ends: where each ends in `data`.
        due: seconds from the start.
        changes: how many changes have gone out with each message and those before it.
    """

    data: U8
    ends: I64
    due: NDArray[np.float64]
    changes: I64

    def __len__(self) -> int:
        return len(self.ends)

    def start(self, number: int) -> int:
        """Return where a message begins in `data`."""
        return int(self.ends[number - 1]) if number else 0

    def part(self, begin: int, end: int) -> U8:
        """Return the bytes of messages from `begin` to the one before `end`."""
        return self.data[self.start(begin) : self.start(end)]


class Replay(Protocol):
    """One way to get a stream into a POP."""

    def script(self, churn: Churn) -> Script:
        """Encode a stream."""

    def run(self, script: Script, progress: Progress | None = None) -> Progress:
        """Replay a stream to its end."""

    def legs(self, family: Family, number: int) -> frozenset[bytes]:
        """Return the gateways that a path number stands for, in network byte order."""


@dataclass
class Progress:
    """How far a replay is.

    Attributes:
        sent: messages that went out.
        sent_at: when each did, by `time.monotonic`.
        late: the furthest a message went out after it was due, in seconds: above some milliseconds whoever
            was sent to could not take more.
    """

    sent_at: NDArray[np.float64]
    sent: int = 0
    late: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first message to the last."""
        return float(self.sent_at[self.sent - 1] - self.sent_at[0]) if self.sent else 0.0


def begun(script: Script) -> Progress:
    """Return the progress of a replay that begins."""
    return Progress(np.zeros(len(script)))


def play(
    script: Script, send: Callable[[int, int], None], progress: Progress, *, most: int = MOST_AT_ONCE
) -> None:
    """Send every message when it is due, or as soon after as `send` lets it.

    Args:
        script: what to send.
        send: takes the numbers of the first message and of the one after the last.
        progress: kept up to date.
        most: messages that `send` takes at once.
    """
    began = time.monotonic()
    while progress.sent < len(script):
        begin, now = progress.sent, time.monotonic() - began
        end = min(int(np.searchsorted(script.due, now, side="right")), begin + most)
        if end <= begin:
            time.sleep(max(float(script.due[begin]) - now, _TICK_SECONDS))
            continue
        progress.late = max(progress.late, now - float(script.due[begin]))
        progress.sent_at[begin:end] = time.monotonic()
        send(begin, end)
        progress.sent = end
