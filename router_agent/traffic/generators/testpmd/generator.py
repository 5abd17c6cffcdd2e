"""Streams from DPDK's test program: paced frames out of one port, whatever comes back counted at every port.

    feeder ──FIFO──► capture device ──io──► port ──► device under test ──► port ──io──► capture device (drops)

testpmd itself keeps no rate: ``txonly`` sends as fast as it can, its own pacing needs NICs that send by time
stamp, and a looped capture (``infinite_rx``) has none. But a capture need not be a file. Each port of the
tester is paired with a capture device (doc/guides/nics/pcap_ring.rst) that reads a FIFO, and a feeder process
writes frames into that at the rate asked for, so what testpmd sends is as paced as what it is given. One such
device carries millions of frames a second (docs/performance.md); more is asked for in vain, which shows as
unsent packets. Frames are counted by port, no single one is followed.

testpmd runs from entry to exit, so a memif or a link does not go down between streams. Its threads forward
during a stream only. Frames that its port refuses are offered again 64 times, a microsecond apart; then they
count as unsent. A memif's ring is the wire and the device's receive queue in one: what it has no room for
counts as sent, and as dropped by the device, as a NIC's rx-miss would.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.traffic.generators import pcap
from router_agent.traffic.generators.frames import build
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.sampler import Sampler, Totals
from router_agent.traffic.generators.sockets.pacing import Pacer
from router_agent.traffic.generators.testpmd import devices, ports
from router_agent.traffic.generators.testpmd.counters import TAKEN, TestpmdCounters
from router_agent.traffic.generators.testpmd.feed import Feeder, Fifo
from router_agent.traffic.generators.testpmd.feeder import Fed, FeederSetup, FeedJob
from router_agent.traffic.generators.testpmd.process import Testpmd
from router_agent.traffic.scenario import ANY_PORT, Endpoints, Port, Scenario, Wire

_START_NS = 20_000_000
"""From the order to send to the first packet."""

_OVERRUN = 0.05
_MOST_OVERRUN_S = 0.25
"""A stream that was held up may end so much later to send its last packets (part of it, seconds)."""

_MOST_BURST = 32
_MOST_ROUND = 4 << 30
"""Bytes of a round of a stream at most: a feeder holds it."""
_LEAST_ROWS = 4_096
"""A feeder writes a round of the stream in one piece: few destinations are repeated up to so many frames."""
_LOOK_S = 0.01
_PROGRESS_S = 0.1
_UNREAD_S = 2.0
"""After the end of a stream testpmd may take so long for what is still in the FIFO without any progress."""


class TestpmdGenerator:
    """Sends a scenario's stream through dpdk-testpmd; use it as a context manager.

    Args:
        scenario: frame sizes, destinations, sources, intervals, CPUs (console and feeders first, then a
            thread for each port, or for each direction of it where packets may come back by a port that
            sends); its rate and duration are not used.
        endpoints: the tester's ports.
    """

    __test__ = False  # pytest: no test class
    kind = "testpmd"
    follows_packets = False

    def __init__(self, scenario: Scenario, endpoints: Endpoints) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self._senders = scenario.destinations.ingress_ports
        self._stack = ExitStack()
        self._testpmd: Testpmd | None = None
        self._fifos: list[Fifo] = []
        self._feeders: list[Feeder] = []
        self._ports: list[int] = []
        self._captures: list[int] = []
        self._two_way = _two_way(scenario, self._senders)
        self._running = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._testpmd = None
        self._stack.close()

    @property
    def process_ids(self) -> list[int]:
        """Process ids of testpmd and of the feeders."""
        if self._testpmd is None:
            return []
        return [self._testpmd.pid, *(feeder.process.pid for feeder in self._feeders)]

    @property
    def counters(self) -> tuple[TestpmdCounters, ...]:
        """What the ports drop."""
        return (TestpmdCounters(self.endpoints.ports, self.statistics),)

    @property
    def testpmd(self) -> Testpmd:
        """The program.

        Raises:
            GeneratorError: the generator is not open.
        """
        if self._testpmd is None:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        return self._testpmd

    def statistics(self) -> list[Mapping[str, int]]:
        """Return the statistics of each port, and as `counters.TAKEN` what testpmd had to send by it.

        Raises:
            GeneratorError: testpmd has ended.
        """
        return [
            {**self._ask(port), TAKEN: int(self._ask(capture)["ipackets"])}
            for port, capture in zip(self._ports, self._captures, strict=True)
        ]

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> TestpmdRunning:
        """Begin to send; see `generator.Generator`."""
        if self._running:
            raise GeneratorError("a stream is under way already: stop it before starting another")
        planned = max(1, round(rate_pps * duration_s))
        count = planned if packets is None else min(planned, packets)
        stream = _Stream(rate_pps, count / rate_pps, _shares(count, len(self._senders)))
        self.require_links()
        self._running = True
        try:
            self._begin_forwarding(stream)
            return TestpmdRunning(self, stream, self._feeders)
        except BaseException:
            with suppress(GeneratorError):
                self.end_forwarding()
            raise

    def totals(self) -> Totals:
        """Return what was sent and received since testpmd began.

        Raises:
            GeneratorError: testpmd has ended.
        """
        received = tuple(int(self._ask(number)["ipackets"]) for number in self._ports)
        return Totals(sum(map(self._sent, self._senders)), received)

    def taken(self) -> int:
        """Return how many frames testpmd has taken from the FIFOs.

        Raises:
            GeneratorError: testpmd has ended.
        """
        return sum(int(self._ask(self._captures[i])["ipackets"]) for i in self._senders)

    def require_links(self) -> None:
        """Check that every port has its link.

        Raises:
            GeneratorError: one has not.
        """
        ports.require_links(self.testpmd, self.endpoints.ports, self._ports)

    def end_forwarding(self) -> None:
        """Have testpmd's threads rest.

        Raises:
            GeneratorError: testpmd has ended.
        """
        self._running = False
        self._let_go()
        testpmd = self.testpmd
        testpmd.command("stop", "Done.")
        for number in self._captures:
            testpmd.command(f"port stop {number}", "Done")

    def _open(self, stack: ExitStack) -> None:
        ends = self.endpoints.ports
        senders = {i: self.endpoints.sender(i) for i in self._senders}
        directory = Path(tempfile.mkdtemp(prefix="testpmd-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        captures = []
        for i in range(len(ends)):
            fifo = Fifo(directory / f"frames{i}")
            stack.callback(fifo.release)
            fifo.begin()
            self._fifos.append(fifo)
            captures.append(f"--vdev={_capture_name(i)},rx_pcap={fifo.path}")
        # a thread that waits for frames cannot receive meanwhile, so it does so only where nothing comes back
        threads = (2 if self._two_way else 1) * len(ends)
        self._testpmd = ports.program(
            directory,
            self.endpoints,
            frame_bytes=self.scenario.sizes.largest,
            threads=threads,
            cpus=self.scenario.cpus,
            others=captures,
        )
        stack.enter_context(devices.flags_kept(ends))
        stack.enter_context(self._testpmd)
        # threads that wait for frames must be let go first, or testpmd cannot end
        stack.callback(self._let_go)
        self._pair(self._testpmd)
        ports.wait_links(self._testpmd, ends, self._ports)
        for i, port in senders.items():
            stack.callback(self._start_feeder(i, port).close)
        for feeder in self._feeders:
            feeder.wait_ready()

    def _let_go(self) -> None:
        for fifo in self._fifos:
            fifo.release()

    def _pair(self, testpmd: Testpmd) -> None:
        """Pair each port with its capture device, and leave the latter stopped."""
        ends = self.endpoints.ports
        names = [_capture_name(i) for i in range(len(ends))]
        found = ports.numbers(testpmd, ends, names)
        self._ports, self._captures = found[: len(ends)], found[len(ends) :]
        pairs = [n for pair in zip(self._captures, self._ports, strict=True) for n in pair]
        testpmd.command(f"set portlist {','.join(map(str, pairs))}")
        senders = {ends[i].wire for i in self._senders}
        if senders == {Wire.MEMIF}:
            testpmd.command("set fwd io", "Set io")
        else:
            testpmd.command("set fwd io retry", "with retry")
        for number in self._captures:
            testpmd.command(f"port stop {number}", "Done")
        self._let_go()

    def _ask(self, number: int) -> Mapping[str, int]:
        return ports.statistics(self.testpmd, number)

    def _sent(self, position: int) -> int:
        """Return packets sent by a port; a memif's full ring is the device's, as its NIC's would be."""
        if self.endpoints.ports[position].wire is Wire.MEMIF:
            return int(self._ask(self._captures[position])["ipackets"])
        return int(self._ask(self._ports[position])["opackets"])

    def _start_feeder(self, position: int, port: Port) -> Feeder:
        scenario = self.scenario
        rows = np.flatnonzero(scenario.destinations.ingress == position)
        frames = build(
            scenario.destinations.rows(rows),
            sizes=scenario.sizes,
            source_mac=devices.mac_of(port, position),
            gateway_mac=bytes.fromhex((port.gateway_mac or "").replace(":", "")),
            sources=scenario.sources,
            udp_port=scenario.udp_port,
            tag=secrets.randbits(32),
            seed=scenario.seed,
            least_rows=_LEAST_ROWS,
        )
        if (octets := pcap.size_of(frames)) > _MOST_ROUND:
            raise GeneratorError(
                f"port {port.name}: frames to all destinations are {octets / 1e9:.1f} GB, the most is "
                f"{_MOST_ROUND / 1e9:.1f} GB: take fewer destinations, or smaller frames"
            )
        setup = FeederSetup(self._fifos[position].path, frames, scenario.cpus[0] if scenario.cpus else None)
        feeder = Feeder(f"feeder of port {port.name}", setup)
        self._feeders.append(feeder)
        return feeder

    def _begin_forwarding(self, stream: _Stream) -> None:
        """Begin a capture for every port.

        Those of senders are written by feeders. The others are empty: where they have a thread of their own,
        it waits for their end, else they have ended already.
        """
        testpmd = self.testpmd
        for fifo, number in zip(self._fifos, self._captures, strict=True):
            fifo.begin()
            testpmd.command(f"port start {number}", "Done")
        for feeder, position in zip(self._feeders, self._senders, strict=True):
            feeder.open(stream.rate_pps / len(self._senders))
            self._fifos[position].release()
        if not self._two_way:
            self._let_go()
        testpmd.command(f"set burst {stream.burst}")
        testpmd.command("start", "packet forwarding")


