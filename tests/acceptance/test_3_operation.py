"""What happens to a router in its life: power is lost, it is changed, its operator's address is announced."""

from __future__ import annotations

from collections.abc import Callable

import yaml

from router_agent.lab.daemon import wait_until
from router_agent.lab.vm.inventory import STATIC
from router_agent.lab.vm.plan import DEVICES, HOST, LAN, MANAGEMENT, UPLINK
from router_agent.lab.vm.pop import VirtualPop
from router_agent.lab.vm.traffic import prove_forwarding
from router_agent.traffic.judgement.verdict import Outcome

from .conftest import power_cycle

MORE_PAGES = 160

_ROUTE_SECONDS = 120.0
_LOOKS = 5


def wait_for(happened: Callable[[], bool], what: str) -> None:
    wait_until(happened, what, seconds=_ROUTE_SECONDS, poll_seconds=1.0)


def test_everything_comes_back_after_a_power_cycle(converged: VirtualPop) -> None:
    power_cycle(converged)
    converged.wait_sessions()
    # Next hops that nobody has spoken to since.
    converged.meet_neighbours()
    converged.playbooks.run("verify.yml").require_success()
    with converged.counters() as counters:
        result = prove_forwarding(
            converged.neighbours,
            ingress=UPLINK.name,
            counters=[counters],
            report=converged.logs / "traffic-after-power-cycle",
            prefixes=1_000,
        )
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason


def test_operator_is_not_cut_off_by_a_prefix_that_covers_him(converged: VirtualPop) -> None:
    converged.neighbours.cover_management(announce=True)
    try:
        covered = f"ip -4 route show {MANAGEMENT.covering} proto bgp"
        wait_for(
            lambda: converged.host.run(covered).strip() != "", f"{MANAGEMENT.covering} to be a BGP route"
        )
        # The main table does lead away from the operator: without the rule the next line would not work.
        assert LAN.name in converged.host.run(f"ip -4 route get {MANAGEMENT.client} from 198.18.1.1")
        converged.host.disconnect()
        for _ in range(_LOOKS):
            assert converged.host.run("hostname").strip() == HOST
            converged.host.disconnect()
        converged.playbooks.run("preflight.yml").require_success()
    finally:
        converged.neighbours.cover_management(announce=False)


def test_changed_page_count_takes_one_reboot(converged: VirtualPop) -> None:
    boots = converged.boots()
    pages = [{"node": 0, "size": "2M", "count": MORE_PAGES}]
    result = converged.site({"hugepages_per_node": pages}, allow_reboot=True).require_success()
    assert result.changed > 0
    assert converged.boots() == boots + 1
    found = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    assert converged.host.run(f"cat {found}").strip() == str(MORE_PAGES)
    assert f"hugepages=0:{MORE_PAGES}" in converged.host.run("cat /proc/cmdline").split()


def test_removed_port_gives_its_nic_back(converged: VirtualPop) -> None:
    variables = yaml.safe_load(STATIC.read_text())["routers"]["hosts"][HOST]
    ports = [port for port in variables["router_ports"] if port["name"] != LAN.name]
    peers = [peer for peer in variables["router_peers"] if not peer["address"].startswith("198.18.2.")]
    boots = converged.boots()
    converged.site({"router_ports": ports, "router_peers": peers}, allow_reboot=True).require_success()
    assert converged.boots() == boots
    device = f"/sys/bus/pci/devices/{DEVICES[LAN.name]}"
    assert converged.host.run(f"basename $(readlink {device}/driver)").strip() == "vmxnet3"
    assert converged.host.run(f"cat {device}/driver_override").strip() in ("(null)", "")
    assert converged.host.run(f"ls {device}/net").strip() != LAN.name
    assert LAN.name not in converged.host.run("ip -br link").split()
    # The other one was not touched.
    assert converged.neighbours.upstream.all_established()
