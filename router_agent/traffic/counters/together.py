"""Several sources of counters as one, for those who take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router_agent.traffic.counters.source import CounterSource, DropClass

_BETWEEN = ": "


class Together:
    """Several sources; each counter is called after its source.

    Args:
        name: what they are called together.
        sources: with names that differ.
    """

    def __init__(self, name: str, sources: Sequence[CounterSource]) -> None:
        self.name = name
        self._sources = tuple(sources)

    def read(self) -> dict[str, int]:
        """Return the counters of all; see `source.CounterSource`."""
        return {
            f"{source.name}{_BETWEEN}{counter}": value
            for source in self._sources
            for counter, value in source.read().items()
        }

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes of all; see `source.CounterSource`."""
        found: list[DropClass] = []
        for source in self._sources:
            prefix = f"{source.name}{_BETWEEN}"
            own = {name.removeprefix(prefix): n for name, n in growth.items() if name.startswith(prefix)}
            found += source.drops(own)
        return found
