"""One churn trial: a stream is replayed while packets flow and the processes are watched.

Traffic goes to prefixes that stay, where no packet may be lost, and to such as change, where packets are lost
while nobody announces the prefix; the forwarding plane's counters say where those went.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from router_agent.fibs.kernel import KernelFib
from router_agent.lab.churn import WITHDRAWN, Churn, leading_to
from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import Lab
from router_agent.lab.markers import VppMarkers, with_markers
from router_agent.lab.plane import VppPlane
from router_agent.lab.replay import Progress, Replay, Script, begun
from router_agent.lab.watch import NetlinkQueues, Watch
from router_agent.model import I64, MAIN_TABLE, U32, U64, Family, Mask
from router_agent.observe.answers import PipelineStatus, State
from router_agent.prefix_table import PrefixTable
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.measurements.churn import Clock, measure_churn
from router_agent.traffic.measurements.results import Batch, ChurnRun
from router_agent.traffic.scenario import Destinations, Scenario

AGENT, VPP = "agent", "VPP"
"""Names of the watched processes; a kernel FIB is no process."""

BGP_PROTOCOL, _METRIC = 186, 20
"""What zebra writes BGP's routes with: RTPROT_BGP of linux/rtnetlink.h, and the distance of eBGP."""

_SETTLE_SECONDS = 300.0
_POLL_SECONDS = 0.1
_LOOKED_AT_PER_SECOND = 400_000
_LONGEST_SECONDS = 600.0
_QUIET_SECONDS = 0.5
_BATCH_SECONDS = 0.1
_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        changes: changes replayed.
        progress: when they went out.
        events: route changes that reached the agent.
        writes: routes it wrote: fewer where changes of one prefix met before they were written.
        lag_p50, lag_p99: as the agent says, in seconds: from the first event of a pass to its last answer.
        markers: as an outsider sees it, in seconds: from the sender to VPP; none with a kernel FIB.
        overruns: times the agent lost events and read everything again.
        resyncs: times it read everything.
        drops: events that the kernel dropped for the agent.
        watch: CPU and memory meanwhile.
        staying_sent, staying_lost: packets to prefixes that stay.
        changing_sent, changing_lost: packets to prefixes that change.
        run: what the changes cost in packets and in time, and where the lost ones went.
    """

    changes: int
    progress: Progress
    events: int
    writes: int
    lag_p50: float
    lag_p99: float
    markers: tuple[float, ...]
    overruns: int
    resyncs: int
    drops: int
    watch: Watch
    staying_sent: int
    staying_lost: int
    changing_sent: int
    changing_lost: int
    run: ChurnRun

    @property
    def ledger(self) -> Ledger:
        """Where lost packets went."""
        return self.run.ledger

    @property
    def rate(self) -> float:
        """Changes a second that were really sent."""
        return self.changes / self.progress.seconds if self.progress.seconds else 0.0


@dataclass(frozen=True)
class Load:
    """Traffic of a trial: packets a second, and how many prefixes that stay and that change they go to."""

    pps: float = 5_000.0
    staying: int = 1_000
    changing: int = 200


def marked(lab: Lab, churn: Churn, count: int) -> tuple[Churn, tuple[int, ...]]:
    """Return the stream with markers where somebody can look for them: with VPP."""
    if not isinstance(lab.plane, VppPlane):
        return churn, ()
    churn, numbers = with_markers(churn, count)
    return churn, tuple(numbers.tolist())


def load(lab: Lab, churn: Churn, replay: Replay, state: Mapping[Family, U32] | None = None) -> None:
    """Bring a POP to where a stream begins.

    Args:
        lab: the POP.
        churn: the stream.
        replay: how changes get into the POP.
        state: what it has of the stream's table now, as path numbers by family; None for nothing.

    Raises:
        LabError: it does not get there.
    """
    replay.run(replay.script(leading_to(churn, state)))
    wait_replayed(lab, churn.first(0), replay)


def run_trial(lab: Lab, churn: Churn, replay: Replay, markers: tuple[int, ...], offered: Load) -> Trial:
    """Replay a stream whose table is loaded, and wait until everything has arrived in the FIB.

    Args:
        lab: a POP that holds what the stream's table leads to before its first change.
        churn: the stream.
        replay: how it gets into the POP.
        markers: which changes are markers.
        offered: traffic meanwhile.

    Raises:
        LabError: something ended, or the FIB does not get there.
    """
    destinations, stays = _destinations(churn, offered)
    script = replay.script(churn)
    progress = begun(script)
    before, drops = _status(lab), agent_queues(lab).drops
    pids = {AGENT: lab.agent.daemon.pid}
    if isinstance(lab.plane, VppPlane):
        pids[VPP] = lab.plane.process.pid
    watch = Watch(pids)
    seen: VppMarkers | None = None

    def replayed(clock: Clock) -> list[Batch]:
        nonlocal seen
        began = time.monotonic() - clock()
        with ExitStack() as stack:
            stack.enter_context(watch)
            if markers:
                assert isinstance(lab.plane, VppPlane)
                numbers = np.array(markers, np.int64)
                seen = VppMarkers(lab.plane.process.api_socket, churn, numbers, script, progress)
                stack.enter_context(seen)
            replay.run(script, progress)
        wait_replayed(lab, churn, replay)
        return _batches(script, progress, began)

    scenario = Scenario(name="churn", destinations=destinations, rate_pps=offered.pps, interval_s=_INTERVAL_S)
    with SocketsGenerator(scenario, lab.endpoints) as generator:
        run = measure_churn(
            generator,
            LedgerKeeper(lab.counters()),
            scenario.sizes,
            offered.pps,
            replayed,
            goal=scenario.goal,
            before_s=_QUIET_SECONDS,
            after_s=_QUIET_SECONDS,
            most_s=churn.duration + _LONGEST_SECONDS,
        )
    after = _status(lab)
    result = run.trial
    lost = result.sent_to - result.arrived.sum(axis=0)
    return Trial(
        changes=len(churn),
        progress=progress,
        events=after.events - before.events,
        writes=_written(after) - _written(before),
        lag_p50=after.lag_p50_seconds,
        lag_p99=after.lag_p99_seconds,
        markers=tuple(seen.lags) if seen else (),
        overruns=after.overruns - before.overruns,
        resyncs=after.resyncs - before.resyncs,
        drops=agent_queues(lab).drops - drops,
        watch=watch,
        staying_sent=int(result.sent_to[stays].sum()),
        staying_lost=int(lost[stays].sum()),
        changing_sent=int(result.sent_to[~stays].sum()),
        changing_lost=int(lost[~stays].sum()),
        run=run,
    )


def wait_replayed(lab: Lab, churn: Churn, replay: Replay) -> None:
    """Wait until the POP's kernel has what the stream ends with, and the agent nothing left to do.

    Raises:
        LabError: they do not get there.
    """
    wait_until(
        lambda: differing(lab, churn, replay) == 0,
        "the kernel to have what the stream ends with",
        seconds=_SETTLE_SECONDS,
        # Looking costs the kernel a walk through the table.
        poll_seconds=max(_POLL_SECONDS, len(churn.table) / _LOOKED_AT_PER_SECOND),
        found=lambda: f"{differing(lab, churn, replay)} prefixes that differ",
    )
    wait_idle(lab)


def wait_idle(lab: Lab) -> None:
    """Wait until the agent has read every event of the kernel and written what follows from it.

    Raises:
        LabError: it does not get there.
    """

    def idle() -> bool:
        if agent_queues(lab).waiting_bytes:
            return False
        found = _status(lab)
        quiet = found.state is State.IN_SYNC and not found.lag_seconds
        return quiet and not any(
            counts.pending or counts.unknown or counts.not_in_fib for counts in found.counts
        )

    wait_until(
        idle,
        "the agent to have nothing left to do",
        seconds=_SETTLE_SECONDS,
        daemons=[lab.agent.daemon],
        found=lab.agent.summary,
    )


def agent_queues(lab: Lab) -> NetlinkQueues:
    """Return the agent's netlink sockets towards the POP's kernel."""
    return NetlinkQueues.of(lab.topology.pop, lab.agent.daemon.pid)


def differing(lab: Lab, churn: Churn, replay: Replay) -> int:
    """Return how many prefixes of the stream's table the POP's kernel has otherwise than the stream ends."""
    return sum(asyncio.run(_differing(lab, churn.table.keys(f), churn.after()[f], f, replay)) for f in Family)


async def _differing(lab: Lab, keys: U64, wanted: U32, family: Family, replay: Replay) -> int:
    reader = KernelFib(
        namespace=lab.topology.pop, protocol=BGP_PROTOCOL, metric=_METRIC, shared_protocol=True
    )
    await reader.open()
    table = PrefixTable(family.key_width, {"legs": np.uint32})
    numbers: dict[frozenset[bytes], int] = {}
    try:
        async for routes in reader.read(family, MAIN_TABLE):
            paths = np.zeros(int(routes.paths.max()) + 1, np.uint32)
            for path in np.unique(routes.paths).tolist():
                legs = frozenset(leg.gateway for leg in reader.path_set(path).paths)
                paths[path] = numbers.setdefault(legs, len(numbers) + 1)
            rows = table.insert(routes.keys)
            table["legs"][rows] = paths[routes.paths]
    finally:
        await reader.close()
    rows = table.find(keys)
    held = np.where(rows >= 0, table["legs"][rows], np.uint32(WITHDRAWN))
    expected = np.zeros(int(wanted.max(initial=0)) + 1, np.uint32)
    for path in np.unique(wanted[wanted != WITHDRAWN]).tolist():
        expected[path] = numbers.get(replay.legs(family, path), len(numbers) + 1)
    return int((held != expected[wanted]).sum())


def _destinations(churn: Churn, offered: Load) -> tuple[Destinations, Mask]:
    """Return where to send, and which of it stays."""
    whole = {family: churn.table.keys(family) for family in Family}

    def draw(rows: Callable[[Family], I64], count: int) -> Destinations:
        keys = {family: whole[family][rows(family)] for family in Family}
        return Destinations.draw(keys, count=count, table=whole, ingress=1)

    stay, change = draw(churn.rows_that_stay, offered.staying), draw(churn.rows_that_change, offered.changing)
    both = Destinations.joined((stay, change))
    return both, np.arange(len(both)) < len(stay)


def _batches(script: Script, progress: Progress, began: float) -> list[Batch]:
    """Return what went out in each tenth of a second, in seconds since `began`."""
    at = progress.sent_at[: progress.sent] - began
    changes = np.diff(script.changes[: progress.sent], prepend=0)
    first = np.unique((at / _BATCH_SECONDS).astype(np.int64), return_index=True)[1]
    counts = np.add.reduceat(changes, first) if len(first) else changes
    return [
        Batch(float(at[begin]), int(count), "route changes")
        for begin, count in zip(first.tolist(), counts.tolist(), strict=True)
    ]


def _status(lab: Lab) -> PipelineStatus:
    found = lab.agent.pipeline()
    if found is None:
        lab.agent.daemon.require_running()
        raise AssertionError("the agent runs and does not answer")
    return found


def _written(status: PipelineStatus) -> int:
    return status.writes.added + status.writes.replaced + status.writes.deleted
