"""A traffic generator of the operating system's own sockets: one sending and some receiving processes.

Workers run in the tester's network namespaces and stay for the length of a `with` block; a stream costs a
message to each. Nothing is shared but boards of counters, and every packet's fate is known afterwards.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from multiprocessing.reduction import send_handle
from types import TracebackType
from typing import Any, Self

import numpy as np

from router_agent.model import I64
from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import HostBacklog, PortCounters
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.frames import Frames, build
from router_agent.traffic.generators.generator import (
    ByDestination,
    GeneratorError,
    Series,
    Snapshot,
    TrialResult,
)
from router_agent.traffic.generators.sockets import receiver as rx
from router_agent.traffic.generators.sockets import sender as tx
from router_agent.traffic.generators.sockets.board import Board
from router_agent.traffic.generators.sockets.pacing import Pacer
from router_agent.traffic.generators.sockets.receiver import ReceiveJob, ReceiverSetup
from router_agent.traffic.generators.sockets.sender import SenderSetup, SendJob
from router_agent.traffic.generators.sockets.worker import Done, Failed, Ready
from router_agent.traffic.scenario import Endpoints, Port, Scenario

_WORKER = "router_agent.traffic.generators.sockets.worker"
_START_NS = 20_000_000
"""From the order to send to the first packet."""

_OVERRUN = 0.05
_MOST_OVERRUN_S = 0.25
"""A stream that was held up may end so much later to send its last packets (part of it, seconds)."""

_ANSWER_S = 20.0
_PROGRESS_S = 0.1
_LATE_LOOK_S = 0.005


class _Worker:
    """One worker process and the line to it."""

    def __init__(self, namespace: str | None, what: str) -> None:
        self.what = what
        self.line, theirs = Pipe()
        command = [sys.executable, "-m", _WORKER, str(theirs.fileno())]
        with theirs, inside(namespace):
            # a group of its own: Ctrl-C reaches the coordinator alone, whose end of the line ends the worker
            self.process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, process_group=0
            )

    def send(self, message: object) -> None:
        """Send a message, a broken line being a failure of the generator."""
        try:
            self.line.send(message)
        except OSError as error:
            raise GeneratorError(self._death()) from error

    def send_board(self, board: Board) -> None:
        """Give the worker a board."""
        send_handle(self.line, board.descriptor, self.process.pid)

    def answer(self, timeout_s: float = _ANSWER_S) -> Ready | Done:
        """Return the worker's next word.

        Raises:
            GeneratorError: it failed, died, or said nothing for so long.
        """
        try:
            if not self.line.poll(timeout_s):
                raise GeneratorError(f"the {self.what} has not answered for {timeout_s:.0f} s")
            message: Ready | Done | Failed = self.line.recv()
        except (EOFError, OSError) as error:
            raise GeneratorError(self._death()) from error
        if isinstance(message, Failed):
            raise GeneratorError(f"the {self.what} failed: {message.reason}\n{message.trace}")
        return message

    def close(self) -> None:
        """End the process."""
        self.line.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _death(self) -> str:
        try:
            code: Any = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = "none yet"
        return f"the {self.what} process has ended (exit code {code}); see its error output"


class SocketsGenerator:
    """Sends a scenario's stream from one port and captures it at every port.

    Use it as a context manager; workers start on entry.

    Args:
        scenario: frame size, destinations, sources, intervals, CPUs; its rate and duration are not used.
        endpoints: the tester's ports.
    """

    def __init__(self, scenario: Scenario, endpoints: Endpoints) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self._workers: list[_Worker] = []
        self._groups: list[list[int]] = []
        self._frames: Frames
        self._next = 0
        self._running = False

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

    kind = "sockets"
    follows_packets = True

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the workers, sender first."""
        return [worker.process.pid for worker in self._workers]

    @property
    def counters(self) -> tuple[CounterSource, ...]:
        """Counters of the kernel interfaces under the ports, and of this host's backlog."""
        ports = self.endpoints.ports
        return PortCounters((p.name, p.interface, p.namespace) for p in ports), HostBacklog()

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> SocketsRunning:
        """Begin to send; see `generator.Generator`."""
        if self._running:
            raise GeneratorError("a stream is under way already: stop it before starting another")
        if not self._workers:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        planned = max(1, round(rate_pps * duration_s))
        count = planned if packets is None else min(planned, packets)
        d = len(self._frames)
        first, self._next = self._next, self._next + -(-count // d) * d
        stream = _Stream(rate_pps, count / rate_pps, count, first, self.scenario.interval_s)
        running = SocketsRunning(self, stream, self._workers, self._groups)
        self._running = True
        return running

    def _ended(self) -> None:
        self._running = False

    def _open(self) -> None:
        scenario, ports = self.scenario, self.endpoints.ports
        senders = [self.endpoints.sender(i) for i in scenario.destinations.ingress_ports]
        if len(senders) > 1:
            raise GeneratorError(f"sockets send from one port, found {len(senders)} to send from")
        ingress = senders[0]
        self._groups = _groups(ports, len(os.sched_getaffinity(0)) - 1)
        cpus = _cpus(scenario.cpus, 1 + len(self._groups))
        self._workers.append(_Worker(ingress.namespace, f"sender on {ingress.name}"))
        for group in self._groups:
            names = ", ".join(ports[i].name for i in group)
            self._workers.append(_Worker(ports[group[0]].namespace, f"receiver on {names}"))
        sender, *receivers = self._workers
        self._frames = build(
            scenario.destinations,
            sizes=scenario.sizes,
            source_mac=_mac_of(ingress),
            gateway_mac=bytes.fromhex((ingress.gateway_mac or "").replace(":", "")),
            sources=scenario.sources,
            udp_port=scenario.udp_port,
            tag=secrets.randbits(32),
            seed=scenario.seed,
        )
        sender.send(SenderSetup(ingress.interface, self._frames, cpus[0]))
        for worker, group, cpu in zip(receivers, self._groups, cpus[1:], strict=True):
            interfaces = tuple(ports[i].interface for i in group)
            worker.send(
                ReceiverSetup(interfaces, self._frames.tag, self._frames.signature, scenario.ring_frames, cpu)
            )
        for worker in self._workers:
            worker.answer()

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()


@dataclass(frozen=True)
class _Stream:
    """What is being sent: `first` is the first sequence number."""

    rate_pps: float
    duration_s: float
    packets: int
    first: int
    interval_s: float


class SocketsRunning:
    """A stream under way; see `generator.Running`."""

    def __init__(
        self, owner: SocketsGenerator, stream: _Stream, workers: Sequence[_Worker], groups: list[list[int]]
    ) -> None:
        self._owner = owner
        self._stream = stream
        self._sender, *self._receivers = workers
        self._groups = groups
        self._ports = owner.endpoints.ports
        overrun = min(_OVERRUN * stream.duration_s, _MOST_OVERRUN_S)
        span = stream.duration_s + overrun + owner.scenario.drain_s
        self._intervals = int(span / stream.interval_s) + 2
        self._interval_ns = round(stream.interval_s * 1e9)
        self._sent = Board.create("traffic-sent", self._intervals)
        self._received = [
            Board.create("traffic-received", self._intervals, len(group), stream.packets) for group in groups
        ]
        self._begin(overrun)

    def _begin(self, overrun_s: float) -> None:
        stream = self._stream
        now = time.monotonic_ns()
        self._start_ns = now + _START_NS
        wall_ns = time.time_ns() + _START_NS
        receive = ReceiveJob(stream.first, stream.packets, wall_ns, self._interval_ns, self._intervals)
        for worker, board, group in zip(self._receivers, self._received, self._groups, strict=True):
            worker.send((receive, len(group)))
            worker.send_board(board)
        for worker in self._receivers:
            worker.answer()
        end_ns = self._start_ns + int((stream.duration_s + overrun_s) * 1e9)
        send = SendJob(
            stream.rate_pps,
            stream.packets,
            stream.first,
            self._start_ns,
            end_ns,
            self._interval_ns,
            self._intervals,
        )
        self._sender.send(send)
        self._sender.send_board(self._sent)

    def snapshot(self) -> Snapshot:
        """Return where it is now."""
        elapsed = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e9)
        return Snapshot(elapsed, int(self._sent.counters[tx.SENT]), self._frames_received())

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        try:
            limit = time.monotonic() + self._stream.duration_s + _ANSWER_S
            while not self._sender.line.poll(_PROGRESS_S):
                if progress is not None:
                    progress(self.snapshot())
                if time.monotonic() > limit:
                    break
            return self._collect()
        finally:
            self._owner._ended()

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        self._sent.counters[tx.STOP] = 1
        return self.finish()

    def _frames_received(self) -> int:
        return int(sum(board.counters[rx.FRAMES] for board in self._received))

    def _collect(self) -> TrialResult:
        self._sender.answer()
        sent = int(self._sent.counters[tx.SENT])
        self._wait_for_late(sent)
        drops: dict[str, int] = {}
        for worker in self._receivers:
            worker.send("stop")
        for worker, group in zip(self._receivers, self._groups, strict=True):
            done = worker.answer()
            counts = done.drops if isinstance(done, Done) else ()
            drops.update({self._ports[i].name: n for i, n in zip(group, counts, strict=True)})
        result = self._result(sent, drops)
        for board in (self._sent, *self._received):
            board.close()
        return result

    def _wait_for_late(self, sent: int) -> None:
        """Wait until every packet is there, or as long as the scenario allows."""
        limit = time.monotonic() + self._owner.scenario.drain_s
        looked_at = -1
        while time.monotonic() < limit:
            frames = self._frames_received()
            if frames >= sent and frames != looked_at:
                looked_at = frames
                if self._seen(sent)[1].all():
                    return
            self._receivers[0].line.poll(_LATE_LOOK_S)

    def _seen(self, sent: int) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return what each port saw of the packets sent, in the order of ports, and what any port saw."""
        rows: list[np.ndarray[Any, Any]] = [np.empty(0, np.uint8)] * len(self._ports)
        for board, group in zip(self._received, self._groups, strict=True):
            for row, port in enumerate(group):
                rows[port] = board.seen[row, :sent]
        return rows, np.logical_or.reduce(rows)

    def _result(self, sent: int, drops: dict[str, int]) -> TrialResult:
        stream, counters = self._stream, self._sent.counters
        rows, seen = self._seen(sent)
        received = int(np.count_nonzero(seen))
        d = len(self._owner.scenario.destinations)
        intended = int(counters[tx.INTENDED])
        offered_s = max(0.0, (int(counters[tx.LAST_NS]) - self._start_ns) / 1e9)
        return TrialResult(
            rate_pps=stream.rate_pps,
            duration_s=min(stream.duration_s, intended / stream.rate_pps),
            offered_s=offered_s,
            intended=intended,
            sent=sent,
            received=received,
            duplicates=self._frames_received() - received,
            reordered=int(sum(board.counters[rx.REORDERED] for board in self._received)),
            series=self._series(seen, intended),
            received_by_port=tuple(int(np.count_nonzero(row)) for row in rows),
            by_destination=ByDestination(
                _per_destination(np.ones(sent, np.uint8), d),
                np.stack([_per_destination(row, d) for row in rows]),
            ),
            tester_drops=drops,
            refused=int(counters[tx.REFUSED]),
        )

    def _series(self, seen: np.ndarray[Any, Any], intended: int) -> Series:
        sent = self._sent.intervals.copy()
        received: I64 = np.stack([board.intervals for board in self._received]).sum(axis=0)
        pacer = Pacer(self._stream.rate_pps, intended, 0)
        edges = [pacer.scheduled(i * self._interval_ns - 1) for i in range(1, self._intervals + 1)]
        planned = _steps(np.array(edges, np.int64))
        busy = np.flatnonzero(sent + received + planned)
        n = int(busy[-1]) + 1 if len(busy) else 0
        lost = _lost_by_interval(seen, sent)
        return Series(self._stream.interval_s, planned[:n], sent[:n], received[:n], lost[:n])


def _lost_by_interval(seen: np.ndarray[Any, Any], sent: I64) -> I64:
    """Return how many of the packets sent in each interval were not seen."""
    ends = np.cumsum(sent)
    missing = np.flatnonzero(seen == 0)
    before = np.searchsorted(missing, ends)
    return _steps(before.astype(np.int64))


def _steps(totals: I64) -> I64:
    """Return by how much running totals grow, from 0."""
    steps = totals.copy()
    steps[1:] -= totals[:-1]
    return steps


def _per_destination(marks: np.ndarray[Any, Any], d: int) -> I64:
    """Return the sum of marks for each destination; packet s went to destination s mod d."""
    whole = len(marks) // d * d
    counts = marks[:whole].reshape(-1, d).sum(axis=0, dtype=np.int64)
    counts[: len(marks) - whole] += marks[whole:]
    return np.asarray(counts, np.int64)


def _groups(ports: Sequence[Port], processes: int) -> list[list[int]]:
    """Deal ports to receiving processes: those of one process are in one namespace."""
    by_namespace: dict[str | None, list[int]] = {}
    for position, port in enumerate(ports):
        by_namespace.setdefault(port.namespace, []).append(position)
    spare = max(0, processes - len(by_namespace))
    return [group for members in by_namespace.values() for group in _deal(members, 1 + spare)]


def _deal(members: list[int], hands: int) -> Iterator[list[int]]:
    hands = min(hands, len(members))
    return (members[i::hands] for i in range(hands))


def _cpus(wanted: tuple[int, ...], workers: int) -> list[int | None]:
    """Return the CPU of each worker; none when the machine has too few to give one to each and one more."""
    if wanted:
        return [wanted[i % len(wanted)] for i in range(workers)]
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) <= workers:
        return [None] * workers
    return list(allowed[:workers])


def _mac_of(port: Port) -> bytes:
    """Return the MAC of a tester's port.

    Raises:
        GeneratorError: there is no such interface.
    """
    with inside(port.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        try:
            probe.bind((port.interface, 0))
        except OSError as error:
            where = f"namespace {port.namespace}" if port.namespace else "this namespace"
            raise GeneratorError(
                f"port {port.name}: cannot use interface {port.interface!r} in {where}: {error.strerror}"
            ) from error
        mac: bytes = probe.getsockname()[4]
    return mac
