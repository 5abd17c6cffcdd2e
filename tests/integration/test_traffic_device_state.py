"""The device is left as found, or what differs is said: a kernel router in a namespace, behind sshd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.traffic.as_found import AS_FOUND, AsFound
from router_agent.traffic.device_state import MANY_ROUTES, DeviceState, differences, read_state
from router_agent.traffic.reach import LocalReach, ReachError
from router_agent.traffic.reach.ssh import SshReach
from router_agent.traffic.report.environment import Environment

from .sshd import AVAILABLE, EXTRA, Sshd, program, running
from .test_traffic_namespaces import PREFIXES, V4, V6, Router, ip

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not AVAILABLE, reason="needs root and a real sshd: apt-get install openssh-server"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(Sshd(tmp_path_factory.mktemp("sshd"))) as daemon:
        yield daemon


@pytest.fixture
def router() -> Iterator[Router]:
    built = Router()
    try:
        built.up()
        yield built
    finally:
        built.down()


@pytest.fixture
def agent(tmp_path: Path) -> str:
    """The agent's program as a router has it."""
    return program(tmp_path, without=EXTRA)


def sysctl(router: Router, *words: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", router.device, "sysctl", "-n", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_state_is_what_the_kernel_has(router: Router) -> None:
    state = read_state(router.device)
    assert state.links.keys() == {"to-west", "to-east", "to-south"}
    assert (state.links["to-west"].up, state.links["to-west"].mtu) == (True, 1500)
    assert state.routes["IPv4 boot"] == len(V4)
    assert state.routes["IPv6 boot"] == len(V6)
    assert state.settings["net/ipv4/ip_forward"] == "1"
    assert state.settings["net/ipv4/conf/to-west/rp_filter"] == "0"


def test_a_device_that_nothing_happened_to_is_as_found(router: Router, agent: str) -> None:
    with LocalReach() as reach:
        guard = AsFound(reach, namespace=router.device, program=agent)
        with guard:
            router.batch(f"route del {PREFIXES[0]}")
        assert guard.notes == (AS_FOUND,), "one route of 200 is within what BGP does by itself"


def test_settings_and_links_are_put_back_and_routes_are_named(router: Router, sshd: Sshd, agent: str) -> None:
    with SshReach(sshd.target) as reach:
        guard = AsFound(reach, namespace=router.device, program=agent)
        with guard:
            sysctl(router, "-w", "net.ipv4.conf.to-west.rp_filter=1", "net.ipv4.ip_forward=0")
            ip("-n", router.device, "link", "set", "to-east", "mtu", "1400")
            ip("-n", router.device, "link", "set", "to-south", "down")
    notes = "\n".join(guard.notes)
    assert "put back on the device: net/ipv4/conf/to-west/rp_filter = 0" in notes
    assert "put back on the device: net/ipv4/ip_forward = 1" in notes
    assert "put back on the device: to-east up with MTU 1500" in notes
    assert "put back on the device: to-south up with MTU 1500" in notes
    # what went with the link was the kernel's, or its owner's, and is not ours to write
    assert (
        f"DEVICE NOT LEFT AS FOUND: IPv4 boot routes: found {len(V4) // 2:,}, expected {len(V4):,}" in notes
    )
    now = read_state(router.device)
    assert (now.links["to-south"].up, now.links["to-east"].mtu) == (True, 1500)
    assert sysctl(router, "net.ipv4.conf.to-west.rp_filter") == "0"
    assert sysctl(router, "net.ipv4.conf.to-west.forwarding") == "1"


def test_a_check_that_dies_with_its_connection_still_leaves_the_device_as_found(
    router: Router, sshd: Sshd, agent: str
) -> None:
    with SshReach(sshd.target) as reach:
        guard = AsFound(reach, namespace=router.device, program=agent)

        def check() -> None:
            sysctl(router, "-w", "net.ipv4.conf.to-west.rp_filter=2")
            sshd.cut()
            reach.run(["true"])

        with pytest.raises(ReachError, match="the connection"), guard:
            check()
    assert guard.notes == ("put back on the device: net/ipv4/conf/to-west/rp_filter = 0",)
    assert sysctl(router, "net.ipv4.conf.to-west.rp_filter") == "0"


def test_a_device_that_is_gone_is_said_to_be_unknown(router: Router, agent: str) -> None:
    with LocalReach() as reach:
        guard = AsFound(reach, namespace=router.device, program=agent)
        with guard:
            router.down()
        assert guard.notes[0].startswith("whether the device is as it was found is not known: ")
        with pytest.raises(ReachError, match="does not exist"), guard:
            pytest.fail("there is nothing to read")


def test_the_command_prints_and_compares(router: Router, agent: str, tmp_path: Path) -> None:
    words = [agent, "traffic", "device", "--namespace", router.device]
    before = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert DeviceState.model_validate_json(before).routes["IPv4 boot"] == len(V4)
    (tmp_path / "before").write_text(before)
    ip("-n", router.device, "link", "set", "to-east", "mtu", "1400")
    compare = [*words, "--compare", str(tmp_path / "before")]
    done = subprocess.run(compare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["different"] == [
        "link to-east: found up with carrier, MTU 1400, expected up with carrier, MTU 1500"
    ]
    done = subprocess.run([*compare, "--put-back"], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["different"]) == (0, [])
    other = [*words, "--compare", "/etc/hostname"]
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not what 'router-agent traffic device' printed" in done.stderr


def test_a_host_says_what_it_is_without_the_packages_of_a_check(sshd: Sshd, agent: str) -> None:
    with SshReach(sshd.target) as reach:
        text = reach.run([agent, "traffic", "environment"]).text
    assert Environment.model_validate_json(text).host


@pytest.mark.parametrize(("has", "said"), [(99, False), (90, True), (101, False), (0, True)])
def test_routes_may_come_and_go_a_little(has: int, said: bool) -> None:
    assert MANY_ROUTES == 0.01
    before = DeviceState(links={}, settings={}, routes={"IPv4 bgp": 100})
    after = DeviceState(links={}, settings={}, routes={"IPv4 bgp": has} if has else {})
    assert bool(differences(before, after)) is said
