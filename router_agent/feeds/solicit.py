"""Has the kernel resolve next hops that routes need and nobody has spoken to.

Where another plane forwards, the kernel sends nothing to a next hop but what BGP sends to it; a next hop that
is no peer (a third party's, a static route's) is resolved by nobody, and one whose entry was flushed only
when the control plane speaks to it again. So for each next hop without a usable neighbour the kernel is told
that somebody wants to use it (RTM_NEWNEIGH with ``NTF_USE``, linux/neighbour.h), which makes it ask.

Entries are not made ``NTF_EXT_MANAGED``: that needs Linux 5.16, and would leave entries behind that a kernel
whose agent has gone probes for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from ipaddress import ip_address
from typing import TypeAlias

from router_agent.events import Event, about
from router_agent.model import PathSet
from router_agent.namespaces import NamespaceError
from router_agent.netlink import constants as c
from router_agent.netlink.neighbours import encode_use
from router_agent.netlink.sockets import NetlinkError, WriteSocket

_log = logging.getLogger(__name__)

Hop: TypeAlias = tuple[int, bytes]
"""A next hop: ifindex and address."""

_DISTANCE_SECONDS = 0.5
_FIRST_SECONDS, _LONGEST_SECONDS = 4.0, 64.0
"""Until a next hop is asked for again; the kernel itself asks three times, a second apart."""


def hops_of(paths: PathSet | None) -> set[Hop]:
    """Return the next hops of a path set."""
    return set() if paths is None else {(leg.interface, leg.gateway) for leg in paths.paths if leg.gateway}


class Schedule:
    """When each missing next hop is asked for: at once, then after 4, 8, ... 64 seconds."""

    def __init__(self) -> None:
        self._next: dict[Hop, tuple[float, float]] = {}

    def due(self, missing: Collection[Hop], now: float) -> list[Hop]:
        """Return which are to be asked for now; those that are not missing any more are forgotten."""
        self._next = {hop: when for hop, when in self._next.items() if hop in missing}
        found = []
        for hop in missing:
            when, pause = self._next.get(hop, (now, _FIRST_SECONDS))
            if when <= now:
                found.append(hop)
                self._next[hop] = (now + pause, min(2 * pause, _LONGEST_SECONDS))
        return found

    def pause(self, now: float) -> float | None:
        """Return in how many seconds the next one is due; None when none is missing."""
        return max(0.0, min(when for when, _ in self._next.values()) - now) if self._next else None


class Solicitor:
    """Asks for next hops of a namespace.

    Args:
        namespace: where they are; None is the agent's own.
        missing: returns the next hops that are needed and have no usable neighbour.

    Attributes:
        asked: how often the kernel was told to resolve one.
    """

    def __init__(self, namespace: str | None, missing: Callable[[], Collection[Hop]]) -> None:
        self._namespace = namespace
        self._missing = missing
        self._look = asyncio.Event()
        self._schedule = Schedule()
        self.asked = 0

    def look(self) -> None:
        """Have it see whether another next hop is missing."""
        self._look.set()

    async def run(self) -> None:
        """Ask for what is missing until cancelled, or until that turns out not to be permitted."""
        try:
            await self._ask_for_ever()
        except (NetlinkError, NamespaceError) as error:
            _log.warning(
                "next hops that nobody speaks to are not resolved, and routes over them dropped: %s",
                error,
                extra=about(Event.SOLICIT_FAILED, problem=str(error)),
            )

    async def _ask_for_ever(self) -> None:
        now = asyncio.get_running_loop().time
        with closing(WriteSocket(self._namespace, batch_bytes=1 << 12)) as socket:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._schedule.pause(now())):
                        await self._look.wait()
                self._look.clear()
                for hop in self._schedule.due(self._missing(), now()):
                    self._ask(socket, hop)
                await asyncio.sleep(_DISTANCE_SECONDS)

    def _ask(self, socket: WriteSocket, hop: Hop) -> None:
        self.asked += 1
        try:
            number, _ = socket.request(c.RTM_NEWNEIGH, c.NLM_F_CREATE, encode_use(*hop), self.asked)
        except NetlinkError as error:
            _log.warning(
                "cannot ask for next hop %s on interface %d, it is tried again: %s",
                *(ip_address(hop[1]), hop[0], error),
                extra=about(Event.SOLICIT_FAILED, problem=str(error)),
            )
            return
        if number:
            # The interface went down or away meanwhile: an event of it follows.
            _log.debug("no resolution of %s on interface %d: error %d", ip_address(hop[1]), hop[0], number)
