"""What breaks a router, done to a whole one: real BGP daemons, a real forwarding plane, traffic.

Every fault happens under traffic, and for each the table at the end of the run says what it cost: packets
lost, for how long, how long until the FIB was right again, and what was stale, missing or different then.
Times are reported and not judged; what must hold is which faults may lose packets at all, and that the FIB
equals the control plane's kernel afterwards, route by route.

    make faults                 112,000 prefixes
    make faults FULL=1          1,170,000
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import numpy as np
import pytest

import router_agent
from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import FibKind, Lab, SpeakerKind
from router_agent.lab.plan import IN, OUT, UPLINK
from router_agent.lab.plane import VppPlane, vpp_available
from router_agent.lab.table import generated_table
from router_agent.model import Family
from router_agent.observe.answers import State
from router_agent.traffic.generators.background import BackgroundTraffic
from router_agent.traffic.scenario import Destinations

from .conftest import FAULTS, Fault
from .whole_lab import (
    FULL,
    SECONDS,
    Routes,
    assert_equal,
    compare,
    fib_routes,
    ip,
    kernel_routes,
    netlink_drops,
    settle,
    status,
    table,
    traffic,
    wait_kernel,
    wait_quiet,
    wait_state,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    *([pytest.mark.timeout(3600)] if FULL else []),
]

IPV4_PREFIXES, IPV6_PREFIXES = 106_000, 6_000

STOPPED_SECONDS = 30.0
"""For so long VPP stands still: longer than any answer of it is waited for."""

NEXT_HOPS = {OUT.name: 5001, IN.name: 5002}
GROUP = 5000
"""Ids of next-hop objects, out of the way of zebra's."""
ECMP_PREFIXES = 1_000
AWAY_SECONDS = 3.0
"""For so long nobody speaks BGP."""
STEADY_OBSERVATIONS = 50

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
    with Lab(
        f"faults-{secrets.token_hex(3)}", table=table(IPV4_PREFIXES, IPV6_PREFIXES), fib=request.param
    ) as running:
        running.start()
        settle(running)
        assert_equal(running, at_least=IPV4_PREFIXES)
        yield running


@contextmanager
def fault(
    request: pytest.FixtureRequest,
    lab: Lab,
    name: str,
    destinations: Destinations | None = None,
    *,
    settled: Callable[[Lab], None] = settle,
) -> Iterator[BackgroundTraffic]:
    """Traffic from before the fault until the FIB is right again; then it is compared, the price noted."""
    with traffic(lab, destinations) as running:
        began = time.monotonic()
        yield running
        settled(lab)
        seconds = time.monotonic() - began
    found = compare(lab)
    result = running.result
    request.config.stash[FAULTS].append(
        Fault(
            name=name,
            fib=lab.plane.kind,
            prefixes=found.held,
            sent=result.sent,
            lost=result.lost,
            lossy_seconds=float((result.series.lost > 0).sum()) * result.series.interval_s,
            in_sync_seconds=seconds,
            stale=len(found.stale),
            missing=len(found.missing),
            different=len(found.different),
        )
    )
    assert found.equal, str(found)


def assert_nothing_was_written(lab: Lab, pipeline: str = "fib") -> None:
    writes = status(lab, pipeline).writes
    assert (writes.added, writes.replaced, writes.deleted) == (0, 0, 0), pipeline


def test_agent_killed_and_started_again(lab: Lab, request: pytest.FixtureRequest) -> None:
    with fault(request, lab, "agent killed") as running:
        lab.agent.kill()
        lab.agent.start()
    assert running.result.lost == 0
    assert_nothing_was_written(lab)


