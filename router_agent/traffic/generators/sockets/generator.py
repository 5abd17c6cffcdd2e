"""A traffic generator of the operating system's own sockets: sending and receiving processes, some of each.

Workers run in the tester's network namespaces and stay for the length of a `with` block; a stream costs a
message to each. Nothing is shared but boards of counters, and every packet's fate is known afterwards.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.model import I64, U8
from router_agent.traffic.counters.kernel import HostBacklog, PortCounters
from router_agent.traffic.counters.schedule import Scheduling
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.frames import Frames, build, signature_offset
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.generators.sockets import account
from router_agent.traffic.generators.sockets import receiver as rx
from router_agent.traffic.generators.sockets import sender as tx
from router_agent.traffic.generators.sockets.account import Lane
from router_agent.traffic.generators.sockets.board import MOST_PACKETS, Board, Layout
from router_agent.traffic.generators.sockets.clock import StepWatch
from router_agent.traffic.generators.sockets.link import mac_of, pci_of, queues_of, require_up, udp_hash_of
from router_agent.traffic.generators.sockets.placement import Machine, Work, place
from router_agent.traffic.generators.sockets.plan import Plan, Sending, plan
from router_agent.traffic.generators.sockets.process import WorkerProcess
from router_agent.traffic.generators.sockets.receiver import ReceiveJob, ReceiverSetup
from router_agent.traffic.generators.sockets.sampling import described, sampling_shift
from router_agent.traffic.generators.sockets.sender import SenderSetup, SendJob
from router_agent.traffic.generators.sockets.worker import Done
from router_agent.traffic.scenario import Endpoints, Scenario

_START_NS = 20_000_000
"""From the order to send to the first packet."""

_OVERRUN = 0.05
_MOST_OVERRUN_S = 0.25
"""A stream that was held up may end so much later to send its last packets (part of it, seconds)."""

_LATE_S = 20.0
_PROGRESS_S = 0.1
_LATE_LOOK_S = 0.005


class SocketsGenerator:
    """Sends a scenario's stream from its ingress ports and captures it at every port.

    Use it as a context manager; workers start on entry.

    Args:
        scenario: frame sizes, destinations, sources, intervals, CPUs; its rate and duration are not used.
        endpoints: the tester's ports.
    """

    kind = "sockets"
    follows_packets = True

    def __init__(self, scenario: Scenario, endpoints: Endpoints) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self.plan = Plan((), ())
        self.setup: tuple[str, ...] = ()
        self._workers: list[WorkerProcess] = []
        self._next = 0
        self._running = False
        self._failed = False

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the workers, senders first."""
        return [worker.process.pid for worker in self._workers]

    @property
    def counters(self) -> tuple[CounterSource, ...]:
        """Counters of the kernel interfaces under the ports, this host's backlog, the workers' CPU times."""
        ports = PortCounters((p.name, p.interface, p.namespace) for p in self.endpoints.ports)
        return ports, HostBacklog(), Scheduling(lambda: self.process_ids)

    @property
    def senders(self) -> list[WorkerProcess]:
        """The sending workers, in the order of the plan."""
        return self._workers[: len(self.plan.senders)]

    @property
    def receivers(self) -> list[WorkerProcess]:
        """The receiving workers, in the order of the plan."""
        return self._workers[len(self.plan.senders) :]

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> SocketsRunning:
        """Begin to send; see `generator.Generator`."""
        if self._running:
            raise GeneratorError("a stream is under way already: stop it before starting another")
        if not self._workers:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        if self._failed:
            raise GeneratorError("a worker failed in an earlier stream: open the generator anew")
        for port in self.endpoints.ports:
            require_up(port)
        stream = _dealt(self.plan.senders, rate_pps, duration_s, packets, self._next)
        if stream.span > MOST_PACKETS:
            raise GeneratorError(
                f"a stream of {stream.span:,} packets is too long to follow each, the most is "
                f"{MOST_PACKETS:,}: send for a shorter time or at a lower rate"
            )
        self._next += stream.span
        try:
            running = SocketsRunning(self, stream)
        except BaseException:
            self._failed = True
            raise
        self._running = True
        return running

    def ended(self, *, failed: bool) -> None:
        """Note that a stream is over; one that failed leaves workers that cannot be used again."""
        self._running = False
        self._failed |= failed

    def _open(self) -> None:
        scenario, ports = self.scenario, self.endpoints.ports
        budget = len(scenario.cpus) or len(os.sched_getaffinity(0)) - 1
        gateways = {i: self._mac_of_router(i) for i in scenario.destinations.ingress_ports}
        macs = [mac_of(port) for port in ports]
        queues = {i: queues_of(port) for i, port in enumerate(ports)}
        self.plan = plan(ports, scenario.destinations, queues, budget)
        for sending in self.plan.senders:
            port = ports[sending.port]
            self._workers.append(WorkerProcess(port.namespace, f"sender on {port.name}"))
        for receiving in self.plan.receivers:
            names = ", ".join(ports[i].name for i in receiving.ports)
            namespace = ports[receiving.ports[0]].namespace
            self._workers.append(WorkerProcess(namespace, f"receiver on {names}"))
        cpus = self._place()
        tag = secrets.randbits(32)
        signature = signature_offset(scenario.destinations, scenario.sizes)
        for worker, sending, cpu in zip(self.senders, self.plan.senders, cpus, strict=False):
            frames = self._frames(sending, macs[sending.port], gateways[sending.port], tag)
            worker.send(SenderSetup(ports[sending.port].interface, frames, cpu))
        for worker, receiving, cpu in zip(
            self.receivers, self.plan.receivers, cpus[len(self.senders) :], strict=True
        ):
            group = (tag + receiving.ports[0]) & 0xFFFF if receiving.sharing > 1 else None
            interfaces = tuple(ports[i].interface for i in receiving.ports)
            udp_port = scenario.udp_port if ports[receiving.ports[0]].udp_host else None
            setup = ReceiverSetup(interfaces, tag, signature, scenario.ring_frames, cpu, group, udp_port)
            worker.send(setup)
        for worker in self._workers:
            worker.answer()

    def _place(self) -> tuple[int | None, ...]:
        """Choose CPUs; `setup` then tells which."""
        ports = self.endpoints.ports
        buses = [pci_of(port) for port in ports]
        of_workers = [(s.port,) for s in self.plan.senders] + [r.ports for r in self.plan.receivers]
        works = [
            Work(worker.what, tuple(bus for i in positions if (bus := buses[i])))
            for worker, positions in zip(self._workers, of_workers, strict=True)
        ]
        allowed = os.sched_getaffinity(0)
        found = place(works, allowed, Machine(), wanted=self.scenario.cpus)
        hashes = {port.name: udp_hash_of(port) for port in ports}
        self.setup = (
            f"sockets: {found.words}",
            *(f"receive queues of {name} by {words}" for name, words in hashes.items() if words),
        )
        return found.cpus

    def _mac_of_router(self, port: int) -> bytes:
        return bytes.fromhex((self.endpoints.sender(port).gateway_mac or "").replace(":", ""))

    def _frames(self, sending: Sending, mac: bytes, gateway: bytes, tag: int) -> Frames:
        scenario = self.scenario
        return build(
            scenario.destinations.rows(sending.rows),
            sizes=scenario.sizes,
            signature=signature_offset(scenario.destinations, scenario.sizes),
            source_mac=mac,
            gateway_mac=gateway,
            sources=scenario.sources,
            udp_port=scenario.udp_port,
            tag=tag,
            seed=scenario.seed,
            least_rows=tx.SLOTS,
        )

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()


