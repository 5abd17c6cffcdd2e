"""dpdk-testpmd as a generator, on memif to a real VPP and on packet sockets to a real kernel forwarder.

tester  west ----- device ----- east      20 prefixes lead east
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import psutil
import pytest

from router_agent.model import Prefix
from router_agent.namespaces import inside
from router_agent.traffic.counters.source import Side
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.generators.generator import GeneratorError, TrialResult
from router_agent.traffic.generators.testpmd.generator import TestpmdGenerator
from router_agent.traffic.generators.testpmd.process import PACKAGES, installed
from router_agent.traffic.generators.testpmd.reflector import Reflector
from router_agent.traffic.judgement.ledger import LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.scenario import (
    IMIX,
    Check,
    Destinations,
    Endpoints,
    FrameSizes,
    GeneratorBinding,
    Goal,
    Port,
    Scenario,
    Tier,
    Wire,
)
from router_agent.vpp.process import VppProcess

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not installed(), reason=f"dpdk-testpmd is not on PATH; install Debian's {PACKAGES}"),
]

V4: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(20)]
V6: list[Prefix] = [IPv6Network(f"2001:db8:{i:x}::/48") for i in range(20)]
WEST, EAST = 0, 1
TESTER_MAC = ("02:00:00:00:01:00", "02:00:00:00:01:01")
DEVICE_MAC = ("02:00:00:00:02:00", "02:00:00:00:02:01")


def scenario(prefixes: list[Prefix] = V4, **changes: object) -> Scenario:
    base = Scenario(
        "testpmd",
        Destinations.of(prefixes, [EAST] * len(prefixes)),
        drain_s=1.0,
        interval_s=0.05,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class MemifRouter:
    """A VPP with two memif ports whose server it is."""

    def __init__(self, stack: ExitStack) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trv-"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.vpp = VppProcess(
            runtime_dir=self.directory, heap="256M", statseg="32M", plugins=("memif_plugin.so",)
        )
        stack.enter_context(self.vpp)
        for i in (WEST, EAST):
            self.cli(f"create memif socket id {i + 1} filename {self._socket(i)}")
            self.cli(f"create interface memif id 7 socket-id {i + 1} master hw-addr {DEVICE_MAC[i]}")
            self.cli(f"set interface state memif{i + 1}/7 up")
            self.cli(f"set interface ip address memif{i + 1}/7 10.0.{i}.1/24")
            self.cli(f"set ip neighbor memif{i + 1}/7 10.0.{i}.2 {TESTER_MAC[i]}")
        for prefix in V4:
            self.cli(f"ip route add {prefix} via 10.0.1.2 memif2/7")

    def cli(self, command: str) -> str:
        return self.vpp.cli(command)

    def _socket(self, port: int) -> str:
        return str(self.directory / f"memif{port}.sock")

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            tuple(
                Port(name, self._socket(i), None, DEVICE_MAC[i], Wire.MEMIF, 7)
                for i, name in enumerate(("west", "east"))
            )
        )


@pytest.fixture(scope="module")
def router() -> Iterator[MemifRouter]:
    if shutil.which("vpp") is None:
        pytest.skip("needs a real VPP; `vpp` is not on PATH")
    with ExitStack() as stack:
        yield MemifRouter(stack)


@pytest.fixture
def generator(router: MemifRouter) -> Iterator[TestpmdGenerator]:
    with TestpmdGenerator(scenario(), router.endpoints) as opened:
        yield opened


def assert_sums(result: TrialResult) -> None:
    """The series' sums are those of the stream."""
    sums = [int(column.sum()) for column in (result.series.sent, result.series.received, result.series.lost)]
    assert sums == [result.sent, result.received, result.lost]
    assert int(result.series.intended.sum()) == result.intended


# memif to VPP


def test_every_packet_of_a_slow_stream_comes_back(generator: TestpmdGenerator) -> None:
    result = generator.start(2_000, 1.0).finish()
    assert (result.intended, result.lost) == (2_000, 0)
    assert result.sent > 1_000
    assert result.received_by_port == (0, result.sent)
    assert (result.duplicates, result.by_destination) == (None, None)
    assert_sums(result)
    assert len(result.series.sent) >= 20


