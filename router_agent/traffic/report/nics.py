"""NICs as a reader of a report wants them: driver, firmware, place, link, rings and queues.

NICs that the PCI bus has are listed whoever drives them: one that VPP or a DPDK generator took (vfio-pci) has
no network interface, so of its link nothing is known here.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from router_agent.host.reader import Reader

_PCI = "sys/bus/pci/devices"
_ETHERNET = "0x0200"
"""PCI class of Ethernet controllers: base class 02, subclass 00."""

# linux/sockios.h and linux/ethtool.h
_SIOCETHTOOL = 0x8946
_GDRVINFO, _GRINGPARAM, _GCHANNELS = 0x03, 0x10, 0x3C
_DRVINFO = struct.Struct("=I32s32s32s32s32s12s5I")
_EIGHT = struct.Struct("=9I")


class Nic(BaseModel):
    """One NIC; what is not known is None, and why is in `Environment.unknown`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="network interface, or the PCI address where there is none")
    pci: str | None = None
    device_id: str | None = Field(default=None, description="vendor:device, as lspci -n shows them")
    driver: str | None = None
    driver_version: str | None = None
    firmware: str | None = None
    numa_node: int | None = Field(default=None, description="-1: the firmware does not say")
    pcie: str | None = Field(default=None, description="speed and width of the slot as they are")
    state: str | None = None
    link_mbps: int | None = None
    mtu: int | None = None
    rings: dict[str, int] = Field(default={}, description="descriptors of each receive and send ring")
    queues: dict[str, int] = {}


def read_nics(reader: Reader, ports: Sequence[str] = ()) -> list[Nic]:
    """Return the Ethernet controllers of the PCI bus, then other interfaces by name."""
    by_pci = {
        reader.target(f"sys/class/net/{name}/device"): name
        for name in reader.names("sys/class/net")
        if reader.has(f"sys/class/net/{name}/device")
    }
    found: list[Nic] = []
    for pci in reader.names(_PCI):
        if not (reader.text(f"{_PCI}/{pci}/class") or "").startswith(_ETHERNET):
            continue
        inside = reader.names(f"{_PCI}/{pci}/net") or _behind(reader, pci, by_pci)
        found.append(_nic(reader, pci, inside[0] if inside else None))
    known = {nic.name for nic in found}
    return found + [_nic(reader, None, port) for port in ports if port not in known]


def _behind(reader: Reader, pci: str, by_pci: dict[str | None, str]) -> list[str]:
    """Return interfaces of a device below the PCI device, as virtio has them."""
    return [by_pci[name] for name in reader.names(f"{_PCI}/{pci}") if name in by_pci]


def _nic(reader: Reader, pci: str | None, interface: str | None) -> Nic:
    device, net = f"{_PCI}/{pci}", f"sys/class/net/{interface}"
    name = interface or pci or ""
    vendor, model = (reader.number(f"{device}/{part}") for part in ("vendor", "device"))
    told = _ethtool(reader, interface) if interface else {}
    return Nic(
        name=name,
        pci=pci,
        device_id=None if vendor is None or model is None else f"{vendor:04x}:{model:04x}",
        driver=str(told.get("driver", "")) or reader.target(f"{device}/driver"),
        driver_version=str(told.get("version", "")) or None,
        firmware=str(told.get("firmware", "")) or None,
        numa_node=reader.number(f"{device}/numa_node"),
        pcie=_pcie(reader, device),
        state=reader.text(f"{net}/operstate"),
        # the kernel says -1 or refuses to answer (EINVAL) while there is no link
        link_mbps=_positive(reader.number(f"{net}/speed")),
        mtu=reader.number(f"{net}/mtu"),
        rings={kind: int(told[f"ring {kind}"]) for kind in ("rx", "tx") if told.get(f"ring {kind}")},
        queues={
            kind: int(told[f"queue {kind}"]) for kind in ("rx", "tx", "combined") if told.get(f"queue {kind}")
        },
    )


def _pcie(reader: Reader, device: str) -> str | None:
    speed = reader.text(f"{device}/current_link_speed")
    width = reader.text(f"{device}/current_link_width")
    if not speed or not width or speed.startswith("Unknown"):
        return None
    return f"{speed} x{width}"


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _ethtool(reader: Reader, interface: str) -> dict[str, str | int]:
    """Return what SIOCETHTOOL tells of an interface of this network namespace."""
    told: dict[str, str | int] = {}
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asked:
        try:
            fields = _ask(asked, interface, _GDRVINFO, _DRVINFO)
            for key, value in zip(("driver", "version", "firmware"), fields[1:4], strict=True):
                told[key] = value.partition(b"\0")[0].decode(errors="replace")
        except OSError as error:
            reader.unknown[f"{interface}: driver"] = f"ethtool: {error.strerror}"
            return told
        for what, command, keys in (
            ("ring", _GRINGPARAM, {"rx": 5, "tx": 8}),
            ("queue", _GCHANNELS, {"rx": 5, "tx": 6, "combined": 8}),
        ):
            try:
                fields = _ask(asked, interface, command, _EIGHT)
            except OSError as error:
                reader.unknown[f"{interface}: {what}s"] = f"ethtool: {error.strerror}"
                continue
            told |= {f"{what} {key}": fields[at] for key, at in keys.items()}
    return told


def _ask(asked: socket.socket, interface: str, command: int, layout: struct.Struct) -> tuple[Any, ...]:
    """Return the fields of an ethtool structure after SIOCETHTOOL.

    Raises:
        OSError: the interface or its driver does not know.
    """
    answer = ctypes.create_string_buffer(struct.pack("=I", command), layout.size)
    request = struct.pack("16sP", interface.encode()[:15], ctypes.addressof(answer))
    fcntl.ioctl(asked, _SIOCETHTOOL, request)
    return layout.unpack(answer.raw)
