"""Namespaces and wires of a lab of containers, and the way ssh takes to each host.

Each host has a network namespace of its own, which is there before it boots and stays while it reboots, as a
rack and its cables do. Rooms are namespaces without a host in them: neighbours and testers. No interface of a
lab ever appears in the namespace of the machine that runs it: hosts are managed through a namespace of their
own, which ssh enters to connect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from router_agent.lab.commands import NETNS_DIRECTORY, ip_batch
from router_agent.lab.errors import LabError
from router_agent.lab.plan import Interface
from router_agent.lab.processes import end_processes
from router_agent.lab.topology import QUIET, bring_up, set_sysctls

MANAGEMENT = "mgmt"
"""Room that ssh comes from."""

MANAGEMENT_INTERFACE = "mgmt0"
"""Interface of each host that leads there."""

MANAGEMENT_NETWORK = IPv4Network("198.20.0.0/16")
"""Of all management interfaces of a lab. Outside the address space that routers refuse to learn, as that of
the virtual POP host: a neighbour could announce a prefix in it."""

_MOST_HOSTS = 250
_NAME_BYTES = 15


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire.

    Attributes:
        place: name of a host or a room.
        interface: what it is called there.
        mac: its MAC; None has the kernel choose.
    """

    place: str
    interface: str
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """A cable between two places."""

    one: End
    other: End


def management_address(number: int) -> IPv4Interface:
    """Return the management address of a host, by its place in the list: each has a /24 of its own."""
    return IPv4Interface((MANAGEMENT_NETWORK[256 * (number + 1) + 2], 24))


def management_gateway(number: int) -> IPv4Interface:
    """Return the address at the other end of a host's management interface."""
    return IPv4Interface((MANAGEMENT_NETWORK[256 * (number + 1) + 1], 24))


def namespace_of(lab: str, place: str) -> str:
    """Return the namespace of a host or a room of a lab."""
    return f"{lab}-{place}"


class Wiring:
    """The namespaces of one lab.

    Args:
        name: of the lab; namespaces are called after it.
        hosts: names of the hosts.
        rooms: names of further namespaces.
        wires: between hosts and rooms.

    Raises:
        LabError: a name is too long, or there are two of it.
    """

    def __init__(
        self, name: str, hosts: Sequence[str], rooms: Sequence[str] = (), wires: Sequence[Wire] = ()
    ) -> None:
        self.hosts = tuple(hosts)
        self.rooms = (MANAGEMENT, *rooms)
        self._name = name
        self._wires = tuple(wires)
        places = [*self.hosts, *self.rooms]
        if len(set(places)) != len(places):
            raise LabError(f"found {', '.join(places)} as hosts and rooms, expected each name once")
        if len(self.hosts) > _MOST_HOSTS:
            raise LabError(f"found {len(self.hosts)} hosts, expected at most {_MOST_HOSTS}")
        for wire in (*self._management(), *self._wires):
            for end in (wire.one, wire.other):
                if end.place not in places:
                    raise LabError(f"found a wire to {end.place!r}, expected one of {', '.join(places)}")
                if len(end.interface) > _NAME_BYTES:
                    raise LabError(
                        f"found interface name {end.interface!r}, expected at most {_NAME_BYTES} characters"
                    )

    def namespace(self, place: str) -> str:
        """Return the namespace of a host or a room."""
        return namespace_of(self._name, place)

    @property
    def namespaces(self) -> list[str]:
        """Every namespace of the lab."""
        return [self.namespace(place) for place in (*self.hosts, *self.rooms)]

    def build(self) -> None:
        """Make namespaces and wires. Rooms are ready for addresses; hosts bring up their own ends.

        Raises:
            LabError: the kernel refused something.
        """
        ip_batch(f"netns add {namespace}" for namespace in self.namespaces)
        for room in self.rooms:
            set_sysctls(self.namespace(room), *QUIET)
            ip_batch(["link set dev lo up"], namespace=self.namespace(room))
        ip_batch(self._link(wire) for wire in (*self._management(), *self._wires))
        for number, host in enumerate(self.hosts):
            bring_up(self.namespace(MANAGEMENT), host, [management_gateway(number)])

    def bring_up(self, room: str, addresses: Mapping[str, Sequence[Interface]]) -> None:
        """Give interfaces of a room their addresses and set them up.

        Raises:
            LabError: the kernel refuses.
        """
        for interface, wanted in addresses.items():
            bring_up(self.namespace(room), interface, wanted)

    def set_management(self, host: str, *, up: bool) -> None:
        """Plug the cable of a host's management interface in, or pull it out at the far end.

        Raises:
            LabError: the kernel refuses.
        """
        ip_batch([f"link set dev {host} {'up' if up else 'down'}"], namespace=self.namespace(MANAGEMENT))

    def _management(self) -> list[Wire]:
        return [Wire(End(MANAGEMENT, host), End(host, MANAGEMENT_INTERFACE)) for host in self.hosts]

    def _link(self, wire: Wire) -> str:
        one, other = wire.one, wire.other
        return (
            f"link add name {one.interface} netns {self.namespace(one.place)} {_mac(one)} type veth "
            f"peer name {other.interface} netns {self.namespace(other.place)} {_mac(other)}"
        )


def remove_namespaces(namespaces: Sequence[str]) -> None:
    """Remove namespaces with what runs in them and the wires that end there; one that is gone is no fault.

    Raises:
        LabError: a process does not go.
    """
    present = [namespace for namespace in namespaces if (NETNS_DIRECTORY / namespace).exists()]
    for namespace in present:
        end_processes(namespace)
    ip_batch(f"netns del {namespace}" for namespace in present)


def _mac(end: End) -> str:
    return f"address {end.mac}" if end.mac else ""
