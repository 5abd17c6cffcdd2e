"""Churn while packets flow: routes that change all the time, by rtnetlink and by BGP, into kernel and VPP.

After each stream the FIB must equal the control plane's kernel, and that the stream's end, route by route; no
packet to a prefix that stays may be lost; every other packet that is must be in a named drop class.

CHURN_SECONDS makes the memory test longer, 1800 for example (``make soak``).
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface
from itertools import combinations
from pathlib import Path
from socket import if_nametoindex

import numpy as np
import pytest

from router_agent.lab.bgp_replay import BgpReplay, admit
from router_agent.lab.churn import WITHDRAWN, Churn, generated_churn
from router_agent.lab.commands import ip_batch
from router_agent.lab.kernel_replay import KernelReplay
from router_agent.lab.lab import FibKind, Lab, default_fib
from router_agent.lab.markers import VppMarkers, with_markers
from router_agent.lab.plan import IN, OUT, UPLINK
from router_agent.lab.plane import VppPlane
from router_agent.lab.recording import read_churn
from router_agent.lab.replay import Script, begun
from router_agent.lab.table import Table, generated_table
from router_agent.lab.trial import BGP_PROTOCOL, Load, Trial, load, marked, run_trial, wait_replayed
from router_agent.lab.watch import Use
from router_agent.model import Family, PathSet
from router_agent.model import Path as Leg
from router_agent.namespaces import inside
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.churn import Clock, measure_churn
from router_agent.traffic.measurements.results import Batch
from router_agent.traffic.scenario import Destinations, Goal, Scenario

from .whole_lab import compare, status

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

TABLE = generated_table(18_000, 2_000)
PER_SECOND = 5_000
SPEAKER_AS = 64499
SPEAKER = IPv4Interface("198.18.1.10/24")
"""Beside the upstream, on the same wire."""
SOAK_SECONDS = float(os.environ.get("CHURN_SECONDS", "20"))
SOAK_PER_SECOND, SOAK_CHANGES, SOAK_PATHS = 20_000, 20_000, 60
NEIGHBOURS = 100
"""Any two of them are a path set: 4,950."""
LEAST_ROUNDS, WARM_ROUNDS = 16, 6
MOST_PATH_SETS = 2_600
"""Of feed and FIB together: unused ones are looked for when the feed has 1,024."""
RESIDENT_GROWTH = 8 << 20
"""What caches and the allocator may take after the warm-up; rows or path sets left behind would take more."""


def path_sets(lab: Lab, neighbours: int = 1) -> dict[Family, list[PathSet]]:
    """Out by one port, by the other, by both; then every pair of so many neighbours."""
    with inside(lab.topology.pop):
        indexes = {port: if_nametoindex(port.name) for port in (OUT, IN)}
    found = {}
    for family in Family:
        out, back = (Leg(indexes[port], port.gateway(family).packed) for port in (OUT, IN))
        others = [
            Leg(indexes[OUT], (OUT.gateway(family) + 10 + number).packed) for number in range(neighbours)
        ]
        pairs = [PathSet.unicast(*pair) for pair in combinations(others, 2)]
        found[family] = [PathSet.unicast(out), PathSet.unicast(back), PathSet.unicast(out, back), *pairs]
    return found


@contextmanager
def quiet_pop(lab: Lab) -> Iterator[Lab]:
    """A POP without BGP: its kernel's routes come from the test."""
    with lab:
        lab.agent.configure()
        lab.plane.start()
        lab.meet_neighbours()
        lab.agent.start()
        yield lab


def assert_sound(lab: Lab, trial: Trial) -> None:
    """Nothing lost where nothing changed, everything else named, and both sides the same."""
    assert trial.staying_sent > 0
    assert trial.staying_lost == 0
    assert trial.changing_sent > 0
    assert trial.ledger.unaccounted <= 0, trial.ledger
    assert trial.writes <= trial.events
    audit = status(lab).audit
    assert audit is not None
    assert not audit.found, "changes on their way are no faults"
    comparison = compare(lab)
    assert comparison.equal, comparison


