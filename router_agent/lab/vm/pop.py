"""The virtual POP host and everything around it, as one thing that is set up, used and taken down.

pop = VirtualPop("vm", build=Path("build/vm"))
with pop.lock():
    pop.prepare(print)
    pop.boot()
    pop.site(allow_reboot=True).require_success()
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from router_agent.lab.debian import SUITE
from router_agent.lab.errors import LabError
from router_agent.lab.host import Host, HostError
from router_agent.lab.lab import lock
from router_agent.lab.vm import image as images
from router_agent.lab.vm.hardware import Hardware, has_igb
from router_agent.lab.vm.image import Image
from router_agent.lab.vm.inventory import STATIC, dynamic_inventory, forwarding_variables, host_of
from router_agent.lab.vm.kvm import kvm_works
from router_agent.lab.vm.machine import Machine, free_port
from router_agent.lab.vm.neighbours import Neighbours
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import PORTS
from router_agent.lab.vm.play import Playbooks, PlayResult
from router_agent.lab.vm.traffic import device_counters
from router_agent.model import Family
from router_agent.traffic.counters.source import CounterSource

_PING_SECONDS = 30
_BOOTED = b"Linux version "
_PANICKED = b"Kernel panic - not syncing"
"""Now and then an emulated processor runs into the kernel's patching of itself; it then starts again."""

_STATE = (
    "ip -br address; ip neighbour; driverctl list-overrides; systemctl --failed --no-legend --plain",
    "vtysh -c 'show bgp summary'",
    "router-agent show status",
    "vppctl show hardware-interfaces; vppctl show interface; vppctl show interface address; vppctl show lcp",
    "vppctl show ip neighbors; vppctl show errors",
    "journalctl --boot --no-pager --lines 1000",
)
"""What tells why a host has no sessions; without VPP, some of it fails."""
_STATE_SECONDS = 60