def test_streams_follow_one_another_and_can_be_stopped(generator: TestpmdGenerator) -> None:
    short = generator.start(1_000, 60.0, packets=100).finish()
    assert (short.intended, short.sent, short.lost) == (100, 100, 0)
    running = generator.start(1_000, 60.0)
    with pytest.raises(GeneratorError, match="under way already"):
        generator.start(1_000, 1.0)
    looks = []
    while running.snapshot().received < 300:
        looks.append(running.snapshot())
        generator.testpmd.pause(0.02)
    stopped = running.stop()
    assert 300 <= stopped.sent <= stopped.intended < 60_000
    assert stopped.lost == 0
    assert stopped.duration_s < 60
    assert_sums(stopped)


def test_what_the_device_drops_is_lost_and_not_the_testers(
    router: MemifRouter, generator: TestpmdGenerator
) -> None:
    for prefix in V4[:5]:
        router.cli(f"ip route del {prefix}")
    keeper = LedgerKeeper(generator.counters)
    try:
        keeper.open()
        result = generator.start(2_000, 1.0).finish()
        ledger = keeper.close(result)
    finally:
        for prefix in V4[:5]:
            router.cli(f"ip route add {prefix} via 10.0.1.2 memif2/7")
    assert result.lost == pytest.approx(result.sent / 4, abs=20)
    assert ledger.dropped(Side.TESTER) == 0
    assert ledger.moved["testpmd's ports"]["west.opackets"] == result.sent


def test_an_impossible_rate_is_unsent_and_not_lost(generator: TestpmdGenerator) -> None:
    keeper = LedgerKeeper(generator.counters)
    keeper.open()
    result = generator.start(100e6, 0.3).finish()
    ledger = keeper.close(result)
    assert 0 < result.sent < result.intended == 30_000_000
    assert result.refused > 0
    verdict = judge_trial(result, ledger, Goal())
    assert (verdict.outcome, "the generator was the limit" in verdict.reason) == (Outcome.INVALID, True)
    after = generator.start(1_000, 0.2).finish()
    assert after.lost == 0


def test_both_ports_may_send(router: MemifRouter) -> None:
    west = [IPv4Network("30.0.0.0/16")]
    router.cli(f"ip route add {west[0]} via 10.0.0.2 memif1/7")
    both = Destinations.joined(
        [Destinations.of(V4, [EAST] * 20), Destinations.of([*west], [WEST], ingress=EAST)]
    )
    try:
        with TestpmdGenerator(scenario(destinations=both), router.endpoints) as generator:
            result = generator.start(2_000, 1.0).finish()
    finally:
        router.cli(f"ip route del {west[0]}")
    assert result.intended == 2_000
    assert result.lost == 0
    assert sum(result.received_by_port) == result.sent
    assert min(result.received_by_port) > 500


def test_a_mix_of_sizes_is_sent_as_it_is_asked_for(router: MemifRouter) -> None:
    with TestpmdGenerator(scenario(frames=IMIX), router.endpoints) as generator:
        before = generator.counters[0].read()
        result = generator.start(6_000, 0.2).finish()
        after = generator.counters[0].read()
    assert (result.intended, result.lost) == (1_200, 0)
    if result.sent == 1_200:
        octets = sum((size - 4) * weight for size, weight in IMIX.shares) * 100
        assert after["east.ibytes"] - before["east.ibytes"] == pytest.approx(octets, rel=0.02)


def test_a_device_that_does_not_take_frames_drops_them_itself(router: MemifRouter) -> None:
    with TestpmdGenerator(scenario(), router.endpoints) as generator:
        keeper = LedgerKeeper(generator.counters)
        keeper.open()
        running = generator.start(20_000, 1.0)
        os.kill(router.vpp.pid, signal.SIGSTOP)
        try:
            result = running.finish()
        finally:
            os.kill(router.vpp.pid, signal.SIGCONT)
        ledger = keeper.close(result)
    assert result.lost > 0
    assert ledger.dropped(Side.TESTER) == 0
    assert "did not empty the memif of port west in time" in ledger.drops[0].name
    assert ledger.drops[0].count >= result.sent - 2 * 4_096


