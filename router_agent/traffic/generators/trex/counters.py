"""What TRex's ports dropped themselves, for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_agent.traffic.counters.source import CounterError, DropClass, Side
from router_agent.traffic.generators.generator import GeneratorError

_PORT = ("opackets", "ipackets", "obytes", "ibytes", "oerrors", "ierrors")
_WHOLE = ("m_total_queue_full", "m_total_queue_drop", "m_total_alloc_error")
"""Of ``get_global_stats``: times a port's queue was full, packets dropped for it, packets without a buffer.
The latter two were never sent, and are no loss."""


class TrexCounters:
    """Counters of the tester's ports at a TRex server.

    Args:
        names: of the tester's ports.
        read: returns the statistics of each port, in their order, and those of the whole server.
    """

    name = "TRex's ports"

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[], tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]],
    ) -> None:
        self._names = tuple(names)
        self._read = read

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`."""
        try:
            rows, whole = self._read()
        except GeneratorError as error:
            raise CounterError(str(error)) from error
        found = {
            f"{name}.{counter}": int(row[counter])
            for name, row in zip(self._names, rows, strict=True)
            for counter in _PORT
        }
        return found | {counter: int(whole.get(counter, 0)) for counter in _WHOLE}

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes of the tester; see `source.CounterSource`."""
        return [
            DropClass(
                f"tester port {name}: receive errors, or no room in the receive queue",
                growth.get(f"{name}.ierrors", 0),
                Side.TESTER,
                f"{name} ierrors",
            )
            for name in self._names
        ]
