"""The software ceiling: vpp-pg -> memif -> VPP -> memif -> sink, kernel forwarding beside it, and our cost.

``rows()`` runs kernel and VPP forwarding in one run, with one generator and the same frames, with a table of
one route and a full one. One core is the device's, one the generator's; a kernel forwards on the core of the
generator, so its rate has the cost of sending in it. Then: the CPU time that VPP spends when its counters are
read, and the generator's rate beside what it was asked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from router_agent.lab.forwarding import Plan, compare_forwarding, trials
from router_agent.lab.memif import MemifDevice
from router_agent.lab.plane import vpp_available
from router_agent.lab.table import generated_table
from router_agent.model import Family
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.vpp_pg.generator import VppPgGenerator
from router_agent.traffic.judgement.ledger import LedgerKeeper
from router_agent.traffic.measurements.results import ForwardingRun
from router_agent.traffic.measurements.target import TARGET_S
from router_agent.traffic.scenario import Destinations, Scenario

TABLES = (1, 1_050_000)
GAIN_TARGET = 8.0
OVERHEAD_TARGET = 2.0
PACED_PPS = 100_000.0
PACED_SECONDS = 3.0
IDLE_SECONDS = 10.0
READINGS = 40


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list where there is no VPP or no root."""
    if not vpp_available() or os.geteuid() != 0:
        print("needs root and VPP: nothing measured", file=sys.stderr)
        return []
    load = f"load average {os.getloadavg()[0]:.1f} before"
    found = compare_forwarding(Plan(tables=TABLES, steady_s=4.0))
    result = [row for run in found.runs for row in _run_rows(run, load)]
    for routes, gain in found.gain.items():
        name = f"VPP forwarding over kernel forwarding, {routes:,} routes"
        result.append(
            _row(name, round(gain, 2), "x", "same run, frames and table; see the rates for what limited them",
                 target=GAIN_TARGET, reached=gain >= GAIN_TARGET)
        )  # fmt: skip
    return [*result, *_around_trials(load)]


def _run_rows(run: ForwardingRun, load: str) -> list[dict[str, Any]]:
    where = f"{run.sizes.label}-byte frames to 100,000 prefixes at most, {run.wires}, {load}"
    name = f"{run.forwarder} forwarding, {run.routes:,} routes"
    rows = [
        _row(
            f"{name}: highest rate", round(run.highest_pps), "packets/s", f"{where}; limited by {run.limit}"
        ),
        _row(
            f"{name}: variation per 100 ms at {run.share:.0%} of it", round(100 * run.variation, 2), "%",
            f"{run.trial.loss_ratio:.3%} lost, {run.trial.unsent_ratio:.2%} unsent; {load}",
        ),
    ]  # fmt: skip
    if run.cycles is not None:
        rows.append(
            _row(
                f"{name}: cycles",
                round(run.cycles),
                "cycles/packet",
                "VPP's node counters, at the highest rate",
            )
        )
    return rows


def _around_trials(load: str) -> list[dict[str, Any]]:
    """Measure at a fixed rate: what is sent of what was asked, and VPP's CPU time with and without us."""
    keys = generated_table(10_000, 0).ipv4
    directory = Path(tempfile.mkdtemp(prefix="bfw-"))
    scenario = Scenario("bench", Destinations.draw({Family.IPV4: keys}), interval_s=0.1, drain_s=0.2)
    try:
        with (
            MemifDevice(directory, {Family.IPV4: keys}, heap="512M") as device,
            VppPgGenerator(scenario, device.endpoints) as generator,
        ):
            device.process.cli("set interface rx-mode memif1/0 interrupt")
            device.process.cli("set interface rx-mode memif1/1 interrupt")
            process = psutil.Process(device.process.pid)
            counters = device.counters()
            counters.read()
            idle = _cpu_seconds(process, lambda: time.sleep(IDLE_SECONDS))
            asked = _cpu_seconds(process, lambda: _read_often(counters))
            run = trials(generator, LedgerKeeper([counters, *generator.counters]))
            trial, _ = run(PACED_PPS, PACED_SECONDS)
            reached = trial.sent / (trial.rate_pps * max(trial.offered_s, trial.duration_s))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    tick = 1 / os.sysconf("SC_CLK_TCK")  # what the kernel counts a process's CPU time in
    reading = max(tick, asked - idle) / READINGS
    return [
        _row(
            "the check's cost to the device's CPU", round(100 * 2 * reading / TARGET_S, 4), "%",
            f"two readings of VPP's counters, at most {1e3 * reading:.2f} ms of its CPU each, in a trial of "
            f"{TARGET_S:g} s; {READINGS} readings against {IDLE_SECONDS:g} s idle in interrupt mode; {load}",
            target=OVERHEAD_TARGET, reached=100 * 2 * reading / TARGET_S < OVERHEAD_TARGET,
        ),
        _row(
            "vpp-pg: rate reached of rate asked", round(100 * reached, 3), "%",
            f"{PACED_PPS:,.0f} pps for {PACED_SECONDS:g} s, {load}",
        ),
    ]  # fmt: skip


def _read_often(counters: CounterSource) -> None:
    """Read the counters `READINGS` times, in as long as the idle time took or longer."""
    began = time.monotonic()
    for _ in range(READINGS):
        counters.read()
    time.sleep(max(0.0, IDLE_SECONDS - (time.monotonic() - began)))


def _cpu_seconds(process: psutil.Process, work: Callable[[], object]) -> float:
    """Return the CPU time that a process took meanwhile, scaled to the idle time's length."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    work()
    return float((sum(process.cpu_times()[:2]) - before) * IDLE_SECONDS / (time.monotonic() - began))


def _row(
    name: str, value: float, unit: str, conditions: str, *, target: float | None = None,
    reached: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": f"traffic: {name}",
        "value": value,
        "unit": unit,
        "target": target,
        "reached": reached,
        "conditions": conditions,
    }


if __name__ == "__main__":
    for row in rows():
        print(row)