@dataclass(frozen=True)
class _Stream:
    """What is being sent.

    Attributes:
        rate_pps: rate of all senders together.
        duration_s: until the last packet is due.
        limit_s: when it ends, whatever was held up.
        first: its first sequence number.
        lanes: (rate, first packet, packets) of each sender.
        shift: which packets are sampled.
    """

    rate_pps: float
    duration_s: float
    limit_s: float
    first: int
    lanes: tuple[tuple[float, int, int], ...]
    shift: int

    @property
    def span(self) -> int:
        """Sequence numbers it takes up; a few between lanes are not sent."""
        _, first, packets = self.lanes[-1]
        return first + packets


def _dealt(
    senders: tuple[Sending, ...], rate_pps: float, duration_s: float, packets: int | None, first: int
) -> _Stream:
    """Deal a stream to its senders; see `generator.Generator.start` for how."""
    planned = max(1, round(rate_pps * duration_s))
    count = planned if packets is None else min(planned, packets)
    shares = np.array([len(sending.rows) for sending in senders], np.float64)
    if packets is None:
        ports = np.array([sending.port for sending in senders])
        for port in np.unique(ports):
            shares[ports == port] /= shares[ports == port].sum()
    shares /= shares.sum()
    parts = np.diff(np.round(np.cumsum(shares) * count), prepend=0).astype(np.int64)
    shift = sampling_shift(rate_pps, count)
    lanes, at = [], 0
    for share, part in zip(shares.tolist(), parts.tolist(), strict=True):
        lanes.append((rate_pps * share, at, part))
        at += -(-part >> shift) << shift
    due_s = count / rate_pps
    limit_s = due_s + min(_OVERRUN * due_s, _MOST_OVERRUN_S)
    if packets is not None:
        limit_s = max(limit_s, duration_s)
    return _Stream(rate_pps, due_s, limit_s, first, tuple(lanes), shift)


