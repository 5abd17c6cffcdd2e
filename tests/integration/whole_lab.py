"""A whole POP in a lab, as tests of it need it: waited for, compared route by route, and under traffic.

Both sides of a comparison are read by others than the agent: iproute2, and for VPP a session of the test's
own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias

from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import Lab
from router_agent.lab.plan import PORTS
from router_agent.lab.plane import PROTOCOL, SOURCE, VppPlane
from router_agent.lab.table import Table, generated_table
from router_agent.model import Family, PathSet, RouteType, prefixes_of
from router_agent.namespaces import inside
from router_agent.observe.answers import PipelineStatus, State
from router_agent.traffic.generators.background import BackgroundTraffic
from router_agent.traffic.scenario import Destinations, Scenario
from router_agent.vpp.resolved import ResolvedReader
from router_agent.vpp.session import VppSession

FULL = bool(os.environ.get("FULL_TABLE"))
"""With the table of a whole Internet, as ``make faults FULL=1`` asks for."""

Routes: TypeAlias = dict[str, set[tuple[str, str]]]
"""Prefix as iproute2 writes it, to its legs: gateway and interface, or a route type where there are none."""

FLOWS = 2_000
PPS = 5_000
SECONDS = 60.0 if not FULL else 300.0

_TYPES = {"blackhole", "unreachable", "prohibit"}
_OURS = {port.name for port in PORTS}


def table(ipv4: int, ipv6: int) -> Table:
    """So many prefixes, or the table of a whole Internet."""
    return generated_table() if FULL else generated_table(ipv4, ipv6)


def ip(namespace: str, *words: str, stdin: str | None = None) -> str:
    return subprocess.run(
        ["ip", "-n", namespace, *words], check=True, capture_output=True, text=True, input=stdin
    ).stdout


def kernel_routes(namespace: str, *filters: str) -> Routes:
    """What ``ip route`` shows, without what is the host's own business."""
    found: Routes = {}
    for family, default, host in (("-4", "0.0.0.0/0", "/32"), ("-6", "::/0", "/128")):
        legs = set[tuple[str, str]]()
        for line in ip(namespace, family, "route", "show", "table", "main", *filters).splitlines():
            words = line.split()
            if words[0] == "nexthop":
                legs.add(_leg(words))
                continue
            kind = words.pop(0) if words[0] in _TYPES else None
            prefix = default if words[0] == "default" else words[0]
            if prefix.startswith(("fe80:", "ff")):
                continue
            legs = {(kind, "")} if kind else {_leg(words)} if "dev" in words else set()
            found[prefix if "/" in prefix else prefix + host] = legs
    return found


def _leg(words: list[str]) -> tuple[str, str]:
    gateway = words[words.index("via") + 1] if "via" in words else ""
    return gateway, words[words.index("dev") + 1]


async def vpp_routes(plane: VppPlane) -> Routes:
    """What a VPP holds of the agent's source, read over a session of our own."""
    session = VppSession(api_socket=plane.process.api_socket, name="test-reader")
    await session.open()
    try:
        names = {
            entry.sw_if_index + 1: entry.interface_name.removeprefix("host-")
            for entry in await session.call("sw_interface_dump")
        }
        reader = ResolvedReader(session, SOURCE)
        await reader.open()
        found: Routes = {}
        for family in Family:
            for keys, paths, _ in await reader.read(family, 0):
                for prefix, path in zip(prefixes_of(keys), paths.tolist(), strict=True):
                    found[str(prefix)] = _legs(reader[path], names)
        return found
    finally:
        await session.close()


def _legs(paths: PathSet, names: dict[int, str]) -> set[tuple[str, str]]:
    if paths.type is not RouteType.UNICAST:
        return {(paths.type.name.lower(), "")}
    return {
        (str(ip_address(leg.gateway)) if leg.gateway else "", names[leg.interface]) for leg in paths.paths
    }


