"""What happens to a router in its life: power is lost, it is changed, its operator's address is announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from router_agent.lab.daemon import wait_until
from router_agent.lab.host import HostError
from router_agent.lab.vm.inventory import STATIC
from router_agent.lab.vm.plan import DEVICES, HOST, LAN, MANAGEMENT, MANAGEMENT_INTERFACE, UPLINK
from router_agent.lab.vm.pop import VirtualPop
from router_agent.lab.vm.traffic import prove_forwarding
from router_agent.traffic.judgement.verdict import Outcome

from .conftest import power_cycle

MORE_PAGES = 160

_ROUTE_SECONDS = 120.0
_BACK_SECONDS = 300.0
_LOOKS = 5


def wait_for(happened: Callable[[], bool], what: str, *, seconds: float = _ROUTE_SECONDS) -> None:
    wait_until(happened, what, seconds=seconds, poll_seconds=1.0)


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


def configuration(pop: VirtualPop) -> str:
    """Return what is in the files of routing and forwarding, whose they are, and what starts at boot."""
    rooms = "frr exabgp router-agent systemd/network systemd/system sysctl.d vpp"
    found = f"cd /etc && find {rooms}"
    kinds = r"\( -type f -exec sha256sum {} + -o -type l -printf '%p -> %l\n' \)"
    modes = r"! -type d -printf '%p %m %U:%G\n'"
    return pop.host.run(f"({found} {kinds}; {found} {modes}) 2>/dev/null | sort")


def last_good(pop: VirtualPop) -> dict[str, Any]:
    """Return what the host says of its last good configuration; its exit code says less."""
    found: dict[str, Any] = pop.host.json("router-agent last-good status --json || true")
    return found


def answers(pop: VirtualPop) -> bool:
    pop.host.disconnect()
    try:
        return pop.host.try_run("true", seconds=20.0).returncode == 0
    except HostError:
        return False


def test_a_change_that_cuts_its_operator_off_is_taken_back(converged: VirtualPop) -> None:
    host, before, booted = converged.host, configuration(converged), converged.host.boot_id()
    host.run("router-agent last-good arm --minutes 0.75")
    # As a run that takes the management interface for a port, and peers for others; it outlives ssh.
    change = (
        f"printf '[Match]\\nName={MANAGEMENT_INTERFACE}\\n' >"
        f" /etc/systemd/network/10-pop-router-{MANAGEMENT_INTERFACE}.network; "
        f"ip address flush dev {MANAGEMENT_INTERFACE}; ip link set dev {MANAGEMENT_INTERFACE} down; "
        "sed -i 's/remote-as 64496/remote-as 64499/' /etc/frr/frr.conf && systemctl reload frr"
    )
    host.run(f'systemd-run --quiet sh -c "{change}"')
    wait_for(lambda: not answers(converged), "the operator to be cut off")
    wait_for(lambda: answers(converged), "the host to be back by itself", seconds=_BACK_SECONDS)
    assert host.boot_id() == booted
    wait_for(lambda: not last_good(converged)["armed"], "the end of the way back", seconds=_BACK_SECONDS)
    last = last_good(converged)["last"]
    assert last["faults"] == []
    assert "/etc/frr/frr.conf" in last["changed"]
    assert configuration(converged) == before
    converged.wait_sessions()


def test_power_lost_before_a_confirmation_ends_in_what_was_good(
    converged: VirtualPop,
) -> None:
    host, before = converged.host, configuration(converged)
    host.run("router-agent last-good arm --minutes 60")
    # What udev, sysctl, systemd itself and FRR read at boot.
    host.run(
        f"sed -i 's/^Name=.*/Name=wrong0/' /etc/systemd/network/10-pop-router-{LAN.name}.link; "
        "echo 'net.ipv4.ip_forward = 0' > /etc/sysctl.d/90-pop-router.conf; "
        "systemctl disable --quiet frr router-agent; echo broken > /etc/frr/frr.conf; sync"
    )
    power_cycle(converged)
    assert last_good(converged)["last"]["faults"] == []
    assert configuration(converged) == before
    assert host.run("cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert LAN.name in host.run("ls /sys/class/net").split()
    assert "ordering cycle" not in host.run("journalctl --boot --output cat --no-pager")
    converged.wait_sessions()
