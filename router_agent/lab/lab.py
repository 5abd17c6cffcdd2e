"""The lab: an upstream, a POP with control and forwarding plane, a tester, and the agent between the planes.

    with Lab("lab", table=generated_table()) as lab:
        lab.start()
        lab.wait_settled()

Leaving the block takes everything down, whatever happened inside; `keep` leaves it up.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from router_agent.lab.agent import Agent
from router_agent.lab.announcement import expected_port
from router_agent.lab.commands import run
from router_agent.lab.counts import RouteCounter
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.downstream import Downstream
from router_agent.lab.errors import LabError
from router_agent.lab.exabgp import ExaBgp
from router_agent.lab.frr import Frr
from router_agent.lab.plan import IN, OUT, POP_AS, PORTS
from router_agent.lab.plane import KernelPlane, Plane, VppPlane, vpp_available
from router_agent.lab.root import HOST, newer_frr
from router_agent.lab.table import Table
from router_agent.lab.topology import RUNTIME, Topology
from router_agent.lab.upstream import Upstream
from router_agent.model import MAIN_TABLE, Family
from router_agent.namespaces import inside
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.scenario import Destinations, Endpoints, Port

EXABGP_PROTOCOL = 45
"""Protocol id of the routes the agent writes into the POP's kernel for ExaBGP."""

_SESSION_SECONDS = 60.0
_NEIGHBOUR_SECONDS = 10.0
_DISCARD = 9
_QUIET_SECONDS = 3
"""zebra pauses for a second where its buffer for the agent is full."""


class SpeakerKind(StrEnum):
    """Who speaks BGP in the POP."""

    FRR = "frr"
    EXABGP = "exabgp"


class FibKind(StrEnum):
    """What forwards in the POP."""

    KERNEL = "kernel"
    VPP = "vpp"


class Advertise(StrEnum):
    """When FRR tells a downstream neighbour of what it has learned."""

    AT_ONCE = "at-once"
    CONFIRMED = "confirmed"
    """After the agent has said that the FIB holds it."""


def default_fib() -> FibKind:
    """Return VPP where it is installed, else the kernel."""
    return FibKind.VPP if vpp_available() else FibKind.KERNEL


