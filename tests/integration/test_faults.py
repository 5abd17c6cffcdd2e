"""What breaks a router, done to a whole one: real BGP daemons, a real forwarding plane, traffic.

After each fault the FIB must equal the control plane's kernel, route by route: nothing stale,
nothing missing.
Both sides are read by others than the agent: iproute2, and for VPP a session of the test's own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import FibKind, Lab, SpeakerKind
from router_agent.lab.plan import PORTS
from router_agent.lab.plane import PROTOCOL, SOURCE, VppPlane, vpp_available
from router_agent.lab.table import generated_table
from router_agent.model import Family, Interner, PathSet, RouteType, prefixes_of
from router_agent.namespaces import inside
from router_agent.observe.answers import PipelineStatus, State
from router_agent.traffic.background import BackgroundTraffic
from router_agent.traffic.scenario import Destinations, Scenario
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession

Routes: TypeAlias = dict[str, set[tuple[str, str]]]
"""Prefix as iproute2 writes it, to its legs: gateway and interface, or a route type where there are none."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

IPV4_PREFIXES, IPV6_PREFIXES = 106_000, 6_000
FLOWS = 2_000
PPS = 5_000
SECONDS = 60.0

_TYPES = {"blackhole", "unreachable", "prohibit"}
_OURS = {port.name for port in PORTS}


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
        sources = {entry.src.name: entry.src.id for entry in await session.call("fib_source_dump")}
        names = {
            entry.sw_if_index + 1: entry.interface_name.removeprefix("host-")
            for entry in await session.call("sw_interface_dump")
        }
        sets: Interner[PathSet] = Interner()
        codec = RouteCodec(session, sources[SOURCE], sets)
        found: Routes = {}
        for family in Family:
            for keys, paths in await codec.read(family, 0):
                for prefix, path in zip(prefixes_of(keys), paths.tolist(), strict=True):
                    found[str(prefix)] = _legs(sets[path], names)
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


def assert_equal(lab: Lab, *, at_least: int = IPV4_PREFIXES) -> None:
    """The FIB equals the control plane's kernel: 0 stale, 0 missing, 0 different."""
    wanted, held = kernel_routes(lab.topology.pop), fib_routes(lab)
    stale = sorted(held.keys() - wanted.keys())
    missing = sorted(wanted.keys() - held.keys())
    different = [p for p in wanted.keys() & held.keys() if wanted[p] != held[p]]
    assert (len(stale), len(missing), len(different)) == (0, 0, 0), (stale[:5], missing[:5], different[:5])
    assert len(held) >= at_least


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
            and all(c.pending == 0 and not c.not_in_fib for c in found.counts)
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


FIBS = [
    pytest.param(FibKind.KERNEL, id="kernel"),
    pytest.param(
        FibKind.VPP,
        id="vpp",
        marks=[
            pytest.mark.vpp,
            pytest.mark.skipif(
                not vpp_available(), reason="no vpp and vppctl on PATH: nothing proven with VPP"
            ),
        ],
    ),
]