def test_large_frames_pass(router: MemifRouter) -> None:
    with TestpmdGenerator(scenario(frames=FrameSizes.of(1_518)), router.endpoints) as generator:
        before = generator.counters[0].read()
        result = generator.start(1_000, 0.3).finish()
        after = generator.counters[0].read()
    assert result.lost == 0
    assert after["east.ibytes"] - before["east.ibytes"] == result.received * 1_514


def test_a_stream_that_no_memory_holds_is_refused(
    router: MemifRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router_agent.traffic.generators.testpmd.generator._MOST_ROUND", 300_000)
    with (
        pytest.raises(GeneratorError, match=r"port west: frames to all destinations are 0\.0 GB, the most"),
        TestpmdGenerator(scenario(), router.endpoints),
    ):
        pass


def test_a_device_that_dies_takes_the_link_away() -> None:
    if shutil.which("vpp") is None:
        pytest.skip("needs a real VPP; `vpp` is not on PATH")
    with ExitStack() as stack:
        router = MemifRouter(stack)
        generator = stack.enter_context(TestpmdGenerator(scenario(), router.endpoints))
        running = generator.start(1_000, 2.0)
        while running.snapshot().received < 100:
            generator.testpmd.pause(0.02)
        router.vpp.kill()
        # DPDK's memif driver now and then crashes on it: another sentence, the same verdict.
        with pytest.raises(
            GeneratorError, match=r"has no link; the device's end of the memif|testpmd has ended"
        ):
            running.finish()


@pytest.mark.parametrize("victim", ["testpmd", "feeder"])
def test_a_generator_that_dies_is_an_error_and_leaves_nothing(router: MemifRouter, victim: str) -> None:
    with TestpmdGenerator(scenario(), router.endpoints) as generator:
        testpmd, feeder = generator.process_ids
        running = generator.start(1_000, 30.0)
        while running.snapshot().received < 100:
            generator.testpmd.pause(0.02)
        os.kill(testpmd if victim == "testpmd" else feeder, signal.SIGKILL)
        with pytest.raises(GeneratorError, match=rf"{victim}.* (has|process has) ended|Broken pipe"):
            running.finish()
    assert not [pid for pid in (testpmd, feeder) if psutil.pid_exists(pid)]
    with TestpmdGenerator(scenario(), router.endpoints) as again:
        assert again.start(1_000, 0.2).finish().lost == 0


def test_a_memif_that_nobody_serves_is_refused(tmp_path: Path) -> None:
    port = Port("west", str(tmp_path / "absent.sock"), None, DEVICE_MAC[0], Wire.MEMIF)
    with (
        pytest.raises(GeneratorError, match=r"port west: there is no memif socket at .*absent\.sock"),
        TestpmdGenerator(scenario(), Endpoints((port,))),
    ):
        pass


def test_a_whole_check_by_memif_is_of_the_software_ceiling(router: MemifRouter, tmp_path: Path) -> None:
    check = Check(
        (scenario(rate_pps=2_000, duration_s=1.0, goal=Goal(unsent_ratio=0.3)),),
        Tier.SOFTWARE_CEILING,
        generator=GeneratorBinding(kind="testpmd"),
    )
    device = VppForwarder(router.directory / "stats.sock")
    result = run_check(check, router.endpoints, [device], tmp_path)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.trial is not None
    assert result.ledger is not None
    assert (result.trial.lost, result.ledger.unaccounted) == (0, 0)
    assert result.ledger.moved[device.name]["/if/tx/memif2/7"] == result.trial.sent
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["tier"], report["verdict"]["outcome"]) == ("software ceiling", "PASS")


# a reflector in the device's place


