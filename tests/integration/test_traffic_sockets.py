"""The sockets generator with several senders and receivers, through a real kernel forwarder.

tester  west ---- in  router  out ---- east     30.0.0.0/8 and 2001:db8:3::/48 are behind west,
        both send, both capture                 20.0.0.0/8 and 2001:db8:2::/48 behind east
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import pytest

from router_agent.lab.daemon import wait_until
from router_agent.model import Prefix
from router_agent.namespaces import inside
from router_agent.traffic import nic
from router_agent.traffic.counters.kernel import KernelForwarder, parse_pairs
from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import GeneratorError, TrialResult
from router_agent.traffic.generators.sockets import clock
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.scenario import IMIX, Destinations, Endpoints, FrameSizes, Goal, Port, Scenario

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

PORTS = ("west", "east")
WEST, EAST = 0, 1
QUEUES = ("numtxqueues", "4", "numrxqueues", "4")
V4_EAST: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(60)]
V6_EAST: list[Prefix] = [IPv6Network(f"2001:db8:2:{i:x}::/64") for i in range(10)]
V4_WEST: list[Prefix] = [IPv4Network(f"30.{i}.0.0/16") for i in range(25)]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Router:
    """The tester, the router, and two wires of four queues between them."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.tester, self.device = f"tst-{mark}", f"tsd-{mark}"

    def up(self) -> None:
        for name in (self.tester, self.device):
            ip("netns", "add", name)
        for i, port in enumerate(PORTS):
            mac, peer = f"02:00:00:00:01:0{i}", f"02:00:00:00:02:0{i}"
            ip("link", "add", "name", port, "netns", self.tester, "address", mac, *QUEUES, "type", "veth",
               "peer", "name", f"to-{port}", "netns", self.device, "address", peer, *QUEUES)  # fmt: skip
            ip("-n", self.tester, "link", "set", port, "up")
            ip("-n", self.device, "link", "set", f"to-{port}", "up")
            ip("-n", self.device, "addr", "add", f"10.0.{i}.1/24", "dev", f"to-{port}")
        self.restore()
        with inside(self.device):
            for path, value in (
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                *((f"ipv4/conf/to-{port}/rp_filter", "0") for port in PORTS),
            ):
                Path("/proc/sys/net", path).write_text(value)

    def restore(self) -> None:
        """Bring every link up, and put in what one that goes down takes with it."""
        for namespace, port in self.links:
            ip("-n", namespace, "link", "set", port, "up")
        wait_until(lambda: all(state(*link) == "UP" for link in self.links), "links that are up", seconds=10)
        for i, port in enumerate(PORTS):
            ip("-n", self.device, "addr", "replace", f"fd00:{i}::1/64", "dev", f"to-{port}", "nodad")
            for near in (f"10.0.{i}.2", f"fd00:{i}::2"):
                ip("-n", self.device, "neigh", "replace", near, "lladdr", f"02:00:00:00:01:0{i}",
                   "dev", f"to-{port}", "nud", "permanent")  # fmt: skip
        for prefix, near in (
            ("30.0.0.0/8", "10.0.0.2"),
            ("20.0.0.0/8", "10.0.1.2"),
            ("2001:db8:2::/48", "fd00:1::2"),
        ):
            ip("-n", self.device, "route", "replace", prefix, "via", near)

    def down(self) -> None:
        for name in (self.tester, self.device):
            with suppress(AssertionError):
                ip("netns", "del", name)

    @property
    def links(self) -> list[tuple[str, str]]:
        """Namespace and name of each end of both wires."""
        return [(self.tester, port) for port in PORTS] + [(self.device, f"to-{port}") for port in PORTS]

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(tuple(Port(p, p, self.tester, f"02:00:00:00:02:0{i}") for i, p in enumerate(PORTS)))


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    built = Router()
    try:
        built.up()
        yield built
    finally:
        built.down()


def both_ways() -> Destinations:
    """Return 70 destinations that west sends to and 25 that east sends to."""
    eastward = Destinations.of(V4_EAST + V6_EAST, [EAST] * 70, ingress=WEST)
    westward = Destinations.of(V4_WEST, [WEST] * 25, ingress=EAST)
    return Destinations.joined([eastward, westward])


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        "both ways",
        both_ways(),
        rate_pps=4_000,
        duration_s=0.5,
        goal=Goal(unsent_ratio=0.3),
        proof_pps=2_000,
        drain_s=0.4,
        interval_s=0.05,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def loss_free(result: TrialResult) -> bool:
    return (result.lost, result.duplicates, result.reordered, result.tester_drops) == (
        0,
        0,
        0,
        {"west": 0, "east": 0},
    )


