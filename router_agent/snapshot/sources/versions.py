"""What is installed: the kernel, Debian, packages, and the environments of the agent and of ExaBGP."""

from __future__ import annotations

import platform

from router_agent import __version__
from router_agent.host import programs
from router_agent.host.reader import Reader
from router_agent.observe.ask import NotKnownError
from router_agent.snapshot.model import Versions
from router_agent.snapshot.sources.router import Router

PACKAGES = {"frr": "frr", "vpp": "vpp", "dpdk": "vpp-plugin-dpdk"}
"""What a package is called in a snapshot, to its name in Debian."""


def read(router: Router) -> Versions:
    """Return the versions.

    Raises:
        NotKnownError: Debian's packages cannot be asked for.
    """
    reader = Reader(router.root)
    debian = reader.text("etc/debian_version")
    packages = programs.debian_packages(reader, PACKAGES.values()) if debian else {}
    if reader.unknown:
        raise NotKnownError("; ".join(f"{what}: {why}" for what, why in reader.unknown.items()))
    installed = {name: packages[package] for name, package in PACKAGES.items() if package in packages}
    exabgp = programs.in_environment(reader, router.exabgp, "exabgp")
    installed |= {"exabgp": exabgp} if exabgp else {}
    return Versions(kernel=platform.release(), debian=debian, installed=installed | {"agent": __version__})
