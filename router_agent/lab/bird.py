"""A BIRD that originates a table and announces it over BGP sessions, and takes what it is told to take."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from router_agent.lab.announcement import Group, write_routes
from router_agent.lab.commands import require, run
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.render import render
from router_agent.lab.table import Table
from router_agent.model import Address, Family

_READY_SECONDS = 60.0
_PROTOCOL = re.compile(
    r"^(?P<name>\S+)\s+(?P<kind>\S+)\s+\S+\s+(?P<state>\S+)\s+\S+\s*(?P<info>.*)$", re.MULTILINE
)
_RECEIVED = {what: re.compile(rf"Import {what}:\s+(?P<received>\d+)") for what in ("updates", "withdraws")}
_COUNTS = re.compile(r"Routes:\s+(?P<imported>\d+) imported.*?(?P<exported>\d+) exported")


@dataclass(frozen=True, slots=True)
class Session:
    """One BGP session of a BIRD.

    Attributes:
        name: of BIRD's protocol.
        family: of the addresses and of the routes.
        local_address, address: BIRD's and the neighbour's.
        asn: the neighbour's AS.
        accept: prefixes it may announce to BIRD.
        password: TCP-MD5 (RFC 2385); None for none.
        passive: BIRD waits for the neighbour to connect.
        ttl_security: packets have TTL 255 both ways (GTSM, RFC 5082).
        graceful_shutdown: what the neighbour announces before it shuts down is the last choice (RFC 8326).
        own_socket: it listens at its local address alone, because another speaker is in the namespace.
        description: for people.
    """

    name: str
    family: Family
    local_address: Address
    address: Address
    asn: int
    accept: tuple[str, ...]
    password: str | None = None
    passive: bool = False
    ttl_security: bool = False
    graceful_shutdown: bool = False
    own_socket: bool = False
    description: str = ""


class Bird:
    """BIRD in a network namespace.

    Args:
        name: host name it goes by; the directory is called after it.
        directory: parent of its directory.
        namespace: where it runs.
        router_id: its router id.
        asn: its AS.
        table: what to announce.
        groups: the table in groups, see `announcement.groups_of`.
        sessions: whom to.
        further: BIRD configuration that is read after the table.

    Attributes:
        further: as given; to be changed before `configure`.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: Path,
        namespace: str,
        router_id: str,
        asn: int,
        table: Table,
        groups: Sequence[Group],
        sessions: Sequence[Session],
        further: str = "",
    ) -> None:
        self.name = name
        self.table = table
        self.groups = list(groups)
        self.directory = directory / name
        self.control = self.directory / "bird.ctl"
        self._config = self.directory / "bird.conf"
        self._router_id = router_id
        self._asn = asn
        self._sessions = tuple(sessions)
        self.further = further
        self._withdrawn: list[Group] = []
        self.daemon = Daemon(
            "bird",
            [
                "bird",
                "-f",
                "-c",
                str(self._config),
                "-s",
                str(self.control),
                "-P",
                str(self.directory / "bird.pid"),
            ],
            namespace=namespace,
            directory=self.directory,
        )

    def configure(self) -> None:
        """Write BIRD's configuration; BIRD checks it when it starts.

        Raises:
            LabError: a template is broken.
        """
        self.directory.mkdir(exist_ok=True)
        write_routes(self.directory, self.table, self.groups)
        table_file = self.directory / "table.conf"
        if self.further:
            with table_file.open("a") as file:
                file.write(self.further)
        self._config.write_text(
            render(
                "bird.conf.j2",
                hostname=self.name,
                router_id=self._router_id,
                asn=self._asn,
                log_file=str(self.directory / "bird-events.log"),
                table_file=str(table_file),
                peers=[_peer(session) for session in self._sessions],
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

    def session_established(self, name: str) -> bool:
        """Return whether a session is up."""
        answer = self.command(f"show protocols {name}")
        return any(found["info"].startswith("Established") for found in _PROTOCOL.finditer(answer))

    def sessions(self) -> str:
        """Return the state of the sessions, for messages."""
        answers = {
            session.family.label: self.command(f"show protocols {session.name}") for session in self._sessions
        }
        return "; ".join(f"{label} {answer.strip().splitlines()[-1]}" for label, answer in answers.items())

    def all_established(self) -> bool:
        """Return whether every session is up."""
        return all(self.session_established(session.name) for session in self._sessions)

    def exported_to(self, name: str) -> int:
        """Return how many prefixes BIRD has announced over a session."""
        found = _COUNTS.search(self.command(f"show protocols all {name}"))
        return int(found["exported"]) if found else 0

    def imported_from(self, name: str) -> int:
        """Return how many prefixes BIRD has taken from a session."""
        found = _COUNTS.search(self.command(f"show protocols all {name}"))
        return int(found["imported"]) if found else 0

    def received_from(self, name: str) -> tuple[int, int]:
        """Return how many announcements and withdrawals have come over a session since BIRD started."""
        answer = self.command(f"show protocols all {name}")
        updates, withdraws = (pattern.search(answer) for pattern in _RECEIVED.values())
        return int(updates["received"]) if updates else 0, int(withdraws["received"]) if withdraws else 0

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
        """Close every session and let them come up again, as after a flap."""
        for session in self._sessions:
            self.command(f"restart {session.name}")

    def _answers(self) -> bool:
        # The socket is there before the configuration is read; only an answer says that it was.
        if not self.control.is_socket():
            return False
        try:
            return "up and running" in self.command("show status")
        except LabError:
            return False

    def _switch(self, verb: str, groups: Iterable[Group]) -> None:
        for group in groups:
            self.command(f"{verb} {group.name}")


def _peer(session: Session) -> dict[str, object]:
    peer: dict[str, object] = {
        "name": session.name,
        "description": session.description,
        "family": "ipv4" if session.family is Family.IPV4 else "ipv6",
        "local_address": session.local_address,
        "address": session.address,
        "asn": session.asn,
        "accept": session.accept,
        "passive": session.passive,
        "ttl_security": session.ttl_security,
        "graceful_shutdown": session.graceful_shutdown,
        "own_socket": session.own_socket,
    }
    if session.password is not None:
        peer["password"] = session.password
    return peer


def _shuffled(group: Group) -> int:
    return zlib.crc32(group.name.encode())


def _sizes(groups: Iterable[Group]) -> dict[Family, int]:
    sizes = dict.fromkeys(Family, 0)
    for group in groups:
        sizes[group.family] += len(group)
    return sizes