def reflecting(directory: Path) -> Endpoints:
    """Return two memif ports in a directory."""
    return Endpoints(
        tuple(
            Port(name, str(directory / f"{name}.sock"), None, DEVICE_MAC[i], Wire.MEMIF)
            for i, name in enumerate(("west", "east"))
        )
    )


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="trr-") as directory:
        yield Path(directory)


def test_a_reflector_hands_over_from_port_to_port(short_path: Path) -> None:
    ends = reflecting(short_path)
    with Reflector(ends) as reflector, TestpmdGenerator(scenario(), ends) as generator:
        result = generator.start(2_000, 0.5).finish()
        west, east = reflector.statistics()
    assert (result.lost, result.received_by_port) == (0, (0, result.sent))
    assert west["ipackets"] == east["opackets"] == result.sent > 500


def test_a_reflector_of_one_port_sends_back(short_path: Path) -> None:
    ends = Endpoints(reflecting(short_path).ports[:1])
    back = Destinations.of(V4, [WEST] * len(V4))
    with Reflector(ends) as reflector, TestpmdGenerator(scenario(destinations=back), ends) as generator:
        result = generator.start(2_000, 0.5).finish()
        (west,) = reflector.statistics()
    assert (result.lost, result.received_by_port) == (0, (result.sent,))
    assert west["ipackets"] == west["opackets"] == result.sent > 500
    with pytest.raises(GeneratorError, match="one port or two, found 3"):
        Reflector(Endpoints(tuple(Port(f"p{i}", f"x{i}") for i in range(3))))


