"""A forwarder with two ports and a tester around it, by a kernel or by a VPP.

tester  west ----- to-west  router  to-east ----- east    prefixes by east
        (sends)
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.scenario import Endpoints, Port
from router_agent.vpp.process import VppProcess, startup_conf

EAST_MAC, ROUTER_MAC = "02:00:00:00:01:01", "02:00:00:00:02:00"
NEXT_HOP = "10.0.1.2"


def ip(*words: str, lines: Iterable[str] = ()) -> None:
    """Run ip(8); `lines` are a batch."""
    done = subprocess.run(
        ["ip", *words],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def prefixes(count: int) -> list[IPv4Network]:
    """Return so many prefixes."""
    return [IPv4Network((0x14000000 + (i << 8), 24)) for i in range(count)]


class _Forwarder:
    def __init__(self, tester: str, device: str) -> None:
        self.tester, self.device = tester, device
        self.endpoints = Endpoints(
            (Port("west", "west", tester, ROUTER_MAC), Port("east", "east", tester)),
        )


class KernelRouter(_Forwarder):
    """A kernel that forwards in a namespace of its own."""

    def __init__(self, tester: str, device: str) -> None:
        super().__init__(tester, device)
        self.counters = KernelForwarder(device, ["to-west", "to-east"])
        for i, port in enumerate(("to-west", "to-east")):
            ip("-n", device, "addr", "add", f"10.0.{i}.1/24", "dev", port)
        neighbour = ("neigh", "replace", NEXT_HOP, "lladdr", EAST_MAC, "dev", "to-east", "nud", "permanent")
        ip("-n", device, *neighbour)
        with inside(device):
            settings = Path("/proc/sys/net/ipv4")
            (settings / "ip_forward").write_text("1")
            for where in ("all", "to-west", "to-east"):
                (settings / "conf" / where / "rp_filter").write_text("0")

    def add(self, routes: Iterable[IPv4Network]) -> None:
        ip("-n", self.device, "-batch", "-", lines=(f"route replace {r} via {NEXT_HOP}" for r in routes))

    def remove(self, routes: Iterable[IPv4Network]) -> None:
        ip("-n", self.device, "-batch", "-", lines=(f"route del {r}" for r in routes))


class VppRouter(_Forwarder):
    """A VPP on packet sockets; it renews its node counters every second."""

    def __init__(self, tester: str, device: str, vpp: VppProcess) -> None:
        super().__init__(tester, device)
        self.vpp = vpp
        self.counters = VppForwarder(vpp.runtime_dir / "stats.sock", device)
        self.configure()

    def configure(self) -> None:
        """Give VPP its ports, as after each start."""
        for i, port in enumerate(("to-west", "to-east")):
            self.vpp.cli(f"create host-interface name {port} hw-addr 02:00:00:00:02:0{i}")
            self.vpp.cli(f"set interface state host-{port} up")
            self.vpp.cli(f"set interface ip address host-{port} 10.0.{i}.1/24")
        self.vpp.cli(f"set ip neighbor host-to-east {NEXT_HOP} {EAST_MAC}")

    def add(self, routes: Iterable[IPv4Network]) -> None:
        self._execute(f"ip route add {route} via {NEXT_HOP} host-to-east" for route in routes)

    def remove(self, routes: Iterable[IPv4Network]) -> None:
        self._execute(f"ip route del {route}" for route in routes)

    def _execute(self, commands: Iterable[str]) -> None:
        script = self.vpp.runtime_dir / "routes.cli"
        script.write_text("".join(f"{command}\n" for command in commands))
        answer = self.vpp.cli(f"exec {script}").strip()
        assert not answer, answer


@contextmanager
def kernel_router() -> Iterator[KernelRouter]:
    """Build one; everything is taken away at the end."""
    with _wires() as (tester, device):
        yield KernelRouter(tester, device)


@contextmanager
def vpp_router() -> Iterator[VppRouter]:
    """Build one; everything is taken away at the end."""
    directory = Path("/tmp", f"trv-{secrets.token_hex(3)}")
    config = startup_conf(runtime_dir=directory, heap="256M", statseg="64M")
    config = config.replace("  per-node-counters on\n", "  per-node-counters on\n  update-interval 1\n")
    try:
        with (
            _wires() as (tester, device),
            VppProcess(runtime_dir=directory, namespace=device, config=config) as vpp,
        ):
            yield VppRouter(tester, device, vpp)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _wires() -> Iterator[tuple[str, str]]:
    mark = secrets.token_hex(3)
    tester, device = f"trt-{mark}", f"trd-{mark}"
    try:
        for name in (tester, device):
            ip("netns", "add", name)
        for i, (port, mac) in enumerate((("west", "02:00:00:00:01:00"), ("east", EAST_MAC))):
            link = ("link", "add", port, "netns", tester, "address", mac, "type", "veth")
            ip(*link, "peer", "name", f"to-{port}", "netns", device, "address", f"02:00:00:00:02:0{i}")
            ip("-n", tester, "link", "set", port, "up")
            ip("-n", device, "link", "set", f"to-{port}", "up")
        yield tester, device
    finally:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "del", name], check=False)
