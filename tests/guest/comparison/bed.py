"""What both contenders run on: a VPP with two ports and their pairs, all of it in namespaces.

    namespace far   p1 ─ veth ─ v1 ══ VPP host-v1 ── BondEthernet1 ══ TAP eth1   namespace cp
                    p2 ─ veth ─ v2 ══ VPP host-v2 ── BondEthernet2 ══ TAP eth2

A port is a bond of one member, because a bond loses its link when its member goes down, as a NIC does when
its cable is pulled: an af_packet interface has a link as long as it is up.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from router_agent.lab.commands import run
from router_agent.namespaces import inside
from router_agent.vpp.process import VppProcess, startup_conf

from .contenders import RECEIVE_BYTES, Contender, Interfaces
from .kernel import interface

PORTS = (1, 2)
PLUGINS = ("linux_cp_plugin.so", "af_packet_plugin.so", "tap_plugin.so")
_LINK_SECONDS = 60.0
_SETTINGS = {
    "net.core.rmem_max": 2 * RECEIVE_BYTES,
}
_PORT_SETTINGS = {"keep_addr_on_down": 1, "accept_dad": 0, "accept_ra": 0}


class Bed:
    """Namespaces, cables and VPP for one contender.

    Args:
        contender: whose VPP it is.
        directory: for configuration, sockets and logs; a short path.
        binary: VPP's program.

    Attributes:
        interfaces: how an agent is told which VPP interface stands for which of the kernel's.
        links: whether links can be lost and VPP be restarted.
        poll: seconds between two looks at VPP.
        remark: what differs from the contenders' settings, for people.
    """

    interfaces: Interfaces = "auto"
    links = True
    poll = 0.25
    remark = ""

    def __init__(self, contender: Contender, directory: Path, binary: str = "vpp") -> None:
        tag = f"c{secrets.token_hex(3)}"
        self.directory = directory
        self.control, self._far = f"{tag}cp", f"{tag}far"
        self._members = {port: f"{tag}v{port}" for port in PORTS}
        self.vpp = self._vpp(contender, binary)

    def _vpp(self, contender: Contender, binary: str) -> VppProcess:
        options = "\n".join(f"  {line}" for line in (f"default netns {self.control}", *contender.linux_cp))
        config = startup_conf(
            runtime_dir=self.directory,
            heap="1G",
            statseg="256M",
            buffers=8192,
            plugins=(*PLUGINS, *contender.plugins),
            stanzas=(f"linux-cp {{\n{options}\n}}", *contender.stanzas),
        )
        return VppProcess(runtime_dir=self.directory, config=config, binary=binary)

    def build(self, stack: ExitStack) -> None:
        """Make namespaces and cables; they go with the stack."""
        for name, value in _SETTINGS.items():
            stack.callback(run, ["sysctl", "-qw", f"{name}={run(['sysctl', '-n', name]).strip()}"])
            run(["sysctl", "-qw", f"{name}={value}"])
        for namespace in (self.control, self._far):
            run(["ip", "netns", "add", namespace])
            stack.callback(run, ["ip", "netns", "del", namespace])
        run(["ip", "-n", self.control, "link", "set", "lo", "up"])
        self._lay_cables()
        stack.callback(self.vpp.stop)

    def _lay_cables(self) -> None:
        for port, member in self._members.items():
            run(["ip", "link", "add", member, "type", "veth", "peer", "name", f"p{port}", "netns", self._far])
            run(["ip", "-n", self._far, "link", "set", f"p{port}", "up"])
            run(["ip", "link", "set", member, "up"])

    def start_vpp(self) -> None:
        """Start VPP and make its ports and their pairs."""
        self.vpp.start()
        for port, member in self._members.items():
            bond = f"BondEthernet{port}"
            for line in (
                f"create bond mode active-backup id {port}",
                f"create host-interface name {member}",
                f"bond add {bond} host-{member}",
                f"set interface state host-{member} up",
            ):
                self.vpp.cli(line)
            said = self.vpp.cli(f"lcp create {bond} host-if {interface(port)}").strip()
            if said:
                raise RuntimeError(f"lcp create: {said}")
        self._stop_polling()
        self._configure_ports()

    def _configure_ports(self) -> None:
        for port in PORTS:
            for name, value in _PORT_SETTINGS.items():
                self.sysctl(f"net.ipv6.conf.{interface(port)}.{name}={value}")

    def _stop_polling(self) -> None:
        """Have VPP sleep while nothing comes: it polls TAPs, which would count as its work here."""
        for line in self.vpp.cli("show interface rx-placement").splitlines():
            if line.endswith("(polling)"):
                self.vpp.cli(f"set interface rx-mode {line.split()[0]} interrupt")

    def sysctl(self, setting: str) -> None:
        """Set a value in the control plane's namespace."""
        run(["ip", "netns", "exec", self.control, "sysctl", "-qw", setting])

    def ip(self, *words: str) -> str:
        """Run iproute2 in the control plane's namespace."""
        return run(["ip", "-n", self.control, *words])

    def ifindexes(self) -> dict[int, int]:
        """Return ifindex to port number."""
        with inside(self.control):
            known = {name: index for index, name in socket.if_nameindex()}
        return {known[interface(port)]: port for port in PORTS if interface(port) in known}

    def port_of(self, port: int) -> str:
        """Return VPP's name of a port."""
        return f"BondEthernet{port}"

    def pull_cable(self, port: int) -> None:
        """Take a port's link away, and wait until the kernel knows."""
        self.vpp.cli(f"set interface state host-{self._members[port]} down")
        self._wait(lambda: not self._lower_up(port), f"the carrier of {interface(port)} to go")

    def plug_in(self, port: int) -> None:
        """Give a port its link back, and wait until the kernel knows."""
        self.vpp.cli(f"set interface state host-{self._members[port]} up")
        self._wait(lambda: self._lower_up(port), f"the carrier of {interface(port)} to return")

    def wait_carriers(self) -> None:
        """Wait until both ports have their link: VPP gives it once it has been told that they are up."""
        self._wait(lambda: all(map(self._lower_up, PORTS)), "the carriers of both interfaces")

    def _lower_up(self, port: int) -> bool:
        (link,) = json.loads(self.ip("-j", "link", "show", "dev", interface(port)))
        return "LOWER_UP" in link["flags"]

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LINK_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {_LINK_SECONDS:.0f} s for {what}")
            time.sleep(0.05)