class Lab:
    """One lab; a context manager. Nothing exists before it is entered, nothing runs before `start`.

    Args:
        name: lower-case letters, digits and hyphens; namespaces and directories are called after it.
        table: what the upstream announces.
        speaker: who speaks BGP in the POP.
        fib: what forwards.
        advertise: have a downstream neighbour, who is told everything; FRR is then a newer one, which can
            wait for confirmations, see `router_agent.lab.root`.

    Attributes:
        topology: namespaces and wires.
        upstream: BIRD.
        downstream: a BIRD that is told all the POP announces, or None.
        frr: FRR, or None with ExaBGP.
        exabgp: ExaBGP, or None with FRR.
        plane: the forwarding plane.
        agent: router-agent.
        agent_pipelines: what its agent.yaml lists.
        keep: leave everything up at the end.
    """

    def __init__(
        self,
        name: str,
        *,
        table: Table,
        speaker: SpeakerKind = SpeakerKind.FRR,
        fib: FibKind = FibKind.KERNEL,
        advertise: Advertise | None = None,
    ) -> None:
        if advertise and speaker is not SpeakerKind.FRR:
            raise LabError(f"found {speaker.value} with a downstream neighbour, expected frr")
        self.topology = Topology(name)
        self.table = table
        self.speaker = speaker
        self.keep = False
        self.upstream = Upstream(self.topology, table)
        self.downstream = Downstream(self.topology) if advertise else None
        self.plane: Plane = VppPlane(self.topology) if fib is FibKind.VPP else KernelPlane(self.topology)
        self.exabgp: ExaBgp | None = None
        self.frr: Frr | None = None
        relay_socket = self.topology.directory / "agent" / "exabgp.sock"
        if speaker is SpeakerKind.EXABGP:
            self.exabgp = ExaBgp(self.topology, relay_socket)
        else:
            self.frr = Frr(
                self.topology,
                self.table_sizes,
                installation=newer_frr() if advertise else HOST,
                downstream=advertise is not None,
                confirmed=advertise is Advertise.CONFIRMED,
            )
        self.agent_pipelines = self._pipelines(str(relay_socket), advertise)
        self.agent = Agent(self.topology, self.agent_pipelines)
        self._teardown = ExitStack()
        self._pop_routes: RouteCounter | None = None
        self._own_routes = dict.fromkeys(Family, 0)

    def __enter__(self) -> Self:
        try:
            self._teardown.enter_context(lock(self.topology.name))
            self._teardown.callback(self._remove)
            self.topology.build(kernel_forwards=self.plane.kind == "kernel")
            self._pop_routes = self._teardown.enter_context(RouteCounter(self.topology.pop))
            self._own_routes = self._pop_routes.counts()
        except BaseException:
            self._teardown.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._teardown.close()

    @property
    def table_sizes(self) -> dict[Family, int]:
        """Prefixes of each family in the table."""
        return {family: len(self.table.keys(family)) for family in Family}

    @property
    def daemons(self) -> list[Daemon]:
        """The daemons that were started and shall live."""
        speakers = [*self.frr.daemons.values()] if self.frr else []
        if self.exabgp:
            speakers.append(self.exabgp.daemon)
        if self.downstream:
            speakers.append(self.downstream.daemon)
        return [self.upstream.daemon, *speakers]

    def configure(self) -> None:
        """Write every daemon's configuration, each checked by the daemon itself.

        Raises:
            LabError: a daemon is not installed or refuses its configuration.
        """
        self.upstream.configure()
        for part in (self.frr, self.exabgp, self.agent, self.downstream):
            if part is not None:
                part.configure()

    def start(self) -> None:
        """Configure and start everything, and wait until the BGP sessions are up.

        Raises:
            LabError: something does not come up; the message ends with its log.
        """
        self.configure()
        self.plane.start()
        self.meet_neighbours()
        self.agent.start()
        self.start_bgp()

    def start_bgp(self) -> None:
        """Start the upstream and the speaker, and wait until both sessions are up.

        Raises:
            LabError: they do not come up.
        """
        self.upstream.start()
        if self.downstream:
            self.downstream.start()
        if self.frr:
            self.frr.start()
        if self.exabgp:
            self.exabgp.start()
        self.wait_established()

    def wait_established(self, *, seconds: float = _SESSION_SECONDS) -> None:
        """Wait until the neighbours have all their sessions up.

        Raises:
            LabError: they do not come up.
        """
        neighbours = [self.upstream, *([self.downstream] if self.downstream else [])]
        wait_until(
            lambda: all(neighbour.all_established() for neighbour in neighbours),
            "the BGP sessions to be established",
            seconds=seconds,
            daemons=self.daemons,
            found=self.upstream.sessions,
        )

    def bgp_routes(self) -> dict[Family, int]:
        """Return how many routes of each family the POP's kernel has besides its own."""
        if self._pop_routes is None:
            raise LabError("the lab is not built: enter it first")
        return {
            family: count - self._own_routes[family] for family, count in self._pop_routes.counts().items()
        }

    def has_all(self, found: Mapping[Family, int]) -> bool:
        """Return whether these counts are what the upstream announces, no more and no less."""
        announced = self.upstream.announced
        return all(found[family] == announced[family] + self._extra for family in Family)

    def require_running(self) -> None:
        """Check that every daemon lives.

        Raises:
            LabError: one ended; with the end of its log.
        """
        for daemon in (*self.daemons, self.agent.daemon):
            daemon.require_running()

    def wait_converged(self, *, seconds: float = 180.0) -> None:
        """Wait until the POP's kernel has what the upstream announces.

        Raises:
            LabError: it does not get there.
        """
        wait_until(
            lambda: self.has_all(self.bgp_routes()),
            f"{_counted(self.upstream.announced)} in the POP's kernel",
            seconds=seconds,
            daemons=[*self.daemons, self.agent.daemon],
            poll_seconds=0.1,
            found=lambda: _counted(self.bgp_routes()),
        )

    @property
    def fib_sizes(self) -> dict[Family, int]:
        """Routes of each family that the FIB shall hold: the announced ones, FRR's own, a network a port."""
        extra = self._extra + len(PORTS)
        return {family: count + extra for family, count in self.upstream.announced.items()}

    def wait_settled(self, *, seconds: float = 180.0) -> None:
        """Wait until the POP's kernel has what the upstream announces, and the FIB what the kernel has.

        Raises:
            LabError: they do not get there.
        """
        self.wait_converged(seconds=seconds)
        self.agent.wait_holds(self.fib_sizes, seconds=seconds)

    def meet_neighbours(self) -> None:
        """Have the control plane resolve every neighbour, by ARP and neighbour discovery through the ports.

        Raises:
            LabError: a neighbour does not answer.
        """
        with inside(self.topology.pop):
            for family in Family:
                with socket.socket(socket.AddressFamily(family.value), socket.SOCK_DGRAM) as knock:
                    for port in PORTS:
                        knock.sendto(b"", (str(port.gateway(family)), _DISCARD))
        wait_until(
            lambda: not self._unresolved(),
            "neighbours to be resolved",
            seconds=_NEIGHBOUR_SECONDS,
            found=lambda: f"no answer from {', '.join(self._unresolved())}",
        )

    @property
    def endpoints(self) -> Endpoints:
        """The tester's ports for a traffic check; it sends on ``in``."""
        return Endpoints(
            tuple(Port(port.name, port.far_name, self.topology.tester, port.mac) for port in (OUT, IN))
        )

    def destinations(self, count: int | None = None, *, seed: int = 1) -> Destinations:
        """Return addresses to send to, each with the port (position in `endpoints`) it must leave by.

        Args:
            count: how many prefixes to draw; None takes all.
            seed: the same seed draws the same addresses.
        """
        keys = {family: self.table.keys(family) for family in Family}
        expected = {family: expected_port(column) for family, column in keys.items()}
        return Destinations.draw(keys, expected, count=count, ingress=1, seed=seed)

    def counters(self) -> list[CounterSource]:
        """Return the forwarding plane's counters for the packet ledger."""
        return [self.plane.counters()]

    @property
    def _extra(self) -> int:
        """Routes of each family that FRR adds itself: the blackhole of what the POP announces."""
        return 1 if self.frr else 0

    def _unresolved(self) -> list[str]:
        answer = json.loads(run(["ip", "-n", self.topology.pop, "-j", "neigh", "show"]))
        known = {entry["dst"] for entry in answer if "lladdr" in entry}
        wanted = [str(port.gateway(family)) for port in PORTS for family in Family]
        return [address for address in wanted if address not in known]

    def _pipelines(self, relay_socket: str, advertise: Advertise | None) -> list[dict[str, Any]]:
        feed: dict[str, Any] = {"kind": "kernel", "namespace": self.topology.pop, "tables": [MAIN_TABLE]}
        if advertise is Advertise.CONFIRMED:
            user, _ = newer_frr().owner()
            feed |= {"kind": "fpm", "users": [user], "quiet_seconds": _QUIET_SECONDS, "lost_seconds": 0}
        into_fib = {"name": "fib", "feed": feed, "fib": self.plane.fib()}
        if self.speaker is SpeakerKind.FRR:
            return [into_fib]
        into_kernel = {
            "name": "bgp",
            "feed": {"kind": "exabgp", "socket": relay_socket, "local_as": POP_AS},
            "fib": {
                "kind": "kernel",
                "namespace": self.topology.pop,
                "protocol": EXABGP_PROTOCOL,
                "metric": 20,
            },
        }
        return [into_kernel, into_fib]

    def _remove(self) -> None:
        if self.keep:
            return
        self.plane.stop()
        for daemon in (self.agent.daemon, *self.daemons):
            daemon.kill()
        if self.frr:
            self.frr.remove()
        self.topology.remove()


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Claim the name of a lab for the body.

    Raises:
        LabError: another process has a lab of this name.
    """
    path = RUNTIME / f"{name}.lock"
    file = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        with suppress(OSError):
            RUNTIME.rmdir()


def _locked(path: Path) -> IO[bytes]:
    """Return the lock file, open and locked; who finds it removed by its former owner tries again."""
    while True:
        RUNTIME.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            file = path.open("wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise LabError(
                    f"found a lab {path.stem!r} that another process is running; wait for it, or choose "
                    "another name"
                ) from None
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
            file.close()


def _counted(counts: dict[Family, int]) -> str:
    return ", ".join(f"{count:,} {family.label} routes" for family, count in counts.items())