def test_agent_upgraded(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """As role router_agent does it: another version in a place of its own, then a restart into that."""
    package = Path(router_agent.__file__).parent
    shutil.copytree(package, tmp_path / "router_agent", ignore=shutil.ignore_patterns("__pycache__"))
    version = tmp_path / "router_agent" / "__init__.py"
    version.write_text(version.read_text().replace(router_agent.__version__, "99.0.0"))
    with fault(request, lab, "agent upgraded") as running:
        lab.agent.stop()
        # Without a safe path, `python -m` looks into the working directory first.
        lab.agent.daemon.environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
        lab.agent.start()
    found = lab.agent.status()
    assert found is not None
    assert found.version == "99.0.0"
    assert running.result.lost == 0
    assert_nothing_was_written(lab)
    lab.agent.stop()
    lab.agent.daemon.environment = None
    lab.agent.start()
    wait_quiet(lab)


def test_agent_away_while_routes_change(lab: Lab, request: pytest.FixtureRequest) -> None:
    with fault(request, lab, "agent away while 1,000 prefixes are withdrawn"):
        lab.agent.kill()
        lab.upstream.withdraw(1_000)
        wait_kernel(lab)
        lab.agent.start()
    writes = status(lab).writes
    assert writes.added == 0
    assert writes.deleted >= 1_000
    lab.upstream.announce_again()
    settle(lab)
    assert_equal(lab, at_least=IPV4_PREFIXES)


def test_zebra_stopped_and_started_again(lab: Lab, request: pytest.FixtureRequest) -> None:
    """zebra takes its routes out of the kernel; watchfrr restarts the other daemons with it, and so do we."""
    assert lab.frr is not None
    with fault(request, lab, "FRR stopped and started"):
        lab.frr.zebra.stop()
        wait_until(lambda: sum(lab.bgp_routes().values()) <= 0, "zebra's routes to go", seconds=SECONDS)
        wait_quiet(lab)
        lab.frr.restart()
        lab.wait_established(seconds=SECONDS)


def test_zebra_killed(lab: Lab, request: pytest.FixtureRequest) -> None:
    """watchfrr restarts every daemon. What the dead zebra left serves until BGP gives it again (-K)."""
    assert lab.frr is not None
    with fault(request, lab, "zebra killed") as running:
        lab.frr.zebra.kill()
        lab.frr.restart()
        lab.wait_established(seconds=SECONDS)
        wait_until(
            lambda: _zebra_routes(lab) >= sum(lab.bgp_routes().values()),
            "the new zebra to have every route",
            seconds=SECONDS,
        )
    assert running.result.lost == 0


def test_forwarding_plane_killed_and_brought_back(lab: Lab, request: pytest.FixtureRequest) -> None:
    if lab.plane.kind == "kernel":
        # It takes the tester's ports with it, so there can be no traffic.
        _kill_forwarding_plane(lab)
        settle(lab)
        _meet_again(lab)
    else:
        with fault(request, lab, "VPP killed", settled=_meet_again) as running:
            _kill_forwarding_plane(lab)
            settle(lab)
        assert running.result.lost > 0, "a forwarding plane that was dead loses packets; was it?"
    assert_equal(lab, at_least=IPV4_PREFIXES)
    with traffic(lab) as after:
        pass
    assert after.result.lost == 0


def _kill_forwarding_plane(lab: Lab) -> None:
    lab.plane.kill()
    wait_state(lab, lambda s: s.state is State.FIB_LOST, "the agent to notice")
    if lab.plane.kind == "kernel":
        # FRR 8.4 loses track of interfaces that return before it is done removing their routes.
        wait_until(lambda: _zebra_routes(lab) <= 2, "zebra to remove the routes", seconds=SECONDS)
    lab.plane.start()
    lab.wait_established(seconds=SECONDS)


def _meet_again(lab: Lab) -> None:
    lab.meet_neighbours()
    wait_quiet(lab)


def test_vpp_stands_still(lab: Lab, request: pytest.FixtureRequest) -> None:
    """Nothing is forwarded meanwhile, and what changed meanwhile is made good."""
    if not isinstance(lab.plane, VppPlane):
        pytest.skip("a kernel does not stand still")
    with fault(request, lab, f"VPP stopped for {STOPPED_SECONDS:.0f} s") as running:
        os.kill(lab.plane.process.pid, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            lab.upstream.withdraw(1_000)
            wait_kernel(lab)
            wait_until(
                lambda: time.monotonic() - stopped > STOPPED_SECONDS,
                "VPP to have stood still for long",
                seconds=2 * STOPPED_SECONDS,
                daemons=[lab.agent.daemon],
            )
        finally:
            os.kill(lab.plane.process.pid, signal.SIGCONT)
        lab.wait_established(seconds=SECONDS)
    assert running.result.lost > 0, "a forwarding plane that stood still loses packets; did it?"
    lab.upstream.announce_again()
    settle(lab)
    assert_equal(lab, at_least=IPV4_PREFIXES)


def test_netlink_overrun(lab: Lab, request: pytest.FixtureRequest) -> None:
    """More events than the socket holds while the agent stands still: it reads everything again."""
    before = status(lab)
    gateway = OUT.gateway(Family.IPV4)
    kept = [f"route add 10.255.{i}.0/24 via {gateway}" for i in range(200)]
    flood = "\n".join(
        f"route {verb} 10.{i >> 16}.{i >> 8 & 255}.{i & 255} via {gateway}"
        for verb in ("add", "del")
        for i in range(40_000)
    )
    try:
        with fault(request, lab, "netlink overrun", settled=wait_quiet) as running:
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
        assert running.result.lost == 0
    finally:
        ip(lab.topology.pop, "-batch", "-", stdin="\n".join(line.replace(" add ", " del ") for line in kept))
    settle(lab)
    assert_equal(lab, at_least=IPV4_PREFIXES)


def test_upstream_link_flap(lab: Lab, request: pytest.FixtureRequest) -> None:
    up = UPLINK.name
    with fault(request, lab, "the upstream's link down and up"):
        ip(lab.topology.pop, "link", "set", up, "down")
        wait_until(lambda: sum(lab.bgp_routes().values()) <= 2, "the routes to go", seconds=SECONDS)
        ip(lab.topology.pop, "link", "set", up, "up")
        # An interface that goes down loses its IPv6 addresses.
        address = UPLINK.address(Family.IPV6)
        subprocess.run(
            ["ip", "-n", lab.topology.pop, "addr", "add", str(address), "dev", up, "nodad"],
            check=False,
            capture_output=True,
        )
        lab.wait_established(seconds=SECONDS)


def test_upstream_resets_its_sessions(lab: Lab, request: pytest.FixtureRequest) -> None:
    with fault(request, lab, "upstream sessions reset"):
        lab.upstream.restart_sessions()
        wait_until(lambda: not lab.has_all(lab.bgp_routes()), "routes to go", seconds=SECONDS)
        lab.wait_established(seconds=SECONDS)


def test_another_next_hop_for_every_prefix(lab: Lab, request: pytest.FixtureRequest) -> None:
    """Each route is replaced: at no moment has it no next hop."""
    assert lab.frr is not None
    before, announced = status(lab).writes.replaced, kernel_routes(lab.topology.pop)
    next_hops = {family: OUT.gateway(family) for family in Family}
    with fault(request, lab, "another next hop for every prefix") as running:
        lab.frr.set_next_hops(next_hops)
        wait_until(lambda: _single_port(lab), "every route to have its new next hop", seconds=SECONDS)
    assert running.result.lost == 0
    assert status(lab).writes.replaced - before >= 1_000
    lab.frr.set_next_hops(next_hops, undo=True)
    wait_until(
        lambda: kernel_routes(lab.topology.pop) == announced,
        "the announced next hops again",
        seconds=SECONDS,
        poll_seconds=1.0,
    )
    settle(lab)
    assert_equal(lab, at_least=IPV4_PREFIXES)


@pytest.mark.parametrize("fib", FIBS)
def test_bgpd_killed_with_graceful_restart(fib: FibKind, request: pytest.FixtureRequest) -> None:
    """While no bgpd is there, forwarding goes on by its routes.

    When it is back, zebra removes for a moment routes that bgpd has sent again and zebra has not looked at
    (seen with FRR 8.4 and 10.7), so the whole is not free of loss.
    """
    name = f"faults-{secrets.token_hex(3)}"
    with Lab(name, table=generated_table(20_000, 2_000), fib=fib) as lab:
        assert lab.frr is not None
        lab.frr.graceful_restart = True
        lab.start()
        settle(lab)
        with fault(request, lab, "bgpd killed, graceful restart") as running:
            before = running.snapshot()
            lab.frr.bgpd.kill()
            wait_until(lambda: not lab.upstream.all_established(), "the neighbour to notice", seconds=SECONDS)
            wait_until(
                lambda: running.snapshot().elapsed_s > before.elapsed_s + AWAY_SECONDS,
                "bgpd to have been away for a while",
                seconds=2 * AWAY_SECONDS,
            )
            back = running.snapshot()
            lab.frr.start_daemon("bgpd")
            lab.wait_established(seconds=SECONDS)
            _wait_steady(lab)
        series = running.result.series
        away = slice(int(before.elapsed_s / series.interval_s), int(back.elapsed_s / series.interval_s))
        assert series.sent[away].sum() > 0
        assert series.lost[away].sum() == 0


@pytest.mark.parametrize("fib", FIBS)
def test_one_leg_of_two_loses_its_link(fib: FibKind, request: pytest.FixtureRequest) -> None:
    """Routes over a next-hop group, as zebra makes them; the packets of the lost leg take the other one."""
    prefixes = [f"10.{200 + i // 256}.{i % 256}.0/24" for i in range(ECMP_PREFIXES)]
    members = "/".join(str(number) for number in NEXT_HOPS.values())
    group = [
        f"nexthop add id {NEXT_HOPS[port.name]} via {port.gateway(Family.IPV4)} dev {port.name}"
        for port in (OUT, IN)
    ]
    group += [f"nexthop add id {GROUP} group {members}"]
    left = {(str(IN.gateway(Family.IPV4)), IN.name)}
    with Lab(f"faults-{secrets.token_hex(3)}", table=generated_table(100, 10), fib=fib) as lab:
        pop = lab.topology.pop
        lab.start()
        settle(lab)
        routes = [f"route add {prefix} nhid {GROUP}" for prefix in prefixes]
        ip(pop, "-batch", "-", stdin="\n".join(group + routes))
        wait_quiet(lab)
        destinations = Destinations.of([ip_network(prefix) for prefix in prefixes])
        with fault(request, lab, "one leg of two loses its link", destinations, settled=wait_quiet):
            ip(lab.topology.forwarding, "link", "set", OUT.mirror, "down")
            wait_until(
                lambda: all(kernel_routes(pop)[prefix] == left for prefix in prefixes),
                "the kernel to take the leg out",
                seconds=SECONDS,
            )
        assert fib_routes(lab)[prefixes[0]] == left


def test_withdraw_and_announce_a_hundred_thousand(lab: Lab, request: pytest.FixtureRequest) -> None:
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
    destinations = every.rows(chosen)
    with fault(request, lab, "100,000 others withdrawn and announced again", destinations) as running:
        lab.upstream.withdraw(100_000)
        settle(lab)
        lab.upstream.announce_again()
    assert running.result.lost == 0


def _wait_steady(lab: Lab) -> None:
    """Wait until the kernel has had every route at so many observations in a row."""
    seen = deque([False], maxlen=STEADY_OBSERVATIONS)

    def steady() -> bool:
        seen.append(lab.has_all(lab.bgp_routes()))
        return len(seen) == STEADY_OBSERVATIONS and all(seen)

    wait_until(steady, "the routes to stay", seconds=SECONDS, poll_seconds=0.1)


def _single_port(lab: Lab) -> bool:
    """Whether the kernel has routes of zebra over one port only."""
    found = kernel_routes(lab.topology.pop, "proto", "bgp")
    return all(interface in ("", OUT.name) for legs in found.values() for _, interface in legs)


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


def test_exabgp_host_survives_the_agent(request: pytest.FixtureRequest) -> None:
    """Both pipelines of an ExaBGP host find everything as it was; the second one writes nothing."""
    name = f"faults-{secrets.token_hex(3)}"
    announced = generated_table(5_000, 500)
    with Lab(name, table=announced, speaker=SpeakerKind.EXABGP, fib=FibKind.KERNEL) as lab:
        lab.start()
        settle(lab)
        with fault(request, lab, "agent killed, ExaBGP host", settled=wait_quiet) as running:
            lab.agent.kill()
            lab.agent.start()
        assert running.result.lost == 0
        for pipeline in ("bgp", "fib"):
            assert_nothing_was_written(lab, pipeline)
        wanted, held = kernel_routes(lab.topology.pop), fib_routes(lab)
        assert wanted == held
        lab.upstream.restart_sessions()
        lab.wait_established(seconds=SECONDS)
        settle(lab)
        assert kernel_routes(lab.topology.pop) == fib_routes(lab)
