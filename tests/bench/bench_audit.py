"""The audit of VPP's FIB: what a pass over 1.2 million prefixes costs the agent, and what traffic feels.

``rows()`` lets a pipeline write a table into a private VPP and audits it: all of it as fast as
``audit --now`` does, a part at the default rate. Then a lab with FRR and VPP forwards traffic, first with the
agent stopped, so that nothing is audited, then while one audit follows the other. ``ROUTES_FILE`` names a
prefix list.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from router_agent.audit import Audit
from router_agent.config import AuditConfig
from router_agent.feeds.feed import Sink
from router_agent.fibs.vpp import VppFib
from router_agent.lab.lab import FibKind, Lab
from router_agent.lab.table import Table, generated_table, read_table
from router_agent.model import Family, Interner, Link, Mask, Operation, Path, PathSet, RouteBatch
from router_agent.observe.answers import AuditRequest, State
from router_agent.pipeline import Pipeline
from router_agent.traffic.generators.background import BackgroundTraffic
from router_agent.traffic.scenario import Scenario
from router_agent.vpp.process import VppProcess

CPU_TARGET = 5.0
GATEWAYS = 200
NOW_RATE = 50_000.0
TABLE = 254
LAB_PREFIXES = (100_000, 10_000)
PPS = 10_000
SECONDS = 20.0
_SAMPLE_SECONDS = 20.0


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list where there is no VPP or no right to make namespaces."""
    if shutil.which("vpp") is None or os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(FilePath(chosen)) if chosen else generated_table()
    return [*asyncio.run(_cost(table)), *_felt()]


