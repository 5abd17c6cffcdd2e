"""What asks for counters and what answers, when they are on two hosts: one JSON object a line.

    {"do": "read"}                       ->  {"counters": {NAME: VALUE, ...}}
    {"do": "drops", "growth": {...}}     ->  {"drops": [{"name": ..., "count": ..., ...}, ...]}
    whatever goes wrong                  ->  {"error": "what was found and what to do"}

What counters mean is decided where they are: it may depend on drivers that only that host knows.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from router_agent.traffic.counters.source import DropClass, Side


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Question(_Line):
    """What is wanted; `growth` with "drops" only."""

    do: Literal["read", "drops"]
    growth: dict[str, int] = {}


class Drop(_Line):
    """One drop class, see `source.DropClass`."""

    name: str
    count: int
    side: str
    source: str
    derived: bool

    @classmethod
    def of(cls, drop: DropClass) -> Drop:
        """Return a drop class as it is sent."""
        return cls(
            name=drop.name,
            count=drop.count,
            side=drop.side.value,
            source=drop.source,
            derived=drop.derived,
        )

    def drop_class(self) -> DropClass:
        """Return it as the ledger takes it.

        Raises:
            ValueError: there is no such side.
        """
        return DropClass(self.name, self.count, Side(self.side), self.source, derived=self.derived)


class Answer(_Line):
    """What was asked for, or why it cannot be had."""

    counters: dict[str, int] | None = None
    drops: list[Drop] | None = None
    error: str | None = None
