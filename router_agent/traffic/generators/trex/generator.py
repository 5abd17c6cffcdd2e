"""Streams from a TRex server, an installed one or one that runs: its ports send, and count what comes back.

TRex sends all packets of a stream however long it takes, so a rate that it cannot reach would stretch the
trial. It is stopped when the trial's time is up (with the same grace as other generators), and what it has
not sent by then is unsent: no loss, and the trial says nothing about the device. The wait for packets under
way is ours.

Packets are counted by port; TRex follows single ones only in flows that it was told of, a few hundred of
them. What else reaches a port is counted too. Ports are owned from entry to exit, and given back without our
streams, stopped, and as promiscuous as they were, whatever happened.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from router_agent.traffic.generators.frames import build
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.sampler import Sampler, Totals
from router_agent.traffic.generators.trex import ports as trex_ports
from router_agent.traffic.generators.trex import server as trex_server
from router_agent.traffic.generators.trex.counters import TrexCounters
from router_agent.traffic.generators.trex.ports import TrexPort
from router_agent.traffic.generators.trex.rpc import TrexRpc
from router_agent.traffic.generators.trex.streams import Part, calls, parts
from router_agent.traffic.scenario import Endpoints, Scenario

_OVERRUN = 0.05
_MOST_OVERRUN_S = 0.25
"""A stream that was held up may end so much later to send its last packets (part of it, seconds)."""

_LOOK_S = 0.02
_PROGRESS_S = 0.1
_END_S = 0.005
_SEEN_S = 0.02
"""How often the end is looked for when it is due, and how exactly it is seen, calls included."""

_LEAST_INTERVAL_S = 0.05
"""A look at every port costs TRex's control thread a round over all its threads' counters."""


class TrexGenerator:
    """Sends a scenario's stream through TRex; use it as a context manager.

    Args:
        scenario: frame sizes, destinations, sources, intervals; its rate and duration are not used.
        endpoints: the tester's ports: PCI addresses, or kernel interfaces that TRex has by their MACs.
        server: ``HOST`` or ``HOST:PORT`` of a running server; this host's when neither it nor `path` is
            given.
        path: directory of an installed TRex, which is started for the time that the generator is open.
    """

    kind = "trex"
    follows_packets = False

    def __init__(
        self, scenario: Scenario, endpoints: Endpoints, *, server: str | None = None, path: Path | None = None
    ) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self._server = server
        self._path = path
        self._senders = scenario.destinations.ingress_ports
        self._stack = ExitStack()
        self._rpc: TrexRpc | None = None
        self._ports: list[TrexPort] = []
        self._parts: list[list[Part]] = []
        self._process_ids: tuple[int, ...] = ()
        self._running = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._rpc = None

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process id of the server, if it was started here."""
        return self._process_ids

    @property
    def counters(self) -> tuple[TrexCounters, ...]:
        """What the ports drop."""
        return (TrexCounters(self.endpoints.names, self._statistics),)

    @property
    def senders(self) -> list[TrexPort]:
        """The sending ports."""
        return [self._ports[i] for i in self._senders]

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> TrexRunning:
        """Begin to send; see `generator.Generator`."""
        if self._rpc is None:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        if self._running:
            raise GeneratorError("a stream is under way already: stop it before starting another")
        for port in self._ports:
            port.require_link()
        planned = max(1, round(rate_pps * duration_s))
        count = planned if packets is None else min(planned, packets)
        ways = len(self._senders)
        for i, (port, found) in enumerate(zip(self.senders, self._parts, strict=True)):
            port.clear()
            port.add([*calls(found, rate_pps / ways, count // ways + (i < count % ways))])
        self._running = True
        try:
            return TrexRunning(self, _Stream(rate_pps, count / rate_pps, count))
        except BaseException:
            self.ended()
            raise

    def ended(self) -> None:
        """Note that a stream is over."""
        self._running = False

    def totals(self) -> Totals:
        """Return what was sent and received since the server began.

        Raises:
            GeneratorError: the server does not answer.
        """
        # what came is read before what went, else more would have come than went
        received = tuple(int(port.statistics()["ipackets"]) for port in self._ports)
        return Totals(sum(int(port.statistics()["opackets"]) for port in self.senders), received)

    def refused(self) -> int:
        """Return how often a port's queue was full since the server began."""
        return int(self._call("get_global_stats")["m_total_queue_full"])

    def transmits(self) -> bool:
        """Return whether any port still sends."""
        return any(port.transmits() for port in self.senders)

    def require_links(self) -> None:
        """Check that every port has its link.

        Raises:
            GeneratorError: one has not.
        """
        for port in self._ports:
            port.require_link()

    def _open(self, stack: ExitStack) -> None:
        sending = {i: self.endpoints.sender(i) for i in self._senders}
        if self._path is not None:
            cores = max(1, len(self.scenario.cpus))
            host, number, process = stack.enter_context(
                trex_server.started(self._path, self.endpoints.ports, cores)
            )
            self._process_ids = (process,)
        else:
            host, number = trex_server.address_of(self._server)
        self._rpc = stack.enter_context(TrexRpc(host, number))
        self._ports = trex_ports.found(self._rpc, self.endpoints.ports)
        for port in self._ports:
            stack.enter_context(port.taken())
        scenario = self.scenario
        for i, facing in sending.items():
            rows = np.flatnonzero(scenario.destinations.ingress == i)
            frames = build(
                scenario.destinations.rows(rows),
                sizes=scenario.sizes,
                source_mac=self._ports[i].mac,
                gateway_mac=bytes.fromhex((facing.gateway_mac or "").replace(":", "")),
                sources=scenario.sources,
                udp_port=scenario.udp_port,
                tag=secrets.randbits(32),
                seed=scenario.seed,
                least_rows=sum(weight for _, weight in scenario.sizes.shares),
            )
            self._parts.append(parts(frames))

    def _statistics(self) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
        return [port.statistics() for port in self._ports], self._call("get_global_stats")

    def _call(self, method: str) -> Mapping[str, Any]:
        if self._rpc is None:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        found: Mapping[str, Any] = self._rpc.call(method)
        return found


@dataclass(frozen=True)
class _Stream:
    """What is being sent."""

    rate_pps: float
    duration_s: float
    packets: int

    def intended(self, nanoseconds: int) -> int:
        """Return how many packets should have been sent so long after the first."""
        return min(self.packets, int(nanoseconds * self.rate_pps / 1e9))


class TrexRunning:
    """A stream under way; see `generator.Running`."""

    def __init__(self, owner: TrexGenerator, stream: _Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._before = owner.totals()
        self._refused = owner.refused()
        self._start_ns = time.monotonic_ns()
        overrun_s = min(_OVERRUN * stream.duration_s, _MOST_OVERRUN_S)
        self._end_ns = self._start_ns + int((stream.duration_s + overrun_s) * 1e9)
        self._stopped = False
        try:
            for port in owner.senders:
                port.start()
        except BaseException:
            self._halt()
            raise
        self._sampler = Sampler(
            self._totals,
            max(owner.scenario.interval_s, _LEAST_INTERVAL_S),
            self._start_ns,
            most_s=stream.duration_s + overrun_s + owner.scenario.drain_s,
        )

    def snapshot(self) -> Snapshot:
        """Return where it is now."""
        return self._sampler.snapshot()

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        try:
            due_ns = self._start_ns + int(self._stream.duration_s * 1e9)
            while not self._stopped and (now_ns := time.monotonic_ns()) < self._end_ns:
                if not self._owner.transmits():
                    break
                self._sampler.pause(max(_END_S, min(_PROGRESS_S, (due_ns - now_ns) / 1e9)))
                if progress is not None:
                    progress(self.snapshot())
            ended_ns = min(time.monotonic_ns(), self._end_ns)
            for port in self._owner.senders:
                port.stop()
            return self._collect(ended_ns)
        except BaseException:
            self._sampler.abandon()
            self._halt()
            raise
        finally:
            self._owner.ended()

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        self._stopped = True
        return self.finish()

    def _halt(self) -> None:
        """Stop what runs; a server that no longer answers has been complained of."""
        for port in self._owner.senders:
            try:
                port.stop()
            except GeneratorError:
                return

    def _totals(self) -> Totals:
        now = self._owner.totals()
        received = zip(now.received_by_port, self._before.received_by_port, strict=True)
        return Totals(now.sent - self._before.sent, tuple(after - before for after, before in received))

    def _collect(self, ended_ns: int) -> TrialResult:
        self._owner.require_links()
        final = self._wait_for_late()
        self._sampler.stop()
        stream = self._stream
        offered_s = (ended_ns - self._start_ns) / 1e9
        if final.sent >= stream.packets and offered_s < stream.duration_s + _SEEN_S:
            offered_s = stream.duration_s  # it was not seen to end later than it should
        due = stream.packets
        if self._stopped:
            due = stream.intended(ended_ns - self._start_ns)
        intended = max(final.sent, due)
        duration_s = min(stream.duration_s, intended / stream.rate_pps)
        return TrialResult(
            rate_pps=stream.rate_pps,
            duration_s=duration_s,
            offered_s=offered_s,
            intended=intended,
            sent=final.sent,
            received=final.received,
            received_by_port=final.received_by_port,
            series=self._sampler.series(final, duration_s, lambda ns: min(intended, stream.intended(ns))),
            refused=self._owner.refused() - self._refused,
        )

    def _wait_for_late(self) -> Totals:
        """Wait until every packet is there, or as long as the scenario allows."""
        limit = time.monotonic() + self._owner.scenario.drain_s
        while (now := self._totals()).received < now.sent and time.monotonic() < limit:
            self._sampler.pause(_LOOK_S)
        return now