def test_both_ports_send_equal_shares_and_each_packet_is_followed(router: Router) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        result = generator.start(4_000, 0.5).finish()
        again = generator.start(1_000, 0.2).finish()
    assert loss_free(result)
    assert loss_free(again)
    assert result.intended == 2_000
    eastward, westward = int(result.sent_to[:70].sum()), int(result.sent_to[70:].sum())
    assert eastward + westward == result.sent == result.received
    assert 500 < eastward <= 1_000
    assert 500 < westward <= 1_000
    assert result.received_by_port == (westward, eastward)
    assert result.arrived[EAST].tolist() == [*result.sent_to[:70], *[0] * 25]
    assert result.sent_to[:70].max() - result.sent_to[:70].min() <= 1
    for column in ("intended", "sent", "received"):
        total = int(getattr(result.series, column).sum())
        assert total == (2_000 if column == "intended" else result.sent)


def test_loss_in_one_direction_is_that_directions(router: Router) -> None:
    ip("-n", router.device, "route", "add", "blackhole", "30.3.0.0/16")
    try:
        with SocketsGenerator(scenario(), router.endpoints) as generator:
            result = generator.start(4_000, 0.5).finish()
    finally:
        ip("-n", router.device, "route", "del", "blackhole", "30.3.0.0/16")
    missing = np.flatnonzero(result.arrived.sum(axis=0) < result.sent_to)
    assert [str(both_ways().prefix(row)) for row in missing.tolist()] == ["30.3.0.0/16"]
    assert result.lost == result.sent_to[missing[0]] > 10
    assert int(result.series.lost.sum()) == result.lost


def test_a_check_both_ways_proves_every_prefix_once(router: Router) -> None:
    counters = KernelForwarder(router.device, [f"to-{port}" for port in PORTS])
    result = run_check(scenario(), router.endpoints, [counters])
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.proof is not None
    assert (result.proof.right, result.proof.unsent, result.proof.by_port) == (
        95,
        0,
        {"west": 25, "east": 70},
    )


def test_a_mix_of_sizes_arrives_in_its_shares(router: Router) -> None:
    with inside(router.device):
        before = {port: _bytes(port) for port in PORTS}
        with SocketsGenerator(scenario(frames=IMIX, destinations=_eastward()), router.endpoints) as generator:
            result = generator.start(1_000, 1.2, packets=1_200).finish()
        after = {port: _bytes(port) for port in PORTS}
    assert loss_free(result)
    assert result.sent == 1_200
    stray = after["west"] - before["west"] - 100 * (7 * 60 + 4 * 590 + 1514)
    assert 0 <= stray < 500, "no more than the odd router solicitation besides"


def _eastward() -> Destinations:
    return Destinations.of(V4_EAST[:1], [EAST], ingress=WEST)


def _bytes(port: str) -> int:
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, columns = line.partition(":")
        if name.strip() == f"to-{port}":
            return int(columns.split()[0])
    raise AssertionError(f"no to-{port}")


def test_several_workers_share_ports_by_their_queues(router: Router) -> None:
    assert nic.channels("west", router.tester) == nic.Channels(4, 4)
    with SocketsGenerator(scenario(cpus=(0, 1) * 4), router.endpoints) as generator:
        assert (len(generator.plan.senders), len(generator.plan.receivers)) == (4, 4)
        assert [os.sched_getaffinity(pid) for pid in generator.process_ids] == [{0}, {1}] * 4
        result = generator.start(4_000, 0.5).finish()
        once = generator.start(4_000, 1.0, packets=95).finish()
    assert loss_free(result)
    assert result.received == result.sent > 1_000
    assert result.received_by_port == (int(result.sent_to[70:].sum()), int(result.sent_to[:70].sum()))
    assert once.sent_to.tolist() == [1] * 95
    assert result.setup[0].startswith("sockets: sender on west on CPU 0; sender on west on CPU 1; sender on ")


def test_latency_is_of_sampled_packets_and_in_order_of_size(router: Router) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        every = generator.start(2_000, 0.3).finish()
        some = generator.start(20_000, 0.3).finish()
    assert every.latency is not None
    assert some.latency is not None
    assert len(every.latency) == every.received
    assert "every packet" in every.latency.what
    assert "every 8th packet" in some.latency.what
    assert len(some.latency) == pytest.approx(some.received / 8, abs=2)
    assert 1 < every.latency.least <= every.latency.percentile(50) <= every.latency.percentile(99)


def test_lost_packets_have_no_latency(router: Router) -> None:
    ip("-n", router.device, "route", "add", "blackhole", "30.0.0.0/12")
    try:
        with SocketsGenerator(scenario(), router.endpoints) as generator:
            result = generator.start(2_000, 0.3).finish()
    finally:
        ip("-n", router.device, "route", "del", "blackhole", "30.0.0.0/12")
    assert result.lost > 100
    assert result.latency is not None
    assert len(result.latency) == result.received


