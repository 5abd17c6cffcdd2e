"""management-route in a namespace of its own: whatever BGP announces, answers to the operator keep their way.

A host with a management interface and an uplink; a route of BGP that covers the operator leads to the uplink.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.lab.render import render

pytestmark = pytest.mark.root

OPERATOR = {"-4": "192.0.2.9", "-6": "2001:db8:9::9"}
MANAGEMENT = {"-4": "198.51.100.2", "-6": "2001:db8:1::2"}


class Router:
    """A namespace with interfaces `mgmt` and `uplink`, and the script made for it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.script = directory / "management-route"
        self.script.write_text(
            render(
                "management-route.j2",
                interfaces=["mgmt"],
                table=1000,
                priority=1000,
                protocols=["bgp", "zebra", "201"],
            )
        )

    def ip(self, command: str) -> str:
        done = subprocess.run(
            ["ip", "-netns", self.name, *command.split()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"ip {command}: {done.stderr}"
        return done.stdout

    def run(self, *arguments: str) -> list[str]:
        """Run the script and return what it says it changed."""
        command = ["ip", "netns", "exec", self.name, sys.executable, str(self.script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.replace("<5>", "").splitlines()

    def way(self, family: str, *, source: str | None = None) -> str:
        """Interface that a packet to the operator leaves by."""
        words = ["route", "get", OPERATOR[family], *(["from", source] if source else [])]
        done = subprocess.run(
            ["ip", "-netns", self.name, "-json", family, *words], capture_output=True, text=True, check=True
        )
        return str(json.loads(done.stdout)[0]["dev"])


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    name = f"m{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        host = Router(name, tmp_path)
        host.ip("link set lo up")
        for interface, far in (("mgmt", "operator"), ("uplink", "internet")):
            host.ip(f"link add {interface} type veth peer name {far}")
            host.ip(f"link set {interface} up")
            host.ip(f"link set {far} up")
        host.ip("address add 198.51.100.2/24 dev mgmt")
        host.ip("address add 2001:db8:1::2/64 dev mgmt nodad")
        host.ip("address add 203.0.113.2/24 dev uplink")
        host.ip("address add 2001:db8:2::2/64 dev uplink nodad")
        host.ip("route add default via 198.51.100.1 dev mgmt")
        host.ip("-6 route add default via 2001:db8:1::1 dev mgmt")
        yield host
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def announce(router: Router) -> None:
    """BGP's routes to the operator and to the management network."""
    for prefix in ("192.0.2.0/24", "198.51.100.0/25"):
        router.ip(f"route add {prefix} via 203.0.113.1 dev uplink proto bgp")
    router.ip("-6 route add 2001:db8:9::/48 via 2001:db8:2::1 dev uplink proto bgp")


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_answers_leave_where_the_operator_came_in(router: Router, family: str) -> None:
    announce(router)
    assert router.way(family, source=MANAGEMENT[family]) == "uplink", "without it the operator is locked out"
    router.run()
    assert router.way(family, source=MANAGEMENT[family]) == "mgmt"
    assert router.way(family) == "uplink", (
        "what the host itself begins, and what it forwards, goes the way of BGP"
    )


def test_a_second_run_changes_nothing(router: Router) -> None:
    assert router.run()
    assert router.run() == []
    announce(router)
    assert router.run() == []


def test_a_route_of_bgp_over_the_management_interface_is_not_copied(router: Router) -> None:
    router.ip("route add 192.0.2.0/24 via 198.51.100.7 dev mgmt proto bgp")
    router.ip("route add 192.0.2.128/25 via 198.51.100.8 dev mgmt proto static")
    router.run()
    table = router.ip("route show table 1000")
    assert "192.0.2.0/24" not in table
    assert "192.0.2.128/25 via 198.51.100.8 dev mgmt" in table


def test_a_new_lease_is_followed(router: Router) -> None:
    router.run()
    router.ip("address delete 198.51.100.2/24 dev mgmt")
    router.ip("address add 198.51.100.77/24 dev mgmt")
    router.ip("route replace default via 198.51.100.254 dev mgmt")
    announce(router)
    assert router.run()
    rules = router.ip("-4 rule show priority 1000")
    assert "from 198.51.100.77 " in rules
    assert "198.51.100.2 " not in rules
    assert "default via 198.51.100.254 dev mgmt" in router.ip("route show table 1000")
    assert "198.51.100.1 " not in router.ip("route show table 1000")
    assert router.way("-4", source="198.51.100.77") == "mgmt"
    assert router.run() == []


def test_a_gateway_outside_the_network_is_reached_on_the_link(router: Router) -> None:
    """As providers of virtual machines give them."""
    router.ip("route replace default via 203.0.113.254 dev mgmt onlink")
    router.run()
    assert "default via 203.0.113.254 dev mgmt onlink" in router.ip("route show table 1000")
    assert router.run() == []


def test_waiting_ends_with_the_first_address(router: Router) -> None:
    router.ip("address flush dev mgmt")
    waiting = subprocess.Popen(
        ["ip", "netns", "exec", router.name, sys.executable, str(router.script), "--wait", "60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        router.ip("address add 198.51.100.5/24 dev mgmt")
        said, _ = waiting.communicate(timeout=30)
    finally:
        waiting.kill()
        waiting.wait()
    assert waiting.returncode == 0
    assert "rule add from 198.51.100.5 lookup 1000" in said


def test_waiting_has_an_end(router: Router) -> None:
    router.ip("address flush dev mgmt")
    assert router.run("--wait", "0.2")[0].startswith("no address on mgmt within 0.2 s")


def test_without_the_interface_its_rules_go(router: Router) -> None:
    router.run()
    router.ip("link delete mgmt")
    router.run()
    assert router.ip("-4 rule show priority 1000") == ""
    assert router.ip("-6 rule show priority 1000") == ""
