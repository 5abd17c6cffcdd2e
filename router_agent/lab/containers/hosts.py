"""Some hosts, booted together and taken down together, whatever happens in between.

    with Containers("lab", ["r1", "r2"]) as lab:
        lab.hosts["r1"].run("systemctl is-system-running")

Each is a Debian 13 with systemd, FRR (installed, not configured) and an ssh server whose key is known. They
share nothing but the kernel: own network namespace, own disk, own process ids. They reach nobody but who a
wire leads to, and the package registries when that is asked for.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from router_agent.lab.commands import NETNS_DIRECTORY, require
from router_agent.lab.containers import cgroups, internet, leftovers
from router_agent.lab.containers import image as images
from router_agent.lab.containers.guard import Guard
from router_agent.lab.containers.image import Image
from router_agent.lab.containers.machine import Machine, probe_overlay
from router_agent.lab.containers.wires import (
    MANAGEMENT,
    MANAGEMENT_INTERFACE,
    Wire,
    Wiring,
    management_address,
    management_gateway,
)
from router_agent.lab.errors import LabError
from router_agent.lab.host import Host
from router_agent.lab.lab import lock
from router_agent.lab.topology import LAB_NAME

BUILD = Path(__file__).parents[3] / "build" / "containers"
"""Where images, disks and logs are kept."""

_CONNECT = Path(__file__).with_name("connect.py")
_BOOT_POLL_SECONDS = 0.2
_PROBE = "router-agent-lab-probe"

_INTERFACES = """\
auto lo
iface lo inet loopback

auto {interface}
iface {interface} inet static
    address {address}
