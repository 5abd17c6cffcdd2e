"""testpmd's parts without testpmd: the feeder, what becomes a device, whose drops are whose."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import pytest

from router_agent.model import Prefix
from router_agent.traffic.counters.source import CounterError, Side
from router_agent.traffic.generators import pcap
from router_agent.traffic.generators.frames import Frames, build
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.testpmd import devices
from router_agent.traffic.generators.testpmd.counters import ETHDEV, TAKEN, TestpmdCounters
from router_agent.traffic.generators.testpmd.feed import Feeder, Fifo
from router_agent.traffic.generators.testpmd.feeder import FeederSetup, FeedJob
from router_agent.traffic.generators.testpmd.process import Testpmd
from router_agent.traffic.scenario import Destinations, Endpoints, FrameSizes, Port, Wire

ROUND = 10


def stream() -> Frames:
    """Return a stream of ten frames, each of another length."""
    prefixes: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(ROUND)]
    made = build(
        Destinations.of(prefixes),
        sizes=FrameSizes.of(64),
        source_mac=bytes(6),
        gateway_mac=bytes(6),
        sources=(IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48")),
        udp_port=9,
        tag=7,
        seed=1,
    )
    return replace(made, lengths=60 + np.arange(ROUND))


def block() -> pcap.Capture:
    return pcap.of_stream(stream())


class Reader(threading.Thread):
    """Reads a FIFO to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.found = b""
        self.started = threading.Event()
        self.start()

    def run(self) -> None:
        with self.path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 16):
                self.found += piece
                self.started.set()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path / "frames")
    yield made
    made.release()


@pytest.fixture
def feeder(fifo: Fifo) -> Iterator[Feeder]:
    started = Feeder("feeder of port west", FeederSetup(fifo.path, stream(), None))
    started.wait_ready()
    yield started
    started.close()


def job(rate_pps: float, packets: int, *, burst: int = 4, seconds: float = 30.0) -> FeedJob:
    now = time.monotonic_ns()
    return FeedJob(rate_pps, packets, burst, now, now + int(seconds * 1e9))


def open_for(fifo: Fifo, feeder: Feeder, rate_pps: float) -> Reader:
    fifo.begin()
    reader = Reader(fifo.path)
    assert reader.started.wait(10), "no header"
    feeder.open(rate_pps)
    fifo.release()
    return reader


@pytest.mark.parametrize("packets", [1, 4, 10, 237])
def test_a_feeder_writes_round_after_round_and_then_the_capture_ends(
    fifo: Fifo, feeder: Feeder, packets: int
) -> None:
    for _ in range(2):
        reader = open_for(fifo, feeder, 50_000)
        feeder.begin(job(50_000, packets))
        fed = feeder.result()
        reader.join(10)
        octets, offsets = block().octets.tobytes(), block().offsets.tolist()
        whole, rest = divmod(packets, ROUND)
        assert reader.found == pcap.HEADER + octets * whole + octets[: offsets[rest]]
        assert (fed.written, fed.intended) == (packets, packets)


def test_a_feeder_that_nobody_reads_waits_and_what_it_could_not_write_is_due(
    fifo: Fifo, feeder: Feeder
) -> None:
    fifo.begin()
    descriptor = os.open(fifo.path, os.O_RDONLY)
    try:
        feeder.open(1e6)
        feeder.begin(job(1e6, 1_000_000, burst=32))
        assert not feeder.ended(0.3), "there is no room for a million packets"
        feeder.stop()
        octets = 0
        fifo.release()
        while piece := os.read(descriptor, 1 << 20):
            octets += len(piece)
        fed = feeder.result()
    finally:
        os.close(descriptor)
    assert 0 < fed.written < fed.intended <= 1_000_000
    assert fed.refused > 0
    made = block()
    whole, rest = divmod(fed.written, ROUND)
    assert octets == len(pcap.HEADER) + whole * int(made.offsets[-1]) + int(made.offsets[rest])


def test_a_feeder_stops_when_told_and_goes_on_with_the_next_stream(fifo: Fifo, feeder: Feeder) -> None:
    reader = open_for(fifo, feeder, 1_000)
    feeder.begin(job(1_000, 1_000_000, burst=1))
    while len(reader.found) < 2_000:
        assert not feeder.ended(0.01)
    feeder.stop()
    fed = feeder.result()
    reader.join(10)
    assert 0 < fed.written <= fed.intended < 100_000
    feeder.stop()  # after the end it means nothing
    reader = open_for(fifo, feeder, 1_000)
    feeder.begin(job(10_000, 20))
    assert feeder.result().written == 20
    reader.join(10)


def test_a_feeder_whose_reader_is_gone_says_so(fifo: Fifo, feeder: Feeder) -> None:
    fifo.begin()
    descriptor = os.open(fifo.path, os.O_RDONLY)
    feeder.open(1e6)
    fifo.release()
    os.close(descriptor)
    feeder.begin(job(1e6, 1_000_000))
    with pytest.raises(GeneratorError, match="feeder of port west failed: BrokenPipeError"):
        feeder.result()


def test_a_program_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(GeneratorError, match="not on PATH: install Debian's dpdk-dev and librte-meta-net"),
        Testpmd(tmp_path, devices=[], lcores=[(0,)], memory=[], options=[]),
    ):
        pass


# devices


