"""How much room VPP has for routes. VPP does not refuse what it has no room for: it ends.

Measured with VPP 26.06: with a main heap of 128 MiB it ended at 135,000 routes, with 69 MiB used and 26 MiB
free in one piece; with a stats segment of 16 MiB at 240,000, half of it used. For pools and counter vectors
grow by half, into one new piece, while the old one is still there (vppinfra/vec.h). So it is not what is left
that counts but what is left *in one piece*, against what the next growth takes:

- main heap: FIB entry, its source, load-balance and list element, 72 + 40 + 64 + 20 bytes a route, in pools
  that all grow at about the same number of routes; beside them the plies of the IPv4 mtrie.
- stats segment: two counters of 16 bytes a route and thread, a vector for each.

``/mem/…`` of the stats segment tells both, in the words of dlmalloc's ``mallinfo``: the piece at the end of
the heap is its ``keepcost`` (shown as "trimmable"). VPP renews these figures every 10 s (``statseg {
update-interval }``), so from one time to the next only so much may be added as fits with certainty.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router_agent.events import Event, about
from router_agent.model import U64, Family, key_lengths
from router_agent.vpp.stats import StatsBusyError, StatsError, StatsSegment

log = logging.getLogger(__name__)

_TOTAL, _USED, _LARGEST = 0, 1, 6
"""Places in ``/mem/…`` (``stat_mem_usage_e`` of src/vlib/stats/provider_mem.c; the last is ``keepcost``)."""

HEAP, SEGMENT = "main heap", "stat segment"
KNOBS = {HEAP: "memory { main-heap-size }", SEGMENT: "statseg { size }"}
NAMES = {HEAP: "main heap", SEGMENT: "stats segment"}

ENTRY_GROWTH = 300
"""Bytes a route that the pools take when all of them grow: one and a half times 196."""
_ENTRY_BYTES = 200
_PLY_BYTES = 1344
"""A ply of the IPv4 mtrie: below /24 a route may need one of its own (src/vnet/ip/ip4_mtrie.h)."""
_IDLE_BYTES = 48 << 20
"""Main heap of a VPP without routes."""
_ADD_BYTES = {Family.IPV4: 450, Family.IPV6: 650}
"""Main heap that a route takes at most, without growth (measured on full tables: 330 and 480)."""
_COUNTER_BYTES = 16
_RESERVE = 0.02
_LEAST_ROUTES = 100
"""Room for fewer routes than that is none: the next look would say so."""
_LEAST_COST = _ADD_BYTES[Family.IPV6] + ENTRY_GROWTH
COUNTERS = "/net/route/to"
"""Packets sent to each route, by the index that ``ip_route_lookup_v2`` gives."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One heap, in bytes; ``largest`` is the free piece at its end."""

    total: int
    used: int
    largest: int


@dataclass(frozen=True, slots=True)
class Look:
    """What the stats segment said at one time.

    Attributes:
        heartbeat: number of the update the memory figures are from.
        memory: each of `HEAP` and `SEGMENT`.
        counters: route counters there are: one a load-balance, so at least one a route.
        threads: VPP's threads, each of which has counters of its own.
    """

    heartbeat: int
    memory: dict[str, Memory]
    counters: int
    threads: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """What there is no room in."""

    resource: str
    used: int
    total: int
    largest: int
    wanted: int
    """Bytes in one piece that the next growth may take."""

    def __str__(self) -> str:
        mib = 1 << 20
        return (
            f"VPP's {NAMES[self.resource]} has {self.largest / mib:.0f} MiB left in one piece and may need "
            f"{self.wanted / mib:.0f} for more routes ({self.used / mib:.0f} of {self.total / mib:.0f} MiB "
            f"used): raise `{KNOBS[self.resource]}` in startup.conf and restart VPP, or announce less"
        )


