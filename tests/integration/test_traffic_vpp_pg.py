"""The generator vpp-pg: a real VPP sends through a real VPP by memif, and through a kernel by af_packet.

generator  west ═══ memif ═══ device (VPP) ═══ memif ═══ east        300 IPv4 and 100 IPv6 prefixes, all east
generator  west ─── veth ──── device (kernel) ─ veth ─── east
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from vpp_papi.vpp_stats import VPPStats

from router_agent.lab.memif import MemifDevice
from router_agent.lab.plane import vpp_available
from router_agent.model import Family, Prefix, keys_of
from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.source import CounterSource, Side
from router_agent.traffic.generators.generator import GeneratorError, TrialResult
from router_agent.traffic.generators.vpp_pg import ports as vpp_ports
from router_agent.traffic.generators.vpp_pg.generator import VppPgGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.scenario import IMIX, Destinations, Endpoints, Goal, Port, Scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.vpp,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not vpp_available(), reason="vpp is not on PATH"),
]

V4 = [IPv4Network(f"20.{i // 256}.{i % 256}.0/24") for i in range(300)]
V6 = [IPv6Network(f"2001:db8:{i:x}::/48") for i in range(100)]
PREFIXES: list[Prefix] = [*V4, *V6]
EAST = 1
LOOSE = Goal(unsent_ratio=0.99)
"""The machine may be busy with other things: what is sent has to come back, whatever the rate. Rates are low:
a device without a CPU for half a second still has room in its rings."""


def scenario(**changes: object) -> Scenario:
    base = Scenario("vpp-pg", Destinations.of(PREFIXES, [EAST] * len(PREFIXES)), drain_s=1.0, interval_s=0.05)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def device() -> Iterator[MemifDevice]:
    """A VPP that forwards, and serves every test that does not break it."""
    yield from made_device()


@pytest.fixture
def own_device() -> Iterator[MemifDevice]:
    """One that a test may break."""
    yield from made_device()


def made_device() -> Iterator[MemifDevice]:
    directory = Path("/tmp", f"trm-{secrets.token_hex(3)}")
    routes = {Family.IPV4: keys_of([*V4]), Family.IPV6: keys_of([*V6])}
    try:
        with MemifDevice(directory, routes, heap="512M") as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def trial(
    generator: VppPgGenerator,
    counters: list[CounterSource],
    rate_pps: float = 3_000,
    duration_s: float = 0.6,
) -> tuple[TrialResult, Ledger]:
    keeper = LedgerKeeper([*counters, *generator.counters])
    keeper.open()
    result = generator.start(rate_pps, duration_s).finish()
    return result, keeper.close(result)


def check_sums(result: TrialResult) -> None:
    assert result.sent + result.unsent == result.intended
    assert result.series.sent.sum() == result.sent
    assert result.series.received.sum() == result.received
    assert result.series.lost.sum() == result.lost
    assert result.series.intended.sum() == result.intended
    assert sum(result.received_by_port) == result.received


def test_every_packet_of_a_low_rate_comes_back(device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        result, ledger = trial(generator, [device.counters()])
    check_sums(result)
    assert result.intended == 1_800
    assert result.sent > 100
    assert (result.lost, ledger.unaccounted, ledger.drops) == (0, 0, ())
    assert result.received_by_port == (0, result.sent)
    assert judge_trial(result, ledger, LOOSE).outcome is Outcome.PASS
    assert (result.by_destination, result.duplicates, result.reordered) == (None, None, None)


def test_each_of_many_prefixes_gets_its_packet(own_device: MemifDevice) -> None:
    everywhere = scenario()
    count = len(PREFIXES)
    with VppPgGenerator(everywhere, own_device.endpoints) as generator:
        result = generator.start(3_000, 10.0, packets=4 * count).finish()
    assert (result.intended, result.sent, result.received) == (4 * count, 4 * count, 4 * count)
    stats = VPPStats(str(own_device.stats_socket))
    stats.connect()
    threads = stats["/net/route/to"]
    stats.disconnect()
    to_routes = [sum(int(packets) for packets, _ in cells) for cells in zip(*threads, strict=True)]
    assert to_routes.count(4) == count


def test_a_mix_of_sizes_is_sent_by_its_shares_from_both_ports(device: MemifDevice) -> None:
    half = len(PREFIXES) // 2
    both = Destinations.joined(
        [
            Destinations.of(PREFIXES[:half], [EAST] * half, ingress=0),
            Destinations.of(PREFIXES[half:], [EAST] * half, ingress=1),
        ]
    )
    with VppPgGenerator(scenario(destinations=both, frames=IMIX), device.endpoints) as generator:
        keeper = LedgerKeeper([device.counters()])
        keeper.open()
        result = generator.start(4_000, 5.0, packets=4_800).finish()
        ledger = keeper.close(result)
    check_sums(result)
    assert (result.sent, result.lost) == (4_800, 0)
    moved = ledger.moved[device.counters().name]
    assert (moved["/if/rx/memif1/0"], moved["/if/rx/memif1/1"]) == (2_400, 2_400)
    assert result.received_by_port == (0, 4_800)


def test_what_a_route_drops_is_lost_and_named(device: MemifDevice) -> None:
    vpp = device.process
    # The agent's own routes beat those of the CLI, but not more specific ones.
    halves = [half for prefix in V4[:30] for half in prefix.subnets()]
    for half in halves:
        vpp.cli(f"ip route add {half} via drop")
    try:
        only_v4 = scenario(destinations=Destinations.of([*V4], [EAST] * len(V4)))
        with VppPgGenerator(only_v4, device.endpoints) as generator:
            result, ledger = trial(generator, [device.counters()])
    finally:
        for half in halves:
            vpp.cli(f"ip route del {half} via drop")
    check_sums(result)
    assert result.lost == pytest.approx(result.sent / 10, rel=0.05)
    assert ledger.dropped(Side.DEVICE) == result.lost
    verdict = judge_trial(result, ledger, LOOSE)
    assert verdict.outcome is Outcome.FAIL
    assert "dropped by a FIB entry" in verdict.reason


def test_an_impossible_rate_is_invalid_and_says_what_was_reached(device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        result, ledger = trial(generator, [device.counters()], rate_pps=2e9, duration_s=1.0)
    verdict = judge_trial(result, ledger, Goal())
    assert verdict.outcome is Outcome.INVALID
    assert "the generator was the limit" in verdict.reason
    assert 0 < result.sent < result.intended == 2_000_000_000


def test_a_device_that_hangs_loses_packets_and_is_to_blame(own_device: MemifDevice) -> None:
    pid = own_device.process.pid
    with VppPgGenerator(scenario(), own_device.endpoints) as generator:
        keeper = LedgerKeeper([own_device.counters(), *generator.counters])
        keeper.open()
        running = generator.start(50_000, 1.0)
        os.kill(pid, signal.SIGSTOP)
        wake = threading.Timer(1.5, os.kill, (pid, signal.SIGCONT))
        wake.start()
        result = running.finish()
        wake.join()
        ledger = keeper.close(result)
        again, _ = trial(generator, [own_device.counters()])
    verdict = judge_trial(result, ledger, LOOSE)
    assert verdict.outcome is Outcome.FAIL
    assert "router did not empty the memif of port west in time" in verdict.reason
    assert ledger.dropped(Side.TESTER) == 0
    assert again.lost == 0


def test_a_device_that_dies_fails_the_trial_and_the_next_does_not_begin(own_device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), own_device.endpoints) as generator:
        keeper = LedgerKeeper(generator.counters)
        keeper.open()
        running = generator.start(20_000, 1.0)
        own_device.process.kill()
        result = running.finish()
        ledger = keeper.close(result)
        with pytest.raises(GeneratorError, match="the link of port west, east is down"):
            generator.start(1_000, 1.0)
    check_sums(result)
    assert result.lost > 0
    verdict = judge_trial(result, ledger, LOOSE)
    assert verdict.outcome is Outcome.FAIL
    assert ledger.dropped(Side.DEVICE) > 0


def test_a_generator_that_dies_is_an_error_and_leaves_the_device_as_it_was(device: MemifDevice) -> None:
    routes = device.process.cli("show ip fib summary")
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        running = generator.start(20_000, 30.0)
        os.kill(generator.process_ids[0], signal.SIGKILL)
        with pytest.raises(GeneratorError, match=r"the generator's VPP has ended \(status -9\)"):
            running.finish()
        assert generator.process_ids == []
    assert device.process.running
    assert device.process.cli("show ip fib summary") == routes
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        result, _ = trial(generator, [device.counters()])
    assert result.lost == 0


def test_a_stream_can_be_stopped_and_another_started(device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        running = generator.start(5_000, 60.0)
        with pytest.raises(GeneratorError, match="under way already"):
            generator.start(5_000, 1.0)
        result = running.stop()
        check_sums(result)
        assert result.lost == 0
        assert result.duration_s < 60
        assert generator.start(5_000, 1.0, packets=10).finish().sent == 10


def connected(directory: Path) -> set[str]:
    """Return names of the sockets in a directory that somebody is connected to (unix(7), /proc/net/unix)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    paths = [Path(row[7]) for row in rows if len(row) > 7 and row[5] == "03"]
    return {path.name for path in paths if path.parent == directory}


