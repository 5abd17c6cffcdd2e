"""Routes of MPLS labels, from Linux's terms into VPP's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from router_agent.mirror.kernel import KernelInterface, dump
from router_agent.model import MAIN_TABLE
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.label_routes import REQUEST, LabelLeg, LabelRoute, parse_label_route
from router_agent.netlink.sockets import DumpSocket
from router_agent.vpp.labels import POP, Entry, LabelPath, Paths
from router_agent.vpp.routes import HEAVIEST, NO_INTERFACE

_HAS_MPLS = "/proc/sys/net/mpls/platform_labels"
_LOOPBACK = "lo"


async def read_label_routes(dumps: DumpSocket, namespace: str | None) -> list[LabelRoute]:
    """Return the routes of labels of a namespace; none where the kernel has no MPLS.

    Raises:
        NetlinkError: the kernel refuses.
        NetlinkDecodeError: it sends what af_mpls.c does not.
    """
    with inside(namespace):
        if not Path(_HAS_MPLS).exists():
            return []
    routes = (parse_label_route(body) for body in await dump(dumps, c.RTM_GETROUTE, REQUEST))
    return [route for route in routes if route is not None]


def entries(
    routes: Iterable[LabelRoute],
    kernel: Mapping[int, KernelInterface],
    ports: Mapping[int, int],
    tables: Mapping[int, int],
) -> tuple[dict[Entry, Paths], dict[int, str]]:
    """Return what VPP is to hold, and why it cannot hold some labels.

    Args:
        routes: of labels.
        kernel: interfaces by ifindex.
        ports: ifindex to sw_if_index of paired interfaces.
        tables: kernel table to VPP table, for those whose numbers differ.
    """
    wanted: dict[Entry, Paths] = {}
    problems: dict[int, str] = {}
    for route in routes:
        paths: list[LabelPath] = []
        for leg in route.legs:
            found = _path(leg, kernel, ports, tables)
            if isinstance(found, str):
                problems[route.label] = found
            else:
                paths.append(found)
        if not paths or route.label in problems:
            continue
        held = tuple(sorted(paths))
        wanted[route.label, True] = held
        if all(path.interface != NO_INTERFACE for path in held):
            wanted[route.label, False] = held
    return wanted, problems


def _path(
    leg: LabelLeg,
    kernel: Mapping[int, KernelInterface],
    ports: Mapping[int, int],
    tables: Mapping[int, int],
) -> LabelPath | str:
    """Return one leg in VPP's terms, or why VPP cannot hold it."""
    link = kernel.get(leg.interface)
    if not leg.reachable:
        return "a next hop is dead, or given by its MAC address"
    if link is not None and not leg.gateway and not leg.labels and (link.vrf or link.name == _LOOPBACK):
        table = link.vrf or MAIN_TABLE
        return LabelPath(NO_INTERFACE, table=tables.get(table, 0 if table == MAIN_TABLE else table))
    port = ports.get(leg.interface)
    if port is None:
        return f"interface {link.name if link else leg.interface} has no counterpart in VPP"
    if not leg.gateway:
        return "a next hop has no address"
    return LabelPath(port, leg.gateway, leg.labels or (POP,), min(leg.weight, HEAVIEST))