def test_a_clock_that_is_stepped_is_an_error(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        running = generator.start(1_000, 0.1)
        now = clock.realtime_offset_ns()
        monkeypatch.setattr(clock, "realtime_offset_ns", lambda: now - 2_000_000_000)
        with pytest.raises(GeneratorError, match=r"clock was stepped by -2\.0000\d\d s"):
            running.finish()


@pytest.fixture
def restored(router: Router) -> Iterator[Router]:
    """The router, whose links a test takes down."""
    yield router
    router.restore()


def test_a_port_that_is_down_is_refused_before_anything_is_sent(restored: Router) -> None:
    with SocketsGenerator(scenario(), restored.endpoints) as generator:
        ip("-n", restored.device, "link", "set", "to-east", "down")
        with pytest.raises(GeneratorError, match="port east: interface 'east' has no carrier"):
            generator.start(1_000, 0.1)
        restored.restore()
        ip("-n", restored.tester, "link", "set", "west", "down")
        with pytest.raises(GeneratorError, match=r"'west' is down; bring it up with 'ip link set west up'"):
            generator.start(1_000, 0.1)
        restored.restore()
        assert generator.start(1_000, 0.1).finish().lost == 0


def test_a_carrier_that_has_just_gone_is_no_carrier(restored: Router) -> None:
    """The operational state follows the carrier up to a second later: the kernel looks once a second.

    At a wire whose ends have different numbers it looks at once; those here have the same.
    """
    with SocketsGenerator(scenario(), restored.endpoints) as generator:
        ip("-n", restored.device, "link", "set", "to-east", "down")
        wait_until(lambda: state(restored.tester, "east") != "UP", "the kernel to look", seconds=10)
        ip("-n", restored.device, "link", "set", "to-east", "up")
        wait_until(lambda: state(restored.tester, "east") == "UP", "the kernel to look again", seconds=10)
        ip("-n", restored.device, "link", "set", "to-east", "down")
        with pytest.raises(GeneratorError, match="port east: interface 'east' has no carrier"):
            generator.start(1_000, 0.1)


def state(namespace: str, port: str) -> str:
    """Return the operational state of a link (RFC 2863), as the kernel has it by now."""
    shown = subprocess.check_output(["ip", "-n", namespace, "-j", "link", "show", "dev", port])
    return str(json.loads(shown)[0]["operstate"])


@pytest.fixture
def name_server(router: Router) -> Iterator[Endpoints]:
    """East is a host that the addresses behind it are of; the frames come in there and end there."""
    local = (("20.0.0.0/8", "-4"), ("2001:db8:2::/48", "-6"))
    ip("-n", router.tester, "link", "set", "lo", "up")
    for prefix, family in local:
        ip(family, "-n", router.tester, "route", "replace", "local", prefix, "dev", "lo", "table", "local")
    with inside(router.tester):
        for where in ("all", "east"):
            Path(f"/proc/sys/net/ipv4/conf/{where}/rp_filter").write_text("0")
    ip("-n", router.tester, "route", "replace", "default", "dev", "east")
    west, east = router.endpoints.ports
    yield Endpoints((west, replace(east, gateway_mac=None, udp_host=True)))
    ip("-n", router.tester, "route", "del", "default")
    for prefix, family in local:
        ip(family, "-n", router.tester, "route", "del", "local", prefix, "dev", "lo", "table", "local")


def eastward() -> Destinations:
    return Destinations.of(V4_EAST + V6_EAST, [EAST] * 70, ingress=WEST)


def test_a_host_receives_by_udp_sockets(router: Router, name_server: Endpoints) -> None:
    with SocketsGenerator(scenario(destinations=eastward(), cpus=(0, 1) * 4), name_server) as generator:
        assert [(r.ports, r.sharing) for r in generator.plan.receivers if EAST in r.ports] == [
            ((EAST,), 2)
        ] * 2
        result = generator.start(4_000, 0.5).finish()
        again = generator.start(1_000, 0.2).finish()
    for found in (result, again):
        assert loss_free(found)
        assert found.received_by_port == (0, found.sent)
    assert (result.arrived[EAST] == result.sent_to).all()
    assert result.latency is None
    assert result.udp_hosts == ("east",)


def test_a_full_socket_is_named_and_the_trial_invalid(router: Router, name_server: Endpoints) -> None:
    result = run_check(
        scenario(
            destinations=eastward(),
            proof_pps=None,
            ring_frames=16,
            rate_pps=60_000,
            goal=Goal(unsent_ratio=0.9),
        ),
        name_server,
    )
    assert result.verdict.outcome is Outcome.INVALID, result.verdict.reason
    assert "UDP RcvbufErrors at the receiver, port east" in result.verdict.reason
    assert result.ledger is not None
    assert result.trial is not None
    assert result.ledger.dropped(Side.TESTER) == result.trial.lost > 0
    with inside(router.tester):
        counters = parse_pairs(Path("/proc/thread-self/net/snmp").read_text())
    assert counters["Udp.RcvbufErrors"] > 0


def test_a_udp_port_that_is_taken_is_said(router: Router, name_server: Endpoints) -> None:
    with inside(router.tester), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.bind(("::", 9))
        with (
            pytest.raises(GeneratorError, match="UDP port 9 is taken by another program: set udp_port"),
            SocketsGenerator(scenario(destinations=eastward()), name_server),
        ):
            pass


@pytest.mark.parametrize(("worker", "what"), [(0, "sender on west"), (-1, "receiver on .*east")])
def test_a_worker_that_is_killed_is_named_and_the_generator_not_used_again(
    router: Router, worker: int, what: str
) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        running = generator.start(1_000, 30)
        os.kill(generator.process_ids[worker], signal.SIGKILL)
        with pytest.raises(GeneratorError, match=rf"{what} process has ended \(killed by SIGKILL\)"):
            running.finish()
        with pytest.raises(GeneratorError, match="open the generator anew"):
            generator.start(1_000, 0.1)
        workers = generator.process_ids
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_missing_namespace_is_a_generator_error(router: Router) -> None:
    ports = router.endpoints.ports
    broken = Endpoints((ports[0], replace(ports[1], namespace="no-such-netns")))
    with pytest.raises(GeneratorError, match="no-such-netns"), SocketsGenerator(scenario(), broken):
        pass


def test_a_stream_too_long_to_follow_is_refused(router: Router) -> None:
    with (
        SocketsGenerator(scenario(), router.endpoints) as generator,
        pytest.raises(GeneratorError, match=r"too long to follow each, the most is 2,147,483,648"),
    ):
        generator.start(1e9, 10)


def test_big_frames_go_both_ways(router: Router) -> None:
    with SocketsGenerator(scenario(frames=FrameSizes.of(1_500)), router.endpoints) as generator:
        assert loss_free(generator.start(1_000, 0.2).finish())


def test_a_nic_is_read_as_ethtool_reads_it(router: Router) -> None:
    def ethtool(option: str) -> dict[str, str]:
        command = ["ip", "netns", "exec", router.tester, "ethtool", option, "west"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    counters = {name: int(value) for name, value in ethtool("-S").items() if value}
    assert nic.statistics("west", router.tester) == counters
    assert {"peer_ifindex", "rx_queue_3_drops"} <= set(counters)
    driver = nic.driver("west", router.tester)
    assert driver is not None
    assert (driver.name, driver.version) == (ethtool("-i")["driver"], ethtool("-i")["version"])
    assert nic.udp_hash("west", router.tester) == {}
    assert nic.driver("lo", router.tester) is None
    with pytest.raises(OSError, match="'absent0'"):
        nic.statistics("absent0", router.tester)


def test_one_queue_that_took_everything_is_named(router: Router) -> None:
    """A veth counts by queue what goes through NAPI (GRO, no TSO); what one CPU sends goes to one queue."""
    offloads = {(router.device, "to-west", "gro"): "on", (router.tester, "west", "tso"): "off"}
    for (namespace, port, feature), value in offloads.items():
        subprocess.run(["ip", "netns", "exec", namespace, "ethtool", "-K", port, feature, value], check=True)
    ip("-n", router.device, "route", "add", "blackhole", "20.1.0.0/16")
    try:
        destinations = Destinations.of(V4_EAST, [EAST] * 60, ingress=WEST)
        counters = KernelForwarder(router.device, [f"to-{port}" for port in PORTS])
        result = run_check(
            scenario(destinations=destinations, proof_pps=None, cpus=(0, 0), rate_pps=1_000, duration_s=2.0),
            router.endpoints,
            [counters],
        )
    finally:
        ip("-n", router.device, "route", "del", "blackhole", "20.1.0.0/16")
        for (namespace, port, feature), value in offloads.items():
            other = "off" if value == "on" else "on"
            subprocess.run(
                ["ip", "netns", "exec", namespace, "ethtool", "-K", port, feature, other], check=True
            )
    assert result.target is not None
    named = [culprit for culprit in result.target.culprits if "RSS queue of to-west" in culprit]
    assert len(named) == 1, result.target.culprits
    assert re.search(r"took (9\d|100)% of the packets: more flows, or another hash", named[0])
