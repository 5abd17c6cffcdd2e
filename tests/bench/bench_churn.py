"""Routes that change all the time while packets flow: how far the FIB is behind, and what that costs.

``rows()`` brings a table into a POP in the lab and replays streams of changes at several rates: by BGP,
through FRR as far as that goes, and by rtnetlink beyond. One row a rate: the agent's lag at the 99th
percentile, with the rest of what was seen in the conditions.

UPDATES_FILE names an MRT file of updates to replay; without it streams are generated. CHURN_PREFIXES makes
the table smaller, CHURN_SECONDS a trial longer.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import numpy as np

from router_agent.lab.bgp_replay import BgpReplay, admit
from router_agent.lab.churn import Churn, generated_churn
from router_agent.lab.commands import ip_batch
from router_agent.lab.kernel_replay import KernelReplay
from router_agent.lab.lab import Lab, default_fib
from router_agent.lab.plan import IN, OUT, UPLINK
from router_agent.lab.recording import read_churn
from router_agent.lab.replay import Replay
from router_agent.lab.table import FULL_IPV4, FULL_IPV6, Table, generated_table
from router_agent.lab.trial import (
    AGENT,
    BGP_PROTOCOL,
    Load,
    Trial,
    load,
    marked,
    run_trial,
    wait_idle,
)
from router_agent.model import U32, Family, PathSet
from router_agent.model import Path as Leg
from router_agent.namespaces import inside

BY_BGP = (100, 1_000, 10_000)
BY_KERNEL = (10_000, 100_000)
SECONDS = float(os.environ.get("CHURN_SECONDS", "20"))
PREFIXES = int(os.environ.get("CHURN_PREFIXES", str(FULL_IPV4 + FULL_IPV6)))
MARKERS = 200
LAG_TARGET_MILLISECONDS = 1_000
SPEAKER = IPv4Interface("198.18.1.10/24")
SPEAKER_AS = 64499


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list without root."""
    if os.geteuid() != 0:
        return []
    ipv6 = PREFIXES * FULL_IPV6 // (FULL_IPV4 + FULL_IPV6)
    whole = generated_table(PREFIXES - ipv6, ipv6)
    # The lab's upstream announces next to nothing; the table is the replaying speaker's.
    little, table = (
        Table(whole.ipv4[part], whole.ipv6[part], whole.origin) for part in (slice(0, 100), slice(100, None))
    )
    with _bgp(little) as (lab, replay):
        found = _trials(lab, replay, table, BY_BGP, "BGP")
    with _kernel(little) as (lab, replay):
        return found + _trials(lab, replay, table, BY_KERNEL, "rtnetlink")


def _trials(lab: Lab, replay: Replay, table: Table, rates: Sequence[int], way: str) -> list[dict[str, Any]]:
    state: Mapping[Family, U32] | None = None
    found = []
    for rate in rates:
        stream, markers = marked(lab, _stream(table, rate, state), MARKERS)
        load(lab, stream, replay, state)
        # A new process for each rate, so that its lag and memory are of this one alone.
        lab.agent.stop()
        lab.agent.start()
        wait_idle(lab)
        trial = run_trial(lab, stream, replay, markers, Load())
        found.append(_row(lab, stream, trial, rate, way))
        state = stream.after()
    return found


def _stream(table: Table, rate: int, state: Mapping[Family, U32] | None) -> Churn:
    recording = os.environ.get("UPDATES_FILE")
    if recording:
        churn = read_churn(Path(recording)).within(table)
        churn = churn if state is None else replace(churn, before=state)
        return churn.effective().first(int(rate * SECONDS)).at_rate(rate)
    return generated_churn(table, int(rate * SECONDS), path_count=2, before=state, seed=rate).at_rate(rate)


@contextmanager
def _bgp(table: Table) -> Iterator[tuple[Lab, Replay]]:
    hops = {family: [port.gateway(family).packed for port in (OUT, IN)] for family in Family}
    with Lab(_name(), table=table, fib=default_fib()) as lab:
        lab.start()
        assert lab.frr is not None
        ip_batch([f"address add {SPEAKER} dev {UPLINK.far_name}"], namespace=lab.topology.upstream)
        admit(lab.frr, SPEAKER.ip, SPEAKER_AS)
        neighbour = IPv4Address(UPLINK.address(Family.IPV4).ip)
        with BgpReplay(
            lab.topology.upstream, local=SPEAKER.ip, neighbour=neighbour, asn=SPEAKER_AS, next_hops=hops
        ) as replay:
            yield lab, replay


@contextmanager
def _kernel(table: Table) -> Iterator[tuple[Lab, Replay]]:
    with Lab(_name(), table=table, fib=default_fib()) as lab:
        lab.agent.configure()
        lab.plane.start()
        lab.meet_neighbours()
        lab.agent.start()
        with inside(lab.topology.pop):
            indexes = {port: if_nametoindex(port.name) for port in (OUT, IN)}
        sets = {
            family: [
                PathSet.unicast(Leg(index, port.gateway(family).packed)) for port, index in indexes.items()
            ]
            for family in Family
        }
        with KernelReplay(lab.topology.pop, sets, protocol=BGP_PROTOCOL) as replay:
            yield lab, replay


def _name() -> str:
    return f"bench-{secrets.token_hex(3)}"


def _row(lab: Lab, stream: Churn, trial: Trial, rate: int, way: str) -> dict[str, Any]:
    drift = lab.agent.drift()
    lag = trial.lag_p99 * 1000
    return {
        "name": f"churn by {way}, {rate:,} changes/s: the FIB is behind the kernel, p99",
        "value": round(lag, 1),
        "unit": "ms",
        "target": LAG_TARGET_MILLISECONDS,
        "reached": bool(lag <= LAG_TARGET_MILLISECONDS and not trial.staying_lost and not drift),
        "conditions": "; ".join(
            [
                f"{len(stream.table):,} prefixes, {trial.changes:,} changes ({stream.origin})",
                f"sent at {trial.rate:,.0f}/s",
                f"p50 {trial.lag_p50 * 1000:.1f} ms",
                *_outside(trial),
                f"{trial.events:,} events in the kernel, {trial.writes:,} writes",
                *(f"{name} {trial.watch.cpu(name):.2f} CPUs" for name in trial.watch.names),
                f"{trial.staying_lost} of {trial.staying_sent:,} packets lost to prefixes that stay",
                f"{trial.changing_lost:,} of {trial.changing_sent:,} to changing ones",
                f"{trial.ledger.unaccounted} unaccounted",
                f"{trial.drops} events dropped, {trial.overruns} overruns, {trial.resyncs} resyncs",
                "agent resident {} to {} MiB".format(*_resident(trial)),
                f"afterwards {drift} prefixes differ",
            ]
        ),
    }


def _outside(trial: Trial) -> Iterator[str]:
    if trial.markers:
        p50, p99 = np.percentile(trial.markers, [50, 99]) * 1000
        yield f"from the sender to VPP p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def _resident(trial: Trial) -> tuple[int, int]:
    resident = trial.watch.resident(AGENT)
    return resident[0] >> 20, max(resident) >> 20
