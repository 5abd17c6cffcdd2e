"""A report with every kind of measurement in it, from made figures: what the tests of reports are about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network

import numpy as np

from router_agent.model import Prefix
from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import Series, TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.ledger import balance
from router_agent.traffic.judgement.proof import Deviation, Deviations, Proof
from router_agent.traffic.judgement.verdict import Outcome, Verdict, combine
from router_agent.traffic.measurements.check import CheckResult, Part
from router_agent.traffic.measurements.results import (
    BackToBack,
    Batch,
    ChurnRun,
    LatencyRun,
    Limit,
    LossCurve,
    LossPoint,
    Measurement,
    Prediction,
    RateSearch,
    Soak,
    Target,
)
from router_agent.traffic.measurements.search import SearchResult, SearchTrial
from router_agent.traffic.report.environment import Cpu, Environment, NumaNode
from router_agent.traffic.report.model import (
    ForwardingReport,
    ForwardingRunReport,
    TargetReport,
    TrafficReport,
)
from router_agent.traffic.report.nics import Nic
from router_agent.traffic.report.record import measured, report_of
from router_agent.traffic.scenario import (
    IMIX,
    Check,
    Destinations,
    Endpoints,
    FrameSizes,
    Port,
    Scenario,
    Tier,
)

PART_NAMES: dict[type[object], str] = {
    Target: "target",
    LossCurve: "loss curve",
    BackToBack: "back-to-back",
    LatencyRun: "latency",
    Soak: "soak",
    ChurnRun: "churn",
}
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def trial(rate_pps: float, seconds: float, *, lost: float = 0.0, timed: bool = True) -> TrialResult:
    """Return a trial that loses a share of its packets in its middle third."""
    rng = np.random.default_rng(1)
    n = round(seconds * 10)
    sent = rng.poisson(rate_pps / 10, n).astype(np.int64)
    missing = np.zeros(n, np.int64)
    middle = slice(n // 3, 2 * n // 3)
    missing[middle] = rng.poisson(3 * lost * rate_pps / 10, len(missing[middle]))
    missing = np.minimum(missing, sent)
    series = Series(0.1, sent.copy(), sent, sent - missing, missing)
    total = int(sent.sum())
    received = total - int(missing.sum())
    found = None
    if timed:
        found = Latency("sendmmsg to the packet's time stamp at the receiving socket")
        found.add((30_000 * rng.lognormal(0.0, 0.4, 20_000)).astype(np.int64))
        found.add((900_000 * rng.lognormal(0.0, 0.5, 40)).astype(np.int64))
    return TrialResult(
        rate_pps, seconds, seconds, total, total, received, (0, received), series, 0, 12, latency=found
    )


def target(size: FrameSizes, rate_pps: float, *, lost: float = 0.0) -> Target:
    ran = trial(rate_pps, 12.0, lost=lost)
    drops = [DropClass("no <route>", ran.lost - ran.lost // 9, Side.DEVICE, "/err/ip4-lookup/no route")]
    found = balance(ran.sent, ran.received, drops if lost else [], {"VPP": {"/err/ip4-lookup/no route": 3}})
    if not lost:
        return Target(size, ran, found, Verdict(Outcome.PASS, f"no packet lost of {ran.sent:,} sent"))
    why = ("port 1 rx-miss while workers ran at 250 vectors/call: add a worker",)
    return Target(size, ran, found, Verdict(Outcome.FAIL, f"{ran.lost:,} of {ran.sent:,} packets lost"), why)


def search(size: FrameSizes, name: str, ratio: float, pps: float, *, regular: bool = True) -> RateSearch:
    trials = tuple(
        SearchTrial(rate, 1.0, int(rate), int(max(0.0, rate - pps)), 0, valid)
        for rate, valid in (
            (2 * pps, False),
            (1.8 * pps, True),
            (0.9 * pps, True),
            (1.3 * pps, True),
            (1.1 * pps, True),
            (pps, True),
            (1.01 * pps, True),
        )
    )
    reason = f"a loss ratio of {ratio:g} is met up to {pps:,.0f} pps"
    upper = 1.01 * pps if regular else None
    result = SearchResult(Outcome.PASS, reason, pps, upper, trials)
    verdict = Verdict(Outcome.PASS, reason)
    return RateSearch(name, size, ratio, 1.0, result, verdict, (), 0.5, 21.0, 0.005)


def loss_curve(size: FrameSizes, pps: float) -> LossCurve:
    shares = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    points = tuple(
        LossPoint(s, s * pps, int(10 * s * pps), int(10 * max(0.0, s - 0.65) * pps), valid=s != 0.8)
        for s in shares
    )
    return LossCurve(size, points, Verdict(Outcome.PASS, f"no loss at {0.6 * pps:,.0f} pps and below"))


def latency_run(size: FrameSizes, share: float, pps: float) -> LatencyRun:
    rng = np.random.default_rng(round(share * 100))
    found = Latency("sendmmsg to the packet's time stamp at the receiving socket")
    found.add((25_000 * (1 + share) * rng.lognormal(0.0, 0.3 + share / 3, 100_000)).astype(np.int64))
    verdict = Verdict(Outcome.PASS, "99 % within 200 µs, as wanted")
    return LatencyRun(size, share, share * pps, found, verdict, 20.0)


def soak(size: FrameSizes, pps: float) -> Soak:
    ran = trial(pps, 700.0, timed=False)
    return Soak(
        size, ran, balance(ran.sent, ran.received, []), 0.0031, 0, Verdict(Outcome.PASS, "no packet lost")
    )


def churn(size: FrameSizes, pps: float) -> ChurnRun:
    ran = trial(pps, 20.0, lost=0.01, timed=False)
    batches = tuple(
        Batch(5.0 * i + 2, 1_000, "withdrawn" if i % 2 == 0 else "announced again") for i in range(4)
    )
    seconds = tuple(sorted(np.random.default_rng(5).lognormal(-2.0, 0.6, 1_000).tolist()))
    found = balance(ran.sent, ran.received, [DropClass("no route", ran.lost, Side.DEVICE, "InNoRoutes")])
    verdict = Verdict(Outcome.PASS, f"{ran.lost:,} packets lost, within the budget")
    return ChurnRun(size, ran, found, batches, 0.004, seconds, 1_000_000, verdict)


def measurements(*, pps: float = 1e6) -> list[Measurement]:
    small, large = FrameSizes.of(64), FrameSizes.of(1518)
    return [
        target(small, pps, lost=0.02),
        search(small, "NDR", 0.0, 0.8 * pps),
        search(small, "PDR", 0.005, 0.85 * pps),
        loss_curve(small, pps),
        BackToBack(small, pps, (1100, 1200, 1050, 1300), 0.00031, Verdict(Outcome.PASS, "bursts of 1,162")),
        *(latency_run(small, share, 0.8 * pps) for share in (0.1, 0.5, 0.9)),
        soak(small, pps / 100),
        churn(small, pps / 100),
        target(large, pps / 2),
        search(large, "NDR", 0.0, 0.6 * pps, regular=False),
        target(IMIX, pps / 3),
    ]


def environment(host: str = "tester", *, nic: bool = True) -> Environment:
    found = Nic(
        name="enp3s0f0",
        pci="0000:03:00.0",
        device_id="8086:1572",
        driver="i40e",
        driver_version="6.1.0",
        firmware="9.20 0x8000d8c5",
        numa_node=0,
        pcie="8.0 GT/s PCIe x8",
        state="up",
        link_mbps=10_000,
        mtu=1500,
        rings={"rx": 2048, "tx": 2048},
        queues={"combined": 8},
    )
    cpu = Cpu(
        model="a processor",
        sockets=1,
        cores=8,
        threads=16,
        mhz=2600.0,
        smt="on",
        governor="performance",
        turbo=False,
        isolated="2-7",
        mitigations={"spectre_v2": "Mitigation: Retpolines"},
    )
    return Environment(
        host=host,
        kernel="Linux 6.1.0",
        processor="a processor",
        cpus=16,
        load=0.1,
        versions={"python": "3.11.2", "router-agent": "0.1.0", "vpp": "26.06"},
        kernel_arguments=["isolcpus=2-7", "hugepages=4096"],
        cpu=cpu,
        numa=[NumaNode(node=0, cpus="0-15", memory_bytes=64 << 30, hugepages={2048: 4096})],
        nics=[found] if nic else [],
        configurations={"/etc/vpp/startup.conf": "9f" * 32},
        unknown={"turbo": "/sys/devices/system/cpu/cpufreq/boost: No such file or directory"},
    )


def checked(
    *,
    name: str = "west to east",
    tier: Tier = Tier.FUNCTIONAL,
    found: Sequence[Measurement] | None = None,
    proven: bool = True,
) -> CheckResult:
    """Return what a check found; FAIL as the first measurement fails, unless others are given."""
    chosen = measurements() if found is None else found
    prefixes: list[Prefix] = [IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32")]
    scenario = Scenario(name, Destinations.of(prefixes, [1, 1]), rate_pps=1e6, duration_s=12.0)
    parts = [Part(PART_NAMES.get(type(m), "rate"), m.sizes.label, m.verdict) for m in chosen]
    wrong = Deviations(300, tuple(Deviation(f"10.{i}.0.0/16", "east", "west") for i in range(3)))
    proof = Proof(1000, 0, 699, wrong, Deviations(1, ()), Deviations(), {"west": 300, "east": 699}, 100.0)
    prediction = Prediction(
        FrameSizes.of(64),
        (Limit("workers: 1 x 2.6 GHz / 260 cycles", 10e6), Limit("link of 10 Gbit/s", 14.88e6)),
        0.8e6,
        "the forwarder ran 97 % busy: CPU bound as predicted",
        ("the NIC's ceiling",),
    )
    return CheckResult(
        check=Check((scenario,), tier),
        endpoints=Endpoints((Port("west", "a", None, "02:00:00:00:00:01"), Port("east", "b"))),
        verdict=combine(*(part.verdict for part in parts)),
        parts=tuple(parts),
        proof=proof if proven else None,
        measurements=tuple(chosen),
        predictions=(prediction,),
        environment=environment("tester"),
        started=STARTED,
        ended=STARTED + timedelta(seconds=754),
        device=environment("router"),
    )


def report(
    *,
    name: str = "west to east",
    tier: Tier = Tier.FUNCTIONAL,
    found: Sequence[Measurement] | None = None,
    proven: bool = True,
) -> TrafficReport:
    """Return the report of `checked`."""
    return report_of(checked(name=name, tier=tier, found=found, proven=proven))


def forwarding() -> ForwardingReport:
    """Return kernel and VPP with one route and a million: VPP is ten times as fast, and steadier."""
    runs = [
        forwarding_run(forwarder, routes, pps, variation)
        for forwarder, pps, variation in (("kernel", 4e5, 0.04), ("VPP", 4e6, 0.002))
        for routes in (1, 1_000_000)
    ]
    return ForwardingReport(
        started=STARTED,
        ended=STARTED + timedelta(seconds=60),
        sizes=runs[0].sizes,
        runs=runs,
        gain={1: 10.0, 1_000_000: 10.0},
        tester=environment(),
    )


def forwarding_run(forwarder: str, routes: int, pps: float, variation: float) -> ForwardingRunReport:
    measurement = measured(target(FrameSizes.of(64), 0.7 * pps), ["west", "east"])
    assert isinstance(measurement, TargetReport)
    return ForwardingRunReport(
        forwarder=forwarder,
        wires="memif",
        routes=routes,
        sizes=measurement.sizes,
        highest_pps=pps,
        limit="the device: loads above brought out no more",
        share=0.7,
        trial=measurement.trial,
        ledger=measurement.ledger,
        variation=variation,
        verdict=measurement.verdict,
        cycles=260.0 if forwarder == "VPP" else None,
    )