def test_the_command_reflects_until_it_is_interrupted(short_path: Path) -> None:
    ends = reflecting(short_path)
    command = [sys.executable, "-m", "router_agent.cli", "traffic", "reflect"]
    paths = [port.interface for port in ends.ports]
    with subprocess.Popen([*command, *paths], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("reflecting between west.sock, east.sock")
        with TestpmdGenerator(scenario(), ends) as generator:
            sent = generator.start(1_000, 0.2).finish().sent
            # DPDK forgets a memif's counters when its other end has gone
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.split("\n")[-3:-1] == [
        f"west.sock: {sent:,} packets in, 0 out, 0 missed",
        f"east.sock: 0 packets in, {sent:,} out, 0 missed",
    ]


def test_the_command_names_a_port_that_is_not_there() -> None:
    command = [sys.executable, "-m", "router_agent.cli", "traffic", "reflect", "absent0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (4, "")
    assert "port absent0: there is no interface 'absent0'" in done.stderr


def test_a_generator_whose_coordinator_is_killed_leaves_no_process(router: MemifRouter) -> None:
    code = (
        "import sys, pickle\n"
        "from router_agent.traffic.generators.testpmd.generator import TestpmdGenerator\n"
        "scenario, endpoints = pickle.load(sys.stdin.buffer)\n"
        "with TestpmdGenerator(scenario, endpoints) as generator:\n"
        "    generator.start(1_000, 60.0)\n"
        "    print(*generator.process_ids, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(pickle.dumps((scenario(), router.endpoints)))
        parent.stdin.flush()
        processes = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(processes) == 2
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


# packet sockets to a kernel forwarder


class VethRouter:
    """A namespace that forwards, and the tester's with the other ends of its wires."""

    def __init__(self, stack: ExitStack) -> None:
        mark = secrets.token_hex(3)
        self.tester, self.device = f"trt-{mark}", f"trd-{mark}"
        for name in (self.tester, self.device):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        for i, port in enumerate(("west", "east")):
            link = ("link", "add", port, "netns", self.tester, "address", TESTER_MAC[i], "type", "veth")
            ip(*link, "peer", "name", f"to-{port}", "netns", self.device, "address", DEVICE_MAC[i])
            ip("-n", self.tester, "link", "set", port, "up")
            ip("-n", self.device, "link", "set", f"to-{port}", "up")
            ip("-n", self.device, "addr", "add", f"10.0.{i}.1/24", "dev", f"to-{port}")
            ip("-n", self.device, "addr", "add", f"fd00:{i}::1/64", "dev", f"to-{port}", "nodad")
            for address in (f"10.0.{i}.2", f"fd00:{i}::2"):
                neighbour = (address, "lladdr", TESTER_MAC[i], "dev", f"to-{port}", "nud", "permanent")
                ip("-n", self.device, "neigh", "replace", *neighbour)
        for prefix in (*V4, *V6):
            gateway = "10.0.1.2" if prefix.version == 4 else "fd00:1::2"
            ip("-n", self.device, "route", "add", str(prefix), "via", gateway)
        with inside(self.device):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            (Port("west", "west", self.tester, DEVICE_MAC[WEST]), Port("east", "east", self.tester))
        )

    def promiscuous(self) -> list[bool]:
        return ["PROMISC" in ip("-n", self.tester, "link", "show", "dev", port) for port in ("west", "east")]


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def veths() -> Iterator[VethRouter]:
    with ExitStack() as stack:
        yield VethRouter(stack)


def test_packet_sockets_carry_both_families(veths: VethRouter) -> None:
    with TestpmdGenerator(scenario([*V4, *V6]), veths.endpoints) as generator:
        keeper = LedgerKeeper(generator.counters)
        keeper.open()
        result = generator.start(1_000, 1.0).finish()
        ledger = keeper.close(result)
        # a kernel speaks on its own as well: neighbour discovery, multicast reports
        assert result.sent <= result.received + 5
        assert result.sent > 500
        assert result.received_by_port[EAST] >= result.sent - 5
        assert ledger.dropped(Side.TESTER) == 0
        assert {"west.kernel.rx_packets", "east.imissed"} <= generator.counters[0].read().keys()


def test_interfaces_get_their_flags_back_even_from_a_killed_testpmd(veths: VethRouter) -> None:
    ip("-n", veths.tester, "link", "set", "west", "promisc", "on")
    try:
        assert veths.promiscuous() == [True, False]
        with TestpmdGenerator(scenario(), veths.endpoints) as generator:
            assert veths.promiscuous() == [True, True]
            os.kill(generator.testpmd.pid, signal.SIGKILL)
        assert veths.promiscuous() == [True, False]
    finally:
        ip("-n", veths.tester, "link", "set", "west", "promisc", "off")


def test_ports_that_are_not_there_are_named(veths: VethRouter) -> None:
    west, east = veths.endpoints.ports
    for ports, message in (
        ((replace(west, interface="absent0"), east), f"no interface 'absent0' in namespace {veths.tester}"),
        ((west, replace(east, namespace=veths.device, interface="to-east")), "expected one"),
        ((replace(west, wire=Wire.PCI, interface="ffff:ff:1f.7"), east), "no PCI device ffff:ff:1f.7"),
    ):
        with pytest.raises(GeneratorError, match=message), TestpmdGenerator(scenario(), Endpoints(ports)):
            pass


def test_a_link_that_goes_down_is_named(veths: VethRouter) -> None:
    with TestpmdGenerator(scenario(), veths.endpoints) as generator:
        running = generator.start(1_000, 1.0)
        ip("-n", veths.device, "link", "set", "to-east", "down")
        try:
            with pytest.raises(GeneratorError, match=r"port east: .*has no carrier"):
                running.finish()
            with pytest.raises(GeneratorError, match="has no carrier"):
                generator.start(1_000, 1.0)
        finally:
            ip("-n", veths.device, "link", "set", "to-east", "up")
        # what the test before left undone must not hinder the next stream
        generator.testpmd.pause(0.1)
        assert generator.start(1_000, 0.2).finish().sent > 0


def test_nothing_is_left(veths: VethRouter) -> None:
    before = set(Path(tempfile.gettempdir()).glob("testpmd-*"))
    with TestpmdGenerator(scenario(), veths.endpoints) as generator:
        during = set(Path(tempfile.gettempdir()).glob("testpmd-*")) - before
        assert len(during) == 1
        pids = np.array(generator.process_ids)
    assert not during.pop().exists()
    assert not [pid for pid in pids.tolist() if psutil.pid_exists(pid)]
