"""Real packets through VPP ports that have no address: from one namespace to another, over our routes."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath

import numpy as np
import pytest

from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import VppFib
from router_agent.model import Changes, Family, Link, Neighbour, Path, PathSet, RouteType, keys_of
from router_agent.namespaces import inside
from router_agent.vpp import ports
from router_agent.vpp.process import VppProcess, VppProcessError
from router_agent.vpp.session import VppSession

pytestmark = [
    pytest.mark.vpp,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH"),
]

PACKETS = 200
SIDES = {"a": 1, "b": 2}
PORT = 9


def run(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@dataclass
class Wire:
    """Two hosts, a and b, each on a port of a VPP between them.

    Host x has 10.N.0.2/24 and fd0N::2/64 and believes the router to be 10.N.0.1, fd0N::1 at `mac`.
    Host b also answers for 198.18.0.1 and 2001:db8::1.
    """

    vpp: VppProcess
    suffix: str

    def namespace(self, side: str) -> str:
        return f"vp{side}{self.suffix}"

    def mac(self, side: str) -> bytes:
        return bytes([2, 0, 0, 0, 0, SIDES[side]])

    def host_mac(self, side: str) -> bytes:
        shown = run(f"ip -n {self.namespace(side)} -br link show e0").split()[2]
        return bytes.fromhex(shown.replace(":", ""))

    def link_local(self, side: str) -> str:
        mac = self.host_mac(side)
        raw = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
        return str(ip_address(raw))

    def socket(self, side: str, family: socket.AddressFamily) -> socket.socket:
        with inside(self.namespace(side)):
            return socket.socket(family, socket.SOCK_DGRAM)


@pytest.fixture
def wire() -> Iterator[Wire]:
    suffix = secrets.token_hex(3)
    names = [f"vp{side}{suffix}" for side in ("f", *SIDES)]
    try:
        for name in names:
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        for side, number in SIDES.items():
            _plug(side, number, suffix)
        host = f"vpb{suffix}"
        run(f"ip -n {host} addr add 198.18.0.1/32 dev lo")
        run(f"ip -n {host} addr add 2001:db8::1/128 dev lo")
        with tempfile.TemporaryDirectory(prefix="vpp") as directory:
            process = VppProcess(
                runtime_dir=FilePath(directory), namespace=names[0], heap="512M", buffers=4096
            )
            with process:
                yield Wire(process, suffix)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _plug(side: str, number: int, suffix: str) -> None:
    host, forwarder = f"vp{side}{suffix}", f"vpf{suffix}"
    run(f"ip link add p{side} netns {forwarder} type veth peer name e0 netns {host}")
    run(f"ip netns exec {forwarder} sysctl -qw net.ipv6.conf.p{side}.disable_ipv6=1")
    run(f"ip -n {forwarder} link set p{side} up")
    run(f"ip -n {host} link set e0 up")
    run(f"ip -n {host} addr add 10.{number}.0.2/24 dev e0")
    run(f"ip -n {host} addr add fd0{number}::2/64 dev e0 nodad")
    mac = f"02:00:00:00:00:0{number}"
    run(f"ip -n {host} neigh replace 10.{number}.0.1 lladdr {mac} dev e0")
    run(f"ip -n {host} neigh replace fd0{number}::1 lladdr {mac} dev e0")
    run(f"ip -n {host} route add default via 10.{number}.0.1")
    run(f"ip -n {host} -6 route add default via fd0{number}::1")


async def write(fib: VppFib, prefix: str, paths: PathSet) -> None:
    keys = keys_of([ip_network(prefix)])
    family = Family.IPV4 if keys.shape[1] == 1 else Family.IPV6
    number = fib.path_id(paths)
    assert isinstance(number, int)
    failures = await fib.write(
        Changes(family, 0, keys, np.array([number], np.uint32), np.zeros(1, np.uint32))
    )
    assert len(failures) == 0


def passed(wire: Wire, address: str, count: int = PACKETS) -> int:
    """Send packets from host a to an address of host b; return how many arrived."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with wire.socket("b", family) as receiver, wire.socket("a", family) as sender:
        receiver.bind(("", PORT))
        receiver.settimeout(1.0)
        for number in range(count):
            sender.sendto(number.to_bytes(4, "big") * 20, (address, PORT))
            if number % 20 == 19 and not _took(receiver, 20):
                return number - 19
        return count