def fib_routes(lab: Lab) -> Routes:
    if isinstance(lab.plane, VppPlane):
        return asyncio.run(vpp_routes(lab.plane))
    return kernel_routes(lab.topology.forwarding, "proto", str(PROTOCOL))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The FIB against the control plane's kernel, as prefixes.

    Attributes:
        held: how many the FIB holds.
        stale: held and not wanted.
        missing: wanted and not held.
        different: held with other legs.
    """

    held: int
    stale: list[str]
    missing: list[str]
    different: list[str]

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not (self.stale or self.missing or self.different)

    def __str__(self) -> str:
        found = {"stale": self.stale, "missing": self.missing, "different": self.different}
        return ", ".join(f"{len(rows)} {kind} {rows[:5]}" for kind, rows in found.items())


def compare(lab: Lab) -> Comparison:
    """Compare the FIB with the control plane's kernel, route by route."""
    wanted, held = kernel_routes(lab.topology.pop), fib_routes(lab)
    return Comparison(
        held=len(held),
        stale=sorted(held.keys() - wanted.keys()),
        missing=sorted(wanted.keys() - held.keys()),
        different=sorted(p for p in wanted.keys() & held.keys() if wanted[p] != held[p]),
    )


def assert_equal(lab: Lab, *, at_least: int) -> None:
    """The FIB equals the control plane's kernel, and that is not for being empty."""
    found = compare(lab)
    assert found.equal, str(found)
    assert found.held >= at_least


def netlink_drops(namespace: str, pid: int) -> int:
    """Events the kernel dropped for a process's route sockets in a namespace (/proc/net/netlink)."""
    with inside(namespace):
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return sum(int(words[8]) for words in map(str.split, lines) if words[1] == "0" and words[2] == str(pid))


def status(lab: Lab, name: str = "fib") -> PipelineStatus:
    found = lab.agent.pipeline(name)
    assert found is not None, lab.agent.daemon.tail()
    return found


def settle(lab: Lab) -> None:
    """Wait until the kernel has what the upstream announces and the FIB what the kernel has."""
    wait_kernel(lab)
    wait_quiet(lab)


def wait_kernel(lab: Lab) -> None:
    wait_until(
        lambda: lab.has_all(lab.bgp_routes()),
        "the kernel to have what is announced",
        seconds=SECONDS,
        daemons=lab.daemons,
        found=lambda: str(lab.bgp_routes()),
    )


def wait_quiet(lab: Lab) -> None:
    def quiet() -> bool:
        found = lab.agent.pipeline()
        return (
            found is not None
            and found.state is State.IN_SYNC
            and all(c.pending == c.unknown == 0 and not c.not_in_fib for c in found.counts)
            and sum(c.desired for c in found.counts) == expected()
        )

    def expected() -> int:
        own = 2 * len(_OURS)
        return sum(lab.bgp_routes().values()) + own

    wait_until(quiet, "the FIB to hold what the kernel has", seconds=SECONDS, found=lab.agent.summary)


def wait_state(lab: Lab, happened: Callable[[PipelineStatus], bool], what: str) -> None:
    def seen() -> bool:
        found = lab.agent.pipeline()
        return found is not None and happened(found)

    wait_until(seen, what, seconds=SECONDS, daemons=[lab.agent.daemon], found=lab.agent.summary)


@contextmanager
def traffic(lab: Lab, destinations: Destinations | None = None) -> Iterator[BackgroundTraffic]:
    """Traffic to prefixes all over the table, from before a fault until after it."""
    scenario = Scenario(
        name="fault",
        destinations=lab.destinations(FLOWS) if destinations is None else destinations,
        rate_pps=PPS,
        interval_s=0.01,
    )
    with BackgroundTraffic(scenario, lab.endpoints) as running:
        wait_until(lambda: running.snapshot().received > PPS // 10, "traffic to flow", seconds=SECONDS)
        yield running
        seen = running.snapshot().received
        wait_until(
            lambda: running.snapshot().received > seen + PPS // 10, "traffic to flow again", seconds=SECONDS
        )