@pytest.fixture(scope="module", params=FIBS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A running POP with more than 100,000 prefixes, in sync."""
    table = generated_table(IPV4_PREFIXES, IPV6_PREFIXES)
    with Lab(f"faults-{secrets.token_hex(3)}", table=table, fib=request.param) as running:
        running.start()
        settle(running)
        assert_equal(running)
        yield running


def test_agent_killed_and_started_again(lab: Lab) -> None:
    with traffic(lab) as running:
        lab.agent.kill()
        lab.agent.start()
        wait_quiet(lab)
    assert running.result.lost == 0
    writes = status(lab).writes
    assert (writes.added, writes.replaced, writes.deleted) == (0, 0, 0)
    assert_equal(lab)


def test_agent_away_while_routes_change(lab: Lab) -> None:
    lab.agent.kill()
    lab.upstream.withdraw(1_000)
    wait_kernel(lab)
    lab.agent.start()
    settle(lab)
    writes = status(lab).writes
    assert writes.added == 0
    assert writes.deleted >= 1_000
    assert_equal(lab)
    lab.upstream.announce_again()
    settle(lab)
    assert_equal(lab)


def test_zebra_stopped_and_started_again(lab: Lab) -> None:
    """zebra takes its routes out of the kernel; watchfrr restarts the other daemons with it, and so do we."""
    assert lab.frr is not None
    with traffic(lab):
        lab.frr.zebra.stop()
        wait_until(lambda: sum(lab.bgp_routes().values()) <= 0, "zebra's routes to go", seconds=SECONDS)
        wait_quiet(lab)
        lab.frr.stop()
        lab.frr.start()
        lab.wait_established(seconds=SECONDS)
        settle(lab)
    assert_equal(lab)


def test_forwarding_plane_killed_and_brought_back(lab: Lab) -> None:
    with ExitStack() as stack:
        # A kernel plane takes the tester's ports with it, so only VPP can be killed under traffic.
        running = stack.enter_context(traffic(lab)) if lab.plane.kind == "vpp" else None
        lab.plane.kill()
        wait_state(lab, lambda s: s.state is State.FIB_LOST, "the agent to notice")
        if lab.plane.kind == "kernel":
            # FRR 8.4 loses track of interfaces that return before it is done removing their routes.
            wait_until(lambda: _zebra_routes(lab) <= 2, "zebra to remove the routes", seconds=SECONDS)
        lab.plane.start()
        lab.wait_established(seconds=SECONDS)
        settle(lab)
        lab.meet_neighbours()
        wait_quiet(lab)
    if running is not None:
        assert running.result.lost > 0, "a forwarding plane that was dead loses packets; was it?"
    assert_equal(lab)
    with traffic(lab) as after:
        pass
    assert after.result.lost == 0


def test_netlink_overrun(lab: Lab) -> None:
    """More events than the socket holds while the agent stands still: it reads everything again."""
    before = status(lab)
    gateway = PORTS[1].gateway(Family.IPV4)
    kept = [f"route add 10.255.{i}.0/24 via {gateway}" for i in range(200)]
    flood = "\n".join(
        f"route {verb} 10.{i >> 16}.{i >> 8 & 255}.{i & 255} via {gateway}"
        for verb in ("add", "del")
        for i in range(40_000)
    )
    lab.agent.daemon.signal(signal.SIGSTOP)
    try:
        for _ in range(20):
            ip(lab.topology.pop, "-batch", "-", stdin=flood)
            if netlink_drops(lab.topology.pop, lab.agent.daemon.pid):
                break
        ip(lab.topology.pop, "-batch", "-", stdin="\n".join(kept))
    finally:
        lab.agent.daemon.signal(signal.SIGCONT)
    wait_state(lab, lambda s: s.overruns > before.overruns, "the overrun to be noticed")
    wait_state(lab, lambda s: s.resyncs > before.resyncs, "everything to be read again")
    try:
        wait_quiet(lab)
        assert_equal(lab)
    finally:
        ip(lab.topology.pop, "-batch", "-", stdin="\n".join(line.replace(" add ", " del ") for line in kept))
    settle(lab)
    assert_equal(lab)


def test_upstream_link_flap(lab: Lab) -> None:
    up = PORTS[0].name
    with traffic(lab):
        ip(lab.topology.pop, "link", "set", up, "down")
        wait_until(lambda: sum(lab.bgp_routes().values()) <= 2, "the routes to go", seconds=SECONDS)
        ip(lab.topology.pop, "link", "set", up, "up")
        # An interface that goes down loses its IPv6 addresses.
        address = PORTS[0].address(Family.IPV6)
        subprocess.run(
            ["ip", "-n", lab.topology.pop, "addr", "add", str(address), "dev", up, "nodad"],
            check=False,
            capture_output=True,
        )
        lab.wait_established(seconds=SECONDS)
        settle(lab)
    assert_equal(lab)


def test_withdraw_and_announce_a_hundred_thousand(lab: Lab) -> None:
    """Traffic to the prefixes that stay loses nothing; the others come back."""
    lab.upstream.withdraw(100_000)
    settle(lab)
    assert_equal(lab, at_least=1_000)
    staying = kernel_routes(lab.topology.pop)
    lab.upstream.announce_again()
    settle(lab)
    every = lab.destinations(20_000)
    stays = np.array([_covered_alone(every, row, staying) for row in range(len(every))])
    assert stays.sum() >= 500
    chosen = np.flatnonzero(stays)
    destinations = Destinations(
        every.families[chosen], every.addresses[chosen], every.lengths[chosen], every.expected[chosen]
    )
    with traffic(lab, destinations) as running:
        lab.upstream.withdraw(100_000)
        settle(lab)
        lab.upstream.announce_again()
        settle(lab)
    assert running.result.lost == 0
    assert_equal(lab)


def _zebra_routes(lab: Lab) -> int:
    assert lab.frr is not None
    summary = lab.frr.show("show ip route summary json"), lab.frr.show("show ipv6 route summary json")
    return sum(int(found.get("routesTotal", 0)) for found in summary)


def _covered_alone(destinations: Destinations, row: int, staying: Routes) -> bool:
    """Tell whether the prefix a destination stands for is among those that stay."""
    ipv4 = destinations.families[row] == Family.IPV4
    raw = destinations.addresses[row].tobytes()
    address = IPv4Address(raw[:4]) if ipv4 else IPv6Address(raw)
    return str(ip_network((address, int(destinations.lengths[row])), strict=False)) in staying


def test_exabgp_host_survives_the_agent() -> None:
    """Both pipelines of an ExaBGP host find everything as it was; the second one writes nothing."""
    table = generated_table(5_000, 500)
    name = f"faults-{secrets.token_hex(3)}"
    with Lab(name, table=table, speaker=SpeakerKind.EXABGP, fib=FibKind.KERNEL) as lab:
        lab.start()
        settle(lab)
        with traffic(lab) as running:
            lab.agent.kill()
            lab.agent.start()
            wait_quiet(lab)
        assert running.result.lost == 0
        for pipeline in ("bgp", "fib"):
            writes = status(lab, pipeline).writes
            assert (writes.added, writes.replaced, writes.deleted) == (0, 0, 0), pipeline
        wanted, held = kernel_routes(lab.topology.pop), fib_routes(lab)
        assert wanted == held
        lab.upstream.restart_sessions()
        lab.wait_established(seconds=SECONDS)
        settle(lab)
        assert kernel_routes(lab.topology.pop) == fib_routes(lab)
