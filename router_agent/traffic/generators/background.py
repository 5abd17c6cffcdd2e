"""Traffic that runs while something else is done to the router, and an exact account of it afterwards.

    with BackgroundTraffic(scenario, endpoints) as traffic:
        break_something()
    print(traffic.result.lost, traffic.result.series.lost)

The loss series is by sending time in intervals of `scenario.interval_s` (0.01 gives 10 ms): where a packet
that never arrived was sent is where the outage was.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.sockets.generator import SocketsGenerator, SocketsRunning
from router_agent.traffic.scenario import Endpoints, Scenario


class BackgroundTraffic:
    """Sends at `scenario.rate_pps` from entry to exit.

    Args:
        scenario: what to send; its duration is not used.
        endpoints: the tester's ports.
        max_duration_s: the stream ends by itself after so long; a longer wait is refused at the end, so
            that nobody takes silence for loss-free traffic.
    """

    def __init__(self, scenario: Scenario, endpoints: Endpoints, *, max_duration_s: float = 600.0) -> None:
        self._generator = SocketsGenerator(scenario, endpoints)
        self._rate_pps = scenario.rate_pps
        self._max_duration_s = max_duration_s
        self._stack = ExitStack()
        self._running: SocketsRunning | None = None
        self._result: TrialResult | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            generator = stack.enter_context(self._generator)
            self._running = generator.start(self._rate_pps, self._max_duration_s)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                self.stop()

    def snapshot(self) -> Snapshot:
        """Return where it is now.

        Raises:
            GeneratorError: it is not running.
        """
        if self._running is None:
            raise GeneratorError("background traffic is not running: use it in a `with` block")
        return self._running.snapshot()

    def stop(self) -> TrialResult:
        """End it (the end of the `with` block does so too) and return its account.

        Raises:
            GeneratorError: a worker failed, or the stream had ended by itself before.
        """
        if self._running is not None:
            running, self._running = self._running, None
            elapsed = running.snapshot().elapsed_s
            self._result = running.stop()
            if elapsed > self._max_duration_s:
                raise GeneratorError(
                    f"background traffic ended by itself after {self._max_duration_s:g} s, "
                    f"{elapsed - self._max_duration_s:.1f} s before it was stopped: raise max_duration_s"
                )
        return self.result

    @property
    def result(self) -> TrialResult:
        """The account of it, once it was stopped."""
        if self._result is None:
            raise GeneratorError("background traffic has not been stopped, so there is no result yet")
        return self._result
