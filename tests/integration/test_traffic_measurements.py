"""Measurements of a real device whose capacity and buffer are known: a kernel with a token bucket.

The bucket (tc-tbf(8)) lets ``RATE`` bits a second out of to-east and holds so many bytes more. Sender, router
and capture share a machine, so what is asserted are bounds that no noise can break, and nearness with room
for it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.back_to_back import measure_back_to_back
from router_agent.traffic.measurements.latency import measure_latency
from router_agent.traffic.measurements.loss_curve import measure_loss_curve
from router_agent.traffic.measurements.rates import NDR, PDR, search_rates, shortened
from router_agent.traffic.measurements.soak import soak
from router_agent.traffic.measurements.target import check_target
from router_agent.traffic.measurements.trial import RunTrial
from router_agent.traffic.scenario import Destinations, Goal, LatencyBound, Scenario, Search

from .forwarders import KernelRouter, kernel_router, prefixes

pytestmark = [pytest.mark.root, pytest.mark.timeout(170)]

PREFIXES = prefixes(50)
FRAME = 60
"""Bytes of a frame of 64 without its FCS, as the kernel counts them."""
CAPACITY = 10_000
RATE = CAPACITY * FRAME * 8
BUCKET = 4_000
"""Bytes that may leave at once."""
UNSENT = 0.2


@pytest.fixture(scope="module")
def router() -> Iterator[KernelRouter]:
    with kernel_router() as built:
        built.add(PREFIXES)
        yield built


@contextmanager
def limited(router: KernelRouter, queue: int) -> Iterator[None]:
    """Limit what leaves by to-east; `queue` bytes wait."""
    tc = ["tc", "-n", router.device, "qdisc"]
    bucket = ["tbf", "rate", f"{RATE}bit", "burst", str(BUCKET), "limit", str(queue)]
    subprocess.run([*tc, "replace", "dev", "to-east", "root", *bucket], check=True)
    try:
        yield
    finally:
        subprocess.run([*tc, "del", "dev", "to-east", "root"], check=True)


def scenario() -> Scenario:
    return Scenario(
        "measurements",
        Destinations.of([*PREFIXES], [1] * len(PREFIXES)),
        drain_s=0.25,
        interval_s=0.02,
    )


@contextmanager
def trials(router: KernelRouter) -> Iterator[RunTrial]:
    with SocketsGenerator(scenario(), router.endpoints) as generator:
        keeper = LedgerKeeper([router.counters, *generator.counters])

        def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
            keeper.open()
            result = generator.start(rate_pps, duration_s).finish()
            return result, keeper.close(result)

        yield run


SIZES = scenario().sizes


def test_target_and_soak_tell_what_fits_from_what_does_not(router: KernelRouter) -> None:
    goal = Goal(unsent_ratio=UNSENT, loss_ratio=0.02)
    with limited(router, 60_000), trials(router) as run:
        slow = check_target(run, SIZES, 0.5 * CAPACITY, 1.0, goal=goal)
        fast = check_target(run, SIZES, 3 * CAPACITY, 1.0, goal=goal)
        long = soak(run, SIZES, 0.5 * CAPACITY, 3.0, goal=goal)
    assert slow.verdict.outcome is Outcome.PASS, slow.verdict.reason
    assert slow.culprits == () or slow.trial.lost or slow.trial.unsent
    assert fast.verdict.outcome is Outcome.FAIL, fast.verdict.reason
    assert fast.trial.received <= CAPACITY * 1.1 * fast.trial.offered_s + (60_000 + BUCKET) / FRAME
    (named,) = [drop for drop in fast.ledger.drops if drop.name == "device port to-east: egress queue full"]
    assert named.count == fast.trial.lost, fast.ledger.drops
    assert any(words.startswith("device port to-east: egress queue full") for words in fast.culprits)
    assert long.verdict.outcome is Outcome.PASS, long.verdict.reason
    assert 0 <= long.variation < 1


def test_ndr_and_pdr_are_near_the_buckets_rate(router: KernelRouter) -> None:
    queue = 30_000
    trial_s = 0.4
    goals = [
        shortened(g, trial_s=trial_s, duration_sum_s=2 * trial_s, relative_width=0.1) for g in (NDR, PDR)
    ]
    search = Search(0.1 * CAPACITY, 3 * CAPACITY, limit_s=100)
    with limited(router, queue), trials(router) as run:
        ndr, pdr = search_rates(run, SIZES, search, goals, unsent_ratio=UNSENT)
    most = CAPACITY + (queue + BUCKET) / FRAME / trial_s
    for found in (ndr, pdr):
        assert found.found.rate_pps is not None, found.found.reason
        assert 0.5 * CAPACITY <= found.found.rate_pps <= most / (1 - UNSENT) / (1 - found.loss_ratio)
    assert ndr.name == "NDR (trials of 0.4 s instead of 1 s, 0.8 s instead of 21 s a load, width 0.1)"
    assert ndr.found.trials == pdr.found.trials


def test_a_loss_curve_falls_to_the_buckets_rate(router: KernelRouter) -> None:
    with limited(router, 6_000), trials(router) as run:
        curve = measure_loss_curve(run, SIZES, 3 * CAPACITY, 0.5, unsent_ratio=UNSENT)
    assert curve.verdict.outcome is Outcome.PASS, curve.verdict.reason
    first, last = curve.points[0], curve.points[-1]
    assert first.lost / first.sent > 0.4
    assert (last.lost, curve.points[-2].lost) == (0, 0)
    assert last.rate_pps < CAPACITY * 1.1


def test_the_buckets_queue_is_found_by_bursts(router: KernelRouter) -> None:
    queue, rate = 24_000, 2 * CAPACITY
    with limited(router, queue), trials(router) as run:
        found = measure_back_to_back(
            run, SIZES, rate, throughput_pps=CAPACITY, repetitions=2, longest_s=0.25, unsent_ratio=UNSENT
        )
    if found.verdict.outcome is Outcome.INVALID:
        pytest.skip(f"this machine sends no bursts now: {found.verdict.reason}")
    assert found.corrected_buffer_s is not None
    frames = found.corrected_buffer_s * rate
    assert 0.7 * queue / FRAME <= frames <= 1.3 * (queue + BUCKET) / FRAME, found


def test_latency_grows_when_the_queue_fills(router: KernelRouter) -> None:
    goal = Goal(loss_ratio=0.9, unsent_ratio=UNSENT, latency=(LatencyBound(50.0, 15_000_000),))
    with limited(router, 30_000), trials(router) as run:
        low, high = measure_latency(run, SIZES, CAPACITY, 0.6, shares=(0.2, 2.0), goal=goal)
    assert low.latency is not None
    assert high.latency is not None
    # 30,000 bytes wait for 50 ms, and when twice what fits is offered the queue is full most of the time
    assert low.latency.percentile(50) < high.latency.percentile(50)
    assert high.latency.percentile(50) > 20_000_000
    assert high.verdict.outcome is Outcome.FAIL, high.verdict.reason
    assert "allowed 15,000.0 µs" in high.verdict.reason
