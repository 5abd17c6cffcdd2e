"""Confirmed advertisement: FRR, a neighbour that is told everything, a real VPP, and the agent between them.

The neighbour must never hear of a prefix that VPP does not forward. What it has heard is read from BIRD, what
VPP holds is read by the agent and, by its own session, by the tests of the FIB.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from router_agent.lab.agent import Agent
from router_agent.lab.commands import run
from router_agent.lab.daemon import wait_until
from router_agent.lab.downstream import Downstream
from router_agent.lab.lab import Advertise, FibKind, Lab
from router_agent.lab.plane import VppPlane
from router_agent.lab.root import unbuildable
from router_agent.lab.table import generated_table
from router_agent.model import Family, Reason
from router_agent.observe.answers import PipelineStatus, RouteFilter, State

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(unbuildable() is not None, reason=str(unbuildable())),
    # The first test of a clean clone builds the root with FRR.
    pytest.mark.timeout(1200),
]

IPV4_PREFIXES, IPV6_PREFIXES = 2_000, 200
SECONDS = 60.0
BARRIER = "203.0.113.0/24"
"""A prefix the POP announces by itself, without asking the FIB: what was announced before has been heard."""


@pytest.fixture
def lab(lab_name: str) -> Iterator[Lab]:
    with Lab(
        lab_name,
        table=generated_table(IPV4_PREFIXES, IPV6_PREFIXES),
        fib=FibKind.VPP,
        advertise=Advertise.CONFIRMED,
    ) as built:
        yield built


@pytest.fixture
def kernel_lab(lab_name: str) -> Iterator[Lab]:
    with Lab(
        lab_name,
        table=generated_table(IPV4_PREFIXES, IPV6_PREFIXES),
        fib=FibKind.KERNEL,
        advertise=Advertise.CONFIRMED,
    ) as built:
        yield built


def downstream(lab: Lab) -> Downstream:
    assert lab.downstream is not None
    return lab.downstream


def status(lab: Lab) -> PipelineStatus:
    found = lab.agent.pipeline()
    assert found is not None, lab.agent.daemon.tail()
    return found


def everything(lab: Lab) -> dict[Family, int]:
    """What the neighbour hears when all is confirmed: the table, and the POP's own prefix."""
    return {family: count + 1 for family, count in lab.upstream.announced.items()}


def wait_heard(lab: Lab, wanted: dict[Family, int], what: str) -> None:
    wait_until(
        lambda: downstream(lab).heard() == wanted,
        f"the neighbour to hear of {what}",
        seconds=SECONDS,
        daemons=lab.daemons,
        found=lambda: f"{downstream(lab).heard()}, expected {wanted}; {lab.agent.summary()}",
    )


def pass_barrier(lab: Lab) -> None:
    """Return once the neighbour has heard all that bgpd had to tell it up to now."""
    assert lab.frr is not None
    lines = [
        "configure terminal",
        "router bgp 64500",
        "no bgp network import-check",
        "address-family ipv4 unicast",
        f"network {BARRIER}",
    ]
    run([*lab.frr.vtysh, *(word for line in lines for word in ("-c", line))])
    wait_until(
        lambda: BARRIER in downstream(lab).command("show route"),
        "the neighbour to hear of the barrier",
        seconds=SECONDS,
        daemons=lab.daemons,
    )


def start_without_table(lab: Lab) -> None:
    """Start all but the upstream, and wait until zebra has sent what it has."""
    lab.configure()
    lab.plane.start()
    lab.meet_neighbours()
    lab.agent.start()
    downstream(lab).start()
    assert lab.frr is not None
    lab.frr.start()
    wait_until(
        lambda: status(lab).state is State.IN_SYNC and downstream(lab).all_established(),
        "an empty table to be in sync",
        seconds=SECONDS,
        daemons=[lab.agent.daemon, *lab.frr.daemons.values()],
        found=lab.agent.summary,
    )


def vpp_pid(lab: Lab) -> int:
    assert isinstance(lab.plane, VppPlane)
    return lab.plane.process.pid


@pytest.mark.vpp
def test_nothing_is_announced_before_vpp_has_it(lab: Lab) -> None:
    start_without_table(lab)
    os.kill(vpp_pid(lab), signal.SIGSTOP)
    try:
        lab.upstream.start()
        lab.wait_converged(seconds=SECONDS)
        wait_until(
            lambda: all(c.pending == lab.upstream.announced[c.family] for c in status(lab).counts),
            "every prefix to wait for VPP",
            seconds=SECONDS,
            found=lab.agent.summary,
        )
        pass_barrier(lab)
        assert downstream(lab).heard() == {Family.IPV4: 2, Family.IPV6: 1}
    finally:
        os.kill(vpp_pid(lab), signal.SIGCONT)
    wait_heard(lab, {f: n + (f is Family.IPV4) for f, n in everything(lab).items()}, "the table")
    assert lab.agent.drift() == 0