class SocketsRunning:
    """A stream under way; see `generator.Running`."""

    def __init__(self, owner: SocketsGenerator, stream: _Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._senders, self._receivers = owner.senders, owner.receivers
        interval_s = owner.scenario.interval_s
        intervals = int((stream.limit_s + owner.scenario.drain_s) / interval_s) + 2
        self._interval_ns = round(interval_s * 1e9)
        samples = (stream.span >> stream.shift) + 1
        self._sent = [
            Board.create("traffic-sent", Layout(intervals, (packets >> stream.shift) + 1))
            for _, _, packets in stream.lanes
        ]
        self._received = [
            Board.create("traffic-received", Layout(intervals, samples, len(receiving.ports), stream.span))
            for receiving in owner.plan.receivers
        ]
        self._begin()

    def _begin(self) -> None:
        stream = self._stream
        self._clock = StepWatch()
        self._start_ns = time.monotonic_ns() + _START_NS
        receive = ReceiveJob(
            stream.first,
            tuple(first for _, first, _ in stream.lanes),
            stream.shift,
            self._start_ns + self._clock.offset_ns,
            self._interval_ns,
            self._received[0].layout,
        )
        for worker, board in zip(self._receivers, self._received, strict=True):
            worker.send(replace(receive, layout=board.layout))
            worker.send_board(board)
        for worker in self._receivers:
            worker.answer()
        end_ns = self._start_ns + int(stream.limit_s * 1e9)
        for worker, board, (rate_pps, first, packets) in zip(
            self._senders, self._sent, stream.lanes, strict=True
        ):
            worker.send(
                SendJob(
                    rate_pps,
                    packets,
                    stream.first + first,
                    stream.shift,
                    self._start_ns,
                    end_ns,
                    self._interval_ns,
                    board.layout,
                )
            )
            worker.send_board(board)

    def snapshot(self) -> Snapshot:
        """Return where it is now."""
        elapsed = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e9)
        return Snapshot(elapsed, self._packets_sent(), self._frames_received())

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        failed = True
        try:
            self._wait_for_senders(progress)
            result = self._collect()
            failed = False
            return result
        finally:
            for board in (*self._sent, *self._received):
                board.close()
            self._owner.ended(failed=failed)

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        for board in self._sent:
            board.counters[tx.STOP] = 1
        return self.finish()

    def _wait_for_senders(self, progress: Callable[[Snapshot], None] | None) -> None:
        """Wait until every sender is done; a receiver that speaks before has failed."""
        limit = time.monotonic() + self._stream.limit_s + _LATE_S
        sending = list(self._senders)
        while sending:
            ready = wait([worker.line for worker in (*sending, *self._receivers)], _PROGRESS_S)
            for worker in (*sending, *self._receivers):
                if worker.line in ready:
                    worker.answer()
            sending = [worker for worker in sending if worker.line not in ready]
            if progress is not None:
                progress(self.snapshot())
            if time.monotonic() > limit:
                late = ", ".join(worker.what for worker in sending)
                raise GeneratorError(f"the {late} should have ended {_LATE_S:.0f} s ago and has not")

    def _packets_sent(self) -> int:
        return int(sum(board.counters[tx.SENT] for board in self._sent))

    def _frames_received(self) -> int:
        return int(sum(board.counters[rx.FRAMES] for board in self._received))

    def _collect(self) -> TrialResult:
        lanes = self._lanes()
        self._wait_for_late(lanes)
        drops: dict[str, int] = {}
        for worker in self._receivers:
            worker.send("stop")
        for worker, receiving in zip(self._receivers, self._owner.plan.receivers, strict=True):
            done = worker.answer()
            counts = done.drops if isinstance(done, Done) else ()
            for port, count in zip(receiving.ports, counts, strict=True):
                name = self._owner.endpoints.ports[port].name
                drops[name] = drops.get(name, 0) + count
        self._require_steady_clock()
        return self._result(lanes, drops)

    def _require_steady_clock(self) -> None:
        step = self._clock.step_ns()
        if step:
            raise GeneratorError(
                f"the system clock was stepped by {step / 1e9:+.6f} s during the stream, so times of arrival "
                "mean nothing: wait until time synchronisation has settled (or stop it) and measure again"
            )

    def _lanes(self) -> list[Lane]:
        return [
            Lane(
                rate_pps,
                first,
                sending.rows,
                int(board.counters[tx.SENT]),
                int(board.counters[tx.INTENDED]),
                board.intervals.copy(),
                board.times,
            )
            for (rate_pps, first, _), sending, board in zip(
                self._stream.lanes, self._owner.plan.senders, self._sent, strict=True
            )
        ]

    def _wait_for_late(self, lanes: list[Lane]) -> None:
        """Wait until every packet is there, or as long as the scenario allows."""
        limit = time.monotonic() + self._owner.scenario.drain_s
        sent = sum(lane.sent for lane in lanes)
        looked_at = -1
        while time.monotonic() < limit:
            frames = self._frames_received()
            if frames >= sent and frames != looked_at:
                looked_at = frames
                if account.complete(lanes, account.merged(self._ports())):
                    return
            self._receivers[0].line.poll(_LATE_LOOK_S)

    def _ports(self) -> list[U8]:
        """Return what each port saw of the stream's packets, in the order of ports."""
        rows: list[list[U8]] = [[] for _ in self._owner.endpoints.ports]
        for board, receiving in zip(self._received, self._owner.plan.receivers, strict=True):
            for row, port in enumerate(receiving.ports):
                rows[port].append(board.seen[row])
        return [account.merged(columns) for columns in rows]

    def _latency(self, lanes: list[Lane]) -> Latency | None:
        """Return the latency; None where UDP sockets receive: when those were read says little of arrival."""
        if any(port.udp_host for port in self._owner.endpoints.ports):
            return None
        shift = self._stream.shift
        return account.latency(lanes, [board.times for board in self._received], shift, described(shift))

    def _result(self, lanes: list[Lane], drops: dict[str, int]) -> TrialResult:
        stream, ports = self._stream, self._ports()
        seen = account.merged(ports)
        received = account.received(lanes, seen)
        intended = sum(lane.intended for lane in lanes)
        last_ns = max(int(board.counters[tx.LAST_NS]) for board in self._sent)
        arrivals: I64 = np.sum([board.intervals for board in self._received], axis=0)
        return TrialResult(
            rate_pps=stream.rate_pps,
            duration_s=min(stream.duration_s, intended / stream.rate_pps),
            offered_s=max(0.0, (last_ns - self._start_ns) / 1e9),
            intended=intended,
            sent=sum(lane.sent for lane in lanes),
            received=received,
            duplicates=self._frames_received() - received,
            reordered=int(sum(board.counters[rx.REORDERED] for board in self._received)),
            series=account.series(lanes, seen, arrivals, self._interval_ns),
            received_by_port=tuple(account.received(lanes, port) for port in ports),
            by_destination=account.by_destination(lanes, ports, len(self._owner.scenario.destinations)),
            losses=account.losses(lanes, seen),
            latency=self._latency(lanes),
            tester_drops=drops,
            refused=int(sum(board.counters[tx.REFUSED] for board in self._sent)),
            setup=self._owner.setup,
            udp_hosts=tuple(port.name for port in self._owner.endpoints.ports if port.udp_host),
        )
