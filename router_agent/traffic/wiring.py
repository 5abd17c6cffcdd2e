"""What the tester's ports really are, and so which tier a check on them is.

A scenario file says which tier it means; the ports say which one it is. A kernel interface is a NIC when its
driver names a PCI device that is no emulation; a veth, a tap or a bridge is not, whatever speed it reports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pyroute2 import Ethtool

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.counters.kernel import driver_and_bus
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.ports import Endpoints, Port, Tier, Wire

PCI_DEVICES = Path("/sys/bus/pci/devices")

_EMULATED_VENDORS = frozenset({"0x1af4", "0x1b36", "0x15ad", "0x1414", "0x80ee"})
"""Virtio, QEMU, VMware, Hyper-V and VirtualBox (pci-ids.ucw.cz): as maker, or as maker of the board."""


@dataclass(frozen=True)
class Wiring:
    """What one port is made of.

    Attributes:
        tier: the highest that it can carry.
        what: in words: "veth", "memif", "i40e NIC 0000:3b:00.0".
        pci_id: vendor and device, "8086:1572"; empty for what is no PCI device.
        link_bps: speed of its link; None where it has none, or it is down or not known.
    """

    tier: Tier
    what: str
    pci_id: str = ""
    link_bps: float | None = None


def wiring_of(port: Port, devices: Path = PCI_DEVICES) -> Wiring:
    """Return what a port is made of; of one that is not there the least."""
    if port.wire is Wire.MEMIF:
        return Wiring(Tier.SOFTWARE_CEILING, "memif", link_bps=None)
    if port.wire is Wire.PCI:
        return _pci(port.interface, "DPDK", port.link_bps, devices)
    try:
        driver, bus = driver_and_bus(port.interface, port.namespace)
    except NamespaceError:
        return Wiring(Tier.FUNCTIONAL, "unknown: there is no such namespace")
    if not (devices / bus).is_dir() or not bus:
        return Wiring(Tier.FUNCTIONAL, driver or "kernel interface without a driver's name")
    return _pci(bus, driver, port.link_bps or _link_bps(port), devices)


def tier_of(endpoints: Endpoints, devices: Path = PCI_DEVICES) -> Tier:
    """Return the tier of a check on these ports: that of the port that can carry least."""
    return min((wiring_of(port, devices).tier for port in endpoints.ports), key=lambda tier: tier.rank)


def require_tier(claimed: Tier, endpoints: Endpoints, devices: Path = PCI_DEVICES) -> None:
    """Refuse a tier that its ports cannot carry; a lower one than they could is no claim of another's.

    Raises:
        ScenarioError: they cannot.
    """
    for port in endpoints.ports:
        found = wiring_of(port, devices)
        if found.tier.rank < claimed.rank:
            raise ScenarioError(
                f"tier {claimed.value!r}: port {port.name} is {found.what}, which carries tier "
                f"{found.tier.value!r} and no more; expected {_NEEDS[claimed]}"
            )


def with_links(endpoints: Endpoints, devices: Path = PCI_DEVICES) -> Endpoints:
    """Return the ports with model and link speed, where they are NICs and that is known.

    Raises:
        ScenarioError: a port's link has another speed than it is said to have.
    """
    return Endpoints(tuple(_with_link(port, devices) for port in endpoints.ports))


_NEEDS = {
    Tier.FUNCTIONAL: "any port",
    Tier.SOFTWARE_CEILING: "memif ports, or NICs",
    Tier.LINE_RATE: "NICs (PCI devices that are not emulated)",
}


def _with_link(port: Port, devices: Path) -> Port:
    found = wiring_of(port, devices)
    if found.tier is not Tier.LINE_RATE:
        return port
    measured = _link_bps(port) if port.wire is Wire.KERNEL else None
    if port.link_bps is not None and measured is not None and port.link_bps != measured:
        raise ScenarioError(
            f"port {port.name}: link is said to have {port.link_bps / 1e9:g} Gbit/s, {port.interface} has "
            f"{measured / 1e9:g} Gbit/s; correct the file or the link"
        )
    return replace(port, link_bps=found.link_bps, pci_id=found.pci_id)


def _pci(address: str, driver: str, link_bps: float | None, devices: Path) -> Wiring:
    directory = devices / address
    vendor, device = _text(directory / "vendor"), _text(directory / "device")
    if not vendor:
        return Wiring(Tier.FUNCTIONAL, f"no PCI device {address}")
    pci_id = f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}"
    if {vendor, _text(directory / "subsystem_vendor")} & _EMULATED_VENDORS:
        return Wiring(Tier.FUNCTIONAL, f"emulated {driver} NIC {address} ({pci_id})", pci_id)
    return Wiring(Tier.LINE_RATE, f"{driver} NIC {address} ({pci_id})", pci_id, link_bps)


def _link_bps(port: Port) -> float | None:
    """Return the speed of a kernel interface's link; None where it is down or does not say."""
    with inside(port.namespace):
        ethtool = Ethtool()
        try:
            mode = ethtool.get_link_mode(port.interface)
        except Exception:  # noqa: BLE001 - pyroute2 has no one class for what drivers do not support
            return None
        finally:
            ethtool.close()
    speed = mode.speed
    return speed * 1e6 if isinstance(speed, int) and 0 < speed < 0xFFFF_FFFF else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
