"""The generator ``vpp-pg``: a VPP of its own, beside the device and with nothing of it in common.

It sends and receives by port and follows no single packet. During a trial nothing asks it anything: what it
did is read from its stats segment. Its rate is kept by VPP's packet generator; see `streams`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.frames import build
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.vpp_pg.api import Api
from router_agent.traffic.generators.vpp_pg.counts import Counts, GeneratorPorts, PortCounts
from router_agent.traffic.generators.vpp_pg.ports import PortMaker, nic_name
from router_agent.traffic.generators.vpp_pg.recording import Recording, Totals
from router_agent.traffic.generators.vpp_pg.streams import (
    FEW,
    FRAME,
    STREAMS,
    ReplayFrames,
    Stream,
    dealt,
)
from router_agent.traffic.generators.vpp_pg.tester import Tester
from router_agent.traffic.scenario import Endpoints, Port, Scenario, Wire
from router_agent.vpp.process import VppProcess, VppProcessError, startup_conf
from router_agent.vpp.stats import StatsError

T = TypeVar("T")

_OVERRUN = 0.005
"""A stream that was held up may end so much later to send its last packets (part of its duration): no rate is
lower than asked by more than a trial may leave unsent."""

_LEAST_OVERRUN_S = 0.002
_STATS = "stats.sock"
_SOCKET_FRAME = 32
"""Packets a packet socket is given at once. It takes the kernel as long as to forward them, and VPP looks at
its API once in 1,024 rounds."""

_BASE_HEAP = 192 << 20
_BUFFERS = 32_768
_PROGRESS_S = 0.1
_DRAIN_POLL_S = 0.002
_PLUGINS = {Wire.MEMIF: "memif_plugin.so", Wire.KERNEL: "af_packet_plugin.so", Wire.PCI: "dpdk_plugin.so"}


class VppPgGenerator:
    """Sends a scenario's stream from any number of ports and counts at every port.

    Use it as a context manager: VPP runs from entry to exit, and nothing of it is left.

    Args:
        scenario: frame sizes, destinations, sources, intervals, CPUs (main thread first, then one worker on
            each; the main thread alone on the last one when there are none); rate and duration are not used.
        endpoints: the tester's ports. Kernel interfaces must all be in one namespace, which VPP then runs in.
        streams: streams of a port; see `streams`. A kernel interface has one: by packet sockets no more than
            one frame of packets is received at a time.
        page_size: of VPP's memory, in VPP's notation.
    """

    kind = "vpp-pg"
    follows_packets = False

    def __init__(
        self, scenario: Scenario, endpoints: Endpoints, *, streams: int = STREAMS, page_size: str = "4k"
    ) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self._streams_of_port = streams
        self._page_size = page_size
        self._stack = ExitStack()
        self._tester: Tester | None = None
        self._running = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._tester = self._open(stack)
            except (VppProcessError, StatsError) as error:
                raise GeneratorError(f"the generator's VPP: {error}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tester = None
        self._running = False
        self._stack.close()

    @property
    def process_ids(self) -> list[int]:
        """Process id of VPP, while it runs."""
        vpp = None if self._tester is None else self._tester.vpp
        return [vpp.pid] if vpp is not None and vpp.running else []

    @property
    def counters(self) -> Sequence[CounterSource]:
        """The generator's own ports; see `generator.Generator`."""
        return [GeneratorPorts(lambda: self._opened().counts)]

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> VppPgRunning:
        """Begin to send; see `generator.Generator`."""
        tester = self._opened()
        if self._running:
            raise GeneratorError("a stream is under way already: stop it before starting another")
        tester.maker.require_links(tester.ports)
        planned = max(1, round(rate_pps * duration_s))
        count = planned if packets is None else min(planned, packets)
        running = VppPgRunning(tester, self.scenario, rate_pps, count, duration_s, self._ended)
        self._running = True
        return running

    def _ended(self) -> None:
        self._running = False

    def _opened(self) -> Tester:
        if self._tester is None:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        return self._tester

    def _open(self, stack: ExitStack) -> Tester:
        ports = self.endpoints.ports
        senders = {i: self.endpoints.sender(i) for i in self.scenario.destinations.ingress_ports}
        frames = {i: self._frames(i, port) for i, port in senders.items()}
        cpus = _cpus(self.scenario.cpus)
        directory = Path(tempfile.mkdtemp(prefix="vpp-pg-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        heap = _BASE_HEAP + sum(f.heap_bytes for f in frames.values())
        vpp = VppProcess(
            runtime_dir=directory,
            namespace=_namespace(ports),
            config=startup_conf(
                runtime_dir=directory,
                heap=f"{heap >> 20}M",
                buffers=_BUFFERS,
                plugins=sorted({_PLUGINS[port.wire] for port in ports}),
                stanzas=[*_cpu_stanza(cpus), *_dpdk_stanza(ports)],
                page_size=self._page_size,
            ),
        )
        stack.enter_context(vpp)
        try:
            return self._set_up(stack, vpp, frames, cpus)
        except GeneratorError as error:
            if vpp.running:
                raise
            raise _ended(vpp) from error

    def _set_up(
        self, stack: ExitStack, vpp: VppProcess, frames: dict[int, ReplayFrames], cpus: tuple[int, ...]
    ) -> Tester:
        ports, directory = self.endpoints.ports, vpp.runtime_dir
        api = Api(vpp.api_socket)
        stack.callback(api.close)
        maker = PortMaker(api)
        stack.callback(maker.clean)
        made = maker.make(ports)
        workers = max(1, len(cpus) - 1)
        streams = [
            stream
            for i, of_port in frames.items()
            for stream in self._make_streams(api, directory, i, of_port, made[i].name, workers)
        ]
        counts = Counts(directory / _STATS, made)
        stack.callback(counts.close)
        return Tester(vpp, api, maker, made, streams, counts)

    def _frames(self, position: int, port: Port) -> ReplayFrames:
        scenario = self.scenario
        rows = np.flatnonzero(scenario.destinations.ingress == position)
        return ReplayFrames.of(
            build(
                scenario.destinations.rows(rows),
                sizes=scenario.sizes,
                source_mac=_mac(port.mac or f"02:00:00:00:{position >> 8:02x}:{position & 255:02x}"),
                gateway_mac=_mac(port.gateway_mac or ""),
                sources=scenario.sources,
                udp_port=scenario.udp_port,
                tag=secrets.randbits(32),
                seed=scenario.seed,
                least_rows=FEW if len(scenario.sizes.shares) > 1 else 1,
            )
        )

    def _make_streams(
        self, api: Api, directory: Path, position: int, frames: ReplayFrames, interface: str, workers: int
    ) -> Iterator[Stream]:
        capture = directory / "frames.pcap"
        by_sockets = self.endpoints.ports[position].wire is Wire.KERNEL
        streams = 1 if by_sockets else self._streams_of_port
        for number, rows in enumerate(dealt(len(frames), streams)):
            stream = Stream(f"port{position}-{number}", position, _SOCKET_FRAME if by_sockets else FRAME)
            frames.write(capture, rows)
            api.command(stream.create(capture, interface, (position + number) % workers))
            capture.unlink()
            yield stream


class VppPgRunning:
    """A stream under way; see `generator.Running`."""

    def __init__(
        self,
        tester: Tester,
        scenario: Scenario,
        rate_pps: float,
        packets: int,
        longest_s: float,
        ended: Callable[[], None],
    ) -> None:
        self._tester = tester
        self._scenario = scenario
        self._rate_pps = rate_pps
        self._packets = packets
        self._ended = ended
        self._cut_s: float | None = None
        self._before = self._read_ports()
        self._received_before = self._read(lambda counts: counts.received)
        duration_s = packets / rate_pps
        self._recording = Recording(
            self._totals,
            planned=packets,
            duration_s=duration_s,
            limit_s=longest_s * (1 + _OVERRUN) + _LEAST_OVERRUN_S,
            interval_s=scenario.interval_s,
        )
        tester.configure(rate_pps, packets)
        asked_s = time.monotonic()
        tester.send()
        now_s, sent = time.monotonic(), self._totals().sent
        self._started_s = max(asked_s, now_s - sent / rate_pps)
        self._recording.begin(self._started_s)

    def snapshot(self) -> Snapshot:
        """Return where it is now, as its last reading has it."""
        totals = self._recording.latest
        return Snapshot(time.monotonic() - self._started_s, totals.sent, totals.received)

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        try:
            while not self._recording.wait(_PROGRESS_S):
                if progress is not None:
                    progress(self.snapshot())
            return self._collect()
        finally:
            self._recording.end()
            self._ended()

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        self._cut_s = time.monotonic() - self._started_s
        self._recording.end()
        return self.finish()

    def _collect(self) -> TrialResult:
        self._tester.hush()
        totals = self._recording.note()
        limit = time.monotonic() + self._scenario.drain_s
        while totals.received < totals.sent and time.monotonic() < limit:
            time.sleep(_DRAIN_POLL_S)
            totals = self._recording.note()
        by_port = [
            now.received - before.received
            for now, before in zip(self._read_ports(), self._before, strict=True)
        ]
        duration_s = self._packets / self._rate_pps
        if self._cut_s is not None:
            duration_s = min(duration_s, self._cut_s)
        intended = max(totals.sent, min(self._packets, round(self._rate_pps * duration_s)))
        return TrialResult(
            rate_pps=self._rate_pps,
            duration_s=duration_s,
            offered_s=self._recording.last_sent_s,
            intended=intended,
            sent=totals.sent,
            received=totals.received,
            received_by_port=tuple(by_port),
            series=self._recording.series(self._rate_pps, intended),
            refused=totals.refused,
        )

    def _read_ports(self) -> list[PortCounts]:
        return self._read(Counts.read)

    def _read(self, what: Callable[[Counts], T]) -> T:
        if not self._tester.vpp.running:
            raise _ended(self._tester.vpp)
        try:
            return what(self._tester.counts)
        except StatsError as error:
            raise GeneratorError(f"the generator's VPP: {error}") from error

    def _totals(self) -> Totals:
        sent = refused = 0
        received = self._read(lambda counts: counts.received) - self._received_before
        rows = zip(self._tester.ports, self._before, self._read_ports(), strict=True)
        for port, before, now in rows:
            offered, unsent = now.offered - before.offered, now.refused - before.refused
            if port.port.wire is Wire.MEMIF:
                sent += offered
                continue
            sent += max(0, offered - unsent)
            refused += unsent
        return Totals(sent, received, refused)


def _ended(vpp: VppProcess) -> GeneratorError:
    return GeneratorError(
        f"the generator's VPP has ended (status {vpp.status}); its log ends:\n{vpp.log_tail()}"
    )


def _namespace(ports: Sequence[Port]) -> str | None:
    """Return the namespace of the kernel interfaces.

    Raises:
        GeneratorError: there are several.
    """
    found = {port.namespace for port in ports if port.wire is Wire.KERNEL}
    if len(found) > 1:
        names = ", ".join(sorted(name or "this one" for name in found))
        raise GeneratorError(f"vpp-pg takes kernel interfaces of one namespace, found {names}")
    return found.pop() if found else None


def _cpu_stanza(cpus: tuple[int, ...]) -> list[str]:
    """Return where VPP runs: the main thread on the first CPU, a worker on each of the others."""
    workers = f" corelist-workers {','.join(map(str, cpus[1:]))}" if len(cpus) > 1 else ""
    return [f"cpu {{ main-core {cpus[0]}{workers} }}"]


def _cpus(wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the CPUs to run on: those wanted, or the last one.

    Left to itself VPP stays on the CPU that it was started on, which may be the device's. There is no worker
    unless one is asked for: VPP ends when a worker has no CPU for a second.
    """
    return wanted or (max(os.sched_getaffinity(0)),)


def _dpdk_stanza(ports: Sequence[Port]) -> list[str]:
    devices = [
        f"dev {port.interface} {{ name {nic_name(i)} }}"
        for i, port in enumerate(ports)
        if port.wire is Wire.PCI
    ]
    return [f"dpdk {{ {' '.join(devices)} }}"] if devices else []


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