@pytest.mark.parametrize(
    "fib",
    [
        pytest.param(FibKind.KERNEL, id="kernel"),
        pytest.param(FibKind.VPP, id="vpp", marks=pytest.mark.vpp),
    ],
)
def test_kernel_routes_change_while_packets_flow(fib: FibKind) -> None:
    lab = Lab(f"churn-{secrets.token_hex(3)}", table=TABLE, fib=fib)
    churn = generated_churn(TABLE, 30_000, path_count=3).at_rate(PER_SECOND)
    with quiet_pop(lab), KernelReplay(lab.topology.pop, path_sets(lab), protocol=BGP_PROTOCOL) as replay:
        churn, markers = marked(lab, churn, 20)
        load(lab, churn, replay)
        trial = run_trial(lab, churn, replay, markers, Load())
        assert not replay.refused
        assert trial.events == len(churn) or trial.overruns
        assert len(trial.markers) == len(markers)
        assert trial.changing_lost > 0, "packets to withdrawn prefixes are lost; were any withdrawn?"
        assert_sound(lab, trial)


@pytest.mark.vpp
def test_prefixes_converge_by_loss_when_an_outsider_sees_them_in_vpp() -> None:
    """1,000 prefixes are announced at once; packets to each say when its route was there."""
    table = generated_table(1_200, 0)
    announced = np.arange(200, 1_200)
    before = np.full(1_200, 1, np.uint32)
    before[announced] = WITHDRAWN
    churn = Churn(
        table,
        np.full(len(announced), Family.IPV4, np.uint8),
        announced,
        np.ones(len(announced), np.uint32),
        np.zeros(len(announced)),
        1,
        {Family.IPV4: before, Family.IPV6: np.empty(0, np.uint32)},
        "announced at once",
    )
    # markers were to stay; they are announced last
    churn, numbers = with_markers(churn, 20)
    lab = Lab(f"churn-{secrets.token_hex(3)}", table=table, fib=FibKind.VPP)
    with quiet_pop(lab), KernelReplay(lab.topology.pop, path_sets(lab), protocol=BGP_PROTOCOL) as replay:
        assert isinstance(lab.plane, VppPlane)
        load(lab, churn, replay)
        stay, change = (
            Destinations.draw({Family.IPV4: table.ipv4[rows]}, table={Family.IPV4: table.ipv4}, ingress=1)
            for rows in (churn.rows_that_stay(Family.IPV4), announced)
        )
        destinations = Destinations.joined((stay, change))
        rows = np.arange(len(stay), len(destinations))
        script = replay.script(churn)
        progress = begun(script)
        marks = VppMarkers(lab.plane.process.api_socket, churn, numbers, script, progress)
        seen: dict[str, float] = {}

        def changes(clock: Clock) -> Iterator[Batch]:
            yield Batch(0.0, 1_000, "not there", rows, reachable=False)
            began = time.monotonic() - clock()
            with marks:
                yield Batch(clock(), 1_000, "announced", rows)
                replay.run(script, progress)
            first, last = progress.sent_at[0] - began, progress.sent_at[progress.sent - 1] - began
            seen.update(first=float(first), last=float(last + marks.lags[-1]))
            wait_replayed(lab, churn, replay)

        scene = Scenario(
            "convergence", destinations, rate_pps=6_000, interval_s=0.002, goal=Goal(unsent_ratio=0.3)
        )
        with SocketsGenerator(scene, lab.endpoints) as generator:
            keeper = LedgerKeeper([*lab.counters(), *generator.counters])
            run = measure_churn(
                generator,
                keeper,
                scene.sizes,
                scene.rate_pps,
                changes,
                goal=scene.goal,
                before_s=0.5,
                after_s=0.5,
            )
    lost = run.trial.sent_to - run.trial.arrived.sum(axis=0)
    assert lost[: len(stay)].sum() == 0
    assert (lost[rows] > 0).all(), "nobody could be reached before"
    took, resolution = seen["last"] - seen["first"], run.convergence_resolution_s
    print(
        f"the last marker was seen in VPP {took * 1000:.0f} ms after the first announcement; by loss 99 % of "
        f"{len(run.convergence_s)} prefixes took {run.convergence_p99_s * 1000:.0f} ms at most, "
        f"to within {resolution * 1000:.0f} ms"
    )
    assert run.convergence_p99_s <= took + 2 * resolution
    assert run.verdict.outcome is Outcome.PASS, run.verdict.reason