@dataclass(frozen=True)
class _Stream:
    """What is being sent: `packets` by each sending port."""

    rate_pps: float
    duration_s: float
    packets: tuple[int, ...]

    @property
    def burst(self) -> int:
        """Packets that testpmd collects before it sends them: those of a millisecond, 32 at most."""
        each = self.rate_pps / len(self.packets)
        return int(max(1, min(_MOST_BURST, each * Pacer(each, 1, 0).tick_ns / 1e9)))

    def intended(self, nanoseconds: int) -> int:
        """Return how many packets should have been sent so long after the first."""
        each = self.rate_pps / len(self.packets)
        return sum(Pacer(each, n, 0).scheduled(nanoseconds - 1) for n in self.packets)


class TestpmdRunning:
    """A stream under way; see `generator.Running`."""

    __test__ = False  # pytest: no test class

    def __init__(self, owner: TestpmdGenerator, stream: _Stream, feeders: Sequence[Feeder]) -> None:
        self._owner = owner
        self._stream = stream
        self._feeders = feeders
        self._before = self._settled()
        self._taken = owner.taken()
        self._start_ns = time.monotonic_ns() + _START_NS
        overrun_s = min(_OVERRUN * stream.duration_s, _MOST_OVERRUN_S)
        end_ns = self._start_ns + int((stream.duration_s + overrun_s) * 1e9)
        each = stream.rate_pps / len(feeders)
        for feeder, packets in zip(feeders, stream.packets, strict=True):
            feeder.begin(FeedJob(each, packets, stream.burst, self._start_ns, end_ns))
        scenario = owner.scenario
        self._sampler = Sampler(
            self._totals,
            scenario.interval_s,
            self._start_ns,
            most_s=stream.duration_s + overrun_s + scenario.drain_s + _UNREAD_S,
        )

    def snapshot(self) -> Snapshot:
        """Return where it is now."""
        return self._sampler.snapshot()

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        try:
            for feeder in self._feeders:
                while not feeder.ended(_PROGRESS_S):
                    self._owner.testpmd.require_running()
                    now = self.snapshot()
                    if progress is not None:
                        progress(now)
            return self._collect([feeder.result() for feeder in self._feeders])
        except BaseException:
            self._sampler.abandon()
            raise
        finally:
            self._owner.end_forwarding()

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        for feeder in self._feeders:
            feeder.stop()
        return self.finish()

    def _settled(self) -> Totals:
        """Return totals once what had waited in the ports' rings is taken out of them."""
        before = self._owner.totals()
        while True:
            self._owner.testpmd.pause(_LOOK_S)
            now = self._owner.totals()
            if now == before:
                return now
            before = now

    def _totals(self) -> Totals:
        now = self._owner.totals()
        received = zip(now.received_by_port, self._before.received_by_port, strict=True)
        return Totals(now.sent - self._before.sent, tuple(after - before for after, before in received))

    def _collect(self, fed: Sequence[Fed]) -> TrialResult:
        self._sampler.stop()
        self._wait_taken(sum(one.written for one in fed))
        final = self._wait_for_late()
        self._owner.require_links()
        stream = self._stream
        intended = sum(one.intended for one in fed)
        duration_s = min(stream.duration_s, intended / stream.rate_pps)
        return TrialResult(
            rate_pps=stream.rate_pps,
            duration_s=duration_s,
            offered_s=max(0.0, (max(one.last_ns for one in fed) - self._start_ns) / 1e9),
            intended=intended,
            sent=final.sent,
            received=final.received,
            received_by_port=final.received_by_port,
            series=self._sampler.series(
                final, duration_s, lambda ns: min(intended, self._stream.intended(ns))
            ),
            refused=sum(one.refused for one in fed),
        )

    def _wait_taken(self, written: int) -> None:
        """Wait until testpmd has taken what the feeders wrote."""
        taken, limit = -1, 0.0
        while (now := self._owner.taken() - self._taken) < written:
            if now > taken:
                taken, limit = now, time.monotonic() + _UNREAD_S
            elif time.monotonic() > limit:
                return  # it lost some for want of buffers: they are unsent, and its counters say so
            self._owner.testpmd.pause(_LOOK_S)

    def _wait_for_late(self) -> Totals:
        """Wait until every packet is there, or as long as the scenario allows."""
        limit = time.monotonic() + self._owner.scenario.drain_s
        while (now := self._totals()).received < now.sent and time.monotonic() < limit:
            self._owner.testpmd.pause(_LOOK_S)
        return now


def _two_way(scenario: Scenario, senders: Sequence[int]) -> bool:
    """Return whether packets may come back by a port that sends."""
    return bool(np.isin(scenario.destinations.expected, [ANY_PORT, *senders]).any())


def _capture_name(position: int) -> str:
    return f"net_pcap{position}"


def _shares(count: int, ways: int) -> tuple[int, ...]:
    """Return a count dealt to so many senders."""
    return tuple(count // ways + (i < count % ways) for i in range(ways))
