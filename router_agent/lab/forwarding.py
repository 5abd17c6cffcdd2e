"""The comparison of kernel and VPP forwarding on this machine: devices of the lab, one generator for both.

The kernel forwards between veth ports, VPP between memifs: each is fed by the wire that costs it least. The
generator is vpp-pg for both, with the same frames, all of which each table covers: tables are a default route
and as many more prefixes as they shall have.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from router_agent.lab.kernel_forwarder import KernelForwardingDevice
from router_agent.lab.memif import MemifDevice
from router_agent.lab.table import generated_table
from router_agent.model import U64, Family
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.vpp_pg.generator import VppPgGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.measurements.comparison import INTERVAL_S, compare_one, gains
from router_agent.traffic.measurements.results import Comparison, ForwardingRun
from router_agent.traffic.measurements.trial import Progress, silent
from router_agent.traffic.scenario import Destinations, FrameSizes, Goal, Scenario

TABLES = (1, 10_000, 1_000_000)
"""Routes of each table."""

DESTINATIONS = 100_000
"""Prefixes of the largest table that packets go to."""

_MOST_PPS = {"kernel": 5e6, "VPP": 60e6}
_FIRST_PPS = {"kernel": 50_000.0, "VPP": 500_000.0}
_WIRES = {"kernel": "veth", "VPP": "memif"}
_SMALL_HEAP, _LARGE_HEAP = "512M", "2G"
_SMALL_TABLE = 100_000


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        tables: routes of each table.
        sizes: frame sizes.
        destinations: how many prefixes packets go to.
        ramp_s, steady_s: lengths of trials; see `measurements.comparison`.
        goal: what the steady trial is judged by.
    """

    tables: Sequence[int] = TABLES
    sizes: FrameSizes = field(default_factory=lambda: FrameSizes.of(64))
    destinations: int = DESTINATIONS
    ramp_s: float = 0.5
    steady_s: float = 5.0
    goal: Goal = field(default_factory=Goal)


def compare_forwarding(plan: Plan, progress: Progress = silent) -> Comparison:
    """Compare kernel and VPP forwarding on this machine; the tables are generated ones.

    Raises:
        LabError: a device cannot be built.
        GeneratorError: the generator failed.
        CounterError: counters cannot be read.
    """
    keys = generated_table(max(plan.tables), 0).ipv4
    rng = np.random.default_rng(1)
    order = rng.permutation(len(keys))
    destinations = Destinations.draw(
        {Family.IPV4: keys[order[: min(plan.destinations, len(keys))]]}, table={Family.IPV4: keys}
    )
    scenario = Scenario(
        "kernel and VPP", destinations, frames=plan.sizes, interval_s=INTERVAL_S, drain_s=0.5, proof_pps=None
    )
    runs = []
    for count in plan.tables:
        table = _table(keys, order, count)
        for forwarder, measure in (("kernel", _kernel), ("VPP", _vpp)):
            progress("comparison", 0.0, f"{forwarder} with {count:,} routes is built")
            runs.append(measure(plan, scenario, table, progress))
    return Comparison(plan.sizes, tuple(runs), gains(runs))


def _table(keys: U64, order: np.ndarray[tuple[int, ...], np.dtype[np.int64]], count: int) -> U64:
    """Return a default route and so many more prefixes that there are `count`."""
    default = np.zeros((1, keys.shape[1]), np.uint64)
    return np.concatenate([default, keys[np.sort(order[: count - 1])]])


def _kernel(plan: Plan, scenario: Scenario, table: U64, progress: Progress) -> ForwardingRun:
    with KernelForwardingDevice({Family.IPV4: table}) as device:
        return _measured("kernel", plan, scenario, device, len(table), progress)


def _vpp(plan: Plan, scenario: Scenario, table: U64, progress: Progress) -> ForwardingRun:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="cmpv-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        heap = _SMALL_HEAP if len(table) <= _SMALL_TABLE else _LARGE_HEAP
        device = stack.enter_context(MemifDevice(directory, {Family.IPV4: table}, heap=heap))
        return _measured("VPP", plan, scenario, device, len(table), progress)


def _measured(
    forwarder: str,
    plan: Plan,
    scenario: Scenario,
    device: KernelForwardingDevice | MemifDevice,
    routes: int,
    progress: Progress,
) -> ForwardingRun:
    with VppPgGenerator(scenario, device.endpoints) as generator:
        return compare_one(
            trials(generator, LedgerKeeper([device.counters(), *generator.counters])),
            plan.sizes,
            forwarder=forwarder,
            wires=_WIRES[forwarder],
            routes=routes,
            first_pps=_FIRST_PPS[forwarder],
            most_pps=_MOST_PPS[forwarder],
            ramp_s=plan.ramp_s,
            steady_s=plan.steady_s,
            goal=plan.goal,
            progress=progress,
        )


def trials(
    generator: VppPgGenerator, keeper: LedgerKeeper
) -> Callable[[float, float], tuple[TrialResult, Ledger]]:
    """Return what runs a trial and closes its ledger."""

    def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        keeper.open()
        result = generator.start(rate_pps, duration_s).finish()
        return result, keeper.close(result)

    return run
