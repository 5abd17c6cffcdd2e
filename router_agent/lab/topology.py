"""Namespaces and wires of the lab.

Everything of a lab carries its name, so that several can live at once and a stale one (its process was
killed) is found by name and removed. No interface ever appears in the host's own namespace.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from router_agent.lab.commands import NETNS_DIRECTORY, inside, ip_batch, run, tc_batch
from router_agent.lab.errors import LabError
from router_agent.lab.mirror import mirror_rules
from router_agent.lab.plan import PORTS, Interface, Port
from router_agent.lab.processes import end_processes
from router_agent.model import Address, Family

RUNTIME = Path("/run/router-agent-lab")
"""Parent of the labs' directories: short, because socket paths are limited, and readable by FRR's user."""

FRR_RUNTIME = Path("/run/frr")

LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (POSIX shared memory, not a temporary file)

_SUFFIXES = ("upstream", "pop1", "pop1-fwd", "tester")

QUIET = (
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.dad_transmits=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.rp_filter=0",
)
"""Addresses are usable at once, and nothing speaks unless it is asked."""

_LARGE_TABLES = ("net.ipv6.route.max_size=16777216",)
"""Kernels before 6.3 hold 4,096 IPv6 routes by default."""


class Topology:
    """The namespaces of one lab.

    Args:
        name: of the lab: lower-case letters, digits and hyphens, at most 24.

    Attributes:
        directory: configurations, sockets and logs of the lab's daemons.
        frr_runtime: where the POP's FRR has its sockets.
        vpp_prefix: how the POP's VPP names its shared memory.

    Raises:
        LabError: the name cannot be used.
    """

    def __init__(self, name: str) -> None:
        if not LAB_NAME.fullmatch(name):
            raise LabError(f"found lab name {name!r}, expected up to 24 of a-z, 0-9 and '-', a letter first")
        self.name = name
        self.directory = RUNTIME / name
        self.frr_runtime = FRR_RUNTIME / self.pop
        self.vpp_prefix = f"router-agent-lab-{name}"

    def namespace(self, suffix: str) -> str:
        """Return the name of a namespace of this lab."""
        return f"{self.name}-{suffix}"

    @property
    def upstream(self) -> str:
        """Namespace of the upstream router."""
        return self.namespace("upstream")

    @property
    def pop(self) -> str:
        """Namespace of the POP's control plane."""
        return self.namespace("pop1")

    @property
    def forwarding(self) -> str:
        """Namespace of the POP's forwarding plane."""
        return self.namespace("pop1-fwd")

    @property
    def tester(self) -> str:
        """Namespace of the sender and the receiver."""
        return self.namespace("tester")

    @property
    def local_addresses(self) -> tuple[Address, ...]:
        """The POP's own addresses on all ports."""
        return tuple(port.address(family).ip for port in PORTS for family in Family)

    def build(self, *, kernel_forwards: bool) -> None:
        """Make namespaces, wires, addresses and mirrors; what a lab of this name left is removed first.

        Args:
            kernel_forwards: the kernel of the forwarding namespace is the FIB; otherwise it forwards nothing,
                because VPP, on packet sockets, has seen every packet before.

        Raises:
            LabError: not root, or the kernel refused something.
        """
        if os.geteuid() != 0:
            raise LabError("found an ordinary user, expected root: namespaces need it")
        self.remove()
        self.directory.mkdir(parents=True, mode=0o755)
        steady = [self.namespace(suffix) for suffix in _SUFFIXES if self.namespace(suffix) != self.forwarding]
        ip_batch(f"netns add {name}" for name in steady)
        for name in steady:
            set_sysctls(name, *QUIET)
            ip_batch(["link set dev lo up"], namespace=name)
        set_sysctls(self.pop, *_LARGE_TABLES)
        # Two interfaces of the tester, two neighbours: each answers for its own address only.
        set_sysctls(self.tester, "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        self.build_forwarding(kernel_forwards=kernel_forwards)

    def build_forwarding(self, *, kernel_forwards: bool) -> None:
        """Make the forwarding plane's namespace and all wires to it, as if the box had been plugged in.

        Raises:
            LabError: the kernel refused something.
        """
        ip_batch([f"netns add {self.forwarding}"])
        set_sysctls(self.forwarding, *QUIET)
        ip_batch(line for port in PORTS for line in self._wires(port))
        set_sysctls(self.forwarding, *_forwarding_sysctls(kernel_forwards=kernel_forwards))
        ends = [name for port in PORTS for name in (port.name, port.mirror)]
        ip_batch(
            ["link set dev lo up", *(f"link set dev {end} addrgenmode none up" for end in ends)],
            namespace=self.forwarding,
        )
        rules = [rule for port in PORTS for rule in mirror_rules(port, self.local_addresses)]
        tc_batch(rules, namespace=self.forwarding)
        for port in PORTS:
            bring_up(self.pop, port.name, [port.address(family) for family in Family])
            far = self.namespace(port.far_namespace)
            bring_up(far, port.far_name, [port.far_address(family) for family in Family])

    def remove_forwarding(self) -> None:
        """Take the forwarding plane away with its namespace and all wires, as if the box had been unplugged.

        The links go one by one: others may hold sockets in the namespace and keep it alive.
        """
        end_processes(self.forwarding)
        ends = [name for port in PORTS for name in (port.name, port.mirror)]
        ip_batch((f"link del dev {end}" for end in ends), namespace=self.forwarding)
        ip_batch([f"netns del {self.forwarding}"])

    def remove(self) -> None:
        """Remove whatever there is of a lab of this name: processes, namespaces, wires, directories."""
        present = [name for name in map(self.namespace, _SUFFIXES) if (NETNS_DIRECTORY / name).exists()]
        for name in present:
            end_processes(name)
        ip_batch(f"netns del {name}" for name in present)
        for directory in (self.directory, self.frr_runtime):
            if directory.exists():
                shutil.rmtree(directory)
        for leftover in SHARED_MEMORY.glob(f"{self.vpp_prefix}-*"):
            leftover.unlink()

    @property
    def present(self) -> bool:
        """Whether there is anything of a lab of this name."""
        return self.directory.exists() or any(
            (NETNS_DIRECTORY / self.namespace(s)).exists() for s in _SUFFIXES
        )

    @property
    def has_forwarding(self) -> bool:
        """Whether the forwarding plane's namespace is there."""
        return (NETNS_DIRECTORY / self.forwarding).exists()

    def set_link(self, port: Port, *, up: bool) -> None:
        """Set the neighbour's end of a wire up or down; the port loses its carrier, or has it again.

        The neighbour's IPv6 address goes with the link and is put back.
        """
        far = self.namespace(port.far_namespace)
        if not up:
            ip_batch([f"link set dev {port.far_name} down"], namespace=far)
            return
        bring_up(far, port.far_name, [port.far_address(family) for family in Family])

    def _wires(self, port: Port) -> Iterator[str]:
        far = self.namespace(port.far_namespace)
        yield (
            f"link add name {port.name} netns {self.forwarding} address {port.mac} type veth "
            f"peer name {port.far_name} netns {far} address {port.far_mac}"
        )
        yield (
            f"link add name {port.mirror} netns {self.forwarding} type veth "
            f"peer name {port.name} netns {self.pop} address {port.mac}"
        )


def _forwarding_sysctls(*, kernel_forwards: bool) -> Iterator[str]:
    yield from _LARGE_TABLES
    yield f"net.ipv4.ip_forward={int(kernel_forwards)}"
    yield f"net.ipv6.conf.all.forwarding={int(kernel_forwards)}"
    yield "net.ipv4.conf.all.send_redirects=0"
    for port in PORTS:
        yield f"net.ipv4.conf.{port.name}.send_redirects=0"
        # Who is where is asked by the control plane; an unknown neighbour is unreachable at once.
        for family in ("ipv4", "ipv6"):
            yield f"net.{family}.neigh.{port.name}.ucast_solicit=0"
            yield f"net.{family}.neigh.{port.name}.mcast_solicit=0"


def set_sysctls(namespace: str, *settings: str) -> None:
    """Set sysctls in a namespace, each ``name=value``.

    Raises:
        LabError: the kernel refuses one.
    """
    run(inside(namespace, "sysctl", "-q", "-w", *settings))


def bring_up(namespace: str, interface: str, addresses: Sequence[Interface]) -> None:
    """Give an interface its addresses and set it up.

    Raises:
        LabError: the kernel refuses.
    """
    lines = [f"address replace {address} dev {interface}" for address in addresses]
    ip_batch([f"link set dev {interface} up", *lines], namespace=namespace)
    plain_packets(namespace, interface)


def plain_packets(namespace: str, interface: str) -> None:
    """Make a virtual interface behave like a wire: whole checksums, no packets beyond the MTU.

    Raises:
        LabError: there is no ethtool, or the kernel refuses.
    """
    run(inside(namespace, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"))
