"""A drain and what a router starts with: power is lost, and the agent is gone for good, under traffic."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from router_agent.lab.daemon import wait_until

from .plan import A1, A2, POP_A
from .pops import Fleet, Traffic

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(900)]

SECONDS = 120.0
CONFIG = "/etc/router-agent/drain.yaml"

Note = Callable[[str, Traffic], dict[str, int]]


def drain(fleet: Fleet, *, keep: bool) -> None:
    variables = {"drain_keep_over_reboot": keep}
    fleet.playbooks.run("drain.yml", variables, "--limit", A1.name).require_success()
    assert fleet.carrying(POP_A) == {A2.name}


def test_drain_that_is_to_be_kept_lasts_over_a_power_cut(fleet: Fleet, note: Note) -> None:
    """Nobody hears of the router undrained in between, so nothing is lost."""
    with fleet.traffic() as traffic:
        drain(fleet, keep=True)
        traffic.note("power of a1 cut")
        fleet.lab.power_cycle(A1.name)
        fleet.neighbours.wait_established()
        assert fleet.is_drained(A1)
        assert fleet.carrying(POP_A) == {A2.name}
        fleet.playbooks.run("undrain.yml", {}, "--limit", A1.name).require_success()
        fleet.settle()
    assert note("drain, power of a1 cut, undrain", traffic) == {"a": 0, "b": 0}, traffic.losses()


def test_drain_ends_with_a_reboot_otherwise(fleet: Fleet) -> None:
    drain(fleet, keep=False)
    fleet.lab.power_cycle(A1.name)
    fleet.settle()
    assert not fleet.is_drained(A1)


def test_router_without_its_agent_takes_itself_out(fleet: Fleet) -> None:
    """By the units that the roles install; here the agent's absence is noticed sooner than by default."""
    host = fleet.lab.hosts[A1.name]
    before = host.run(f"cat {CONFIG}")
    sooner = r"s/^\( *\(silent\|right\)_seconds\):.*/\1: 3/"
    host.run(f"sed -i '{sooner}' {CONFIG}; systemctl restart router-agent-watch")
    try:
        host.run("systemctl stop router-agent")
        wait_until(lambda: fleet.is_drained(A1), "a1 to drain itself", seconds=SECONDS, poll_seconds=0.5)
        wait_until(
            lambda: fleet.carrying(POP_A) == {A2.name}, "a2 to carry all", seconds=SECONDS, poll_seconds=0.5
        )
        host.run("systemctl start router-agent")
        wait_until(lambda: not fleet.is_drained(A1), "a1 to be back", seconds=SECONDS, poll_seconds=0.5)
        fleet.settle()
    finally:
        host.run(f"systemctl start router-agent; cat >{CONFIG} <<'END'\n{before}END\n")
        host.run("systemctl restart router-agent-watch")