@pytest.mark.vpp
def test_what_vpp_cannot_forward_is_not_announced_until_it_can(lab: Lab) -> None:
    whole, unmapped = lab.agent, "in"
    pipelines = [
        {**p, "fib": {**p["fib"], "interfaces": without(p["fib"]["interfaces"], unmapped)}}
        for p in lab.agent_pipelines
    ]
    lab.agent = Agent(lab.topology, pipelines)
    lab.start()
    settled = State.IN_SYNC
    wait_until(
        lambda: (
            status(lab).state is settled
            and all(
                c.desired >= lab.upstream.announced[c.family] and not c.pending for c in status(lab).counts
            )
        ),
        "everything to be decided",
        seconds=SECONDS,
        found=lab.agent.summary,
    )
    rows = list(lab.agent.client.routes(RouteFilter(absent=True)))
    assert {row.reason for row in rows} == {Reason.UNRESOLVED_INTERFACE}
    refused = {
        family: sum(1 for row in rows if (":" in row.prefix) == (family is Family.IPV6) and row.metric == 20)
        for family in Family
    }
    assert all(refused.values())
    wait_heard(lab, {f: n - refused[f] for f, n in everything(lab).items()}, "what VPP forwards")
    told = downstream(lab).command("show route")
    assert not [row.prefix for row in rows if f"\n{row.prefix} " in told]
    lab.agent.stop()
    lab.agent = whole
    lab.agent.configure()
    lab.agent.start()
    wait_heard(lab, everything(lab), "everything")


def without(interfaces: dict[str, str], name: str) -> dict[str, Any]:
    return {ours: theirs for ours, theirs in interfaces.items() if ours != name}


@pytest.mark.vpp
def test_agent_restart_withdraws_nothing_and_what_changes_later_is_heard(lab: Lab) -> None:
    lab.start()
    lab.wait_settled(seconds=SECONDS)
    wait_heard(lab, everything(lab), "everything")
    before = downstream(lab).updates()
    lab.agent.kill()
    lab.agent.start()
    lab.agent.wait_holds(lab.fib_sizes, seconds=SECONDS)
    pass_barrier(lab)
    after = downstream(lab).updates()
    assert {f: after[f][1] - before[f][1] for f in Family} == dict.fromkeys(Family, 0), "withdrawn"
    writes = status(lab).writes
    assert (writes.added, writes.replaced, writes.deleted) == (0, 0, 0)
    lab.upstream.withdraw(300)
    lab.agent.wait_holds(lab.fib_sizes, seconds=SECONDS)
    wait_heard(lab, {f: n + (f is Family.IPV4) for f, n in everything(lab).items()}, "the withdrawal")
    lab.upstream.announce_again()
    wait_heard(lab, {f: n + (f is Family.IPV4) for f, n in everything(lab).items()}, "the table again")


@pytest.mark.vpp
def test_what_vpp_lost_is_withdrawn_and_announced_again(lab: Lab) -> None:
    lab.start()
    lab.wait_settled(seconds=SECONDS)
    wait_heard(lab, everything(lab), "everything")
    lab.plane.kill()
    wait_heard(lab, {Family.IPV4: 1, Family.IPV6: 1}, "the withdrawal of all that VPP forwarded")
    lab.plane.start()
    wait_heard(lab, everything(lab), "everything again")
    assert lab.agent.drift() == 0


def test_a_kernel_confirms_with_and_without_next_hop_groups(kernel_lab: Lab) -> None:
    lab = kernel_lab
    lab.start()
    lab.wait_settled(seconds=SECONDS)
    wait_heard(lab, everything(lab), "everything")
    withdrawn = {f: n for f, (_, n) in downstream(lab).updates().items()}
    resyncs = status(lab).resyncs
    assert lab.frr is not None
    run([*lab.frr.vtysh, "-c", "configure terminal", "-c", "no fpm use-next-hop-groups"])
    wait_until(
        lambda: status(lab).resyncs > resyncs,
        "zebra to send everything again",
        seconds=SECONDS,
        daemons=lab.daemons,
        found=lab.agent.summary,
    )
    lab.agent.wait_holds(lab.fib_sizes, seconds=SECONDS)
    assert {f: n for f, (_, n) in downstream(lab).updates().items()} == withdrawn
    assert status(lab).writes.deleted == 0
    lab.upstream.withdraw(300)
    lab.agent.wait_holds(lab.fib_sizes, seconds=SECONDS)
    wait_heard(lab, everything(lab), "the withdrawal")
    lab.upstream.announce_again()
    wait_heard(lab, everything(lab), "the table again")
    told = status(lab).confirmations
    assert told is not None
    assert (told.failed, told.waiting) == (0, 0)
    assert lab.agent.drift() == 0


def test_frr_restarts_and_everything_is_confirmed_anew(kernel_lab: Lab) -> None:
    lab = kernel_lab
    lab.start()
    lab.wait_settled(seconds=SECONDS)
    wait_heard(lab, everything(lab), "everything")
    assert lab.frr is not None
    lab.frr.zebra.kill()
    wait_until(
        lambda: "zebra is not connected" in (status(lab).error or ""),
        "the agent to say that zebra has gone",
        seconds=SECONDS,
        found=lab.agent.summary,
    )
    assert status(lab).state is State.IN_SYNC
    assert lab.agent.holds(lab.fib_sizes)
    lab.frr.restart()
    lab.wait_established()
    lab.wait_settled(seconds=SECONDS)
    wait_heard(lab, everything(lab), "everything")
    assert lab.agent.drift() == 0
