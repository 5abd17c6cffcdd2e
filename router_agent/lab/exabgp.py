"""ExaBGP in the control plane, the second speaker: router-agent writes the kernel's routes for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from router_agent.feeds import exabgp_relay
from router_agent.lab.commands import run
from router_agent.lab.daemon import Daemon
from router_agent.lab.errors import LabError
from router_agent.lab.plan import ANNOUNCED, POP_AS, UPLINK, UPSTREAM_AS
from router_agent.lab.render import render
from router_agent.lab.topology import Topology
from router_agent.model import Family

_RESTART_SECONDS = 120


class ExaBgp:
    """ExaBGP in the POP's namespace.

    Args:
        topology: of a lab that is built.
        socket: unix socket of the agent that the relay connects to.
    """

    def __init__(self, topology: Topology, socket: Path) -> None:
        self.directory = topology.directory / "exabgp"
        self.config = self.directory / "exabgp.conf"
        self._socket = socket
        self._program = Path(sys.executable).with_name("exabgp")
        self.daemon = Daemon(
            "exabgp",
            [str(self._program), "server", str(self.config)],
            namespace=topology.pop,
            directory=self.directory,
            environment={
                **os.environ,
                "exabgp_daemon_drop": "false",
                "exabgp_api_cli": "false",
                "exabgp_tcp_bind": "",
                "exabgp_log_destination": "stdout",
                "exabgp_log_short": "false",
            },
        )

    def configure(self) -> None:
        """Write exabgp.conf and let ExaBGP check it.

        Raises:
            LabError: ExaBGP refuses it, or is not installed beside the Python that runs this.
        """
        if not self._program.exists():
            raise LabError(
                f"found no {self._program}, expected ExaBGP: install the extra 'lab' of this package"
            )
        self.directory.mkdir(exist_ok=True)
        self.config.write_text(exabgp_config(self._socket))
        run([str(self._program), "validate", "-nr", str(self.config)])

    def start(self) -> None:
        """Start ExaBGP; sessions come up by themselves."""
        self.daemon.start()

    def stop(self) -> None:
        """Stop ExaBGP."""
        self.daemon.stop()


def exabgp_config(socket: Path) -> str:
    """Return the lab's exabgp.conf."""
    return render(
        "exabgp.conf.j2",
        hostname="pop1",
        router_id=str(UPLINK.address(Family.IPV4).ip),
        asn=POP_AS,
        relay=f"{sys.executable} -I -S {Path(exabgp_relay.__file__)} {socket}",
        graceful_restart_seconds=_RESTART_SECONDS,
        announce={
            "ipv4": [ANNOUNCED[Family.IPV4]],
            "ipv6": [ANNOUNCED[Family.IPV6]],
        },
        peers=[
            {
                "description": f"upstream, {family.label}",
                "family": "ipv4" if family is Family.IPV4 else "ipv6",
                "address": UPLINK.gateway(family),
                "local_address": UPLINK.address(family).ip,
                "asn": UPSTREAM_AS,
            }
            for family in Family
        ],
    )