def test_only_named_devices_are_made_and_huge_pages_are_left_to_the_device(tmp_path: Path) -> None:
    path = tmp_path / "memif.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        ends = Endpoints((Port("west", str(path), wire=Wire.MEMIF, memif_id=3), Port("east", "lo")))
        made = devices.arguments(ends, 1_514)
    assert made[0] == "--no-pci"
    assert made[1].startswith("--vdev=net_memif0,role=client,id=3,")
    assert f"socket={path},socket-abstract=no" in made[1]
    assert made[2].startswith("--vdev=net_af_packet1,iface=lo,")
    assert "--no-huge" in devices.memory(ends, 100)


def test_a_nic_is_taken_only_from_a_user_space_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_PCI_DEVICES", tmp_path)
    port = Port("west", "0000:03:00.0", wire=Wire.PCI)
    ends = Endpoints((port,))
    with pytest.raises(GeneratorError, match=r"no PCI device 0000:03:00\.0"):
        devices.arguments(ends, 60)
    for driver, taken in (("ixgbe", False), ("vfio-pci", True), ("mlx5_core", True)):
        device, drivers = tmp_path / "0000:03:00.0", tmp_path / "drivers" / driver
        drivers.mkdir(parents=True)
        device.mkdir(exist_ok=True)
        (device / "driver").unlink(missing_ok=True)
        (device / "driver").symlink_to(drivers)
        if taken:
            assert devices.arguments(ends, 60) == ["--allow=0000:03:00.0"]
        else:
            with pytest.raises(GeneratorError, match=r"has driver ixgbe, expected vfio-pci.*driverctl"):
                devices.arguments(ends, 60)
    assert "--no-huge" not in devices.memory(ends, 100)


def test_ports_of_one_program_are_in_one_namespace() -> None:
    one, other, memif = Port("a", "x", "one"), Port("b", "x"), Port("c", "/s", wire=Wire.MEMIF)
    assert devices.namespace_of([one, memif]) == "one"
    assert devices.namespace_of([memif]) is None
    with pytest.raises(GeneratorError, match="one, this one, expected one"):
        devices.namespace_of([one, other])


def test_devices_that_dpdk_does_not_have_are_named() -> None:
    assert devices.numbers(["b", "a"], {"a": 0, "b": 5}) == [5, 0]
    with pytest.raises(GeneratorError, match="no device c; it has a"):
        devices.numbers(["c"], {"a": 0})


def test_a_port_has_the_mac_it_is_given_or_its_own() -> None:
    memif = Port("a", "/s", wire=Wire.MEMIF)
    assert devices.mac_of(replace(memif, mac="02:00:00:00:00:07"), 0) == b"\x02\0\0\0\0\x07"
    assert devices.mac_of(memif, 0) != devices.mac_of(memif, 1)
    assert devices.mac_of(Port("l", "lo"), 0) == bytes(6)
    with pytest.raises(GeneratorError, match=r"port l: .*absent0"):
        devices.mac_of(Port("l", "absent0"), 0)


# counters


def statistics(**changes: int) -> dict[str, int]:
    return dict.fromkeys((*ETHDEV, TAKEN), 0) | changes


def test_what_the_testers_ports_drop_is_the_testers() -> None:
    ports = (Port("west", "/w", wire=Wire.MEMIF), Port("east", "/e", wire=Wire.MEMIF))
    rows = [statistics(opackets=100, taken=100), statistics(ipackets=90, imissed=6, rx_nombuf=3, ierrors=1)]
    counters = TestpmdCounters(ports, lambda: rows)
    read = counters.read()
    assert (read["west.opackets"], read["east.imissed"]) == (100, 6)
    drops = {drop.source: (drop.count, drop.side) for drop in counters.drops(read) if drop.count}
    assert drops == {
        "east imissed": (6, Side.TESTER),
        "east rx_nombuf": (3, Side.TESTER),
        "east ierrors": (1, Side.TESTER),
    }


def test_a_full_memif_is_the_devices_receive_queue() -> None:
    port = Port("west", "/w", wire=Wire.MEMIF)
    counters = TestpmdCounters([port], lambda: [statistics()])
    growth = {"west.taken": 100, "west.opackets": 80}
    (drop,) = (drop for drop in counters.drops(growth) if drop.count)
    assert (drop.count, drop.side) == (20, Side.DEVICE)
    assert "device did not empty the memif of port west" in drop.name


def test_what_a_packet_sockets_ring_had_no_room_for_is_the_difference() -> None:
    port = Port("loop", "lo")
    counters = TestpmdCounters([port], lambda: [statistics(ipackets=7)])
    growth = {"loop.ipackets": 90, "loop.kernel.rx_packets": 100, "loop.kernel.rx_dropped": 2}
    drops = {drop.source: (drop.count, drop.derived) for drop in counters.drops(growth) if drop.count}
    assert drops == {"lo rx_packets - ipackets": (10, True), "lo rx_dropped, rx_errors": (2, False)}
    assert "loop.kernel.rx_packets" in counters.read()
    with pytest.raises(CounterError, match="interface 'absent0' is gone"):
        TestpmdCounters([Port("a", "absent0")], lambda: [statistics()]).read()


def test_counters_of_a_generator_that_has_died_cannot_be_read() -> None:
    def dead() -> list[dict[str, int]]:
        raise GeneratorError("dpdk-testpmd has ended")

    with pytest.raises(CounterError, match="has ended"):
        TestpmdCounters([Port("west", "/w", wire=Wire.MEMIF)], dead).read()
