"""A change of routes during a trial, and what followed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RouteChange:
    """Route changes made at once, and what followed until the next ones.

    Attributes:
        at_s: seconds since the first packet.
        what: how many, and what was done.
        blocked_s: the longest time in which nothing arrived.
        lost: packets.
    """

    at_s: float
    what: str
    blocked_s: float
    lost: int
