"""Each component upgraded alone, under traffic; and a change of the configuration that is taken back.

Every turn of a router takes a minute and more: `make fleet FULL=1` takes the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from router_agent import __version__

from .plan import A1, A2, B1, INTERNET_AS, ROUTERS
from .pops import FORMER_AGENT, FORMER_EXABGP, Fleet, Traffic, peers, pinned_exabgp

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("FULL_FLEET"), reason="takes long: make fleet FULL=1"),
]

Note = Callable[[str, Traffic], dict[str, int]]

DESCRIPTION = "a word that was not there"


def test_agent_is_upgraded_without_a_lost_packet(fleet: Fleet, note: Note) -> None:
    """Even of traffic that stays on the router and goes by the agent's own routes."""
    assert fleet.agent(A1) == FORMER_AGENT
    with fleet.pinned(A1) as further, fleet.traffic(further) as traffic:
        result = fleet.upgrade(
            "--limit", A1.name, progress=traffic.note, upgrade_components="router_agent"
        ).require_success()
    assert note("agent upgraded", traffic) == {"a": 0, "b": 0}, traffic.losses()
    assert fleet.verdicts() == {A1.name: "done"}, result.tail
    assert {router.name: fleet.agent(router) for router in ROUTERS} == {
        A1.name: __version__,
        A2.name: FORMER_AGENT,
        B1.name: FORMER_AGENT,
    }


def test_router_that_is_not_right_stays_drained_until_it_is(fleet: Fleet, note: Note) -> None:
    """A neighbour goes away in the midst of it: neither the new ExaBGP nor the former one makes it right."""
    internet = fleet.neighbours.internet

    def cut(task: str) -> None:
        if task == "upgrade : Keep the configuration as it is":
            internet.command(f"disable {A2.name}_v4")

    asked = {"upgrade_components": "exabgp"}
    with fleet.traffic() as traffic:
        try:
            result = fleet.upgrade("--limit", A2.name, progress=cut, verify_seconds=10, **asked)
            assert result.status != 0
            (record,) = fleet.rollout()["hosts"]
            assert (record["verdict"], record["stays_drained"]) == ("broken", True), result.tail
            assert "session internet_v4" in record["reason"]
            assert fleet.exabgp(A2) == FORMER_EXABGP
        finally:
            internet.command(f"enable {A2.name}_v4")
        fleet.neighbours.wait_established()
        assert fleet.is_drained(A2), "nothing gives such a router traffic by itself"
        fleet.upgrade("--limit", A2.name, progress=traffic.note, **asked).require_success()
    lost = note("ExaBGP upgraded after it had failed", traffic)
    assert lost == {"a": 0, "b": 0}, traffic.losses()
    assert fleet.verdicts() == {A2.name: "done"}
    assert fleet.exabgp(A2) == pinned_exabgp()
    assert not fleet.is_drained(A2)
    assert fleet.locked() == []


def with_peer(fleet: Fleet, **changes: Any) -> None:
    """Have the inventory say something else of the first of a2's peers, the Internet."""
    first, *others = peers(A2)
    fleet.write_inventory({A2.name: {"router_peers": [first | changes, *others]}})


def rolled_out(fleet: Fleet, traffic: Traffic) -> str:
    """Roll the configuration out on a2; return the verdict."""
    fleet.upgrade("--limit", A2.name, progress=traffic.note, upgrade_components="configuration")
    return fleet.verdicts()[A2.name]


def test_configuration_is_rolled_out_without_a_lost_packet(fleet: Fleet, note: Note) -> None:
    sessions = fleet.fingerprint(A2)["sessions"]
    with_peer(fleet, description=DESCRIPTION)
    with fleet.traffic() as traffic:
        assert rolled_out(fleet, traffic) == "done"
    assert note("configuration changed", traffic) == {"a": 0, "b": 0}, traffic.losses()
    assert DESCRIPTION in fleet.lab.hosts[A2.name].run("vtysh -c 'show running-config bgpd'")
    assert fleet.fingerprint(A2)["sessions"] == sessions
    fleet.settle()


def test_configuration_that_breaks_a_session_is_taken_back(fleet: Fleet, note: Note) -> None:
    before = fleet.fingerprint(A2)
    with_peer(fleet, description=DESCRIPTION, asn=INTERNET_AS + 100)
    try:
        with fleet.traffic() as traffic:
            assert rolled_out(fleet, traffic) == "rolled back"
    finally:
        with_peer(fleet, description=DESCRIPTION)
    assert note("configuration changed, taken back", traffic) == {"a": 0, "b": 0}, traffic.losses()
    (record,) = fleet.rollout()["hosts"]
    assert "session internet_v4" in record["reason"]
    after = fleet.fingerprint(A2)
    for same in ("packages", "files", "environments", "processes"):
        assert after[same] == before[same]
    assert not fleet.is_drained(A2)
    fleet.settle()