"""


def unavailable() -> str | None:
    """Return why containers cannot run here, and what to do; None when they can."""
    if os.geteuid() != 0:
        return "found an ordinary user, expected root: containers need it"
    if shutil.which("systemd-nspawn") is None:
        return "found no systemd-nspawn, which runs containers: apt-get install systemd-container"
    if images.find(BUILD / "images") is None and shutil.which("mmdebstrap") is None:
        return "found no mmdebstrap, which builds the containers' image: apt-get install mmdebstrap"
    try:
        probe_overlay(BUILD)
        if not cgroups.systemd_runs():
            cgroups.create(_PROBE)
            cgroups.remove(_PROBE)
    except LabError as error:
        return str(error)
    return None


class Containers:
    """Hosts in containers, as a context manager: they answer inside the block.

    Args:
        name: of the lab, as `Topology` takes it; namespaces are called NAME-HOST.
        hosts: names of the hosts.
        rooms: names of further network namespaces, for neighbours and testers.
        wires: between hosts and rooms.
        with_internet: whether the hosts reach the package registries (slirp4netns: no interface and no rule
            in the network of the machine that runs the lab).
        build: directory of images, disks and logs.
        progress: told what is going on.

    Attributes:
        hosts: each host over ssh.
        machines: and its power.
        wiring: namespaces and wires.
        image: what the hosts were booted from; after entry.
        runtime: directory for sockets and configurations of what runs in the rooms; a short path.
        logs: consoles, and what else is said; they stay.
        keep: leave everything up at the end of the block.

    Raises:
        LabError: a name cannot be used.
    """

    image: Image

    def __init__(
        self,
        name: str,
        hosts: Sequence[str],
        *,
        rooms: Sequence[str] = (),
        wires: Sequence[Wire] = (),
        with_internet: bool = False,
        build: Path = BUILD,
        progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        for word in (name, *hosts, *rooms):
            if not LAB_NAME.fullmatch(word):
                raise LabError(
                    f"found the name {word!r}, expected up to 24 of a-z, 0-9 and '-', a letter first"
                )
        self.name = name
        self.wiring = Wiring(name, hosts, rooms, wires)
        self.runtime = leftovers.runtime(name)
        self.logs = build / "logs" / name
        self.machines: dict[str, Machine] = {}
        self.hosts: dict[str, Host] = {}
        self.keep = False
        self._build = build
        self._internet = with_internet
        self._progress = progress
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if reason := unavailable():
            raise LabError(reason)
        with ExitStack() as stack:
            stack.enter_context(lock(self.name))
            found = images.find(self._build / "images")
            self.image = found or images.build(self._build / "images", self._progress)
            if leftovers.remove(self.name, self._build):
                self._progress(f"removed the lab {self.name!r} that was left behind")
            self._make_room()
            guard = Guard(self.name, self._build, self.logs / "guard.log")
            stack.callback(self._leave, guard)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def inventory(self, variables: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Return how Ansible reaches each host, as ``hosts`` of an inventory's group.

        Args:
            variables: of hosts, beside those.
        """
        return {
            name: {
                "ansible_host": host.address,
                "ansible_user": "root",
                # Keys, known hosts and the way through the namespace are all in there.
                "ansible_ssh_common_args": f"-F {host.ssh_config.resolve()}",
                # Ansible tells shared connections apart by address, port and user: the same in every lab.
                "ansible_control_path_dir": str(self.runtime / leftovers.CONTROL_PATHS),
                **(variables or {}).get(name, {}),
            }
            for name, host in self.hosts.items()
        }

    def write_inventory(self, path: Path, variables: dict[str, dict[str, Any]] | None = None) -> Path:
        """Write an inventory of group ``routers`` with these hosts; return its path."""
        path.write_text(yaml.safe_dump({"routers": {"hosts": self.inventory(variables)}}, sort_keys=False))
        return path

    def disconnect(self) -> None:
        """End all connections to hosts, Ansible's too; whoever asks a host next makes a new one."""
        leftovers.end_connections(self.name)

    def power_cycle(self, host: str) -> str:
        """Take a host's power away, give it back, and wait until it answers; return the boot id.

        Raises:
            LabError: it does not come back.
        """
        machine = self.machines[host]
        self.hosts[host].disconnect()
        machine.pull_the_plug()
        machine.power_on()
        return self.wait_up(host)

    def wait_up(self, host: str, *, other_than: str | None = None) -> str:
        """Wait until a host answers; return the boot id.

        Args:
            host: its name.
            other_than: boot id of the boot that shall be over.

        Raises:
            LabError: it does not answer; with the end of its console.
        """
        machine = self.machines[host]
        return self.hosts[host].wait_up(
            other_than=other_than, alive=machine.require_running, tail=machine.tail
        )

    def _make_room(self) -> None:
        if self.logs.exists():
            shutil.rmtree(self.logs)
        for directory in (self.logs, self.runtime):
            directory.mkdir(parents=True, mode=0o755)
        leftovers.namespaces_file(self.name).write_text("\n".join(self.wiring.namespaces))

    def _start(self) -> None:
        self._progress("namespaces and wires")
        self.wiring.build()
        for number, name in enumerate(self.wiring.hosts):
            self._progress(f"boot {name}")
            machine = leftovers.machine_of(self.name, name, self._build, self.logs)
            host_key = machine.create_disk(self.image, self._files(number, name))
            self.machines[name] = machine
            self.hosts[name] = self._host(number, name, host_key)
            machine.power_on()
            if self._internet:
                log = self.logs / f"{name}-internet.log"
                internet.connect(self.wiring.namespace(name), runtime=self.runtime, log=log)
        for name in self.wiring.hosts:
            self._progress(f"wait for {name}")
            self.wait_up(name)

    def _files(self, number: int, name: str) -> dict[str, str]:
        interfaces = _INTERFACES.format(interface=MANAGEMENT_INTERFACE, address=management_address(number))
        return {
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n",
            "etc/network/interfaces": interfaces,
            "etc/resolv.conf": f"nameserver {internet.RESOLVER}\n",
        }

    def _host(self, number: int, name: str, host_key: str) -> Host:
        namespace = NETNS_DIRECTORY / self.wiring.namespace(MANAGEMENT)
        proxy = [require("nsenter"), f"--net={namespace}", "--", sys.executable, "-I", "-S", str(_CONNECT)]
        host = Host(
            name,
            address=str(management_address(number).ip),
            key=self.image.key,
            host_key=host_key,
            directory=self.runtime / name,
            sockets=self.runtime,
            options={"ProxyCommand": f"{' '.join(proxy)} %h %p", "ProxyUseFdpass": "yes"},
            poll_seconds=_BOOT_POLL_SECONDS,
        )
        host.configure()
        return host

    def _leave(self, guard: Guard) -> None:
        if not self.keep:
            leftovers.remove(self.name, self._build)
        # Until then it is there for whoever ends us meanwhile.
        guard.dismiss()


def ways_in(lab: Containers) -> str:
    """Return how to look around in a lab that stays up, and how to take it down."""
    gateway = management_gateway(0).network
    lines = [f"The containers of {lab.name!r} stay up (management {gateway} and following). Look around:"]
    lines += [f"  ssh -F {host.ssh_config} {name}" for name, host in lab.hosts.items()]
    lines += [f"  ip -n {lab.wiring.namespace(name)} address" for name in lab.hosts]
    lines += [f"  tail -f {lab.logs}/*.log", "Take them down:"]
    return "\n".join([*lines, f"  python -m router_agent.lab.containers down --name {lab.name}"])
