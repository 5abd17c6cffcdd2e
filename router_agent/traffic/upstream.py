"""Route changes for a churn measurement, made by a program that knows how the router hears of routes.

A scenario names two commands (`tiers.TIER.upstream`): one withdraws the prefixes it reads on standard input,
one a line, and one announces them. Whatever happens, what was withdrawn is announced again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np

from router_agent.model import I64
from router_agent.traffic.measurements.churn import Clock, MakeChanges
from router_agent.traffic.measurements.results import Batch
from router_agent.traffic.reach import LocalReach, Reach
from router_agent.traffic.scenario import Destinations
from router_agent.traffic.scenario.asked import ChurnOptions
from router_agent.traffic.scenario.binding import UpstreamBinding

_COMMAND_S = 120.0


class Upstream:
    """Withdraws and announces prefixes: a context manager that gives `changes`, and announces all at its end.

    Args:
        binding: the commands.
        options: how many prefixes, how often.
        destinations: of the check; the first ones change.
        connect: gives the host that the commands run on, connected; None is this one.
    """

    def __init__(
        self,
        binding: UpstreamBinding,
        options: ChurnOptions,
        destinations: Destinations,
        connect: Callable[[], Reach] | None = None,
    ) -> None:
        self._binding = binding
        self._options = options
        count = min(options.prefixes, len(destinations))
        self._rows: I64 = np.arange(count, dtype=np.int64)
        prefixes = dict.fromkeys(str(destinations.prefix(row)) for row in range(count))
        self._lines = "".join(f"{prefix}\n" for prefix in prefixes).encode()
        self._connect = connect or LocalReach
        self._withdrawn = False
        self._stack = ExitStack()
        self._reach: Reach

    def __enter__(self) -> MakeChanges:
        self._reach = self._stack.enter_context(self._connect())
        return self.changes

    def __exit__(self, *_: object) -> None:
        with self._stack:
            if self._withdrawn:
                self._announce()

    def changes(self, clock: Clock) -> Iterator[Batch]:
        """Make the changes, yielding each when it was made; see `churn.MakeChanges`.

        Raises:
            ReachError: a command failed.
        """
        pause = threading.Event()
        for _ in range(self._options.rounds):
            at_s = clock()
            self._withdrawn = True
            self._run(self._binding.withdraw)
            yield Batch(at_s, len(self._rows), "withdrawn", self._rows, reachable=False)
            pause.wait(max(0.0, at_s + self._options.every - clock()))
            at_s = clock()
            self._announce()
            yield Batch(at_s, len(self._rows), "announced", self._rows)
            pause.wait(max(0.0, at_s + self._options.every - clock()))

    def _announce(self) -> None:
        self._run(self._binding.announce)
        self._withdrawn = False

    def _run(self, argv: tuple[str, ...]) -> None:
        self._reach.run(argv, stdin=self._lines, timeout_s=_COMMAND_S)
