"""Whether a port can be used: it is there, up, and has a carrier; its MAC and its queues."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic import nic
from router_agent.traffic.counters.ethtool import hash_in_words
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets.plan import Queues
from router_agent.traffic.scenario import Port, Wire

_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
"""linux/if.h; RUNNING is the operational state (RFC 2863), which follows the carrier with a delay."""


def mac_of(port: Port) -> bytes:
    """Return the MAC of a tester's port: its own, or that of its interface.

    Raises:
        GeneratorError: it is no kernel interface, there is none of that name, or we may not open packet
            sockets.
    """
    if port.wire is not Wire.KERNEL:
        raise GeneratorError(f"port {port.name} is a {port.wire}, expected a {Wire.KERNEL} for sockets")
    if port.mac is not None:
        return bytes.fromhex(port.mac.replace(":", ""))
    try:
        with inside(port.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
            probe.bind((port.interface, 0))
            mac: bytes = probe.getsockname()[4]
            return mac
    except (OSError, NamespaceError) as error:
        raise _unusable(port, error) from error


def require_up(port: Port) -> None:
    """Refuse a port that cannot carry packets now.

    Raises:
        GeneratorError: it is missing, down, or has no carrier.
    """
    request = struct.pack("16sH14x", port.interface.encode(), 0)
    try:
        with inside(port.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            (flags,) = struct.unpack("16xH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        carrier = nic.carrier(port.interface, port.namespace)
    except (OSError, NamespaceError) as error:
        raise _unusable(port, error) from error
    if not flags & _IFF_UP:
        raise GeneratorError(
            f"port {port.name}: interface {port.interface!r} is down; bring it up with "
            f"'ip link set {port.interface} up'"
        )
    # A carrier that has just gone is known to the driver first; one that has come is of use when the kernel
    # says so.
    if carrier is False or not flags & _IFF_RUNNING:
        raise GeneratorError(
            f"port {port.name}: interface {port.interface!r} has no carrier; check the cable and the port on "
            "the other side"
        )


def queues_of(port: Port) -> Queues:
    """Return the queues of a port; one each when the driver does not tell.

    Raises:
        GeneratorError: there is no such interface.
    """
    try:
        found = nic.channels(port.interface, port.namespace)
    except (OSError, NamespaceError) as error:
        raise _unusable(port, error) from error
    return Queues() if found is None else Queues(found.receive, found.transmit)


def pci_of(port: Port) -> str:
    """Return the PCI address of a port's NIC; empty for a virtual one."""
    found = nic.driver(port.interface, port.namespace)
    return "" if found is None else found.bus


def udp_hash_of(port: Port) -> str:
    """Return by what a port chooses the receive queue of UDP packets; empty when it has one, or is silent."""
    found = nic.channels(port.interface, port.namespace)
    hashed = nic.udp_hash(port.interface, port.namespace)
    return hash_in_words(hashed) if hashed and found is not None and found.receive > 1 else ""


def _unusable(port: Port, error: Exception) -> GeneratorError:
    where = f"namespace {port.namespace}" if port.namespace else "this namespace"
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    advice = "; run with CAP_NET_RAW (as root)" if getattr(error, "errno", 0) == errno.EPERM else ""
    return GeneratorError(
        f"port {port.name}: cannot use interface {port.interface!r} in {where}: {reason}{advice}"
    )