class BareBed(Bed):
    """A bed without TAPs, for kernels that have no vhost-net: rates and routes, but no links.

        namespace cp   eth1 and eth2, ifindex 2 and 3, on veth pairs; VPP with loop0 and loop1 for them

    linux-nl is the real one. The pairs are declared by VPP's own unit-test plugin, which gives the n-th pair
    the kernel interface with index n, of VPP's namespace; the agent is told by name.
    """

    interfaces: Interfaces = {interface(port): f"loop{port - 1}" for port in PORTS}  # noqa: RUF012
    links = False
    poll = 0.05
    remark = " The agent is told the interfaces by name and mirrors nothing; linux-cp has no options set."

    def _vpp(self, contender: Contender, binary: str) -> VppProcess:
        plugins = ("linux_cp_plugin.so", "linux_cp_unittest_plugin.so") if contender.plugins else ()
        config = startup_conf(
            runtime_dir=self.directory,
            heap="4G",
            statseg="1G",
            plugins=(*plugins, *contender.plugins),
            stanzas=contender.stanzas,
        )
        return VppProcess(runtime_dir=self.directory, namespace=self.control, config=config, binary=binary)

    def _lay_cables(self) -> None:
        for port in PORTS:
            peer = f"p{port}"
            words = (
                f"link add {interface(port)} index {port + 1} type veth peer name {peer} netns {self._far}"
            )
            self.ip(*words.split())
            run(["ip", "-n", self._far, "link", "set", peer, "up"])

    def start_vpp(self) -> None:
        """Start VPP, make its ports and, for linux-nl, their pairs."""
        self.vpp.start()
        for _ in range(2 * (len(PORTS) + 1)):
            self.vpp.cli("create loopback interface")
        for port in PORTS:
            self.vpp.cli(f"set interface state {self.port_of(port)} up")
        if "linux_nl_plugin.so" in self.vpp.config:
            # The first pair is that of index 1, which is lo.
            for phy, host in (("loop4", "loop5"), ("loop0", "loop2"), ("loop1", "loop3")):
                said = self.vpp.cli(f"test lcp add phy {phy} host {host}").strip()
                if said:
                    raise RuntimeError(f"test lcp add: {said}")
        self._configure_ports()

    def port_of(self, port: int) -> str:
        """See `Bed`."""
        return f"loop{port - 1}"