class VirtualPop:
    """One virtual POP host.

    Args:
        name: lower-case letters, digits and hyphens; namespaces and directories are called after it.
        build: directory that keeps images, disks and logs.
        vpp_debs: directory of VPP's packages; None lets the kernel forward.

    Attributes:
        network: namespaces and taps around it.
        machine: the hardware; after `prepare`.
        host: the host over ssh; after `prepare`.
        neighbours: the BGP neighbours.
        playbooks: runs the kit's playbooks; after `prepare`.
        hardware: what `boot` builds; after `prepare`.
        logs: where everything that happens is kept.

    Raises:
        LabError: there are no packages in `vpp_debs`.
    """

    machine: Machine
    host: Host
    playbooks: Playbooks
    hardware: Hardware

    def __init__(self, name: str, *, build: Path, vpp_debs: Path | None = None) -> None:
        self.name = name
        self.vpp = vpp_debs is not None
        self.logs = build / "logs" / name
        self.network = Network(name)
        self.neighbours = Neighbours(self.network)
        self._images = build / "images"
        self._directory = build / name
        self._probe = build / "kvm.json"
        self._variables = forwarding_variables(vpp_debs)
        self._image: Image | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Claim the name for the body.

        Raises:
            LabError: another process has a lab of this name.
        """
        with lock(self.name):
            yield

    def prepare(self, progress: Callable[[str], None]) -> str:
        """Find or build the image, and make everything ready for `boot`; return what the host will run on.

        Raises:
            LabError: a tool is missing or something fails.
        """
        found = images.find(self._images)
        self._image = found or images.build(self._images, progress)
        self.take_down()
        if self.logs.exists():
            shutil.rmtree(self.logs)
        self.logs.mkdir(parents=True)
        progress("trying KVM")
        self.hardware = Hardware(igb=has_igb(), kvm=kvm_works(self._image, self._probe))
        self.network.build()
        self.machine = Machine(self.network, directory=self._directory, logs=self.logs, ssh_port=free_port())
        self.host = host_of(
            self._image,
            ssh_port=self.machine.ssh_port,
            directory=self._directory,
            sockets=self.network.directory,
        )
        self.host.configure()
        inventory = self._directory / "inventory.yml"
        inventory.write_text(dynamic_inventory(self.host, self._variables))
        self.playbooks = Playbooks(STATIC, inventory, logs=self.logs, sockets=self.network.directory)
        how = "KVM" if self.hardware.kvm else "emulated processor"
        return f"Debian {SUITE}, {'kept' if found else 'built'}, {how}"

    @property
    def image(self) -> Image:
        """What the host was booted from.

        Raises:
            LabError: the lab is not prepared.
        """
        if self._image is None:
            raise LabError("the lab is not prepared: call prepare first")
        return self._image

    def fresh_disk(self) -> None:
        """Begin with the bare Debian of the image; the machine must be off."""
        self.machine.create_disk(self.image)

    def boot(self, hardware: Hardware | None = None) -> str:
        """Switch the machine on and wait until it answers; return the boot id.

        Args:
            hardware: another machine than `hardware`.

        Raises:
            LabError: it does not come up; with the end of its serial console.
        """
        self.machine.power_on(hardware or self.hardware)
        return self.wait_up()

    def wait_up(self, *, other_than: str | None = None) -> str:
        """Wait until the host answers; return the boot id.

        Raises:
            LabError: it does not; with the end of its serial console.
        """
        return self.host.wait_up(
            other_than=other_than, alive=self.machine.require_running, tail=self.machine.tail
        )

    def boots(self) -> int:
        """Return how many kernels have started on the serial console since `prepare`, and did not panic."""
        log = self.machine.serial_log
        if not log.exists():
            return 0
        console = log.read_bytes()
        return console.count(_BOOTED) - console.count(_PANICKED)

    def site(
        self,
        variables: Mapping[str, Any] | None = None,
        *arguments: str,
        allow_reboot: bool = False,
        progress: Callable[[str], None] = lambda _text: None,
    ) -> PlayResult:
        """Run ``playbooks/site.yml``; see `Playbooks.run`."""
        given = dict(variables or {}) | ({"allow_reboot": True} if allow_reboot else {})
        return self.playbooks.run("site.yml", given, *arguments, progress=progress)

    def wait_sessions(self) -> None:
        """Wait until every BGP session is established.

        Raises:
            LabError: one is not in time; what the host looks like then is in its log.
        """
        try:
            self.neighbours.wait_established()
        except LabError as error:
            raise LabError(f"{error}; the host as it was: {self.write_state()}") from error

    def write_state(self) -> Path:
        """Write what the host looks like into a file of the logs and return its path: soon it is gone."""
        path = self.logs / "host-state.log"
        with path.open("a") as log:
            for command in _STATE:
                try:
                    seen = self.host.try_run(command, seconds=_STATE_SECONDS)
                    log.write(f"# {command}\n{seen.stdout}{seen.stderr}\n")
                except HostError as error:
                    log.write(f"# {command}\n{error}\n")
        return path

    def meet_neighbours(self) -> None:
        """Have the host resolve the neighbours on both ports.

        Raises:
            HostError: one does not answer.
        """
        for port in PORTS:
            for family in Family:
                self.host.run(f"ping -c 1 -w {_PING_SECONDS} {port.gateway(family)}")

    def counters(self) -> AbstractContextManager[CounterSource]:
        """Have the counters of what forwards, over a connection of their own."""
        return device_counters(self.host, vpp=self.vpp)

    def take_down(self) -> bool:
        """Take away machine, neighbours, network and disk; return whether there was any of it.

        Logs and images stay.
        """
        found = self.network.present
        # A machine that another process started is found by its pid file.
        Machine(self.network, directory=self._directory, logs=self.logs, ssh_port=0).pull_the_plug()
        self.network.remove()
        if self._directory.exists():
            shutil.rmtree(self._directory)
        return found