def test_nobody_asks_the_device_anything_during_a_trial(device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        keeper = LedgerKeeper([device.counters(), *generator.counters])
        keeper.open()
        running = generator.start(3_000, 1.0)
        seen = connected(device.process.runtime_dir)
        result = running.finish(lambda _: seen.update(connected(device.process.runtime_dir)))
        keeper.close(result)
    assert seen == {"memif.sock"}


def test_nothing_is_left_when_the_generator_is_closed(device: MemifDevice) -> None:
    with VppPgGenerator(scenario(), device.endpoints) as generator:
        tester = generator._opened()
        directory, pid = tester.vpp.runtime_dir, tester.vpp.pid
        socket = Path(device.endpoints.ports[0].interface)
        assert socket.exists()
        assert not list(directory.glob("*.pcap"))
    assert not directory.exists()
    assert not socket.exists()
    assert not Path(f"/proc/{pid}").exists()
    assert not [path for path in Path("/dev/shm").iterdir() if directory.name in path.name]
    assert generator.process_ids == []


def test_a_memif_that_nobody_answers_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: MemifDevice
) -> None:
    monkeypatch.setattr(vpp_ports, "_LINK_SECONDS", 0.5)
    socket = f"/tmp/trm-{secrets.token_hex(3)}.sock"
    nobody = Endpoints(tuple(replace(port, interface=socket) for port in device.endpoints.ports))
    with pytest.raises(GeneratorError, match="the link of port west, east did not come up"):
        VppPgGenerator(scenario(), nobody).__enter__()
    assert not Path(socket).exists()


