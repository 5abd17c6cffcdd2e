"""FRR in the control plane: zebra, bgpd and staticd with a path space of their own.

The path space (``-N``) keeps the sockets of several FRRs apart; the configuration goes in through
``vtysh -b`` as on a host, so the daemons get the integrated frr.conf and nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from router_agent.lab.commands import run
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.plan import ANNOUNCED, DOWNSTREAM_AS, IN, POP_AS, UPLINK, UPSTREAM_AS
from router_agent.lab.render import render
from router_agent.lab.reserved import RESERVED
from router_agent.lab.root import HOST, Installation
from router_agent.lab.topology import Topology
from router_agent.model import Address, Family

_PROGRAMS = Path("/usr/lib/frr")
_CONFIGURATIONS = Path("/etc/frr")
_READY_SECONDS = 30.0
_LONGEST = {Family.IPV4: 32, Family.IPV6: 64}
"""The lab takes what a real table has, which an operator's policy would cut at /24 and /48."""
_HEADROOM = 1.25

_NETLINK_BUFFER = 90_000_000
"""Bytes; Debian's own setting of zebra."""
_RETAIN_SECONDS = 300
"""For so long a starting zebra keeps the routes that a killed one left: the default of role frr."""


class Frr:
    """zebra, bgpd and staticd in the POP's namespace.

    Args:
        topology: of a lab that is built.
        prefixes: how many prefixes of each family the upstream will announce, for the limits.
        installation: whose programs run.
        downstream: tell the downstream neighbour everything.
        confirmed: announce only what the agent has confirmed.

    Attributes:
        graceful_restart: bgpd's routes survive it; to be set before `configure`.
    """

    def __init__(
        self,
        topology: Topology,
        prefixes: Mapping[Family, int],
        *,
        installation: Installation = HOST,
        downstream: bool = False,
        confirmed: bool = False,
    ) -> None:
        self._topology = topology
        self._prefixes = prefixes
        self._installation = installation
        self._downstream = downstream
        self._confirmed = confirmed
        self.graceful_restart = False
        self.pathspace = topology.pop
        # vtysh looks for a path space's configuration in a directory of its name.
        configurations = topology.directory if installation.root is None else _CONFIGURATIONS
        self._configurations = configurations
        self.directory = installation.path(configurations / self.pathspace)
        self._runtime = installation.path(topology.frr_runtime)
        self.daemons = {name: self._daemon(name) for name in _names(installation)}

    @property
    def zebra(self) -> Daemon:
        """The daemon that writes the kernel's routes."""
        return self.daemons["zebra"]

    @property
    def bgpd(self) -> Daemon:
        """The BGP daemon."""
        return self.daemons["bgpd"]

    @property
    def vtysh(self) -> list[str]:
        """The command of this FRR's shell."""
        return self._installation.inside(
            "vtysh", "-N", self.pathspace, "--config_dir", str(self._configurations)
        )

    def configure(self) -> None:
        """Write frr.conf and let vtysh check its syntax.

        Raises:
            LabError: vtysh refuses it, or FRR is not installed.
        """
        if not self._installation.has("zebra"):
            raise LabError(f"found no {_PROGRAMS / 'zebra'}, expected FRR: apt-get install frr")
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "frr.conf"
        text = frr_config(
            self._prefixes,
            downstream=self._downstream,
            confirmed=self._confirmed,
            graceful_restart=self.graceful_restart,
        )
        config.write_text(text)
        (self.directory / "vtysh.conf").write_text("")
        self._installation.give(self.directory, config, self.directory / "vtysh.conf")
        config.chmod(0o640)
        run([*self.vtysh, "-C", "-f", str(self._configurations / self.pathspace / "frr.conf")])
        self._runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._installation.give(self._runtime)

    def start(self) -> None:
        """Start the daemons, zebra first, and load the configuration.

        Raises:
            LabError: a daemon does not come up or refuses the configuration.
        """
        for name in self.daemons:
            self.start_daemon(name, load=False)
        self.load()

    def start_daemon(self, name: str, *, load: bool = True) -> None:
        """Start one daemon, wait for its shell socket, and load its part of the configuration.

        Raises:
            LabError: it does not come up.
        """
        socket = self._runtime / f"{name}.vty"
        socket.unlink(missing_ok=True)
        daemon = self.daemons[name]
        daemon.start()
        wait_until(socket.is_socket, f"{name}'s shell socket", seconds=_READY_SECONDS, daemons=[daemon])
        if load:
            run([*self.vtysh, "-d", name, "-b"])

    def restart(self) -> None:
        """Start every daemon anew, as watchfrr does when zebra has gone.

        zebra alone is not enough: a bgpd that goes on does not tell a new zebra what it told the old one.

        Raises:
            LabError: a daemon does not come up.
        """
        self.stop()
        self.start()

    def load(self) -> None:
        """Load frr.conf into the running daemons, as at boot.

        Raises:
            LabError: a daemon refuses it.
        """
        run([*self.vtysh, "-b"])

    def stop(self) -> None:
        """Stop the daemons, zebra last; it takes its routes out of the kernel first."""
        for daemon in reversed(self.daemons.values()):
            daemon.stop()

    def set_next_hops(self, next_hops: Mapping[Family, Address], *, undo: bool = False) -> None:
        """Give every prefix of the upstream these next hops, or again those it is announced with.

        Raises:
            LabError: FRR refuses it.
        """
        for family, next_hop in next_hops.items():
            kind = "ip next-hop" if family is Family.IPV4 else "ipv6 next-hop global"
            commands = (
                "configure terminal",
                f"route-map {_peer_name(family)}-IN permit 20",
                f"{'no ' if undo else ''}set {kind} {next_hop}",
                "end",
                f"clear bgp {_afi(family)} unicast * soft in",
            )
            run([*self.vtysh, *(word for command in commands for word in ("-c", command))])

    def show(self, command: str) -> Any:
        """Return the parsed answer to a ``show … json`` command.

        Raises:
            LabError: FRR does not answer, or not in JSON.
        """
        answer = run([*self.vtysh, "-c", command])
        try:
            return json.loads(answer)
        except ValueError:
            raise LabError(f"vtysh -c {command!r}: found {answer[:200]!r}, expected JSON") from None

    def accepted(self, family: Family) -> int:
        """Return how many prefixes bgpd has accepted from the upstream."""
        afi = "ipv4" if family is Family.IPV4 else "ipv6"
        peers = self.show(f"show bgp {afi} unicast summary json").get("peers", {})
        return sum(int(peer.get("pfxRcd", 0)) for peer in peers.values())

    def _daemon(self, name: str) -> Daemon:
        extra = ["-s", str(_NETLINK_BUFFER), "-K", str(_RETAIN_SECONDS)] if name == "zebra" else []
        if name == "zebra" and self._confirmed:
            extra += ["-M", "dplane_fpm_nl", "--asic-offload=notify_on_offload"]
        argv = [str(_PROGRAMS / name), "-N", self.pathspace, "--log", "stdout", *extra]
        return Daemon(
            name,
            self._installation.inside(*argv),
            namespace=self._topology.pop,
            directory=self.directory,
        )

    def remove(self) -> None:
        """Remove what was written into an installation of its own; the topology's teardown does the rest."""
        if self._installation.root is None:
            return
        for directory in (self.directory, self._runtime):
            shutil.rmtree(directory, ignore_errors=True)


