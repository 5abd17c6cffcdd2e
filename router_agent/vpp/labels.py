"""Routes of MPLS labels in VPP: ``mpls_route_add_del`` (src/vnet/mpls/mpls.api).

VPP tells two packets apart by whether the label is the last (end of stack); the kernel does not. So a label
has two entries here, which do the same. Where the last label is popped VPP wants to know what is below: the
protocol of the next hop, or IPv4 where the packet is looked up anew.

Sources cannot be chosen for labels: what the API writes is of ``FIB_SOURCE_API``. The labels from 16 on of
the default table are therefore the agent's where it is asked to mirror them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from router_agent.model import Family
from router_agent.vpp import layout
from router_agent.vpp.session import VppSession
from router_agent.vpp.stream import HEADER, ReplyLayout, framed

log = logging.getLogger(__name__)

MESSAGES: dict[str, tuple[str, ...]] = {
    "mpls_route_add_del": ("context", "mr_is_add", "mr_is_multipath", "mr_route.mr_label", "mr_route.mr_eos"),
    "mpls_route_add_del_reply": ("context", "retval"),
    "mpls_route_dump": ("table",),
    "mpls_route_details": ("mr_route.mr_label", "mr_route.mr_eos", "mr_route.mr_paths"),
}
"""What is needed of VPP's API, for `VppSession.require`."""

FIRST_LABEL = 16
"""RFC 3032, 2.1: those below are reserved, and VPP has its own entries for them."""
POP = (1 << 20) + 1
"""``MPLS_LABEL_POP`` of src/vnet/mpls/mpls_types.h, in place of a label."""
_STACK = 16
_WINDOW = 1024
_IP4, _IP6 = 0, 1
"""``FIB_API_PATH_NH_PROTO_*``, and ``DPO_PROTO_*`` of what is below the last label."""

Entry: TypeAlias = tuple[int, bool]
"""A label, and whether it is the last of its stack."""


@dataclass(frozen=True, slots=True, order=True)
class LabelPath:
    """One leg of a label's entry.

    Attributes:
        interface: sw_if_index; `NO_INTERFACE` where the packet below the label is looked up in `table`.
        gateway: 4 or 16 bytes.
        labels: put in place of the label, outermost first; `POP` alone pops it.
        weight: from 1 to 255.
        table: VPP's IPv4 table that the packet is looked up in.
    """

    interface: int
    gateway: bytes = b""
    labels: tuple[int, ...] = ()
    weight: int = 1
    table: int = 0


Paths: TypeAlias = tuple[LabelPath, ...]


class VppLabels:
    """The entries of labels that VPP holds, and how they are changed.

    Args:
        session: an open session.

    Attributes:
        held: what VPP holds, from `FIRST_LABEL` on.
    """

    def __init__(self, session: VppSession) -> None:
        session.require(MESSAGES)
        self._session = session
        reply = session.message("mpls_route_add_del_reply")
        self._reply = ReplyLayout(
            message_id=session.message_id("mpls_route_add_del_reply"),
            length=HEADER.size + layout.fixed_size(reply),
            context=layout.field(reply, "context", size=4).at(HEADER.size).start,
            retval=layout.field(reply, "retval", size=4).at(HEADER.size).start,
        )
        self.held: dict[Entry, Paths] = {}

    async def learn(self) -> None:
        """Read what VPP holds.

        Raises:
            FibLostError: VPP went away.
        """
        self.held.clear()
        table = {"mt_table_id": 0, "mt_name": ""}
        for entry in await self._session.call("mpls_route_dump", table=table):
            route = entry.mr_route
            if int(route.mr_label) >= FIRST_LABEL:
                paths = tuple(sorted(_read(path) for path in route.mr_paths))
                self.held[int(route.mr_label), bool(route.mr_eos)] = paths

    async def write(self, wanted: Mapping[Entry, Paths]) -> dict[Entry, int]:
        """Make VPP hold these and no others; return VPP's error number for each that it refused.

        Raises:
            FibLostError: VPP went away.
        """
        gone: list[tuple[Entry, Paths]] = [(entry, ()) for entry in self.held if entry not in wanted]
        new = [(entry, paths) for entry, paths in wanted.items() if self.held.get(entry) != paths]
        todo = [*gone, *new]
        if not todo:
            return {}

        def encode(start: int, count: int, context: int) -> bytes:
            return b"".join(
                self._request(*todo[start + number], (context + number) & 0xFFFFFFFF)
                for number in range(count)
            )

        stream = self._session.stream
        async with stream.lock:
            retvals = await stream.transact(len(todo), encode, self._reply, _WINDOW)
        refused: dict[Entry, int] = {}
        for (entry, paths), retval in zip(todo, retvals.tolist(), strict=True):
            if retval:
                refused[entry] = retval
            elif paths:
                self.held[entry] = paths
            else:
                self.held.pop(entry, None)
        return refused

    def _request(self, entry: Entry, paths: Paths, context: int) -> bytes:
        label, last = entry
        request = self._session.pack(
            "mpls_route_add_del",
            context=int.from_bytes(context.to_bytes(4, "little"), "big"),
            mr_is_add=bool(paths),
            mr_is_multipath=False,
            mr_route={
                "mr_table_id": 0,
                "mr_label": label,
                "mr_eos": int(last),
                "mr_eos_proto": _protocol(paths[0]) if paths else _IP4,
                "mr_is_multicast": False,
                "mr_n_paths": len(paths),
                "mr_paths": [_api_path(path) for path in paths],
            },
        )
        return framed(request)


def _protocol(path: LabelPath) -> int:
    return _IP6 if len(path.gateway) == Family.IPV6.address_bytes else _IP4


def _api_path(path: LabelPath) -> dict[str, Any]:
    protocol = _protocol(path)
    labels = [{"is_uniform": 1, "label": label} for label in path.labels]
    return {
        "sw_if_index": path.interface,
        "table_id": path.table,
        "weight": path.weight,
        "type": 0,
        "proto": protocol,
        "nh": {"address": {"ip6" if protocol == _IP6 else "ip4": path.gateway} if path.gateway else {}},
        "n_labels": len(labels),
        "label_stack": [*labels, *[{}] * (_STACK - len(labels))],
    }


def _read(path: Any) -> LabelPath:
    six = int(path.proto) == _IP6
    address = path.nh.address.ip6 if six else path.nh.address.ip4
    gateway = address.packed if any(address.packed) else b""
    labels = tuple(int(entry.label) for entry in path.label_stack[: path.n_labels])
    return LabelPath(int(path.sw_if_index), gateway, labels, max(1, int(path.weight)), int(path.table_id))
