"""Removes a lab of containers by its name alone: what its process left behind, or another one keeps up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from router_agent.lab.containers import internet
from router_agent.lab.containers.machine import Machine
from router_agent.lab.containers.wires import namespace_of, remove_namespaces
from router_agent.lab.topology import RUNTIME

CONTROL_PATHS = "cp"
"""Directory of Ansible's shared connections, below `runtime`."""

_DISKS = "disks"
_SECONDS = 30.0


def runtime(name: str) -> Path:
    """Return the directory of a lab's sockets, process ids and configurations of daemons: a short path."""
    return RUNTIME / name


def namespaces_file(name: str) -> Path:
    """Return the file that lists a lab's namespaces, one a line; it is written before they are made."""
    return runtime(name) / "namespaces"


def machine_of(name: str, host: str, directory: Path, logs: Path) -> Machine:
    """Return a container of a lab.

    Args:
        name: of the lab.
        host: of the container.
        directory: that keeps images, disks and logs.
        logs: where its console goes.
    """
    return Machine(
        f"{name}-{host}",
        hostname=host,
        namespace=namespace_of(name, host),
        directory=directory / _DISKS / name / host,
        runtime=runtime(name),
        log=logs / f"{host}.log",
    )


def present(name: str, directory: Path) -> bool:
    """Return whether there is anything of a lab."""
    return runtime(name).exists() or (directory / _DISKS / name).exists()


def remove(name: str, directory: Path) -> bool:
    """Remove containers, namespaces, daemons, wires and disks of a lab; return whether there was any of it.

    Args:
        name: of the lab.
        directory: that keeps images, disks and logs.

    Raises:
        LabError: something does not go.
    """
    if not present(name, directory):
        return False
    disks = directory / _DISKS / name
    hosts = {path.stem for path in runtime(name).glob("*.pid")}
    hosts |= {path.name for path in disks.iterdir()} if disks.exists() else set()
    for host in sorted(hosts):
        machine = machine_of(name, host, directory, runtime(name))
        machine.pull_the_plug()
        machine.remove_disk()
    end_connections(name)
    internet.end(runtime(name))
    if namespaces_file(name).exists():
        remove_namespaces(namespaces_file(name).read_text().split())
    for path in (disks, runtime(name)):
        if path.exists():
            shutil.rmtree(path)
    return True


def end_connections(name: str) -> None:
    """End a lab's shared connections of ssh and Ansible: they would wait for hosts that are gone."""
    directory = runtime(name)
    for path in (*directory.glob("ssh-*"), *directory.glob(f"{CONTROL_PATHS}/*")):
        subprocess.run(
            ["ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
