"""The forwarding planes a lab may have: a kernel in a namespace of its own, or a real VPP.

Both forward between the same ports and hold what the agent writes, nothing else.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from typing import Any, Protocol

from router_agent.fibs.fib import FibError
from router_agent.lab.errors import LabError
from router_agent.lab.plan import PORTS
from router_agent.lab.render import render
from router_agent.lab.topology import Topology
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.vpp.ports import create_host_port
from router_agent.vpp.process import VppProcess, VppProcessError
from router_agent.vpp.session import VppSession

PROTOCOL = 44
"""Protocol id of the agent's routes in the forwarding namespace."""
SOURCE = "router-agent"
"""Name of the agent's FIB source in VPP."""

_VPP_PLUGINS = ("af_packet",)


class Plane(Protocol):
    """A forwarding plane."""

    @property
    def kind(self) -> str:
        """``kernel`` or ``vpp``."""

    def start(self) -> None:
        """Bring it up with its ports and an empty FIB.

        Raises:
            LabError: it does not come up.
        """

    def stop(self) -> None:
        """End it in order; idempotent."""

    def kill(self) -> None:
        """End it as a crash would: its FIB is gone."""

    def fib(self) -> dict[str, Any]:
        """Return what agent.yaml says about it."""

    def counters(self) -> CounterSource:
        """Return its counters for the packet ledger."""


class KernelPlane:
    """The kernel of the forwarding namespace. It runs as soon as the topology is built.

    Args:
        topology: of the lab.
    """

    kind = "kernel"

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def start(self) -> None:
        """Build the namespace again when it was killed; see `Plane`."""
        if not self._topology.has_forwarding:
            self._topology.build_forwarding(kernel_forwards=True)

    def stop(self) -> None:
        """Do nothing: the topology's teardown does it."""

    def kill(self) -> None:
        """Take the namespace away with all its wires; see `Plane`."""
        self._topology.remove_forwarding()

    def fib(self) -> dict[str, Any]:
        """Return what agent.yaml says about it; see `Plane`."""
        return {
            "kind": "kernel",
            "namespace": self._topology.forwarding,
            "protocol": PROTOCOL,
            "metric": 20,
            "on_link": True,
            "interfaces": {port.name: port.name for port in PORTS},
        }

    def counters(self) -> CounterSource:
        """Return the namespace's counters; see `Plane`."""
        return KernelForwarder(self._topology.forwarding, [port.name for port in PORTS])


class VppPlane:
    """A VPP on packet sockets over the same ports.

    A packet socket is handed every packet before ``tc`` ingress, and those the control plane sends as well.
    So nothing may be done twice: the kernel forwards nothing here and drops what the mirror leaves over. VPP
    drops what the control plane sends (``ethernet-input: l3 mac mismatch``), ARP (``arp-reply: IP4
    destination address not local``), link-local multicast (``ip6-input: Multicast RPF check failed``), and
    what goes to the router's own addresses, for which it has drop routes, each with a counter of its own in
    ``show ip fib``.

    Args:
        topology: of the lab.
    """

    kind = "vpp"

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        directory = topology.directory / "vpp"
        self.process = VppProcess(
            runtime_dir=directory,
            namespace=topology.forwarding,
            config=render(
                "startup.conf.j2",
                hostname="pop1",
                runtime_dir=directory,
                api_socket=directory / "api.sock",
                api_prefix=topology.vpp_prefix,
                memory={"heap": "2G", "stats": "512M", "page_size": "4k"},
                buffers_per_numa=16_384,
                plugins=_VPP_PLUGINS,
            ),
        )

    def start(self) -> None:
        """Start VPP and give it its ports; see `Plane`."""
        try:
            self.process.start()
            asyncio.run(self._make_ports())
            for command in self._drop_routes():
                self._cli(command)
        except (VppProcessError, FibError) as error:
            raise LabError(f"VPP: {error}") from error

    def stop(self) -> None:
        """End VPP; see `Plane`."""
        self.process.stop()

    def kill(self) -> None:
        """Kill VPP; see `Plane`."""
        self.process.kill()

    def fib(self) -> dict[str, Any]:
        """Return what agent.yaml says about it; see `Plane`."""
        return {
            "kind": "vpp",
            "api_socket": str(self.process.api_socket),
            "source": SOURCE,
            "interfaces": {port.name: f"host-{port.name}" for port in PORTS},
        }

    def counters(self) -> CounterSource:
        """Return VPP's counters, and those of the ports below it; see `Plane`."""
        return VppForwarder(self.process.runtime_dir / "stats.sock", self._topology.forwarding)

    async def _make_ports(self) -> None:
        session = VppSession(api_socket=self.process.api_socket, name=f"lab-{os.getpid()}")
        await session.open()
        try:
            for port in PORTS:
                mac = bytes.fromhex(port.mac.replace(":", ""))
                await create_host_port(session, host_interface=port.name, mac=mac)
        finally:
            await session.close()

    def _drop_routes(self) -> Iterator[str]:
        for address in self._topology.local_addresses:
            yield f"ip route add {address}/{address.max_prefixlen} via drop"

    def _cli(self, command: str) -> None:
        answer = self.process.cli(command).strip()
        if answer:
            raise LabError(f"vppctl {command}: found {answer!r}, expected silence")


def vpp_available() -> bool:
    """Return whether a VPP is installed."""
    return shutil.which("vpp") is not None and shutil.which("vppctl") is not None
