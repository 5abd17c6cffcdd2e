"""The inventory a run adds to ``inventory/lab``: how to reach the host, which forwarding plane it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from router_agent.lab.errors import LabError
from router_agent.lab.host import Host
from router_agent.lab.vm.image import Image
from router_agent.lab.vm.plan import HOST

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "inventory" / "lab" / "hosts.yml"


_KEY_EXCHANGE = "curve25519-sha256"
"""The dearest part of a connection to an emulated processor."""


def host_of(image: Image, *, ssh_port: int, directory: Path, sockets: Path) -> Host:
    """Return the virtual POP host over ssh.

    Args:
        image: what it was booted from; has the keys.
        ssh_port: TCP port of 127.0.0.1 that leads to it.
        directory: where ssh's configuration and the known hosts go.
        sockets: where ssh keeps its control socket; a short path.
    """
    return Host(
        HOST,
        address="127.0.0.1",
        ssh_port=ssh_port,
        key=image.key,
        host_key=image.host_key,
        directory=directory,
        sockets=sockets,
        options={"KexAlgorithms": _KEY_EXCHANGE},
    )


def forwarding_variables(vpp_debs: Path | None) -> dict[str, Any]:
    """Return the variables that choose the forwarding plane.

    Args:
        vpp_debs: directory of VPP's packages; None lets the kernel forward.

    Raises:
        LabError: there are no packages in the directory.
    """
    if vpp_debs is None:
        return {"router_forwarding": "kernel"}
    if not any(vpp_debs.glob("vpp_*.deb")):
        raise LabError(f"VPP_DEBS={vpp_debs}: found no vpp_*.deb there, expected VPP's packages")
    return {
        "router_forwarding": "vpp",
        "vpp_package_source": {"kind": "directory", "path": str(vpp_debs.resolve())},
    }


def dynamic_inventory(host: Host, variables: dict[str, Any]) -> str:
    """Return the second inventory as YAML."""
    options = [
        f"UserKnownHostsFile={host.known_hosts.resolve()}",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        f"KexAlgorithms={_KEY_EXCHANGE}",
    ]
    connection = {
        "ansible_port": host.ssh_port,
        "ansible_ssh_private_key_file": str(host.key.resolve()),
        "ansible_ssh_common_args": " ".join(f"-o {option}" for option in options),
    }
    return yaml.safe_dump({"routers": {"hosts": {HOST: connection | variables}}}, sort_keys=False)