def look(segment: StatsSegment) -> Look:
    """Read VPP's memory figures.

    Raises:
        StatsError: they cannot be read.
    """
    memory = {}
    for name in (HEAP, SEGMENT):
        gauges = segment.simple(f"/mem/{name}")
        memory[name] = Memory(int(gauges[_TOTAL]), int(gauges[_USED]), int(gauges[_LARGEST]))
    threads, counters = segment.shape(COUNTERS)
    return Look(segment.heartbeat, memory, counters, max(threads, 1))


def growth(look: Look) -> dict[str, int]:
    """Return the bytes that the next growth of each resource may take in one piece."""
    used = look.memory[HEAP].used
    beside = max(0, used - _IDLE_BYTES - _ENTRY_BYTES * look.counters)
    # Counter vectors grow one after the other, and each leaves a hole; two may find none that fits.
    return {
        HEAP: max(ENTRY_GROWTH * look.counters, beside + beside // 2),
        SEGMENT: 2 * _COUNTER_BYTES * 3 // 2 * look.counters,
    }


def room(look: Look) -> dict[str, int]:
    """Return the bytes of each resource that routes may take before its next growth is in danger."""
    wanted = growth(look)
    return {
        name: memory.largest - int(_RESERVE * memory.total) - wanted[name]
        for name, memory in look.memory.items()
    }


def costs(family: Family, keys: U64) -> U64:
    """Return the bytes of main heap that adding each route may take, with its part in the next growth."""
    each = np.full(len(keys), _ADD_BYTES[family] + ENTRY_GROWTH, np.uint64)
    if family is Family.IPV4:
        each[key_lengths(keys) > 24] += np.uint64(_PLY_BYTES + _PLY_BYTES * 3 // 2)
    return each


def counter_cost(threads: int) -> int:
    """Return the bytes of stats segment that adding a route may take, with its part in the next growth."""
    return threads * 2 * (_COUNTER_BYTES + _COUNTER_BYTES * 3 // 2)


class Admission:
    """How many more routes VPP may be given now.

    Every fresh look sets how many bytes routes may take; routes that are let in draw on them. What was
    deleted leaves slots in VPP's pools, which the next routes take before any pool grows.
    """

    def __init__(self) -> None:
        self.shortage: Shortage | None = None
        self.unknown: str | None = "VPP's memory has not been looked at yet"
        """Why nothing is known of VPP's memory, so that everything is let in; None when it is."""
        self.last: Look | None = None
        self._left: dict[str, float] | None = None
        self._freed = 0
        self._recent = {HEAP: 0.0, SEGMENT: 0.0}
        """Drawn since the last look: a fresh figure may be from before it."""

    def forget(self, why: str) -> None:
        """Know nothing any more: VPP went, or its memory cannot be looked at."""
        self.__init__()  # type: ignore[misc]
        self.unknown = why

    def take(self, seen: Look) -> bool:
        """Take a look at VPP's memory into account; return whether there is more room than was known."""
        self.unknown = None
        fresh = self.last is None or seen.heartbeat != self.last.heartbeat
        recent, self._recent = self._recent, {HEAP: 0.0, SEGMENT: 0.0}
        if not fresh:
            self.last = seen
            return False
        amounts = room(seen)
        left: dict[str, float] = {name: amount - recent[name] for name, amount in amounts.items()}
        if self.last is None:
            # All there is may have come after these figures.
            left[HEAP] -= seen.counters * (_ADD_BYTES[Family.IPV4] + ENTRY_GROWTH)
            left[SEGMENT] -= seen.counters * counter_cost(seen.threads)
        self.last, self._left = seen, left
        least = {HEAP: _LEAST_ROUTES * _LEAST_COST, SEGMENT: _LEAST_ROUTES * counter_cost(seen.threads)}
        short = min(amounts, key=lambda name: amounts[name] / least[name])
        self.shortage = None
        if amounts[short] < least[short]:
            self._left = dict.fromkeys(left, 0.0)
            memory = seen.memory[short]
            self.shortage = Shortage(short, memory.used, memory.total, memory.largest, growth(seen)[short])
        return True

    def admit(self, family: Family, keys: U64) -> int:
        """Return how many of these routes, from the first on, may be added now; they count as added."""
        if self._left is None or self.last is None:
            return len(keys)
        free = min(self._freed, len(keys))
        self._freed -= free
        drawn = np.cumsum(costs(family, keys[free:]))
        counter = counter_cost(self.last.threads)
        count = int(np.searchsorted(drawn, max(self._left[HEAP], 0.0), side="right"))
        count = min(count, int(max(self._left[SEGMENT], 0.0) // counter))
        if count:
            for name, amount in ((HEAP, float(drawn[count - 1])), (SEGMENT, float(count * counter))):
                self._left[name] -= amount
                self._recent[name] += amount
        return free + count

    def release(self, count: int) -> None:
        """Take note that routes were deleted, or were let in and then refused."""
        self._freed += count

    @property
    def room(self) -> int | None:
        """Routes that are surely let in before the next look; None while nothing is known."""
        if self._left is None or self.last is None:
            return None
        heap = max(self._left[HEAP], 0.0) // _LEAST_COST
        counters = max(self._left[SEGMENT], 0.0) // counter_cost(self.last.threads)
        return self._freed + int(min(heap, counters))

    @property
    def open(self) -> bool:
        """Whether at least one more route is let in."""
        if self._left is None or self.last is None:
            return True
        roomy = self._left[HEAP] > _LEAST_COST and self._left[SEGMENT] > counter_cost(self.last.threads)
        return bool(self._freed) or roomy


class VppCapacity:
    """The admission of one VPP, looked after through its stats segment; see `Capacity`.

    Args:
        stats_socket: the segment's socket.
    """

    def __init__(self, stats_socket: Path) -> None:
        self._socket = stats_socket
        self._segment: StatsSegment | None = None
        self._admission = Admission()

    async def open(self) -> None:
        """Connect and take a first look. Without a stats segment everything is let in, with a warning."""
        self.close()
        try:
            self._segment = await asyncio.to_thread(StatsSegment, self._socket)
        except StatsError as error:
            self._forget(error)
            return
        self.look()

    def close(self) -> None:
        """Know nothing any more; idempotent."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._admission.forget("VPP's memory has not been looked at yet")

    def look(self) -> bool:
        """See `Capacity`."""
        if self._segment is None:
            return False
        try:
            return self._admission.take(look(self._segment))
        except StatsBusyError:
            return False
        except StatsError as error:
            self._forget(error)
            return False

    def admit(self, family: Family, keys: U64) -> int:
        """See `Capacity`."""
        return self._admission.admit(family, keys)

    def release(self, count: int) -> None:
        """See `Capacity`."""
        self._admission.release(count)

    @property
    def open_for_more(self) -> bool:
        """See `Capacity`."""
        return self._admission.open

    @property
    def room(self) -> int | None:
        """See `Capacity`."""
        return self._admission.room

    @property
    def shortage(self) -> str | None:
        """See `Capacity`."""
        return None if self._admission.shortage is None else str(self._admission.shortage)

    @property
    def unknown(self) -> str | None:
        """See `Capacity`."""
        return self._admission.unknown

    @property
    def used(self) -> dict[str, tuple[int, int]]:
        """See `Capacity`."""
        seen = self._admission.last
        if seen is None:
            return {}
        return {NAMES[name]: (memory.used, memory.total) for name, memory in seen.memory.items()}

    def counter(self, index: int) -> tuple[int, int] | None:
        """Return packets and bytes that went to the route of a counter, None where it cannot be read."""
        if self._segment is None or index < 0:
            return None
        try:
            return self._segment.combined(COUNTERS, index)
        except StatsError:
            log.debug("cannot read counter %d of routes", index, exc_info=True)
            return None

    def _forget(self, error: StatsError) -> None:
        log.warning(
            "%s. Routes are written whether VPP has room for them or not",
            error,
            extra=about(Event.CAPACITY_UNKNOWN, problem=str(error)),
        )
        self._admission.forget(str(error))
        if self._segment is not None:
            self._segment.close()
            self._segment = None
