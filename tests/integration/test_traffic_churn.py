"""Route changes under load, through a real kernel and a real VPP: 500 of 1,000 prefixes go and come back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from ipaddress import IPv4Network

import numpy as np
import pytest

from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.churn import Clock, MakeChanges, lost_by_fault, measure_churn
from router_agent.traffic.measurements.results import Batch, ChurnRun
from router_agent.traffic.scenario import ChurnBudget, Destinations, Goal, Scenario

from .forwarders import KernelRouter, VppRouter, kernel_router, prefixes, vpp_router

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

RATE_PPS = 10_000
PREFIXES = prefixes(1_000)
CHANGED = np.arange(0, 1_000, 2)
"""Rows of the destinations that change; the others stay."""
ROUTERS = [
    pytest.param(kernel_router, id="kernel"),
    pytest.param(
        vpp_router,
        id="vpp",
        marks=[pytest.mark.vpp, pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH")],
    ),
]
Build = Callable[[], AbstractContextManager[KernelRouter | VppRouter]]


def scenario() -> Scenario:
    return Scenario(
        "churn",
        Destinations.of([*PREFIXES], [1] * len(PREFIXES)),
        rate_pps=RATE_PPS,
        interval_s=0.001,
        drain_s=0.4,
        goal=Goal(unsent_ratio=0.3),
    )


def changed() -> list[IPv4Network]:
    """Return the prefixes of the rows that change: destinations are in random order."""
    return [IPv4Network(str(scenario().destinations.prefix(row))) for row in CHANGED.tolist()]


def measured(router: KernelRouter | VppRouter, changes: MakeChanges, budget: ChurnBudget | None) -> ChurnRun:
    scene = scenario()
    with SocketsGenerator(scene, router.endpoints) as generator:
        return measure_churn(
            generator,
            LedgerKeeper([router.counters, *generator.counters]),
            scene.sizes,
            RATE_PPS,
            changes,
            goal=replace(scene.goal, churn=budget),
            before_s=0.3,
            after_s=0.3,
            most_s=60,
        )


@pytest.mark.parametrize("build", ROUTERS)
def test_withdrawn_prefixes_are_excused_and_announced_ones_converge(build: Build) -> None:
    done: dict[str, float] = {}

    def changes(clock: Clock) -> Iterator[Batch]:
        yield Batch(clock(), len(CHANGED), "withdrawn", CHANGED, reachable=False)
        router.remove(changed())
        quiet = clock() + 0.3
        while clock() < quiet:
            time.sleep(0.01)
        done["announced"] = clock()
        yield Batch(clock(), len(CHANGED), "announced", CHANGED)
        router.add(changed())
        done["in the FIB"] = clock()

    with build() as router:
        router.add(PREFIXES)
        run = measured(router, changes, ChurnBudget(convergence_s=10.0))
    assert run.verdict.outcome is Outcome.PASS, run.verdict.reason
    sent = run.trial.sent_to
    lost = sent - run.trial.arrived.sum(axis=0)
    stays = np.setdiff1d(np.arange(1_000), CHANGED)
    assert sent[stays].sum() > 1_000
    assert lost[stays].sum() == 0, "prefixes that stay lose nothing"
    assert lost[CHANGED].sum() > 0.2 * sent[CHANGED].sum() * 0.3 / run.trial.offered_s
    faults = lost_by_fault(run.trial, run.batches)
    assert faults is not None
    assert run.lost == faults.sum() < run.trial.lost
    # a prefix is back when its route is; when the last one is, all are
    took = done["in the FIB"] - done["announced"]
    resolution = run.convergence_resolution_s
    print(
        f"announced in {took * 1000:.1f} ms; {len(run.convergence_s)} prefixes lost packets meanwhile, p99 "
        f"{run.convergence_p99_s * 1000:.1f} ms, resolution {resolution * 1000:.1f} ms"
    )
    assert run.convergence_p99_s <= took + 2 * resolution
    assert "packets to withdrawn prefixes are left out" in " ".join(run.verdict.notes)
    assert any("500 withdrawn" in words for words in run.culprits)


@pytest.mark.parametrize("build", ROUTERS)
def test_a_routing_fault_is_charged_to_the_budget(build: Build) -> None:
    """The prefixes are to stay reachable, and the router drops them for a while all the same."""

    def changes(clock: Clock) -> Iterator[Batch]:
        yield Batch(clock(), len(CHANGED), "path changes", CHANGED)
        router.remove(changed())
        until = clock() + 0.2
        while clock() < until:
            time.sleep(0.01)
        router.add(changed())

    with build() as router:
        router.add(PREFIXES)
        run = measured(router, changes, ChurnBudget(lost=100, convergence_s=0.15))
    assert run.verdict.outcome is Outcome.FAIL, run.verdict.reason
    assert "allowed: 100 packets, 150 ms for 99 % of the prefixes" in run.verdict.reason
    assert len(run.convergence_s) == len(CHANGED)
    assert run.convergence_p99_s >= 0.15
    assert run.lost == run.trial.lost
    assert run.ledger.unaccounted <= 0
    assert any(words.startswith("route change at") and "lost" in words for words in run.culprits)


@pytest.mark.parametrize("build", ROUTERS[:1])
def test_everything_gone_is_blocked_time(build: Build) -> None:
    def changes(clock: Clock) -> Iterator[Batch]:
        yield Batch(clock(), len(PREFIXES), "path changes")
        router.remove(PREFIXES)
        until = clock() + 0.2
        while clock() < until:
            time.sleep(0.01)
        router.add(PREFIXES)

    with build() as router:
        router.add(PREFIXES)
        run = measured(router, changes, ChurnBudget(blocked_s=0.05))
    assert run.verdict.outcome is Outcome.FAIL, run.verdict.reason
    assert run.longest_blocked_s >= 0.05
    (longest,) = [b for b in run.blocked if b.seconds == run.longest_blocked_s]
    assert longest.at_s >= run.batches[0].at_s - 0.05
    assert any("ms blocked" in words for words in run.culprits)