class TableFeed:
    """A feed that tells of one table at once and then of nothing."""

    overruns = 0
    problem: str | None = None

    def __init__(self, table: Table) -> None:
        self.passed_over: Counter[str] = Counter()
        self._table = table
        self._sets: Interner[PathSet] = Interner()
        self.spaces: Sequence[tuple[Family, int]] = [(family, TABLE) for family in Family]

    async def run(self, sink: Sink) -> None:
        """See `Feed`."""
        sink.links([Link(1, "up0", True, True, bytes(6), 1500)], [])
        sink.snapshot_begin()
        for family, keys in ((Family.IPV4, self._table.ipv4), (Family.IPV6, self._table.ipv6)):
            ids = np.array([self._sets.id(_gateway(family, n)) for n in range(GATEWAYS)], np.uint32)
            n = len(keys)
            paths = ids[np.arange(n) // 6 % GATEWAYS]
            found = np.full(n, Operation.FOUND, np.uint8)
            sink.routes(RouteBatch(family, TABLE, keys, np.full(n, 20, np.uint32), paths, found))
        sink.snapshot_end(clean=True)
        await asyncio.Event().wait()

    def resync(self) -> None:
        """See `Feed`."""

    def resolve(self, path: int) -> PathSet | None:
        """See `Feed`."""
        return self._sets.get(path)

    def path_id(self, path_set: PathSet) -> int:
        """See `Feed`."""
        return self._sets.id(path_set)

    def retain(self, in_use: Mask) -> None:
        """See `Feed`."""

    @property
    def path_limit(self) -> int:
        """See `Feed`."""
        return self._sets.limit

    @property
    def paths_kept(self) -> int:
        """See `Feed`."""
        return len(self._sets)


def _gateway(family: Family, number: int) -> PathSet:
    if family is Family.IPV4:
        return PathSet.unicast(Path(1, (IPv4Address("10.0.0.1") + number).packed))
    return PathSet.unicast(Path(1, (IPv6Address("2001:db8::1") + number).packed))


async def _cost(table: Table) -> list[dict[str, Any]]:
    conditions = f"{len(table):,} routes ({FilePath(table.origin).name}), VPP without workers"
    with (
        tempfile.TemporaryDirectory(prefix="vppa") as directory,
        VppProcess(runtime_dir=FilePath(directory), heap="3G", statseg="512M", plugins=()) as vpp,
    ):
        vpp.cli("create loopback interface")
        vpp.cli("set interface state loop0 up")
        fib = VppFib(api_socket=vpp.api_socket, interfaces={"up0": "loop0"})
        pipeline = Pipeline(name="bench", feed=TableFeed(table), fib=fib, tables={TABLE: 0})
        running = asyncio.create_task(pipeline.run())
        while pipeline.state is not State.IN_SYNC:
            await asyncio.sleep(0.1)
        audit = Audit(pipeline, rate=0, repair=True, full_reading_seconds=0)
        began, cpu = time.perf_counter(), time.process_time()
        tally = await audit.check(NOW_RATE, polite=False)
        took, fast = time.perf_counter() - began, time.process_time() - cpu
        if tally.checked != len(table) or tally.found:
            raise RuntimeError(f"checked {tally.checked} of {len(table)} and found {dict(tally.found)}")
        default = await _at_default_rate(audit, len(table))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    rate = AuditConfig().rate
    return [
        _row("full audit, CPU of the agent, audit --now", fast, "s", CPU_TARGET, conditions),
        _row(
            "full audit, audit --now", took, "s", None, f"{conditions}, {NOW_RATE:,.0f} prefixes/s asked for"
        ),
        _row(
            *("full audit, CPU of the agent, default rate", default, "s", CPU_TARGET),
            f"{conditions}, {rate:,} prefixes/s, extrapolated from {_SAMPLE_SECONDS:.0f} s",
        ),
    ]


async def _at_default_rate(audit: Audit, routes: int) -> float:
    """Return the CPU seconds of a whole pass at the default rate, from the first part of one."""
    cpu = time.process_time()
    passing = asyncio.create_task(audit.check(AuditConfig().rate))
    await asyncio.sleep(_SAMPLE_SECONDS)
    spent, share = time.process_time() - cpu, audit.progress / routes
    passing.cancel()
    await asyncio.gather(passing, return_exceptions=True)
    return spent / share


def _felt() -> list[dict[str, Any]]:
    """Count what is lost without and with audits, in one lab."""
    with Lab(f"bench-{secrets.token_hex(3)}", table=generated_table(*LAB_PREFIXES), fib=FibKind.VPP) as lab:
        lab.start()
        lab.wait_settled(seconds=120)
        lab.meet_neighbours()
        lab.agent.daemon.signal(signal.SIGSTOP)
        without, sent_without = _lost(lab)
        lab.agent.daemon.signal(signal.SIGCONT)
        lab.wait_settled(seconds=120)
        stop, passes = threading.Event(), [0]

        def audits() -> None:
            while not stop.is_set():
                lab.agent.client.audit(AuditRequest(now=True))
                passes[0] += 1

        thread = threading.Thread(target=audits)
        thread.start()
        try:
            with_audits, sent_with = _lost(lab)
        finally:
            stop.set()
            thread.join()
    conditions = f"{sum(LAB_PREFIXES):,} prefixes, {PPS:,} packets/s for {SECONDS:.0f} s, lab, 2 CPUs"
    return [
        _row("packets lost without an audit", without, "packets", None, f"{conditions}, of {sent_without:,}"),
        {
            **_row(
                *("packets lost under audits one after the other", with_audits, "packets", None),
                f"{conditions}, of {sent_with:,}, {passes[0]} passes at {NOW_RATE:,.0f} prefixes/s",
            ),
            "target": without,
            "reached": with_audits <= without,
        },
    ]


def _lost(lab: Lab) -> tuple[int, int]:
    scenario = Scenario(name="audit", destinations=lab.destinations(2_000), rate_pps=PPS, interval_s=0.01)
    with BackgroundTraffic(scenario, lab.endpoints) as running:
        time.sleep(SECONDS)
    return running.result.lost, running.result.sent


def _row(title: str, value: float, unit: str, target: float | None, conditions: str) -> dict[str, Any]:
    reached = None if target is None else bool(value <= target)
    return {
        "name": f"audit: {title}",
        "value": float(value),
        "unit": unit,
        "target": target,
        "reached": reached,
        "conditions": conditions,
    }
