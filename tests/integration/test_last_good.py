"""A router that nobody can reach any more goes back by itself: a whole host with systemd, FRR, a neighbour.

The host is managed through an interface of its own; its port is configured as role interfaces does it where
the kernel forwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from role_variables import rendered_by_ansible
from router_agent.lab.containers.hosts import Containers
from router_agent.lab.containers.wires import MANAGEMENT_INTERFACE, End, Wire
from router_agent.lab.daemon import wait_until
from router_agent.lab.host import Host, HostError
from router_agent.lastgood.pack import packed

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(600)]

SECONDS = 120.0
PROGRAM = "/usr/local/lib/pop-router/last-good"
FRR = """\
frr defaults datacenter
log syslog
!
router bgp {asn}
 bgp router-id {own}
 no bgp ebgp-requires-policy
 neighbor {other} remote-as {other_asn}
 neighbor {other} timers connect 1
exit
!
"""
ROUTER = FRR.format(asn=64500, own="198.18.1.1", other="198.18.1.2", other_asn=64496)
NEIGHBOUR = FRR.format(asn=64496, own="198.18.1.2", other="198.18.1.1", other_asn=64500)
PORT = "[Match]\nName=port\n\n[Network]\nLinkLocalAddressing=no\nAddress={}/24\n"
MANAGED_ELSEWHERE = f"[Match]\nName={MANAGEMENT_INTERFACE}\n\n[Link]\nUnmanaged=yes\n"


def write(host: Host, path: str, text: str) -> None:
    host.run(f"mkdir -p {Path(path).parent} && cat >{path} <<'END'\n{text}END")


def configure(host: Host, address: str, frr: str) -> None:
    """Have a host route: its port by systemd-networkd, BGP by FRR."""
    write(host, "/etc/systemd/network/10-pop-router-port.network", PORT.format(address))
    write(host, f"/etc/systemd/network/10-pop-router-{MANAGEMENT_INTERFACE}.network", MANAGED_ELSEWHERE)
    host.run("cat >/etc/frr/frr.conf <<'END'\n" + frr + "END")
    host.run(
        "sed -i s/bgpd=no/bgpd=yes/ /etc/frr/daemons; systemctl enable --quiet --now systemd-networkd; "
        "systemctl enable --quiet frr; systemctl restart frr"
    )


def install(host: Host, directory: Path) -> None:
    """Put the program and its units there, as role commit_confirm does."""
    program = directory / "last-good"
    program.write_bytes(packed())
    host.run(f"mkdir -p {Path(PROGRAM).parent}")
    host.feed(f"cat >{PROGRAM}; chmod 755 {PROGRAM}", program)
    for name in ("last-good@.service", "last-good-boot.service"):
        write(host, f"/etc/systemd/system/{name}", rendered_by_ansible(f"{name}.j2", {"command": PROGRAM}))
    host.run("systemctl daemon-reload; systemctl enable --quiet last-good-boot.service")


@pytest.fixture(scope="module")
def lab(
    containers: Callable[..., Containers], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    wires = [Wire(End("r1", "port"), End("r2", "port"))]
    with containers("r1", "r2", wires=wires) as lab:
        configure(lab.hosts["r1"], "198.18.1.1", ROUTER)
        configure(lab.hosts["r2"], "198.18.1.2", NEIGHBOUR)
        install(lab.hosts["r1"], tmp_path_factory.mktemp("program"))
        yield lab


@pytest.fixture
def router(lab: Containers) -> Host:
    """The router, with its session, and nothing armed."""
    host = lab.hosts["r1"]
    wait_until(lambda: established(host), "the session", seconds=SECONDS, poll_seconds=0.5)
    assert not status(host)["armed"]
    return host


def established(host: Host) -> bool:
    summary: dict[str, Any] = host.json("vtysh -c 'show bgp ipv4 unicast summary json' || echo '{}'")
    peers = summary.get("peers", {}).values()
    return [peer["state"] for peer in peers] == ["Established"]


def status(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.try_run(f"{PROGRAM} status --json").stdout)
    return found


def files(host: Host) -> str:
    """Return the configuration: contents, modes, owners, and what starts at boot."""
    where = "/etc/frr /etc/systemd/network /etc/systemd/system /etc/sysctl.d"
    return host.run(
        f"find {where} -type f -exec sha256sum {{}} + | sort; "
        f"find {where} ! -type d -printf '%p %m %U:%G %l\\n' | sort"
    )


def has_gone_back(host: Host) -> bool:
    try:
        return not status(host)["armed"]
    except (HostError, ValueError):
        # It is cut off, or was in the middle of an answer.
        host.disconnect()
        return False


def wait_back(host: Host) -> dict[str, Any]:
    """Wait until the host has gone back; return what came of it."""
    wait_until(lambda: has_gone_back(host), "the host to be back", seconds=SECONDS, poll_seconds=1.0)
    last: dict[str, Any] = status(host)["last"]
    return last


BREAK = (
    "sed -i 's/remote-as 64496/remote-as 64499/' /etc/frr/frr.conf; "
    "sed -i s/198.18.1.1/198.18.9.1/ /etc/systemd/network/10-pop-router-port.network; "
    "echo 'net.ipv4.ip_forward = 0' >/etc/sysctl.d/90-pop-router.conf; "
)


def test_a_change_that_cuts_management_off_is_taken_back(router: Host) -> None:
    before, booted = files(router), router.boot_id()
    router.run(f"{PROGRAM} arm --minutes 0.25")
    # As a change that takes the management interface for a port.
    cut = (
        f"{BREAK} rm /etc/systemd/network/10-pop-router-{MANAGEMENT_INTERFACE}.network; networkctl reload; "
        "systemctl reload frr; "
        f"ip address flush dev {MANAGEMENT_INTERFACE}; ip link set dev {MANAGEMENT_INTERFACE} down"
    )
    write(router, "/root/cut", cut + "\n")
    router.run("systemd-run --quiet sh /root/cut")
    router.disconnect()
    last = wait_back(router)
    assert last["faults"] == []
    assert files(router) == before
    assert router.boot_id() == booted
    assert "198.18.1.1/24" in router.run("ip -o -4 address show dev port")
    assert "198.18.9.1" not in router.run("ip -o -4 address show dev port")
    wait_until(lambda: established(router), "the session", seconds=SECONDS, poll_seconds=0.5)


def test_a_power_cut_before_disarm_ends_in_what_was_good(lab: Containers, router: Host) -> None:
    before = files(router)
    router.run(f"{PROGRAM} arm --minutes 60")
    router.run(
        f"{BREAK} systemctl disable -q frr systemd-networkd; cd /etc/systemd/system; mkdir frr.service.d; "
        "printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >frr.service.d/bad.conf"
    )
    lab.power_cycle("r1")
    last = status(router)["last"]
    assert (last["faults"], status(router)["armed"]) == ([], False)
    assert files(router) == before
    assert "ordering cycle" not in router.run("journalctl --boot --output cat --no-pager")
    wait_until(lambda: established(router), "the session", seconds=SECONDS, poll_seconds=0.5)


def test_killed_in_the_middle_it_is_finished_by_the_next_attempt(router: Host) -> None:
    before = files(router)
    router.run(f"{PROGRAM} arm --minutes 60")
    router.run(
        f"{BREAK} cd /etc/frr; echo no such line >>frr.conf; echo bgpd=no >daemons; systemctl stop frr"
    )
    # Killed by systemd with SIGKILL as soon as the first file is back.
    router.run(
        "unit=last-good@now.service; systemctl start --no-block $unit; "
        "until grep -q bgpd=yes /etc/frr/daemons; do :; done; systemctl kill --signal KILL $unit"
    )
    last = wait_back(router)
    assert "status=9/KILL" in router.run(
        "journalctl --boot --unit last-good@now.service --output cat --no-pager"
    )
    assert last["faults"] == []
    assert {"/etc/frr/daemons", "/etc/frr/frr.conf"} <= set(last["changed"])
    assert files(router) == before
    wait_until(lambda: established(router), "the session", seconds=SECONDS, poll_seconds=0.5)


def test_what_nobody_changed_is_left_alone(router: Host) -> None:
    running = (
        "cat /run/frr/*.pid; systemctl show --property=MainPID,ActiveEnterTimestamp frr systemd-networkd; "
    )
    running += "vtysh -c 'show bgp neighbors json' | grep -o 'connectionsEstablished\":[0-9]*'"
    before = router.run(running), files(router)
    router.run(f"{PROGRAM} arm --minutes 0.05")
    last = wait_back(router)
    assert (last["changed"], last["steps"], last["faults"]) == ([], [], [])
    assert (router.run(running), files(router)) == before


def test_after_disarm_nothing_goes_back_and_by_hand_it_does(router: Host) -> None:
    before = files(router)
    router.run(f"{PROGRAM} arm --minutes 0.2")
    # The time moves, what to go back to stays.
    router.run("echo '! mine' >>/etc/frr/frr.conf")
    assert json.loads(router.run(f"{PROGRAM} arm --minutes 60 --json"))["armed"]
    assert status(router)["changed"] == ["/etc/frr/frr.conf"]
    router.run(f"{PROGRAM} disarm")
    assert router.run("systemctl list-timers --all --no-legend 'last-good@*'").strip() == ""
    assert router.try_run(f"{PROGRAM} disarm").returncode == 1
    assert router.try_run(f"{PROGRAM} arm --extend --minutes 1").returncode == 1
    assert files(router) != before
    router.run(f"{PROGRAM} rollback")
    assert files(router) == before
    assert established(router)