def frr_config(
    prefixes: Mapping[Family, int],
    *,
    downstream: bool = False,
    confirmed: bool = False,
    graceful_restart: bool = False,
) -> str:
    """Return the lab's frr.conf."""
    peers: list[dict[str, object]] = [
        {
            "name": _peer_name(family),
            "description": f"upstream, {family.label}",
            "family": _afi(family),
            "address": UPLINK.gateway(family),
            "asn": UPSTREAM_AS,
            "maximum_prefixes": max(1000, int(prefixes[family] * _HEADROOM)),
        }
        for family in Family
    ]
    if downstream:
        peers += [
            {
                "name": f"DOWNSTREAM-V{'4' if family is Family.IPV4 else '6'}",
                "description": f"downstream, {family.label}",
                "family": _afi(family),
                "address": IN.neighbour_address(family).ip,
                "asn": DOWNSTREAM_AS,
                "maximum_prefixes": 1000,
                "announce_all": True,
            }
            for family in Family
        ]
    return render(
        "frr.conf.j2",
        hostname="pop1",
        log="stdout",
        router_id=str(UPLINK.address(Family.IPV4).ip),
        asn=POP_AS,
        graceful_restart=graceful_restart,
        announce={_afi(family): [ANNOUNCED[family]] for family in Family},
        reserved={_afi(family): [str(prefix) for prefix in RESERVED[family]] for family in Family},
        accept_longest={_afi(family): _LONGEST[family] for family in Family},
        peers=peers,
        confirmed={"address": "127.0.0.1"} if confirmed else None,
    )


def _peer_name(family: Family) -> str:
    return f"UPSTREAM-V{'4' if family is Family.IPV4 else '6'}"


def _afi(family: Family) -> str:
    return "ipv4" if family is Family.IPV4 else "ipv6"


def _names(installation: Installation) -> Iterator[str]:
    yield "zebra"
    # From FRR 9 on the configuration of zebra and staticd goes through mgmtd.
    if installation.has("mgmtd"):
        yield "mgmtd"
    yield "bgpd"
    yield "staticd"
