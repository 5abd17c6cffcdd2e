"""The tester's ports as DPDK devices: what its programs are told to make them, and how they answer to it.

Device arguments: doc/guides/nics/{memif,af_packet,pcap_ring}.rst of DPDK.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets import link
from router_agent.traffic.scenario import Endpoints, Port, Wire

_BLOCK = 1 << 17
_LEAST_SLOT = 1 << 11
_RING_FRAMES = 1 << 12
_RING_SHIFT = 12
"""Slots of a memif ring as a power of two: where cores are few, a thread may have to wait for its turn."""

_BIFURCATED = frozenset({"mlx4_core", "mlx5_core", "mana"})
"""Kernel drivers that share a NIC with DPDK; every other one has to give it away first."""
_USER_SPACE = frozenset({"vfio-pci", "uio_pci_generic", "igb_uio"})
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_PROMISC = 0x100
"""linux/sockios.h, linux/if.h."""
_PCI_DEVICES = Path("/sys/bus/pci/devices")


def name_of(port: Port, position: int) -> str:
    """Return the name by which DPDK knows a port."""
    match port.wire:
        case Wire.MEMIF:
            return f"net_memif{position}"
        case Wire.PCI:
            return port.interface
        case Wire.KERNEL:
            return f"net_af_packet{position}"


def arguments(endpoints: Endpoints, frame_bytes: int, *, serve: bool = False) -> list[str]:
    """Return the arguments that make the ports, and no other device.

    Args:
        endpoints: the tester's ports.
        frame_bytes: the longest frame.
        serve: whether to be the server of memifs, as a device under test is.

    Raises:
        GeneratorError: a port cannot be used, and what to do.
    """
    made = [_argument(port, i, frame_bytes, serve) for i, port in enumerate(endpoints.ports)]
    return made if any(port.wire is Wire.PCI for port in endpoints.ports) else ["--no-pci", *made]


def memory(endpoints: Endpoints, megabytes: int) -> list[str]:
    """Return the arguments about memory: huge pages only for NICs, which read and write it themselves.

    On the device under test huge pages belong to its forwarder, so software ports leave them alone.
    """
    hardware = any(port.wire is Wire.PCI for port in endpoints.ports)
    return ["-m", str(megabytes), "--huge-unlink" if hardware else "--no-huge"]


def namespace_of(ports: Iterable[Port]) -> str | None:
    """Return the one network namespace of the kernel interfaces among some ports.

    Raises:
        GeneratorError: there are several.
    """
    found = {port.namespace for port in ports if port.wire is Wire.KERNEL}
    if len(found) > 1:
        names = ", ".join(sorted(name or "this one" for name in found))
        raise GeneratorError(
            f"the ports are in the network namespaces {names}, expected one: a DPDK program lives in one"
        )
    return next(iter(found), None)


def _argument(port: Port, position: int, frame_bytes: int, serve: bool) -> str:
    name = name_of(port, position)
    match port.wire:
        case Wire.MEMIF:
            return _memif(port, name, frame_bytes, serve)
        case Wire.PCI:
            return _pci(port, name)
        case Wire.KERNEL:
            return _af_packet(port, name, frame_bytes)


def _memif(port: Port, name: str, frame_bytes: int, serve: bool) -> str:
    if not serve and not Path(port.interface).is_socket():
        raise GeneratorError(
            f"port {port.name}: there is no memif socket at {port.interface}; the device has to listen there "
            "(VPP: create memif socket ..., create interface memif ... master)"
        )
    if "," in port.interface:
        raise GeneratorError(f"port {port.name}: DPDK takes no socket path with a comma: {port.interface}")
    options = {
        "role": "server" if serve else "client",
        "id": str(port.memif_id),
        "socket": port.interface,
        "socket-abstract": "no",
        "rsize": str(_RING_SHIFT),
        "bsize": str(_slot(frame_bytes)),
    }
    return f"--vdev={name}," + ",".join(f"{key}={value}" for key, value in options.items())


def _af_packet(port: Port, name: str, frame_bytes: int) -> str:
    try:
        with inside(port.namespace):
            present = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    except (OSError, NamespaceError) as error:
        raise GeneratorError(f"port {port.name}: {error}") from error
    if port.interface not in {line.partition(":")[0].strip() for line in present}:
        where = f"namespace {port.namespace}" if port.namespace else "this namespace"
        raise GeneratorError(f"port {port.name}: there is no interface {port.interface!r} in {where}")
    # the kernel puts its header before the frame in each slot (PACKET_MMAP, Documentation/networking)
    slot = _slot(frame_bytes + 128)
    options = {
        "iface": port.interface,
        "blocksz": str(_BLOCK),
        "framesz": str(slot),
        "framecnt": str(_RING_FRAMES),
        "qdisc_bypass": "1",
    }
    return f"--vdev={name}," + ",".join(f"{key}={value}" for key, value in options.items())


def _pci(port: Port, name: str) -> str:
    device = _PCI_DEVICES / name
    if not device.exists():
        raise GeneratorError(f"port {port.name}: there is no PCI device {name}")
    bound = device / "driver"
    driver = bound.resolve().name if bound.exists() else "none"
    if driver not in _USER_SPACE | _BIFURCATED:
        raise GeneratorError(
            f"port {port.name}: {name} has driver {driver}, expected vfio-pci; if the NIC is the tester's "
            f"alone: driverctl set-override {name} vfio-pci"
        )
    return f"--allow={name}"


def _slot(octets: int) -> int:
    """Return the least power of two, from 2,048 on, that holds so many bytes."""
    return max(_LEAST_SLOT, 1 << (octets - 1).bit_length())


def numbers(names: Sequence[str], known: dict[str, int]) -> list[int]:
    """Return the numbers that DPDK gave to devices.

    Raises:
        GeneratorError: it does not have one of them.
    """
    missing = [name for name in names if name not in known]
    if missing:
        found = ", ".join(sorted(known)) or "none"
        raise GeneratorError(f"DPDK has no device {', '.join(missing)}; it has {found}")
    return [known[name] for name in names]


def mac_of(port: Port, position: int) -> bytes:
    """Return the MAC that a port's frames come from.

    Raises:
        GeneratorError: its kernel interface cannot be read.
    """
    if port.mac is None and port.wire is not Wire.KERNEL:
        return bytes((0x02, 0, 0, 0, 0xFE, position))
    return link.mac_of(port) if port.mac is None else bytes.fromhex(port.mac.replace(":", ""))


@contextmanager
def flags_kept(ports: Sequence[Port]) -> Iterator[None]:
    """Give kernel interfaces their flags back at the end: DPDK makes them promiscuous and leaves them so.

    Raises:
        GeneratorError: an interface cannot be read.
    """
    before = {port: _flags(port) & _IFF_PROMISC for port in ports if port.wire is Wire.KERNEL}
    try:
        yield
    finally:
        for port, was in before.items():
            # an interface that is gone by now has no flags to give back
            with suppress(GeneratorError):
                now = _flags(port)
                if now & _IFF_PROMISC != was:
                    _flags(port, now & ~_IFF_PROMISC | was)


def _flags(port: Port, wanted: int | None = None) -> int:
    """Return the flags of a kernel interface, after setting them if any are wanted (netdevice(7))."""
    name = port.interface.encode()
    with inside(port.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            if wanted is not None:
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name, wanted))
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))
        except OSError as error:
            raise GeneratorError(f"port {port.name}: {port.interface}: {error.strerror}") from error
    return int(struct.unpack_from("16xH", answer)[0])
