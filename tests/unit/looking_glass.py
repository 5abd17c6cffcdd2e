"""A view with everything in it that the looking glass can show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from router_agent.host_reader.answers import Session, Sessions
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    AuditStatus,
    CapacityStatus,
    Explanation,
    FamilyCounts,
    FeedSession,
    Match,
    PipelineExplanation,
    PipelineStatus,
    Stage,
    State,
    Step,
    Writes,
)
from router_agent.web.drained import Drained
from router_agent.web.findings import findings, verdict
from router_agent.web.view import AgentView, PortView, View, WorkerView

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lost_pipeline() -> PipelineStatus:
    """The pipeline after its FIB has gone."""
    counts = tuple(
        FamilyCounts(family=c.family, desired=c.desired, unknown=c.desired) for c in pipeline().counts
    )
    return pipeline().model_copy(update={"state": State.FIB_LOST, "counts": counts})


def pipeline(name: str = "frr") -> PipelineStatus:
    return PipelineStatus(
        name=name,
        feed="kernel",
        fib="vpp",
        state=State.IN_SYNC,
        counts=(
            FamilyCounts(
                family=Family.IPV4,
                desired=1_055_514,
                in_fib=1_055_511,
                not_in_fib={Reason.UNRESOLVED_NEXT_HOP: 3},
            ),
            FamilyCounts(family=Family.IPV6, desired=200_000, in_fib=200_000),
        ),
        lag_seconds=0.0021,
        lag_p50_seconds=0.0008,
        lag_p99_seconds=0.0123,
        last_resync=NOW - timedelta(minutes=9),
        resyncs=3,
        writes=Writes(added=1_255_514, replaced=3_301, deleted=77),
        neighbours=4,
        sessions=(FeedSession(peer="192.0.2.7", peer_as=64501, up=True, routes={Family.IPV4: 12}),),
        audit=AuditStatus(
            action="repair",
            rate=5_000,
            passes=4,
            last_pass_age_seconds=93.0,
            last_pass_seconds=251.0,
            checked=1_255_511,
            found={Reason.LOST: 2},
            repaired=2,
        ),
        capacity=CapacityStatus(
            exhausted=False,
            used_bytes={"main heap": 410_000_000, "stats segment": 210_000_000},
            total_bytes={"main heap": 1_073_741_824, "stats segment": 268_435_456},
        ),
    )


def view(
    *,
    word: str = "transit",
    router: str = "ams1-r1",
    drained: bool = True,
    up: bool = True,
    sessions: int = 6,
) -> View:
    """Everything at once; `word` is put wherever others may write a text."""
    told = Sessions(
        local_as=64512,
        router_id="192.0.2.9",
        age_seconds=2.0,
        rows=tuple(
            Session(
                peer=f"198.51.100.{number + 1}",
                description=f"{word} {number}",
                family="IPv4 unicast",
                remote_as=4_200_000_000 + number,
                state="Established" if number else f"Active {word}",
                established=bool(number),
                since_seconds=86_400.0 * number,
                accepted=950_000,
                announced=2,
                bfd=word if number % 2 else None,
            )
            for number in range(sessions)
        ),
    )
    agent = AgentView(up=True, heard=NOW, version="1.2", uptime_seconds=93_784.0, rss_bytes=221_000_000)
    if not up:
        since = NOW - timedelta(seconds=200)
        agent = agent.model_copy(update={"up": False, "silent_since": since, "problem": f"gone {word}"})
    pipelines = (pipeline(f"frr {word}"),)
    found = findings(agent=agent, pipelines=pipelines, sessions=told, now=NOW)
    return View(
        router=router,
        at=NOW,
        verdict=verdict(found, pipelines),
        findings=found,
        drained=Drained(since=NOW, reason=f"upgrade {word}", by=word, keep=True) if drained else None,
        agent=agent,
        pipelines=pipelines,
        sessions=told,
        ports=(
            PortView(
                name=f"TenGigabitEthernet3b/0/0 {word}",
                up=False,
                received_bits_per_second=9_871_234_567.0,
                sent_bits_per_second=1_234.5,
                received_packets_per_second=14_880_952.0,
                sent_packets_per_second=0.0,
                dropped_per_second=12.5,
            ),
            PortView(name="new"),
        ),
        workers=(WorkerView(name="worker-0", vectors_per_call=12.25, loops_per_second=1_500_000.0),),
        version="1.2",
    )


def explanation(word: str = "via 192.0.2.1") -> Explanation:
    steps = (
        Step(stage=Stage.BGP, words=f"from {word}"),
        Step(stage=Stage.KERNEL, words=f"not asked {word}", known=False),
        Step(stage=Stage.ENTRY, words=f"no entry {word}", holds=False),
    )
    found = PipelineExplanation(
        pipeline=f"frr {word}",
        table=254,
        feed="kernel",
        match=Match.LONGEST,
        prefix="192.0.2.0/24",
        steps=steps,
        forwards=False,
        verdict=f"breaks at entry: {word}",
    )
    return Explanation(asked=f"192.0.2.1/32 {word}", pipelines=(found,))
