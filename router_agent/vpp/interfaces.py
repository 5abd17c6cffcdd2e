"""Which VPP interface stands for which interface of the control plane.

Either the configuration says so, by names, or linux-cp does, by its pairs: those whose kernel interface is in
the feed's namespace. Kernel interfaces are told apart by ifindex; a pair follows a kernel interface that is
renamed, a configured name is whoever has that name now.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from router_agent.events import Event, about
from router_agent.model import Link
from router_agent.vpp.pairs import Pair, is_in, read_pairs
from router_agent.vpp.session import VppSession

log = logging.getLogger(__name__)

_EVERY_INTERFACE = 0xFFFFFFFF

MESSAGES: dict[str, tuple[str, ...]] = {
    "sw_interface_dump": ("sw_if_index",),
    "sw_interface_details": ("sw_if_index", "interface_name"),
    "want_interface_events": ("enable_disable", "pid"),
    "sw_interface_event": ("sw_if_index", "deleted"),
}
"""What is needed of VPP's API, for `VppSession.require`."""


class Interfaces:
    """The interfaces of both sides.

    Args:
        configured: control-plane interface name to VPP interface name; None takes linux-cp's pairs.
        namespace: network namespace of the control plane, for its pairs; None is the agent's own.

    Attributes:
        names: VPP interface names by sw_if_index.
        ports: sw_if_index of the VPP interfaces that stand for one of the control plane, known there or not.
    """

    def __init__(self, configured: Mapping[str, str] | None, namespace: str | None = None) -> None:
        self._configured = None if configured is None else dict(configured)
        self._namespace = namespace
        self._pairs: dict[int, Pair] = {}
        self._links: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.ports: frozenset[int] = frozenset()

    @property
    def paired(self) -> bool:
        """Whether linux-cp's pairs say what belongs together."""
        return self._configured is None

    async def learn(self, session: VppSession) -> None:
        """Read VPP's interfaces and pairs.

        Raises:
            FibError: pairs are wanted and VPP runs without linux-cp.
            FibLostError: VPP went away.
        """
        details = await session.call("sw_interface_dump", sw_if_index=_EVERY_INTERFACE)
        self.names = {int(entry.sw_if_index): str(entry.interface_name) for entry in details}
        if self._configured is None:
            pairs = [pair for pair in await read_pairs(session) if is_in(pair, self._namespace)]
            self._pairs = {pair.link: pair for pair in pairs if pair.port in self.names}
            self.ports = frozenset(pair.port for pair in self._pairs.values())
            return
        wanted = set(self._configured.values())
        self.ports = frozenset(index for index, name in self.names.items() if name in wanted)
        for ours, theirs in self._configured.items():
            if theirs not in self.names.values():
                log.warning(
                    "VPP has no interface %s (configured for %s); routes over it wait; VPP has: %s",
                    theirs,
                    ours,
                    ", ".join(sorted(self.names.values())),
                    extra=about(Event.INTERFACE_MISSING, interfaces=[theirs]),
                )

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> bool:
        """Take note of control-plane interfaces; True when `translation` changed."""
        before = self.translation()
        for index in removed:
            self._links.pop(index, None)
        for link in links:
            self._links[link.index] = link.name
        return self.translation() != before

    def translation(self) -> dict[int, int]:
        """Return kernel ifindex to sw_if_index, for interfaces known on both sides."""
        if self._configured is None:
            return {link: pair.port for link, pair in self._pairs.items() if link in self._links}
        indices = {name: index for index, name in self.names.items()}
        found = {}
        for link, name in self._links.items():
            port = indices.get(self._configured.get(name, ""))
            if port is not None:
                found[link] = port
        return found

    def lost_by(self, event: Any) -> bool:
        """Tell whether an interface event makes our numbers wrong: one of ours is gone, or one we lack came.

        An event tells the number of an interface, not its name: any new one may be the one we lack.
        """
        index = int(event.sw_if_index)
        if event.deleted and index in self.ports:
            log.warning(
                "VPP deleted interface %s: routes come off it, and the FIB is read again",
                self.names[index],
                extra=about(Event.INTERFACE_DELETED, interface=self.names[index]),
            )
            return True
        if self._configured is None or event.deleted or index in self.names:
            return False
        return bool(set(self._configured.values()) - set(self.names.values()))
