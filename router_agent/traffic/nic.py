"""What the driver of a network interface says of it: SIOCETHTOOL of linux/ethtool.h, as ethtool(8) asks.

Every function takes an interface and the network namespace it is in, None for the current one. A driver need
not answer any of it: what it does not know is empty or None. An interface that is not there is an error.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

from router_agent.namespaces import inside

_SIOCETHTOOL = 0x8946
_GDRVINFO, _GLINK, _GSTRINGS, _GSTATS, _GRXFH, _GCHANNELS = 0x03, 0x0A, 0x1B, 0x1D, 0x29, 0x3C
_DRVINFO = struct.Struct("=I32s32s32s32s32s12s5I")
_STATS_SET, _NAME_BYTES = 1, 32
"""``ETH_SS_STATS``, ``ETH_GSTRING_LEN``."""
_RXNFC_BYTES = 512
"""More than ``struct ethtool_rxnfc`` takes: command, flow type and data come first, filters after them."""
_UDP_V4_FLOW, _UDP_V6_FLOW = 2, 6
_HASHED = {
    1 << 4: "source address",
    1 << 5: "destination address",
    1 << 6: "source port",
    1 << 7: "destination port",
}
"""``RXH_IP_SRC``, ``RXH_IP_DST``, ``RXH_L4_B_0_1``, ``RXH_L4_B_2_3``."""
_UNKNOWN_TO_DRIVER = (errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True)
class Driver:
    """Name, version and firmware of a driver, and its device's PCI address, empty for a virtual one."""

    name: str
    version: str
    firmware: str
    bus: str


@dataclass(frozen=True)
class Channels:
    """Queues in use; combined ones count on both sides."""

    receive: int
    transmit: int


def driver(interface: str, namespace: str | None = None) -> Driver | None:
    """Return the driver; None when it does not tell (``lo``).

    Raises:
        OSError: there is no such interface.
    """
    answer = _ask(interface, namespace, _GDRVINFO, bytes(_DRVINFO.size - 4))
    if answer is None:
        return None
    fields = _DRVINFO.unpack(answer)
    name, version, firmware, bus = (_text(field) for field in fields[1:5])
    return Driver(name, version, firmware, bus)


def carrier(interface: str, namespace: str | None = None) -> bool | None:
    """Return whether the interface is up and has a carrier now; None when the driver does not tell.

    The operational state (``IFF_RUNNING``) follows up to a second later: net/core/link_watch.c takes changes
    of carrier once a second.

    Raises:
        OSError: there is no such interface.
    """
    answer = _ask(interface, namespace, _GLINK, bytes(4))
    return None if answer is None else bool(struct.unpack("=4xI", answer)[0])


def channels(interface: str, namespace: str | None = None) -> Channels | None:
    """Return the queues in use; None when the driver does not tell.

    Raises:
        OSError: there is no such interface.
    """
    answer = _ask(interface, namespace, _GCHANNELS, bytes(32))
    if answer is None:
        return None
    receive, transmit, _, combined = struct.unpack("=20x4I", answer)
    return Channels(receive + combined, transmit + combined)


def statistics(interface: str, namespace: str | None = None) -> dict[str, int]:
    """Return the driver's counters by its own names (``ethtool -S``); empty when it has none.

    vmxnet3 repeats names, once a queue: these are added up.

    Raises:
        OSError: there is no such interface.
    """
    info = _ask(interface, namespace, _GDRVINFO, bytes(_DRVINFO.size - 4))
    count: int = 0 if info is None else _DRVINFO.unpack(info)[8]
    if not count:
        return {}
    # kernels before 6.14 write as many as they have now, which is more when queues were added in between
    room = 2 * count + 256
    head = struct.pack("=II", _STATS_SET, count)
    names = _ask(interface, namespace, _GSTRINGS, head + bytes(_NAME_BYTES * room))
    values = _ask(interface, namespace, _GSTATS, struct.pack("=I", count) + bytes(8 * room))
    if names is None or values is None:
        return {}
    (named,), (valued,) = struct.unpack_from("=8xI", names), struct.unpack_from("=4xI", values)
    if not named == valued == count:
        raise OSError(
            errno.EAGAIN,
            f"interface {interface!r} has {count} counters, {named} names and {valued} values: its queues "
            "are being changed, read again",
        )
    texts = (_text(names[12 + _NAME_BYTES * i : 12 + _NAME_BYTES * (i + 1)]) for i in range(named))
    found: dict[str, int] = {}
    for text, value in zip(texts, struct.unpack_from(f"=8x{named}Q", values), strict=True):
        if text:
            found[text] = found.get(text, 0) + value
    return found


def udp_hash(interface: str, namespace: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return which fields of UDP packets choose the receive queue, by family; empty when it is not told.

    This is ``ethtool -n INTERFACE rx-flow-hash udp4``.

    Raises:
        OSError: there is no such interface.
    """
    found: dict[str, tuple[str, ...]] = {}
    for family, flow in (("IPv4", _UDP_V4_FLOW), ("IPv6", _UDP_V6_FLOW)):
        request = struct.pack("=IQ", flow, 0)
        answer = _ask(interface, namespace, _GRXFH, request + bytes(_RXNFC_BYTES - 4 - len(request)))
        if answer is not None:
            (fields,) = struct.unpack_from("=Q", answer, 8)
            found[family] = tuple(name for bit, name in _HASHED.items() if fields & bit)
    return found


def _ask(interface: str, namespace: str | None, command: int, rest: bytes) -> bytes | None:
    """Return a command's answer, or None when the driver does not know the command."""
    buffer = array.array("B", struct.pack("=I", command) + rest)
    request = struct.pack("16sP16x", interface.encode(), buffer.buffer_info()[0])
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno in _UNKNOWN_TO_DRIVER:
                return None
            raise OSError(error.errno, f"interface {interface!r}: {error.strerror}") from error
    return buffer.tobytes()


def _text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode(errors="replace")
