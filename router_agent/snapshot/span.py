"""The time between two snapshots, and what counters grew by in it when they may have begun anew."""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.snapshot.model import Snapshot

_LEAST_SECONDS = 1.0
"""Two snapshots are never nearer than taking one takes; a rate over less would be noise."""


@dataclass(frozen=True, slots=True)
class Span:
    """From one snapshot to the other.

    Attributes:
        elapsed: seconds, by the host's own clock of this boot, or by the calendar where it was rebooted
            meanwhile; below zero where the later snapshot is given first.
        rebooted: whether it was.
    """

    elapsed: float
    rebooted: bool

    @property
    def seconds(self) -> float:
        """How long it is, for rates."""
        return max(abs(self.elapsed), _LEAST_SECONDS)

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Span:
        """Return the span between two snapshots of one host."""
        rebooted = before.boot != after.boot
        by_calendar = (after.taken_at - before.taken_at).total_seconds()
        elapsed = by_calendar if rebooted else after.boot_seconds - before.boot_seconds
        return cls(elapsed=elapsed, rebooted=rebooted)


@dataclass(frozen=True, slots=True)
class Growth:
    """What a counter grew by.

    Attributes:
        count: of a counter that began anew, what it has counted since.
        anew: it began anew: its owner was restarted, or it is less than it was.
    """

    count: int
    anew: bool

    @classmethod
    def of(cls, before: int, after: int, *, anew: bool) -> Growth:
        """Return the growth of a counter; `anew` when it is known that its owner was restarted."""
        began_anew = anew or after < before
        return cls(count=after if began_anew else after - before, anew=began_anew)

    def per_second(self, span: Span) -> float:
        """Return the rate over the whole span: what was counted before it began anew is not known."""
        return self.count / span.seconds
