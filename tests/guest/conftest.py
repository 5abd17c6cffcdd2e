"""A VPP with linux-cp in earnest: ports on veth pairs, their TAPs in a namespace of the control plane.

    namespace far   p0 ─ veth ─ v0 ══ VPP port host-v0 ══ TAP eth0   namespace cp
                    p1 ─ veth ─ v1 ══ VPP port host-v1 ══ TAP eth1

Skipped where the kernel cannot make what linux-cp needs; `machine.py` runs them where it can.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from router_agent.vpp.process import VppProcess, startup_conf

MODULES = ("vhost_net", "vrf", "8021q", "dummy", "bonding", "mpls_router", "mpls_iptunnel")
PLUGINS = ("linux_cp_plugin.so", "af_packet_plugin.so", "tap_plugin.so", "ping_plugin.so")
SECONDS = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why."""
    absent = [module for module in MODULES if not _loaded(module)]
    reason = f"the kernel has no {', '.join(absent)}: run `make guest`" if absent else None
    if shutil.which("vpp") is None:
        reason = "needs a real VPP; `vpp` is not on PATH"
    for item in items:
        if reason and "tests/guest" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


def _loaded(module: str) -> bool:
    done = subprocess.run(["modprobe", "-q", module], check=False, capture_output=True)
    return done.returncode == 0


def run(*argv: str) -> str:
    """Return what a command prints; its error when it fails."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def until(found: Callable[[], Any], wanted: Any, what: str) -> None:
    """Wait until something is as wanted; show what was found instead when it does not come to that."""
    deadline = time.monotonic() + SECONDS
    while (last := found()) != wanted:
        assert time.monotonic() < deadline, f"{what}: found {last!r}, expected {wanted!r}"
        time.sleep(0.1)


class Router:
    """VPP, and the namespaces around it."""

    def __init__(self, directory: Path) -> None:
        name = f"g{secrets.token_hex(3)}"
        self.control, self.far = f"{name}cp", f"{name}far"
        self._ports = [f"{name}v{number}" for number in range(2)]
        config = startup_conf(runtime_dir=directory, heap="256M", buffers=8192, plugins=PLUGINS)
        config += f"linux-cp {{\n  default netns {self.control}\n}}\n"
        # Polling would take the emulated processor from everybody else.
        config = config.replace("unix {", "unix {\n  poll-sleep-usec 1000", 1)
        self.vpp = VppProcess(runtime_dir=directory, config=config)
        self.directory = directory

    def build(self, stack: ExitStack) -> None:
        """Make namespaces and cables, and start VPP."""
        for namespace in (self.control, self.far):
            run("ip", "netns", "add", namespace)
            stack.callback(run, "ip", "netns", "del", namespace)
        for number, port in enumerate(self._ports):
            run("ip", "link", "add", port, "type", "veth", "peer", "name", f"p{number}", "netns", self.far)
            run("ip", "-n", self.far, "link", "set", f"p{number}", "up")
            run("ip", "link", "set", port, "up")
            run("sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1")
        self.ip("link", "set", "lo", "up")
        stack.enter_context(self.vpp)
        self.add_ports()

    def add_ports(self) -> None:
        """Make VPP's ports and their pairs, as an operator does after VPP started."""
        for number, port in enumerate(self._ports):
            self.vpp.cli(f"create host-interface name {port}")
            self.pair(f"host-{port}", f"eth{number}")

    def port(self, number: int) -> str:
        """Return VPP's name of a port."""
        return f"host-{self._ports[number]}"

    def pair(self, port: str, name: str) -> None:
        """Pair a VPP interface with a new TAP of the control plane."""
        said = self.vpp.cli(f"lcp create {port} host-if {name}")
        assert not said.strip(), said

    def ip(self, *words: str) -> str:
        """Run iproute2 in the control plane's namespace."""
        return run("ip", "-n", self.control, *words)

    def index(self, name: str) -> int:
        """Return the ifindex of a control-plane interface."""
        return int(self.ip("-o", "link", "show", "dev", name).split(":")[0])

    def shown(self, port: str) -> str:
        """Return what VPP shows of an interface's addresses and table."""
        lines = self.vpp.cli("show interface addr").splitlines()
        found, inside = [], False
        for line in lines:
            if not line.startswith(" "):
                inside = line.split(" ")[0] == port
            if inside:
                found.append(line.strip())
        return "\n".join(found)

    def addresses(self, port: str) -> set[str]:
        """Return the addresses VPP has on an interface, with prefix lengths, link-local ones left out."""
        words = self.shown(port).split()
        return {word for before, word in pairwise(words) if before == "L3"}


@pytest.fixture
def router() -> Iterator[Router]:
    """A router, taken down afterwards."""
    with tempfile.TemporaryDirectory(prefix="g") as directory, ExitStack() as stack:
        found = Router(Path(directory))
        found.build(stack)
        yield found
