"""Counters of one place: read before and after a trial, and the drop classes in what they grew by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

COUNTS_SINCE = "counts since"
"""A counter that a source may have: when it began to count, in seconds; another one after a restart."""


class Side(StrEnum):
    """Whose drop it is."""

    TESTER = "tester"
    DEVICE = "device"


@dataclass(frozen=True)
class DropClass:
    """Packets dropped for one reason at one place.

    Attributes:
        name: what happened, in words.
        count: packets.
        side: the tester's own drops say nothing about the device.
        source: the counter it was read from.
        derived: a difference of counters rather than a counter.
    """

    name: str
    count: int
    side: Side
    source: str
    derived: bool = False


class CounterSource(Protocol):
    """Counters of one place."""

    @property
    def name(self) -> str:
        """What it is called in reports."""

    def read(self) -> dict[str, int]:
        """Return every counter by name; values only grow.

        Raises:
            CounterError: they cannot be read.
        """

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes in the growth of these counters; counts may be zero."""


class CounterError(Exception):
    """Counters cannot be read; the message says which and what to do."""
