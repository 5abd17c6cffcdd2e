"""site.yml around FRR on a whole host: armed, confirmed, left to go back when a change breaks a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from router_agent.lab.containers.hosts import Containers
from router_agent.lab.containers.wires import End, Wire
from router_agent.lab.daemon import wait_until
from router_agent.lab.vm.play import Playbooks, PlayResult

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(900)]

SECONDS = 120.0
PROGRAM = "/usr/local/lib/pop-router/last-good"
NEIGHBOUR = """\
router bgp 64496
 bgp router-id 198.18.1.2
 no bgp ebgp-requires-policy
 neighbor 198.18.1.1 remote-as 64500
 neighbor 198.18.1.1 timers connect 1
 neighbor 198.18.1.1 ttl-security hops 1
exit
"""
PEER = {"name": "upstream", "address": "198.18.1.2", "asn": 64496, "maximum_prefixes": 100}
# Nobody is there: what was down before is not held against a change.
DOWN = {"name": "down", "address": "2001:db8:0:1::2", "asn": 64497, "maximum_prefixes": 100}
VARIABLES: dict[str, Any] = {
    "router_pop": "lab",
    "router_asn": 64500,
    "router_id": "198.18.1.1",
    "router_forwarding": "kernel",
    "router_expected_routes": {"ipv4": 1000, "ipv6": 1000},
    "router_networks": {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:ffff::/48"]},
    "router_ports": [
        {"name": "port", "device": "port", "addresses": ["198.18.1.1/24", "2001:db8:0:1::1/64"]}
    ],
    "router_peers": [PEER, DOWN],
    "frr_refuse_reserved_asns": False,
    # No registry is in reach, and a container has no boot loader.
    "preflight_packages": False,
    "kernel_cmdline_require_grub_boot": False,
    # It would wait for a family that no session carries.
    "frr_ready_seconds": 2,
    "commit_confirm_minutes": 10,
    "commit_confirm_seconds": 20,
    "commit_confirm_pause_seconds": 2,
}


@pytest.fixture(scope="module")
def lab(containers: Callable[..., Containers]) -> Iterator[Containers]:
    with containers("r1", "r2", wires=[Wire(End("r1", "port"), End("r2", "port"))]) as lab:
        for number, host in enumerate(lab.hosts.values(), 1):
            host.run(f"ip link set port up; ip address add 198.18.1.{number}/24 dev port")
        # A bare host: FRR is installed there and does not run.
        lab.hosts["r1"].run("systemctl disable --quiet --now frr; rm /etc/frr/frr.conf")
        lab.hosts["r2"].run(
            f"cat >/etc/frr/frr.conf <<'END'\n{NEIGHBOUR}END\n"
            "sed -i s/bgpd=no/bgpd=yes/ /etc/frr/daemons; systemctl restart frr"
        )
        yield lab


@pytest.fixture(scope="module")
def site(lab: Containers, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PlayResult]:
    """What runs the part of site.yml that is about FRR, with what is around it."""
    directory = tmp_path_factory.mktemp("site")
    hosts = {"r1": lab.inventory({"r1": VARIABLES})["r1"]}
    inventory = directory / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"routers": {"hosts": hosts}}))
    playbooks = Playbooks(inventory, host="r1", logs=directory, sockets=lab.runtime)

    def run(*arguments: str, **variables: Any) -> PlayResult:
        return playbooks.run("site.yml", variables, "--tags", "frr", *arguments)

    return run


def established(lab: Containers) -> bool:
    summary = lab.hosts["r1"].json("vtysh -c 'show bgp ipv4 unicast summary json' || echo '{}'")
    return [peer["state"] for peer in summary.get("peers", {}).values()] == ["Established"]


def test_a_change_is_confirmed_or_goes_back(lab: Containers, site: Callable[..., PlayResult]) -> None:
    host = lab.hosts["r1"]
    checked = site("--check", "--diff").require_success()
    assert host.try_run(f"ls {PROGRAM}").returncode != 0, checked.tail

    first = site().require_success()
    assert "no last good configuration" in first.output
    assert [copy["name"] for copy in host.json(f"{PROGRAM} status --json")["copies"]] == ["000001"]
    wait_until(lambda: established(lab), "the session", seconds=SECONDS, poll_seconds=0.5)

    pids = host.run("cat /run/frr/*.pid")
    second = site().require_success()
    assert "goes back by itself at" in second.output
    assert (second.changed, second.changed_tasks) == (0, ())
    assert not host.json(f"{PROGRAM} status --json")["armed"]

    # A good change: confirmed over a fresh connection.
    site(router_peers=[PEER | {"description": "another word"}, DOWN]).require_success()
    assert not host.json(f"{PROGRAM} status --json")["armed"]
    assert host.run("cat /run/frr/*.pid") == pids

    before = host.run("cat /etc/frr/frr.conf")
    bad = site(router_peers=[PEER | {"asn": 64499}, DOWN])
    assert bad.status != 0
    for words in ("session upstream: found 198.18.1.2", "It goes back by itself at", "last-good disarm"):
        assert words in bad.output
    found = host.json(f"{PROGRAM} status --json || true")
    assert (found["armed"], found["changed"]) == (True, ["/etc/frr/frr.conf"])
    assert not established(lab)

    # Its time has come: what its timer starts.
    host.run(f"{PROGRAM} rollback", seconds=SECONDS)
    assert host.run("cat /etc/frr/frr.conf") == before
    wait_until(lambda: established(lab), "the session", seconds=SECONDS, poll_seconds=0.5)
    assert host.run("cat /run/frr/*.pid") == pids
