"""The files that the kit renders onto a router: hashed, never copied, for they hold secrets."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from router_agent.host.reader import Reader

FORWARDING = (
    "/etc/vpp/startup.conf",
    "/etc/router-agent/agent.yaml",
    "/etc/frr/frr.conf",
    "/etc/frr/daemons",
    "/etc/exabgp/exabgp.conf",
)
"""Files that decide how a router forwards."""

RENDERED = (
    *FORWARDING,
    "/etc/exabgp/exabgp.env",
    "/etc/vpp/vppcfg.yaml",
    "/etc/default/grub.d/60-pop-router.cfg",
    "/etc/systemd/system/exabgp.service",
    "/etc/systemd/system/router-agent.service",
    "/etc/systemd/system/vpp.service.d/pop-router.conf",
    "/etc/sysctl.d/80-vpp.conf",
    "/etc/sysctl.d/90-pop-router.conf",
    "/etc/sysctl.d/99-zz-pop-router-hugepages.conf",
)
"""Every file of a fixed name that a role renders and that changes how the router works."""

RENDERED_DIRECTORIES = {"/etc/systemd/network": "10-pop-router-"}
"""Directories, and what the names of the kit's own files in them begin with."""


def rendered(reader: Reader) -> list[str]:
    """Return the paths of rendered files, those of directories as they are there now."""
    found = list(RENDERED)
    for directory, prefix in RENDERED_DIRECTORIES.items():
        names = reader.names(directory.lstrip("/"))
        found += [f"{directory}/{name}" for name in names if name.startswith(prefix)]
    return found


def hashes(reader: Reader, paths: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file that is there; the reader remembers what cannot be read."""
    found: dict[str, str] = {}
    for path in paths:
        content = reader.content(path.lstrip("/"), path) if reader.has(path.lstrip("/")) else None
        if content is not None:
            found[path] = sha256(content).hexdigest()
    return found