def test_bgp_updates_of_a_recording(tmp_path: Path) -> None:
    """A recorded peer, replayed into FRR: the whole way from UPDATE to FIB."""
    # Prefixes of the upstream, of the recorded peer, and of the same peer before the recording.
    parts = [Table(TABLE.ipv4[n::10], TABLE.ipv6[n::10], "generated") for n in range(3)]
    lab = Lab(f"churn-{secrets.token_hex(3)}", table=parts[0], fib=default_fib())
    hops = {family: [port.gateway(family).packed for port in (OUT, IN)] for family in Family}
    with lab:
        lab.start()
        assert lab.frr is not None
        ip_batch([f"address add {SPEAKER} dev {UPLINK.far_name}"], namespace=lab.topology.upstream)
        admit(lab.frr, SPEAKER.ip, SPEAKER_AS)
        speaker = BgpReplay(
            lab.topology.upstream,
            local=SPEAKER.ip,
            neighbour=UPLINK.address(Family.IPV4).ip,  # type: ignore[arg-type]
            asn=SPEAKER_AS,
            next_hops=hops,
        )
        made = generated_churn(parts[1], 10_000, path_count=2, changing=0.5).at_rate(2_000)
        recording = tmp_path / "updates"
        recording.write_bytes(recorded(speaker.script(made)))
        churn = read_churn(recording).within(parts[2]).effective()
        assert len(churn) > len(made) // 2
        with speaker:
            churn, markers = marked(lab, churn, 10)
            load(lab, churn, speaker)
            trial = run_trial(lab, churn, speaker, markers, Load(staying=200))
            assert trial.events > 0
            assert_sound(lab, trial)


def recorded(script: Script) -> bytes:
    """The messages as a collector writes them: BGP4MP_ET, BGP4MP_MESSAGE_AS4 (RFC 6396, 4.4.3)."""
    peer = (
        struct.pack("!IIHH", SPEAKER_AS, 64999, 0, 1)
        + SPEAKER.ip.packed
        + UPLINK.address(Family.IPV4).ip.packed
    )
    records = []
    for number in range(len(script)):
        seconds, fraction = divmod(float(script.due[number]), 1)
        body = struct.pack("!I", int(fraction * 1e6)) + peer + script.part(number, number + 1).tobytes()
        records.append(struct.pack("!IHHI", 1_700_000_000 + int(seconds), 17, 4, len(body)) + body)
    return b"".join(records)


def test_memory_does_not_grow_with_changes() -> None:
    """Prefixes come and go, and what they lead to is never seen again: neither may leave anything behind."""
    lab = Lab(f"churn-{secrets.token_hex(3)}", table=TABLE, fib=default_fib())
    with quiet_pop(lab):
        sets = path_sets(lab, NEIGHBOURS)
        with KernelReplay(lab.topology.pop, sets, protocol=BGP_PROTOCOL) as replay:
            churn = generated_churn(TABLE, SOAK_CHANGES, path_count=SOAK_PATHS)
            load(lab, churn, replay)
            resident: list[int] = []
            kept: list[int] = []
            until = time.monotonic() + SOAK_SECONDS
            while time.monotonic() < until or len(resident) < LEAST_ROUNDS:
                churn = another_round(churn, len(resident), len(sets[Family.IPV4]))
                replay.run(replay.script(churn.at_rate(SOAK_PER_SECOND)))
                wait_replayed(lab, churn, replay)
                resident.append(Use.of(lab.agent.daemon.pid).resident_bytes)
                kept.append(status(lab).path_sets)
        assert not replay.refused
        warm = resident[WARM_ROUNDS:]
        mebibytes = [size >> 20 for size in (resident[0], min(warm), max(warm))]
        print(
            f"{len(resident) * len(churn):,} changes in {len(resident)} rounds: "
            "{} MiB after the first, {} to {} after the warm-up".format(*mebibytes),
            f"; {max(kept):,} path sets",
        )
        assert max(warm) - warm[0] < RESIDENT_GROWTH, [size >> 20 for size in resident]
        assert max(kept) < MOST_PATH_SETS, kept
        comparison = compare(lab)
        assert comparison.equal, comparison


def another_round(churn: Churn, number: int, path_sets: int) -> Churn:
    """Return the stream that comes next, in which every prefix leaves the last one's path sets."""
    fresh = generated_churn(TABLE, SOAK_CHANGES, path_count=SOAK_PATHS, before=churn.after())
    first = number * SOAK_PATHS % (path_sets - SOAK_PATHS)
    paths = np.where(fresh.paths == WITHDRAWN, WITHDRAWN, fresh.paths + first).astype(np.uint32)
    return replace(fresh, paths=paths, path_count=path_sets).effective()