def _took(receiver: socket.socket, count: int) -> bool:
    try:
        for _ in range(count):
            receiver.recv(2048)
    except TimeoutError:
        return False
    return True


async def test_ports_without_addresses_forward_over_static_neighbours(wire: Wire) -> None:
    session = VppSession(api_socket=wire.vpp.api_socket, name="test")
    await session.open()
    for side in SIDES:
        await ports.create_host_port(session, host_interface=f"p{side}", mac=wire.mac(side))
    fib = VppFib(api_socket=wire.vpp.api_socket, interfaces={f"p{side}": f"host-p{side}" for side in SIDES})
    fib.links([Link(n, f"p{side}", True, True, wire.mac(side), 1500) for side, n in SIDES.items()], [])
    await fib.open()
    try:
        b = SIDES["b"]
        gateways = ["10.2.0.2", "fd02::2", wire.link_local("b")]
        neighbours = [Neighbour(b, ip_address(g).packed, wire.host_mac("b")) for g in gateways]
        await fib.write_neighbours(neighbours, [])

        await write(fib, "198.18.0.0/24", PathSet.unicast(Path(b, neighbours[0].address)))
        await write(fib, "2001:db8::/32", PathSet.unicast(Path(b, neighbours[1].address)))
        assert passed(wire, "198.18.0.1") == PACKETS
        assert passed(wire, "2001:db8::1") == PACKETS

        await write(fib, "2001:db8::/32", PathSet.unicast(Path(b, neighbours[2].address)))
        assert passed(wire, "2001:db8::1") == PACKETS

        assert passed(wire, "10.2.0.2") == 0
        await write(fib, "10.2.0.0/24", PathSet.unicast(Path(b)))
        await write(fib, "fd02::/64", PathSet.unicast(Path(b)))
        assert passed(wire, "10.2.0.2") == PACKETS
        assert passed(wire, "fd02::2") == PACKETS

        await write(fib, "198.18.0.0/24", PathSet(RouteType.BLACKHOLE))
        assert passed(wire, "198.18.0.1") == 0
    finally:
        await fib.close()
        await session.close()


async def test_vpp_answers_nothing_for_itself_on_a_port_without_address(wire: Wire) -> None:
    session = VppSession(api_socket=wire.vpp.api_socket, name="test")
    await session.open()
    try:
        index = await ports.create_host_port(session, host_interface="pa", mac=wire.mac("a"), mtu=1400)
        shown = wire.vpp.cli("show interface host-pa")
        assert "up" in shown
        assert "1400/0/0/0" in shown
        await ports.enable_ip(session, index)
        run(f"ip -n {wire.namespace('a')} neigh del 10.1.0.1 dev e0")
        with wire.socket("a", socket.AF_INET) as sender:
            sender.sendto(b"who has 10.1.0.1?", ("10.1.0.1", PORT))
        _wait_for(wire.vpp, "arp-")
        assert "02:00:00:00:00:01" not in run(f"ip -n {wire.namespace('a')} neigh show 10.1.0.1")
        await ports.set_up(session, index, up=False)
        assert "down" in wire.vpp.cli("show interface host-pa")
        await ports.delete_host_port(session, host_interface="pa")
        assert "host-pa" not in wire.vpp.cli("show interface")
    finally:
        await session.close()


async def test_a_port_over_no_interface_is_refused(wire: Wire) -> None:
    session = VppSession(api_socket=wire.vpp.api_socket, name="test")
    await session.open()
    try:
        with pytest.raises(FibError, match="VPP refused af_packet_create_v3"):
            await ports.create_host_port(session, host_interface="nosuch", mac=wire.mac("a"))
    finally:
        await session.close()


def _wait_for(vpp: VppProcess, text: str) -> None:
    """Return once VPP has counted an error of a node whose name begins so."""
    for _ in range(200):
        if text in vpp.cli("show errors"):
            return
    raise AssertionError(vpp.cli("show errors"))


def test_a_process_that_cannot_start_says_what_vpp_said(tmp_path: FilePath) -> None:

    broken = VppProcess(runtime_dir=tmp_path, config="unix { nodaemon }\nplugins { nonsense }\n")
    with pytest.raises(VppProcessError, match=r"ended with status|did not open"):
        broken.start()
    assert not broken.running
