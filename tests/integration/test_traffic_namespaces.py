"""Traffic checks through a real kernel forwarder in a namespace of its own.

tester  west ----- in   router   out-a ----- east     200 IPv4 and 100 IPv6 prefixes,
        (sends)                  out-b ----- south    half by east, half by south
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import pytest

from router_agent.model import Prefix
from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import KernelForwarder, driver_of
from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.background import BackgroundTraffic
from router_agent.traffic.generators.generator import GeneratorError, TrialResult
from router_agent.traffic.generators.sockets.capture import Capture
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.measurements.results import RateSearch, Target
from router_agent.traffic.scenario import (
    Asked,
    Check,
    Destinations,
    Endpoints,
    FrameSizes,
    Goal,
    Port,
    Scenario,
    Tier,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

PORTS = ("west", "east", "south")
EAST, SOUTH = 1, 2
V4 = [IPv4Network(f"20.{i}.0.0/16") for i in range(200)]
V6 = [IPv6Network(f"2001:db8:{i:x}::/48") for i in range(100)]
PREFIXES: list[Prefix] = [*V4, *V6]
EXPECTED = [EAST if i % 2 == 0 else SOUTH for i in range(len(PREFIXES))]


def ip(*words: str, lines: str | None = None) -> str:
    """Run ip(8); `lines` are a batch."""
    done = subprocess.run(["ip", *words], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Router:
    """The three-port kernel router and the tester around it."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.tester, self.device = f"trt-{mark}", f"trd-{mark}"

    def up(self) -> None:
        for name in (self.tester, self.device):
            ip("netns", "add", name)
        batch = []
        for i, port in enumerate(PORTS):
            mac, peer = f"02:00:00:00:01:0{i}", f"02:00:00:00:02:0{i}"
            ip("link", "add", port, "netns", self.tester, "address", mac, "type", "veth",
               "peer", "name", f"to-{port}", "netns", self.device, "address", peer)  # fmt: skip
            ip("-n", self.tester, "link", "set", port, "up")
            batch += [
                f"link set to-{port} up",
                f"addr add 10.0.{i}.1/24 dev to-{port}",
                f"addr add fd00:{i}::1/64 dev to-{port} nodad",
                f"neigh replace 10.0.{i}.2 lladdr {mac} dev to-{port} nud permanent",
                f"neigh replace fd00:{i}::2 lladdr {mac} dev to-{port} nud permanent",
            ]
        for prefix, port_number in zip(PREFIXES, EXPECTED, strict=True):
            batch.append(f"route add {prefix} via {self.gateway(prefix, port_number)}")
        self.batch(*batch)
        with inside(self.tester):
            self._write("ipv4/ip_forward", "0")
        with inside(self.device):
            self._write("ipv4/ip_forward", "1")
            self._write("ipv6/conf/all/forwarding", "1")
            for where in ("all", *(f"to-{port}" for port in PORTS)):
                self._write(f"ipv4/conf/{where}/rp_filter", "0")

    def down(self) -> None:
        for name in (self.tester, self.device):
            with suppress(AssertionError):
                ip("netns", "del", name)

    def batch(self, *lines: str) -> None:
        ip("-n", self.device, "-batch", "-", lines="\n".join(lines) + "\n")

    @staticmethod
    def gateway(prefix: Prefix, port: int) -> str:
        return f"10.0.{port}.2" if prefix.version == 4 else f"fd00:{port}::2"

    @property
    def endpoints(self) -> Endpoints:
        macs = {0: "02:00:00:00:02:00"}
        return Endpoints(tuple(Port(p, p, self.tester, macs.get(i)) for i, p in enumerate(PORTS)))

    @property
    def counters(self) -> KernelForwarder:
        return KernelForwarder(self.device, [f"to-{port}" for port in PORTS])

    @staticmethod
    def _write(path: str, value: str) -> None:
        Path("/proc/sys/net", path).write_text(value)


@pytest.fixture(scope="module")
def built() -> Iterator[Router]:
    router = Router()
    try:
        router.up()
        yield router
    finally:
        router.down()


