"""The tester's ports around the device under test, and what kind of wires lead to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from router_agent.traffic.scenario.errors import ScenarioError

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Tier(StrEnum):
    """What the wires are made of, and so what a result may claim.

    FUNCTIONAL: network namespaces and veth: right or wrong, and relative figures.
    SOFTWARE_CEILING: memif or a packet generator in memory: what the software can do without a NIC.
    LINE_RATE: NICs: the only tier that may say anything about line rate.
    """

    FUNCTIONAL = "functional"
    SOFTWARE_CEILING = "software ceiling"
    LINE_RATE = "line rate"

    @property
    def rank(self) -> int:
        """0 for the tier that may claim least."""
        return list(Tier).index(self)

    @property
    def claim(self) -> str:
        """What a result of this tier may claim."""
        return _CLAIMS[self]


_CLAIMS = {
    Tier.FUNCTIONAL: "packets leave by the right port, and figures of one run compare with each other; "
    "nothing about what NICs or this software reach",
    Tier.SOFTWARE_CEILING: "what the forwarding software reaches in memory; nothing about NICs and links",
    Tier.LINE_RATE: "what this device forwards from NIC to NIC",
}


class Wire(StrEnum):
    """What a port is driven through."""

    KERNEL = "kernel interface"
    MEMIF = "memif"
    PCI = "PCI device"


@dataclass(frozen=True)
class Port:
    """One port of the tester, facing one port of the router.

    Attributes:
        name: how people call it; appears in reports.
        interface: kernel interface name, or the control socket of a memif, or a PCI address: see `wire`.
        namespace: network namespace by name (``ip netns``); None is the current one.
        gateway_mac: MAC of the router's port on the other side, ``aa:bb:cc:dd:ee:ff``; needed to send.
        wire: what the port is driven through.
        memif_id: number of a memif on its socket.
        mac: the port's own MAC; None takes that of the kernel interface.
        udp_host: the packets end here, at the host they are addressed to: UDP sockets receive them, as a name
            server does, instead of a capture of the interface.
        link_bps: speed of the link in bits a second; None when nobody knows, or there is no link.
        pci_id: vendor and device of the NIC, "8086:1572"; empty when it is none, or nobody looked.
    """

    name: str
    interface: str
    namespace: str | None = None
    gateway_mac: str | None = None
    wire: Wire = Wire.KERNEL
    memif_id: int = 0
    mac: str | None = None
    link_bps: float | None = None
    udp_host: bool = False
    pci_id: str = ""

    def __post_init__(self) -> None:
        if not self.name or not self.interface:
            raise ScenarioError(
                f"a port needs a name and an interface, found {self.name!r}, {self.interface!r}"
            )
        for what, mac in (("gateway_mac", self.gateway_mac), ("mac", self.mac)):
            if mac is not None and not _MAC.fullmatch(mac.lower()):
                raise ScenarioError(f"port {self.name}: {what} is {mac!r}, expected aa:bb:cc:dd:ee:ff")


@dataclass(frozen=True)
class Endpoints:
    """The tester's ports around the device under test.

    Attributes:
        ports: every outer port; captured all the time. Port numbers in reports, in `Destinations.ingress`
            and in `Destinations.expected` are positions in this tuple.
    """

    ports: tuple[Port, ...]

    def __post_init__(self) -> None:
        if not self.ports:
            raise ScenarioError("a check needs at least one port of the tester, found none")
        names = self.names
        if len(set(names)) != len(names):
            raise ScenarioError(f"port names must differ, found {', '.join(names)}")

    @property
    def names(self) -> list[str]:
        """Names of the ports, in order."""
        return [port.name for port in self.ports]

    def position(self, name: str) -> int:
        """Return the position of a port.

        Raises:
            ScenarioError: there is none of that name.
        """
        if name not in self.names:
            raise ScenarioError(f"there is no port {name!r}, expected one of {', '.join(self.names)}")
        return self.names.index(name)

    def sender(self, position: int) -> Port:
        """Return a port that is to send.

        Raises:
            ScenarioError: there is none at this position, or it does not know the router's MAC.
        """
        if not 0 <= position < len(self.ports):
            raise ScenarioError(
                f"ingress is port {position}, expected 0 to {len(self.ports) - 1}: a position in `ports`"
            )
        port = self.ports[position]
        if port.gateway_mac is None:
            raise ScenarioError(f"port {port.name} sends: give it gateway_mac, the MAC of the router's port")
        return port
