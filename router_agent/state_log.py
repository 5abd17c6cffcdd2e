"""Says how a pipeline fares: each change of state, a loss once, and when it is over, for how long it was.

While a FIB is away it is tried again and again; a try is a debug line unless it finds another reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from router_agent.events import Event, about
from router_agent.observe.answers import State

_log = logging.getLogger(__name__)


class StateLog:
    """Lines about the state of one pipeline.

    Args:
        name: of the pipeline.
        clock: returns seconds that never run backwards.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._since: float | None = None
        self._tries = 0
        self._said: dict[State, str] = {}

    def lost(self, state: State, problem: str) -> None:
        """Say that the feed or the FIB is not there, once for each reason."""
        self._tries += 1
        if self._since is None:
            self._since = self._clock()
        if self._said.get(state) == problem:
            _log.debug("%s: still %s: %s", self._name, state, problem)
            return
        self._said[state] = problem
        if state is State.FIB_LOST:
            _log.error(
                "the FIB is lost: %s. Routes are kept here and written again when it is back",
                problem,
                extra=about(Event.FIB_LOST, pipeline=self._name, problem=problem),
            )
        else:
            _log.error(
                "the feed is lost: %s. The FIB keeps what it holds and forwards by it meanwhile",
                problem,
                extra=about(Event.FEED_LOST, pipeline=self._name, problem=problem),
            )

    def entered(self, state: State) -> None:
        """Say that it is on its way."""
        if self._since is not None:
            _log.debug("%s: %s", self._name, state)
            return
        _log.info("%s", state, extra=about(Event.STATE, pipeline=self._name, state=state))

    def in_sync(self, *, routes: int, absent: int, waiting: int = 0) -> None:
        """Say that the FIB holds what it should, and for how long something was lost before.

        Args:
            routes: in the FIB.
            absent: wanted and not in it, for a reason.
            waiting: wanted, and let in as soon as the FIB is seen to have room for them.
        """
        counts = f"{routes:,} routes in the FIB"
        counts += f", {absent:,} are not, for a reason" if absent else ""
        counts += f", {waiting:,} wait for room" if waiting else ""
        lost, tries, seconds = sorted(self._said), self._tries, 0.0
        if self._since is not None:
            seconds = self._clock() - self._since
            counts = f"again, {seconds:.1f} s after {' and '.join(lost)}: {counts}"
        self._since, self._tries = None, 0
        self._said.clear()
        _log.info(
            "in sync: %s",
            counts,
            extra=about(
                Event.IN_SYNC,
                pipeline=self._name,
                routes=routes,
                absent=absent,
                waiting=waiting,
                after=lost,
                lost_seconds=round(seconds, 3),
                tries=tries,
            ),
        )
