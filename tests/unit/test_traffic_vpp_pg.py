"""The generator vpp-pg without VPP: capture files, streams, and series out of totals."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.vpp_pg import generator as vpp_pg
from router_agent.traffic.generators.vpp_pg.recording import Recording, Totals
from router_agent.traffic.generators.vpp_pg.streams import Stream, dealt, shares
from router_agent.traffic.scenario import IMIX, Destinations, Endpoints, FrameSizes, Port, Scenario


def read_pcap(path: Path) -> list[bytes]:
    """Read a capture file as pcap-savefile(5) describes it."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 1)
    packets, at = [], 24
    while at < len(data):
        seconds, micros, stored, length = struct.unpack_from("<IIII", data, at)
        assert (seconds, micros) == (0, 0)
        assert stored == length
        packets.append(data[at + 16 : at + 16 + stored])
        at += 16 + stored
    return packets


@given(st.integers(min_value=1, max_value=5_000), st.integers(min_value=1, max_value=8))
def test_streams_reach_every_frame_equally_often(count: int, streams: int) -> None:
    parts = list(dealt(count, streams))
    assert len(parts) == streams
    times = Counter(np.concatenate(parts).tolist())
    assert set(times) == set(range(count))
    assert len(set(times.values())) == 1


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=1, max_value=9))
def test_shares_are_whole_and_nearly_equal(total: int, parts: int) -> None:
    found = shares(total, parts)
    assert sum(found) == total
    assert max(found) - min(found) <= 1


def scenario(count: int, frames: FrameSizes | None) -> Scenario:
    prefixes = [IPv4Network((0x14000000 + (i << 8), 24)) for i in range(count)]
    return Scenario("unit", Destinations.of([*prefixes]), frames=frames)


@pytest.mark.parametrize("count", [1, 12, 300, 3_000])
def test_a_mix_keeps_its_shares_for_all_and_for_each_of_few_destinations(tmp_path: Path, count: int) -> None:
    port = Port("west", "west", None, "02:00:00:00:00:01")
    generator = vpp_pg.VppPgGenerator(scenario(count, IMIX), Endpoints((port,)))
    frames = generator._frames(0, port)
    path = tmp_path / "x.pcap"
    frames.write(path, np.arange(len(frames)))
    packets = read_pcap(path)
    sizes = Counter(len(packet) + 4 for packet in packets)
    assert sizes == {64: len(packets) * 7 / 12, 594: len(packets) * 4 / 12, 1518: len(packets) / 12}
    if count <= 300:
        large = Counter(p[30:34] for p in packets if len(p) == 1514)
        assert len(large) == count
        assert len(set(large.values())) == 1
    assert all(struct.unpack_from(">H", p, 16)[0] == len(p) - 14 for p in packets)


def test_a_stream_without_packets_never_sends() -> None:
    assert Stream("a", 0).configure(0.0, 0).endswith("limit 1")
    assert " rate 0.00000003 " in Stream("a", 0).configure(0.0, 0)
    assert Stream("a", 0).configure(2.5, 10) == "packet-generator configure a rate 2.50000000 limit 10"


class Clock:
    """Totals as if read at times of our own."""

    def __init__(self, rows: list[tuple[float, int, int]]) -> None:
        self._rows: Iterator[tuple[float, int, int]] = iter(rows)
        self.now = 0.0

    def read(self) -> Totals:
        self.now, sent, received = next(self._rows)
        return Totals(sent, received, 0)


def recorded(monkeypatch: pytest.MonkeyPatch, rows: list[tuple[float, int, int]], planned: int) -> Recording:
    clock = Clock(rows)
    monkeypatch.setattr("router_agent.traffic.generators.vpp_pg.recording.time.monotonic", lambda: clock.now)
    recording = Recording(clock.read, planned=planned, duration_s=0.3, limit_s=0.4, interval_s=0.1)
    recording._started_s = 0.0
    for _ in rows:
        recording.note()
    return recording


def test_a_series_counts_what_was_missing_for_good_where_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0.1, 100, 90), (0.2, 200, 150), (0.3, 300, 240), (0.35, 300, 260)]
    recording = recorded(monkeypatch, rows, 300)
    series = recording.series(1_000, 300)
    assert series.sent.tolist() == [100, 100, 100, 0]
    assert series.received.tolist() == [90, 60, 90, 20]
    assert series.lost.tolist() == [10, 30, 0, 0]
    assert series.intended.tolist() == [100, 100, 100, 0]
    assert recording.last_sent_s == 0.3


def test_late_readings_are_shared_out_among_the_intervals_between(monkeypatch: pytest.MonkeyPatch) -> None:
    series = recorded(monkeypatch, [(0.05, 50, 50), (0.25, 250, 250), (0.3, 300, 300)], 300).series(
        1_000, 300
    )
    assert series.sent.tolist() == [100, 100, 100]
    assert series.lost.tolist() == [0, 0, 0]


def test_what_reading_raises_is_raised_to_who_waits() -> None:
    def read() -> Totals:
        raise GeneratorError("gone")

    recording = Recording(read, planned=1, duration_s=1, limit_s=1, interval_s=0.1)
    recording.begin(0.0)
    with pytest.raises(GeneratorError, match="gone"):
        recording.wait(5.0)


def test_kernel_ports_of_two_namespaces_are_refused() -> None:
    ports = (Port("a", "a0", "one", "02:00:00:00:00:01"), Port("b", "b0", "two"))
    one = scenario(1, None)
    with pytest.raises(GeneratorError, match="one namespace, found one, two"):
        vpp_pg.VppPgGenerator(one, Endpoints(ports)).__enter__()
    unopened = vpp_pg.VppPgGenerator(replace(one), Endpoints(ports))
    with pytest.raises(GeneratorError, match="not open"):
        unopened.start(1, 1)
    assert unopened.process_ids == []


def test_nics_get_into_startup_conf_by_address_and_cpus_by_number() -> None:
    from router_agent.traffic.scenario import Wire

    nics = [Port("a", "0000:03:00.0", wire=Wire.PCI), Port("b", "0000:03:00.1", wire=Wire.PCI)]
    assert vpp_pg._dpdk_stanza(nics) == [
        "dpdk { dev 0000:03:00.0 { name port0 } dev 0000:03:00.1 { name port1 } }"
    ]
    assert vpp_pg._dpdk_stanza([Port("a", "eth0")]) == []
    assert vpp_pg._cpus((4, 7)) == (4, 7)
    assert vpp_pg._cpus(()) == (max(os.sched_getaffinity(0)),)
    assert vpp_pg._cpu_stanza((3,)) == ["cpu { main-core 3 }"]
    assert vpp_pg._cpu_stanza((3, 4, 5)) == ["cpu { main-core 3 corelist-workers 4,5 }"]