@dataclass(frozen=True)
class KernelDevice:
    """A kernel that forwards IPv4 between two veth ports, and the namespace of the tester's ends."""

    tester: str
    device: str

    @property
    def endpoints(self) -> Endpoints:
        west = Port("west", "west", self.tester, "02:00:00:00:02:00")
        return Endpoints((west, Port("east", "east", self.tester)))

    def counters(self) -> CounterSource:
        return KernelForwarder(self.device, ["to-west", "to-east"])


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelDevice]:
    mark = secrets.token_hex(3)
    tester, device = f"trt-{mark}", f"trd-{mark}"
    try:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "add", name], check=True)
        for i, port in enumerate(("west", "east")):
            link = ["ip", "link", "add", port, "netns", tester, "type", "veth", "peer", "name", f"to-{port}"]
            subprocess.run([*link, "netns", device, "address", f"02:00:00:00:02:0{i}"], check=True)
            subprocess.run(["ip", "-n", tester, "link", "set", port, "up"], check=True)
            subprocess.run(["ip", "-n", device, "link", "set", f"to-{port}", "up"], check=True)
            subprocess.run(
                ["ip", "-n", device, "addr", "add", f"10.0.{i}.1/24", "dev", f"to-{port}"], check=True
            )
        batch = [f"route add {prefix} via 10.0.1.2" for prefix in V4]
        batch.append("neigh replace 10.0.1.2 lladdr 02:00:00:00:01:01 dev to-east nud permanent")
        lines = "\n".join(batch) + "\n"
        subprocess.run(["ip", "-n", device, "-batch", "-"], input=lines, text=True, check=True)
        with inside(device):
            base = Path("/proc/sys/net/ipv4")
            (base / "ip_forward").write_text("1")
            for where in ("all", "to-west", "to-east"):
                (base / "conf" / where / "rp_filter").write_text("0")
        yield KernelDevice(tester, device)
    finally:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "del", name], check=False)


def over_kernel(**changes: object) -> Scenario:
    return scenario(destinations=Destinations.of([*V4], [EAST] * len(V4)), **changes)


def test_a_kernel_forwards_what_comes_by_af_packet(kernel: KernelDevice) -> None:
    with VppPgGenerator(over_kernel(), kernel.endpoints) as generator:
        result, ledger = trial(generator, [kernel.counters()], duration_s=1.0)
    check_sums(result)
    assert result.sent > 100
    assert (result.lost, ledger.unaccounted) == (0, 0)
    assert result.received_by_port == (0, result.sent)


def test_a_port_that_is_down_or_missing_is_a_clear_error(
    kernel: KernelDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    west, east = kernel.endpoints.ports
    with pytest.raises(GeneratorError, match="nowhere"):
        VppPgGenerator(over_kernel(), Endpoints((west, replace(east, interface="nowhere")))).__enter__()
    with VppPgGenerator(over_kernel(), kernel.endpoints) as generator:
        subprocess.run(["ip", "-n", kernel.device, "link", "set", "to-west", "down"], check=True)
        try:
            with pytest.raises(GeneratorError, match=r"port west.*no carrier"):
                generator.start(1_000, 1.0)
        finally:
            subprocess.run(["ip", "-n", kernel.device, "link", "set", "to-west", "up"], check=True)