@pytest.fixture
def router(built: Router) -> Iterator[Router]:
    """The router with its first routes; a test may change routes, they are put back."""
    yield built
    routes = [
        f"route replace {prefix} via {built.gateway(prefix, port)}"
        for prefix, port in zip(PREFIXES, EXPECTED, strict=True)
    ]
    built.batch(*routes)


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        "namespaces",
        Destinations.of(PREFIXES, EXPECTED),
        rate_pps=6_000,
        duration_s=1.0,
        goal=Goal(unsent_ratio=0.3),
        proof_pps=2_000,
        drain_s=0.4,
        interval_s=0.05,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def sent_by(result: TrialResult, port: int) -> int:
    """Return the packets sent to destinations that leave by a port."""
    return int(result.sent_to[scenario().destinations.expected == port].sum())


def test_a_loss_free_trial_passes_and_leaves_reports(router: Router, tmp_path: Path) -> None:
    stages: list[str] = []
    result = run_check(
        scenario(),
        router.endpoints,
        [router.counters],
        tmp_path,
        lambda stage, done, text: stages.append(stage),
    )
    assert (result.verdict.outcome, result.exit_code) == (Outcome.PASS, 0), result.verdict.reason
    assert result.trial is not None
    assert result.ledger is not None
    assert result.proof is not None
    sent = result.trial.sent
    assert sent == pytest.approx(6_000, rel=0.3)
    assert (result.trial.lost, result.trial.duplicates, result.ledger.unaccounted) == (0, 0, 0)
    assert result.trial.received_by_port == (0, *(sent_by(result.trial, port) for port in (EAST, SOUTH)))
    assert result.trial.sent_to.sum() == result.trial.series.sent.sum() == sent
    assert result.trial.series.received.sum() == sent
    assert (result.proof.right, result.proof.by_port) == (300, {"west": 0, "east": 150, "south": 150})
    assert {"target, 78 bytes", "report"} <= set(stages)
    assert json.loads((tmp_path / "report.json").read_text())["verdict"]["outcome"] == "PASS"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"report.{suffix}" for suffix in ("json", "xml", "html", "prom")
    }


def test_black_holes_fail_and_the_ledger_names_them(router: Router) -> None:
    router.batch(*(f"route replace blackhole {prefix}" for prefix in PREFIXES[::2]))
    result = run_check(scenario(proof_pps=None), router.endpoints, [router.counters])
    assert result.verdict.outcome is Outcome.FAIL
    assert result.trial is not None
    assert result.ledger is not None
    lost = sent_by(result.trial, EAST)
    assert result.trial.lost == lost > 2_000
    drops = {drop.name: drop for drop in result.ledger.drops}
    assert sum(drop.count for drop in drops.values()) == lost
    assert result.ledger.unaccounted == 0
    assert all("discarded by a route (blackhole" in name for name in drops)
    assert {name.split()[0] for name in drops} == {"IPv4", "IPv6"}
    assert result.ledger.dropped(Side.TESTER) == 0
    assert "discarded by a route (blackhole" in result.verdict.reason


def test_missing_routes_are_named_by_their_counter(router: Router) -> None:
    router.batch(*(f"route del {prefix}" for prefix in PREFIXES[:10]))
    result = run_check(scenario(proof_pps=None, rate_pps=3_000), router.endpoints, [router.counters])
    assert result.verdict.outcome is Outcome.FAIL
    assert result.ledger is not None
    assert result.trial is not None
    lost = int(result.trial.sent_to[result.trial.arrived.sum(axis=0) == 0].sum())
    assert {drop.source: drop.count for drop in result.ledger.drops} == {"IpExt.InNoRoutes": lost}
    assert lost == pytest.approx(100, rel=0.3)


