"""The mirror at work: read Linux and VPP, plan, apply, and again whenever something changed on either side.

Every pass reads both sides whole, some hundred interfaces, so nothing depends on the order of events or on
none being lost, and a VPP that was restarted or changed by hand is put right by the next pass. Passes keep a
distance in time; a step that VPP refuses is tried again in the next one, not at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from router_agent.events import PIPELINE, Event, about
from router_agent.fibs.fib import FibError, FibLostError
from router_agent.mirror.aspects import Aspect
from router_agent.mirror.kernel import GROUPS, KernelInterface, read_kernel
from router_agent.mirror.labels import entries, read_label_routes
from router_agent.mirror.plan import plan
from router_agent.mirror.vpp import MESSAGES, Step, read_vpp
from router_agent.namespaces import NamespaceError
from router_agent.netlink.messages import NetlinkDecodeError
from router_agent.netlink.sockets import (
    DumpInterruptedError,
    DumpSocket,
    EventsLostError,
    EventSocket,
    NetlinkError,
)
from router_agent.vpp.labels import VppLabels
from router_agent.vpp.pairs import is_in, read_pairs
from router_agent.vpp.session import VppSession, error_name

log = logging.getLogger(__name__)

_DISTANCE_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_EVENT_BYTES = 1 << 20
_SYNC_ASPECTS = frozenset({Aspect.LINKS, Aspect.ADDRESSES, Aspect.MPLS})
"""What linux-cp itself copies from VPP to Linux with ``lcp-sync``."""


class Mirror:
    """Keeps VPP's paired interfaces as Linux's are.

    Args:
        name: of the pipeline it belongs to, for the log.
        api_socket: VPP's API socket.
        namespace: network namespace of the interfaces; None is the agent's own.
        aspects: what is mirrored.
        tables: kernel table to VPP table, for those whose numbers differ.

    Attributes:
        aspects: as given.
        problem: why nothing is mirrored now, None when all is well.
        refused: what VPP could not be given in the last pass, in words.
    """

    def __init__(
        self,
        *,
        name: str,
        api_socket: Path,
        namespace: str | None,
        aspects: Collection[Aspect],
        tables: Mapping[int, int],
    ) -> None:
        self._name = name
        self._namespace = namespace
        self.aspects = frozenset(aspects)
        self._tables = dict(tables)
        self._session = VppSession(
            api_socket=api_socket, name=f"router-agent:mirror:{name}"[:63], on_event=self._on_event
        )
        self._doubt = asyncio.Event()
        self._asked_to_follow: set[int] = set()
        self.problem: str | None = None
        self.refused: tuple[str, ...] = ()
        self._refused_words: frozenset[str] = frozenset()
        self.passes = 0
        self._labels: VppLabels | None = None

    async def run(self) -> None:
        """Mirror until cancelled; what VPP holds then stays."""
        PIPELINE.set(self._name)
        try:
            while True:
                try:
                    await self._follow()
                except (FibError, NetlinkError, NetlinkDecodeError, NamespaceError) as error:
                    self._trouble(str(error))
                except DumpInterruptedError:
                    self._trouble("the interfaces changed during every reading of them")
                await self._session.close()
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await self._session.close()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            events = stack.enter_context(
                closing(EventSocket(self._namespace, GROUPS, buffer_bytes=_EVENT_BYTES))
            )
            dumps = stack.enter_context(closing(DumpSocket(self._namespace)))
            loop.add_reader(events.fileno(), self._drain, events)
            stack.callback(loop.remove_reader, events.fileno())
            await self._session.open()
            self._labels = None
            self._session.require(MESSAGES)
            refuse_other_owner(await self._session.cli("show lcp"), self.aspects)
            await self._session.call("want_interface_events", enable_disable=1, pid=os.getpid())
            lost = self._session.stream.lost
            while True:
                self._doubt.clear()
                await self.mirror(dumps)
                await _first(lost, self._doubt.wait())
                await asyncio.sleep(_DISTANCE_SECONDS)

    async def mirror(self, dumps: DumpSocket) -> None:
        """Make one pass: until nothing is left to do that VPP does not refuse.

        Raises:
            FibLostError: VPP went away.
            NetlinkError: the kernel refuses to show its interfaces.
        """
        refused: dict[str, str] = {}
        while True:
            kernel = await read_kernel(dumps, self._namespace)
            pairs = [pair for pair in await read_pairs(self._session) if is_in(pair, self._namespace)]
            self._mention_unfollowed({link.table for link in kernel.values()})
            state = await read_vpp(self._session, pairs)
            steps = plan(kernel, state, aspects=self.aspects, tables=self._tables)
            steps = [step for step in steps if step.words not in refused]
            if not steps:
                break
            for step in steps:
                await self._apply(step, refused)
        if Aspect.MPLS in self.aspects and state.label_table:
            await self._mirror_labels(dumps, kernel, {pair.link: pair.port for pair in state.pairs}, refused)
        for words in refused.keys() - self._refused_words:
            log.warning(
                "VPP cannot %s: %s",
                *(words, refused[words]),
                extra=about(Event.MIRROR_REFUSED, step=words, problem=refused[words]),
            )
        self.refused = tuple(f"{words}: {refused[words]}" for words in sorted(refused))
        self._refused_words = frozenset(refused)
        self.passes += 1
        if self.problem is not None:
            log.info("interfaces are mirrored again", extra=about(Event.MIRROR_BACK))
            self.problem = None

    async def _mirror_labels(
        self,
        dumps: DumpSocket,
        kernel: Mapping[int, KernelInterface],
        ports: Mapping[int, int],
        refused: dict[str, str],
    ) -> None:
        if self._labels is None:
            self._labels = VppLabels(self._session)
            await self._labels.learn()
        routes = await read_label_routes(dumps, self._namespace)
        wanted, problems = entries(routes, kernel, ports, self._tables)
        answers = await self._labels.write(wanted)
        refused.update((f"forward label {label}", why) for label, why in problems.items())
        refused.update((f"forward label {label}", error_name(n)) for (label, _), n in answers.items())

    async def _apply(self, step: Step, refused: dict[str, str]) -> None:
        try:
            await self._session.call(step.message, **step.fields)
        except FibLostError:
            raise
        except FibError as error:
            refused[step.words] = str(error)
            return
        log.info("VPP was told: %s", step.words, extra=about(Event.MIRRORED, step=step.words))

    def _mention_unfollowed(self, tables: set[int]) -> None:
        """Say once of each VRF's table that routes in it are not followed."""
        if Aspect.VRFS not in self.aspects:
            return
        for table in tables - self._tables.keys() - self._asked_to_follow - {0}:
            self._asked_to_follow.add(table)
            log.warning(
                "a VRF uses table %d, which is not among the pipeline's tables: its interfaces are put "
                "into VPP's table %d, its routes are not; add %d to feed.tables",
                *(table, table, table),
                extra=about(Event.TABLE_NOT_FOLLOWED, table=table),
            )

    def _drain(self, events: EventSocket) -> None:
        """Take what is waiting; what it says does not matter, both sides are read anew."""
        self._doubt.set()
        try:
            while len(events.receive()):
                pass
        except EventsLostError:
            return
        except NetlinkError as error:
            self._lost(f"the kernel's events cannot be read, restart the agent: {error}")
            asyncio.get_running_loop().remove_reader(events.fileno())

    def _on_event(self, name: str, _fields: Any) -> None:
        if name == "sw_interface_event":
            self._doubt.set()

    def _trouble(self, text: str) -> None:
        if text != self.problem:
            self._lost(text)
        self.problem = text

    def _lost(self, problem: str) -> None:
        log.error(
            "interfaces are not mirrored, what VPP has stays: %s",
            problem,
            extra=about(Event.MIRROR_LOST, problem=problem),
        )


