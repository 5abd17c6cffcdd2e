"""What is kept: every file of routing and forwarding that the kit renders, and the services that read them.

A path that is not there is kept too: as not there. Whether a unit starts at boot is a link in
/etc/systemd/system, a file like the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

UNITS = "/etc/systemd/system"
PROGRAMS = "/usr/local/lib/pop-router"


@dataclass(frozen=True)
class Part:
    """Files that are read by the same program.

    Attributes:
        name: of the part.
        patterns: absolute paths, with shell wildcards.
        services: units that go on running, or go on not running.
    """

    name: str
    patterns: tuple[str, ...]
    services: tuple[str, ...] = ()


def unit_files(name: str) -> tuple[str, ...]:
    """Return where a unit, what changes it, and whether it starts at boot may be."""
    return (
        f"{UNITS}/{name}",
        f"{UNITS}/{name}.d/*",
        f"{UNITS}/*.wants/{name}",
        f"{UNITS}/*.requires/{name}",
    )


MANAGEMENT = Part(
    "management",
    (
        f"{PROGRAMS}/management-route",
        *unit_files("management-route.service"),
        *unit_files("management-route.timer"),
    ),
    ("management-route.timer",),
)
SYSCTL = Part("sysctl", ("/etc/sysctl.d/90-pop-router.conf", "/etc/sysctl.d/80-vpp.conf"))
BINDING = Part(
    "binding",
    (
        "/etc/driverctl.d/pci-*",
        "/etc/pop-router/vfio-devices",
        "/etc/modules-load.d/pop-router-vfio.conf",
        "/etc/modprobe.d/pop-router-vfio.conf",
        "/etc/udev/rules.d/60-pop-router-sriov.rules",
    ),
)
VPP = Part(
    "vpp",
    (
        "/etc/vpp/startup.conf",
        f"{PROGRAMS}/vpp-devices",
        f"{PROGRAMS}/vpp-ready",
        *unit_files("vpp.service"),
    ),
    ("vpp.service",),
)
INTERFACES = Part(
    "vpp-interfaces",
    (
        "/etc/vpp/vppcfg.yaml",
        f"{PROGRAMS}/vpp-interfaces",
        "/opt/vppcfg",
        *unit_files("vpp-interfaces.service"),
    ),
    ("vpp-interfaces.service",),
)
PORTS = Part(
    "ports",
    (
        "/etc/systemd/network/10-pop-router-*",
        "/etc/systemd/networkd.conf.d/10-pop-router.conf",
        f"{UNITS}/*.wants/systemd-networkd*",
        f"{UNITS}/*.wants/systemd-network-generator.service",
        f"{UNITS}/dbus-org.freedesktop.network1.service",
        f"{UNITS}/systemd-networkd*",
    ),
    ("systemd-networkd.service", "systemd-networkd.socket"),
)
FRR = Part(
    "frr",
    ("/etc/frr/frr.conf", "/etc/frr/daemons", *unit_files("frr.service")),
    ("frr.service",),
)
EXABGP = Part(
    "exabgp",
    (
        "/etc/exabgp/exabgp.conf",
        "/etc/exabgp/exabgp.env",
        "/etc/exabgp/checks",
        "/etc/pop-router/exabgp.applied",
        f"{PROGRAMS}/exabgp_relay.py",
        "/opt/exabgp",
        *unit_files("exabgp.service"),
    ),
    ("exabgp.service",),
)
AGENT = Part(
    "router-agent",
    ("/etc/router-agent/agent.yaml", "/opt/router-agent", *unit_files("router-agent.service")),
    ("router-agent.service",),
)
FURTHER = Part("further", ())
"""What the inventory names besides; restored, and read by whoever reads it."""

PARTS = (MANAGEMENT, SYSCTL, BINDING, VPP, INTERFACES, PORTS, FRR, EXABGP, AGENT, FURTHER)
"""In the order in which they are taken into use."""


def with_further(parts: Iterable[Part], further: Mapping[str, Iterable[str]]) -> tuple[Part, ...]:
    """Return the parts with further patterns, by the name of their part.

    Raises:
        ValueError: there is no part of a name, or a pattern is no absolute path.
    """
    found = {part.name: part for part in parts}
    for name, patterns in further.items():
        if name not in found:
            raise ValueError(f"found the part {name!r}, expected one of {', '.join(found)}")
        if wrong := [pattern for pattern in patterns if not pattern.startswith("/")]:
            raise ValueError(f"{name}: found {', '.join(wrong)}, expected absolute paths")
        both = dict.fromkeys([*found[name].patterns, *patterns])
        found[name] = replace(found[name], patterns=tuple(both))
    return tuple(found.values())
