"""Drain and undrain under traffic; and no POP is ever left without a router, whatever way it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from router_agent.lab.daemon import wait_until

from .plan import A1, A2, B1, POP_A, ROUTERS
from .pops import AGENT, Fleet, Traffic

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(900)]

SECONDS = 120.0

Note = Callable[[str, Traffic], dict[str, int]]


@contextmanager
def drained(fleet: Fleet, router: str) -> Iterator[None]:
    """Have a router drained by the playbook, and in service again afterwards."""
    fleet.playbooks.run("drain.yml", {}, "--limit", router).require_success()
    try:
        yield
    finally:
        fleet.playbooks.run("undrain.yml", {}, "--limit", router).require_success()
        fleet.settle()


def test_drain_and_undrain_lose_nothing(fleet: Fleet, note: Note) -> None:
    host = fleet.lab.hosts[A1.name]
    with fleet.traffic() as traffic:
        fleet.playbooks.run("drain.yml", {}, "--limit", A1.name, progress=traffic.note).require_success()
        assert fleet.is_drained(A1)
        assert fleet.carrying(POP_A) == {A2.name}
        traffic.note("FRR of a1 stopped and started")
        host.run("systemctl restart frr")
        fleet.neighbours.wait_established()
        assert fleet.carrying(POP_A) == {A2.name}, "a restart of FRR has ended the drain"
        fleet.playbooks.run("undrain.yml", {}, "--limit", A1.name, progress=traffic.note).require_success()
        fleet.settle()
    assert note("drain, FRR restarted, undrain", traffic) == {"a": 0, "b": 0}, traffic.losses()


def refused(fleet: Fleet, *routers: str, words: str, **variables: bool) -> None:
    """Expect drain.yml to refuse, for a reason, and to change nothing."""
    asked = [router for router in ROUTERS if router.name in routers]
    before = {router.name: fleet.fingerprint(router) for router in asked}
    result = fleet.playbooks.run("drain.yml", variables, "--limit", ",".join(routers))
    assert result.status != 0
    said = " ".join(result.output.split())
    for router in asked:
        assert f"REFUSED {router.name}" in said
        assert not fleet.is_drained(router)
        assert fleet.fingerprint(router) == before[router.name]
    assert words in said


def test_second_router_of_a_pop_is_not_drained(fleet: Fleet) -> None:
    with drained(fleet, A1.name):
        refused(fleet, A2.name, words="a1: is drained")
        assert fleet.carrying(POP_A) == {A2.name}


def test_both_routers_of_a_pop_are_not_drained_by_one_command(fleet: Fleet) -> None:
    refused(fleet, A1.name, A2.name, words="a2 of POP a would be drained at the same time")
    assert fleet.carrying(POP_A) == {A1.name, A2.name}


def test_router_is_not_drained_while_the_other_cannot_be_reached(fleet: Fleet) -> None:
    # One that was open would be waited for, for a minute.
    fleet.lab.disconnect()
    fleet.lab.wiring.set_management(A1.name, up=False)
    try:
        refused(fleet, A2.name, words="a1: cannot be reached")
    finally:
        fleet.lab.wiring.set_management(A1.name, up=True)
    assert fleet.carrying(POP_A) == {A1.name, A2.name}


def test_router_is_not_drained_while_the_other_has_no_routes(fleet: Fleet) -> None:
    internet = fleet.neighbours.internet
    internet.command(f"disable {A1.name}_v4")
    try:
        wait_until(
            lambda: fleet.carrying(POP_A) == {A2.name},
            "a1 to have no routes",
            seconds=SECONDS,
            poll_seconds=0.2,
        )
        refused(fleet, A2.name, words="a1: has no route for")
    finally:
        internet.command(f"enable {A1.name}_v4")
        fleet.settle()


def test_router_is_not_drained_while_the_other_s_agent_is_away(fleet: Fleet) -> None:
    host = fleet.lab.hosts[A1.name]
    host.run("systemctl stop router-agent")
    try:
        refused(fleet, A2.name, words="a1: ")
    finally:
        host.run("systemctl start router-agent")
    wait_until(
        lambda: host.try_run(f"{AGENT} show status").returncode == 0,
        "a1's agent to be in sync",
        seconds=SECONDS,
        poll_seconds=0.5,
    )
    fleet.settle()


def test_only_router_of_a_pop_is_not_drained(fleet: Fleet) -> None:
    refused(fleet, B1.name, words="no other router of this POP", drain_alone=False)
