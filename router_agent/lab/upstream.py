"""The upstream: a BIRD that announces the table to the POP over IPv4 and IPv6 sessions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from router_agent.lab.announcement import Group, groups_of, write_routes
from router_agent.lab.commands import require, run
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.plan import ANNOUNCED, POP_AS, UPLINK, UPSTREAM_AS
from router_agent.lab.render import render
from router_agent.lab.table import Table
from router_agent.lab.topology import Topology
from router_agent.model import Family

_SESSIONS = {Family.IPV4: "pop1_v4", Family.IPV6: "pop1_v6"}
_READY_SECONDS = 60.0
_PROTOCOL = re.compile(
    r"^(?P<name>\S+)\s+(?P<kind>\S+)\s+\S+\s+(?P<state>\S+)\s+\S+\s*(?P<info>.*)$", re.MULTILINE
)
_COUNTS = re.compile(r"Routes:\s+(?P<imported>\d+) imported.*?(?P<exported>\d+) exported")


class Upstream:
    """BIRD in the upstream namespace.

    Args:
        topology: of a lab that is built.
        table: what to announce.
    """

    def __init__(self, topology: Topology, table: Table) -> None:
        self.table = table
        self.groups = groups_of(table)
        self.directory = topology.directory / "upstream"
        self.control = self.directory / "bird.ctl"
        config = self.directory / "bird.conf"
        self.daemon = Daemon(
            "bird",
            [
                "bird",
                "-f",
                "-c",
                str(config),
                "-s",
                str(self.control),
                "-P",
                str(self.directory / "bird.pid"),
            ],
            namespace=topology.upstream,
            directory=self.directory,
        )
        self._config = config
        self._withdrawn: list[Group] = []

    def configure(self) -> None:
        """Write BIRD's configuration and let BIRD check it.

        Raises:
            LabError: BIRD refuses it.
        """
        self.directory.mkdir(exist_ok=True)
        write_routes(self.directory, self.table, self.groups)
        self._config.write_text(
            render(
                "bird.conf.j2",
                hostname="upstream",
                router_id=str(UPLINK.far_address(Family.IPV4).ip),
                asn=UPSTREAM_AS,
                log_file=str(self.directory / "bird-events.log"),
                table_file=str(self.directory / "table.conf"),
                peers=[
                    {
                        "name": name,
                        "description": f"POP, {family.label}",
                        "family": "ipv4" if family is Family.IPV4 else "ipv6",
                        "local_address": UPLINK.far_address(family).ip,
                        "address": UPLINK.address(family).ip,
                        "asn": POP_AS,
                        "accept": [ANNOUNCED[family]],
                    }
                    for family, name in _SESSIONS.items()
                ],
            )
        )

    def start(self) -> None:
        """Start BIRD and wait until it has the table and answers.

        Raises:
            LabError: it refuses its configuration or does not come up.
        """
        self.control.unlink(missing_ok=True)
        self.daemon.start()
        wait_until(self._answers, "BIRD to answer", seconds=_READY_SECONDS, daemons=[self.daemon])

    def command(self, command: str) -> str:
        """Return what ``birdc`` prints for a command.

        Raises:
            LabError: BIRD does not answer or does not know the command.
        """
        return run([require("birdc"), "-s", str(self.control), command])

    def _answers(self) -> bool:
        # The socket is there before the configuration is read; only an answer says that it was.
        if not self.control.is_socket():
            return False
        try:
            return "up and running" in self.command("show status")
        except LabError:
            return False

    def established(self, family: Family) -> bool:
        """Return whether the session of a family is up."""
        answer = self.command(f"show protocols {_SESSIONS[family]}")
        return any(found["info"].startswith("Established") for found in _PROTOCOL.finditer(answer))

    def sessions(self) -> str:
        """Return the state of the sessions, for messages."""
        return "; ".join(
            f"{family.label} {self.command(f'show protocols {name}').strip().splitlines()[-1]}"
            for family, name in _SESSIONS.items()
        )

    def exported(self, family: Family) -> int:
        """Return how many prefixes BIRD has announced to the POP."""
        found = _COUNTS.search(self.command(f"show protocols all {_SESSIONS[family]}"))
        return int(found["exported"]) if found else 0

    def imported(self, family: Family) -> int:
        """Return how many prefixes BIRD has taken from the POP."""
        found = _COUNTS.search(self.command(f"show protocols all {_SESSIONS[family]}"))
        return int(found["imported"]) if found else 0

    def withdraw(self, count: int) -> dict[Family, int]:
        """Withdraw whole groups of both families until at least `count` prefixes are gone.

        What goes depends on what is announced alone: the same call after `announce_again` takes the same.

        Returns:
            How many were withdrawn of each family.

        Raises:
            LabError: fewer than `count` are announced.
        """
        gone = {group.name for group in self._withdrawn}
        announced = sorted((group for group in self.groups if group.name not in gone), key=_shuffled)
        chosen: list[Group] = []
        while sum(map(len, chosen)) < count:
            if not announced:
                raise LabError(
                    f"found {sum(map(len, chosen)):,} prefixes announced, expected {count:,} to withdraw"
                )
            chosen.append(announced.pop())
        self._switch("disable", chosen)
        self._withdrawn += chosen
        return _sizes(chosen)

    def announce_again(self) -> dict[Family, int]:
        """Announce again everything that was withdrawn; return how many prefixes of each family."""
        chosen, self._withdrawn = self._withdrawn, []
        self._switch("enable", chosen)
        return _sizes(chosen)

    @property
    def announced(self) -> dict[Family, int]:
        """Prefixes of each family that BIRD was told to announce."""
        withdrawn = _sizes(self._withdrawn)
        return {family: len(self.table.keys(family)) - withdrawn[family] for family in Family}

    def restart_sessions(self) -> None:
        """Close both sessions and let them come up again, as after a flap."""
        for name in _SESSIONS.values():
            self.command(f"restart {name}")

    def _switch(self, verb: str, groups: Iterable[Group]) -> None:
        for group in groups:
            self.command(f"{verb} {group.name}")


def _shuffled(group: Group) -> int:
    return zlib.crc32(group.name.encode())


def _sizes(groups: Iterable[Group]) -> dict[Family, int]:
    sizes = dict.fromkeys(Family, 0)
    for group in groups:
        sizes[group.family] += len(group)
    return sizes