def test_one_misrouted_prefix_is_found(router: Router) -> None:
    stray = PREFIXES[42]
    router.batch(f"route replace {stray} via {router.gateway(stray, SOUTH)}")
    result = run_check(scenario(duration_s=0.2), router.endpoints, [router.counters])
    assert result.verdict.outcome is Outcome.FAIL
    assert result.proof is not None
    assert (result.proof.right, len(result.proof.wrong), len(result.proof.missing)) == (299, 1, 0)
    found = result.proof.wrong.first[0]
    assert (found.prefix, found.expected, found.seen) == (str(stray), "east", "south")
    assert result.part("target").outcome is Outcome.PASS


def test_a_prefix_that_leaves_by_no_port_is_tried_again_and_then_missing(router: Router) -> None:
    gone = PREFIXES[-1]
    router.batch(f"route replace blackhole {gone}")
    result = run_check(scenario(duration_s=0.2), router.endpoints, [router.counters])
    assert result.proof is not None
    assert [d.prefix for d in result.proof.missing.first] == [str(gone)]
    assert result.proof.retry_pps == 500
    assert "left by no port" in result.part("port proof").reason


def test_an_impossible_rate_is_invalid(router: Router) -> None:
    result = run_check(
        scenario(rate_pps=20e6, duration_s=0.2, proof_pps=None, goal=Goal()),
        router.endpoints,
        [router.counters],
    )
    assert (result.verdict.outcome, result.exit_code) == (Outcome.INVALID, 2)
    assert "the generator was the limit" in result.verdict.reason
    assert result.trial is not None
    assert 0 < result.trial.sent < result.trial.intended == 4_000_000


def test_a_receiver_with_a_tiny_ring_is_invalid_and_named(router: Router) -> None:
    result = run_check(
        scenario(
            ring_frames=16, rate_pps=60_000, duration_s=0.5, proof_pps=None, goal=Goal(unsent_ratio=0.9)
        ),
        router.endpoints,
        [router.counters],
    )
    assert result.verdict.outcome is Outcome.INVALID, result.verdict.reason
    assert "the tester was the limit" in result.verdict.reason
    assert "tester's capture of port" in result.verdict.reason
    assert result.ledger is not None
    assert result.trial is not None
    assert result.ledger.dropped(Side.TESTER) == result.trial.lost > 0


def test_the_search_finds_a_rate_with_real_packets(router: Router) -> None:
    asked = Asked.model_validate(
        {
            "ndr": {
                "lowest": "1 kpps",
                "highest": "5 kpps",
                "trial": "300 ms",
                "width": "20 %",
                "limit": "20 s",
            }
        }
    )
    check = Check((scenario(duration_s=0.2, proof_pps=None),), Tier.FUNCTIONAL, asked)
    result = run_check(check, router.endpoints, [router.counters])
    target, search = result.measurements
    assert isinstance(target, Target)
    assert isinstance(search, RateSearch)
    assert search.found.rate_pps == pytest.approx(5_000)
    assert result.part("NDR").outcome is Outcome.PASS


def test_background_traffic_tells_when_and_how_much_was_lost(router: Router) -> None:
    with BackgroundTraffic(scenario(rate_pps=4_000, interval_s=0.01), router.endpoints) as traffic:
        _wait_for(traffic, 2_000)
        router.batch(*(f"route replace blackhole {prefix}" for prefix in PREFIXES))
        _wait_for(traffic, traffic.snapshot().sent + 800)
        router.batch(
            *(
                f"route replace {p} via {router.gateway(p, n)}"
                for p, n in zip(PREFIXES, EXPECTED, strict=True)
            )
        )
        _wait_for(traffic, traffic.snapshot().sent + 2_000)
    result = traffic.result
    assert result.sent == result.received + result.lost
    assert result.lost > 400
    assert int(result.series.lost.sum()) == result.lost
    outage = np.flatnonzero(result.series.lost)
    assert outage[0] > 25
    assert outage[-1] < len(result.series.lost) - 25
    assert result.series.lost[: outage[0]].sum() == 0
    assert int((result.sent_to - result.arrived.sum(axis=0)).sum()) == result.lost


