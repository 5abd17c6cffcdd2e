"""The interfaces of a network namespace, as far as a mirror of them needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import TypeAlias

from router_agent.model import Family
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.links import LINK_REQUEST, LinkState, address_request, parse_address, parse_link
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket

Address: TypeAlias = IPv4Interface | IPv6Interface

GROUPS = (
    c.RTNLGRP_LINK,
    c.RTNLGRP_IPV4_IFADDR,
    c.RTNLGRP_IPV6_IFADDR,
    c.RTNLGRP_MPLS_NETCONF,
    c.RTNLGRP_MPLS_ROUTE,
)
"""Events after which it is read again."""

_TRIES = 5
_MPLS_INPUT = "/proc/sys/net/mpls/conf/{name}/input"


@dataclass(frozen=True, slots=True)
class KernelInterface:
    """An interface of the control plane.

    Attributes:
        index: ifindex.
        name: its name now.
        up: administratively up.
        mtu: bytes.
        table: kernel table of the VRF it belongs to; 0 for none.
        addresses: with prefix lengths; link-local ones too.
        parent: ifindex of the interface a VLAN device is above; 0 for none.
        vlan: VLAN id (802.1Q) of a VLAN device, None for others.
        labelled: takes packets with MPLS labels.
        vrf: table of a VRF device; 0 for other interfaces.
    """

    index: int
    name: str
    up: bool
    mtu: int
    table: int = 0
    addresses: frozenset[Address] = frozenset()
    parent: int = 0
    vlan: int | None = None
    labelled: bool = False
    vrf: int = 0


async def read_kernel(dumps: DumpSocket, namespace: str | None) -> dict[int, KernelInterface]:
    """Return all interfaces by ifindex.

    Raises:
        NetlinkError: the kernel refuses.
        DumpInterruptedError: things changed during each of several tries.
        NamespaceError: the namespace cannot be entered.
    """
    links = [state for body in await dump(dumps, c.RTM_GETLINK, LINK_REQUEST) if (state := parse_link(body))]
    addresses: dict[int, set[Address]] = {}
    for family in Family:
        for body in await dump(dumps, c.RTM_GETADDR, address_request(family)):
            index, address, length = parse_address(body)
            addresses.setdefault(index, set()).add(ip_interface(f"{ip_address(address)}/{length}"))
    labelled = _labelled([state.link.name for state in links], namespace)
    return assemble(links, addresses, labelled)


def assemble(
    links: Sequence[LinkState], addresses: dict[int, set[Address]], labelled: set[str]
) -> dict[int, KernelInterface]:
    """Return interfaces by ifindex.

    Args:
        links: every link of the namespace.
        addresses: by ifindex.
        labelled: names of those that take labelled packets.
    """
    tables = {state.link.index: state.vrf_table for state in links if state.vrf_table}
    return {
        state.link.index: KernelInterface(
            index=state.link.index,
            name=state.link.name,
            up=state.link.up,
            mtu=state.link.mtu,
            table=tables.get(state.master, 0),
            addresses=frozenset(addresses.get(state.link.index, ())),
            parent=state.lower if state.vlan is not None else 0,
            vlan=state.vlan,
            labelled=state.link.name in labelled,
            vrf=state.vrf_table,
        )
        for state in links
    }


async def dump(dumps: DumpSocket, kind: int, request: bytes) -> list[bytes]:
    """Return the bodies of a small dump, trying again when it was interrupted.

    Raises:
        NetlinkError: the kernel refuses.
        DumpInterruptedError: it was interrupted each time.
    """
    for _ in range(_TRIES - 1):
        try:
            return await _dump_once(dumps, kind, request)
        except DumpInterruptedError:
            continue
    return await _dump_once(dumps, kind, request)


async def _dump_once(dumps: DumpSocket, kind: int, request: bytes) -> list[bytes]:
    bodies: list[bytes] = []
    async for messages in dumps.dump(kind, request):
        bodies += [messages.body(number) for number in range(len(messages))]
    return bodies


def _labelled(names: Sequence[str], namespace: str | None) -> set[str]:
    """Return the interfaces that take labelled packets; none where the kernel has no MPLS."""
    found = set()
    with inside(namespace):
        for name in names:
            try:
                text = Path(_MPLS_INPUT.format(name=name)).read_text()
            except OSError:
                continue
            if text.strip() == "1":
                found.add(name)
    return found
