"""The tester's ports around the device under test, and what kind of wires lead to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from router_agent.traffic.scenario.errors import ScenarioError

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MEMIF = "memif:"
_LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path (unix(7))."""


class Tier(StrEnum):
    """What the wires are made of, and so what a result may claim.

    FUNCTIONAL: network namespaces and veth: right or wrong, and relative figures.
    SOFTWARE_CEILING: memif or a packet generator in memory: what the software can do without a NIC.
    LINE_RATE: NICs: the only tier that may say anything about line rate.
    """

    FUNCTIONAL = "functional"
    SOFTWARE_CEILING = "software ceiling"
    LINE_RATE = "line rate"


class Wire(StrEnum):
    """What a port is made of."""

    KERNEL = "kernel interface"
    MEMIF = "memif"
    PCI = "PCI NIC in user space"


@dataclass(frozen=True)
class Memif:
    """One end of a shared-memory interface; the device under test is its server (VPP: master).

    Attributes:
        socket: path of the server's Unix socket.
        id: tells interfaces of one socket apart.
    """

    socket: Path
    id: int


@dataclass(frozen=True)
class Port:
    """One port of the tester, facing one port of the router.

    Attributes:
        name: how people call it; appears in reports.
        interface: kernel interface name; or ``memif:SOCKET/ID``; or the PCI address ``0000:03:00.0`` of a
            NIC that a generator drives in user space.
        namespace: network namespace by name (``ip netns``); None is the current one.
        gateway_mac: MAC of the router's port on the other side, ``aa:bb:cc:dd:ee:ff``; needed to send.
        mac: MAC of the port itself; None where the generator can read it or may choose one.
    """

    name: str
    interface: str
    namespace: str | None = None
    gateway_mac: str | None = None
    mac: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.interface:
            raise ScenarioError(
                f"a port needs a name and an interface, found {self.name!r}, {self.interface!r}"
            )
        for what, mac in (("gateway_mac", self.gateway_mac), ("mac", self.mac)):
            if mac is not None and not _MAC.fullmatch(mac.lower()):
                raise ScenarioError(f"port {self.name}: {what} is {mac!r}, expected aa:bb:cc:dd:ee:ff")
        if self.wire is Wire.MEMIF:
            _ = self.memif

    @property
    def wire(self) -> Wire:
        """What it is made of, as its interface says."""
        if self.interface.startswith(_MEMIF):
            return Wire.MEMIF
        return Wire.PCI if _PCI.fullmatch(self.interface.lower()) else Wire.KERNEL

    @property
    def memif(self) -> Memif:
        """Socket and id of a memif.

        Raises:
            ScenarioError: it is none, or its interface is not ``memif:SOCKET/ID``.
        """
        socket, _, number = self.interface.removeprefix(_MEMIF).rpartition("/")
        if self.wire is not Wire.MEMIF or not socket.startswith("/") or not number.isdecimal():
            raise ScenarioError(
                f"port {self.name}: interface is {self.interface!r}, expected memif:/run/device/memif.sock/0"
            )
        if len(socket.encode()) > _LONGEST_SOCKET:
            raise ScenarioError(
                f"port {self.name}: socket path {socket} has {len(socket.encode())} bytes, the most is "
                f"{_LONGEST_SOCKET}"
            )
        return Memif(Path(socket), int(number))


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
