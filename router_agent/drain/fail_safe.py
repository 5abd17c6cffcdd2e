"""When a host drains itself: a FIB that cannot be made right must not attract traffic that it drops.

`Judge` decides, from what the agent says of itself; it is told the time and does nothing. Its rules:

* **Wrong** is a pipeline in any state but in sync, one whose changes wait longer than that, and one that
  has no room for routes. **Silent** is an agent that does not answer. Either, for its limit of time without
  a break, drains the host.
* The host takes back only what it did itself (`mark.FAIL_SAFE`), and only when all has been right for a
  while without a break.
* That while doubles with each drain that follows another, so that a FIB which is right now and then does not
  make neighbours change their mind with it.
* An operator's drain is left alone, and an operator who takes back the host's own has the whole limit of time
  before the host does it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from router_agent.drain.mark import Mark
from router_agent.drain.settings import FailSafeSettings
from router_agent.observe.answers import PipelineStatus, State, Status


class Health(Enum):
    """How the forwarding plane's FIB is."""

    RIGHT = "right"
    WRONG = "wrong"
    SILENT = "silent"


@dataclass(frozen=True)
class Finding:
    """What one look at the agent found.

    Attributes:
        health: how the FIB is.
        words: why, where it is not right.
    """

    health: Health
    words: str = ""


@dataclass(frozen=True)
class Wish:
    """What the watcher wants done.

    Attributes:
        what: drain, or take back the host's own drain.
        words: why.
    """

    what: Literal["drain", "undrain"]
    words: str


def finding_of(status: Status, *, wrong_seconds: float) -> Finding:
    """Return what an agent's answer means.

    Args:
        status: what it answered.
        wrong_seconds: changes that wait longer than this are wrong.
    """
    problems = [words for pipeline in status.pipelines if (words := _problem(pipeline, wrong_seconds))]
    return Finding(Health.WRONG, "; ".join(problems)) if problems else Finding(Health.RIGHT)


def _problem(pipeline: PipelineStatus, wrong_seconds: float) -> str:
    if pipeline.state is not State.IN_SYNC:
        return f"pipeline {pipeline.name} is {pipeline.state}" + (
            f": {pipeline.error}" if pipeline.error else ""
        )
    if pipeline.lag_seconds > wrong_seconds:
        return f"pipeline {pipeline.name}: changes wait for {pipeline.lag_seconds:.0f} s"
    if pipeline.capacity is not None and pipeline.capacity.exhausted:
        return f"pipeline {pipeline.name}: {pipeline.capacity.shortage or 'no room for more routes'}"
    return ""


@dataclass
class Judge:
    """Decides when the host is to be drained, and when that is to be taken back.

    Args:
        settings: the limits of time.
        drains: times of the host's own drains so far, the oldest first; of the same clock as `look`'s.
    """

    settings: FailSafeSettings
    drains: list[float] = field(default_factory=list)
    _bad_since: float | None = None
    _right_since: float | None = None
    _own: bool = False
    _marked: bool | None = None

    def look(self, now: float, finding: Finding, mark: Mark | None) -> Wish | None:
        """Take one look; return what is to be done, again each time until it is.

        Args:
            now: seconds.
            finding: what the agent said.
            mark: the drain in force.
        """
        self._follow(now, mark)
        if finding.health is Health.RIGHT:
            self._bad_since = None
            self._right_since = now if self._right_since is None else self._right_since
            return self._taking_back(now, mark)
        self._right_since = None
        self._bad_since = now if self._bad_since is None else self._bad_since
        if mark is not None:
            return None
        limit = self._limit(finding)
        if now - self._bad_since < limit:
            return None
        return Wish("drain", f"{finding.words}, for {now - self._bad_since:.0f} s")

    @property
    def patience(self) -> float:
        """How long all must be right before the host's own drain is taken back, in seconds."""
        doublings = min(max(0, len(self.drains) - 1), 30)
        return min(self.settings.right_seconds * 2.0**doublings, self.settings.right_seconds_most)

    def _taking_back(self, now: float, mark: Mark | None) -> Wish | None:
        assert self._right_since is not None
        right = now - self._right_since
        if mark is None or not mark.own or right < self.patience:
            return None
        return Wish("undrain", f"all has been right for {right:.0f} s")

    def _limit(self, finding: Finding) -> float:
        if finding.health is Health.SILENT:
            return self.settings.silent_seconds
        return self.settings.wrong_seconds

    def _follow(self, now: float, mark: Mark | None) -> None:
        """Take note of drains that came and went."""
        own = mark is not None and mark.own
        if own and not self._own and self._marked is not None:
            self.drains.append(now)
        self.drains = recent(self.drains, now, self.settings.forget_seconds)
        if self._marked and mark is None:
            self._bad_since = None
        self._own, self._marked = own, mark is not None


def recent(times: Sequence[float], now: float, seconds: float) -> list[float]:
    """Return the times that are not so long ago, nor still to come."""
    return [time for time in times if 0 <= now - time <= seconds]