def _wait_for(traffic: BackgroundTraffic, sent: int) -> None:
    waiting, limit = threading.Event(), time.monotonic() + 20
    while traffic.snapshot().sent < sent:
        assert time.monotonic() < limit, f"{traffic.snapshot()} after 20 s, expected {sent} sent"
        waiting.wait(0.01)


def test_background_traffic_that_ended_by_itself_is_an_error(router: Router) -> None:
    with BackgroundTraffic(scenario(), router.endpoints, max_duration_s=0.1) as traffic:
        threading.Event().wait(0.3)
        with pytest.raises(GeneratorError, match=r"ended by itself after 0\.1 s"):
            traffic.stop()


def test_duplicates_and_overtaken_packets_are_counted(router: Router) -> None:
    """The device mirrors what leaves by east to south as well, so every packet by east arrives twice."""
    tc = ["tc", "-n", router.device]
    mirror = ["u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "to-south"]
    subprocess.run([*tc, "qdisc", "add", "dev", "to-east", "clsact"], check=True)
    try:
        subprocess.run(
            [*tc, "filter", "add", "dev", "to-east", "egress", "protocol", "all", *mirror], check=True
        )
        with SocketsGenerator(scenario(), router.endpoints) as generator:
            result = generator.start(1_000, 0.3).finish()
    finally:
        subprocess.run([*tc, "qdisc", "del", "dev", "to-east", "clsact"], check=True)
    by_east = sent_by(result, EAST)
    assert (result.lost, result.duplicates) == (0, by_east)
    assert result.received_by_port == (0, by_east, result.sent)


def test_streams_do_not_see_each_other(router: Router) -> None:
    with (
        SocketsGenerator(scenario(), router.endpoints) as one,
        SocketsGenerator(scenario(), router.endpoints) as two,
    ):
        first, second = one.start(2_000, 0.3), two.start(1_000, 0.3)
        with pytest.raises(GeneratorError, match="under way already"):
            one.start(1, 1)
        results = first.finish(), second.finish()
        again = one.start(500, 0.2).finish()
    assert [r.intended for r in results] == [600, 300]
    assert [(r.lost, r.duplicates) for r in (*results, again)] == [(0, 0)] * 3
    assert all(r.sent == r.received > 50 for r in (*results, again))


def test_big_frames_arrive_too(router: Router) -> None:
    with SocketsGenerator(scenario(frames=FrameSizes.of(1_500)), router.endpoints) as generator:
        result = generator.start(1_000, 0.2).finish()
    assert (result.intended, result.lost) == (200, 0)
    assert result.sent > 100


def test_a_missing_interface_makes_the_check_invalid(router: Router) -> None:
    ports = router.endpoints.ports
    for broken in (
        Endpoints((replace(ports[0], interface="absent0"), *ports[1:])),
        Endpoints((ports[0], replace(ports[1], interface="absent0"))),
    ):
        result = run_check(scenario(), broken, [router.counters])
        assert result.verdict.outcome is Outcome.INVALID
        assert "absent0" in result.verdict.reason


def test_a_worker_that_dies_makes_the_trial_a_generator_error(router: Router) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        running = generator.start(1_000, 30)
        subprocess.run(["kill", "-9", str(generator.process_ids[0])], check=True)
        with pytest.raises(GeneratorError, match="sender on west process has ended"):
            running.finish()


def test_no_worker_outlives_its_generator(router: Router) -> None:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        workers = generator.process_ids
        assert len(workers) >= 2
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_the_capture_sees_its_own_stream_only(router: Router) -> None:
    with inside(router.device), Capture("lo", tag=7, signature=42, slots=64) as capture:
        assert len(capture.waiting()) == 0
        assert capture.drops() == 0
        with pytest.raises(OSError, match="no interface 'absent0'"):
            Capture("absent0", tag=7, signature=42, slots=64)


def test_the_driver_of_a_port_is_known(router: Router) -> None:
    assert driver_of("to-west", router.device) == "veth"
    assert driver_of("lo", router.device) == ""