def refuse_other_owner(shown: str, aspects: Collection[Aspect]) -> None:
    """Refuse to mirror what VPP copies the other way: two owners undo each other's work.

    Args:
        shown: what ``show lcp`` prints.
        aspects: what is to be mirrored.

    Raises:
        FibError: linux-cp owns one of the aspects.
    """
    if "lcp-sync on" in shown and _SYNC_ASPECTS.intersection(aspects):
        names = ", ".join(sorted(_SYNC_ASPECTS.intersection(aspects)))
        raise FibError(
            "VPP copies its interfaces to Linux itself (lcp-sync is on), and the configuration asks to "
            f"mirror {names} from Linux to VPP: take these out of fib.mirror, or take `lcp-sync` out of "
            "startup.conf (`linux-cp { … }`) and restart VPP"
        )
    if "lcp-auto-subint on" in shown and Aspect.VLANS in aspects:
        raise FibError(
            "VPP makes VLAN devices in Linux itself (lcp-auto-subint is on), and the configuration asks to "
            "mirror vlans from Linux to VPP: take one of the two out"
        )


async def _first(lost: asyncio.Future[str], awaited: Any) -> None:
    """Wait for something, but not beyond the loss of VPP.

    Raises:
        FibLostError: VPP went away first.
    """
    waiting = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({lost, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if lost.done():
        raise FibLostError(lost.result())
