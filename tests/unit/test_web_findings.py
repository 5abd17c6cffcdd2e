"""The verdict: the worst comes first, and says what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from router_agent.host_reader.answers import Session, Sessions
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    AuditStatus,
    CapacityStatus,
    FamilyCounts,
    MirrorStatus,
    PipelineStatus,
    State,
)
from router_agent.web.findings import ago, findings, verdict
from router_agent.web.view import AgentView, Finding, Tone

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UP = AgentView(up=True, heard=NOW, version="1")


def pipeline(**changed: Any) -> PipelineStatus:
    counts = (
        FamilyCounts(family=Family.IPV4, desired=1_000, in_fib=1_000),
        FamilyCounts(family=Family.IPV6, desired=20, in_fib=20),
    )
    audit = AuditStatus(action="repair", rate=5_000, passes=1, checked=1_020)
    plain = PipelineStatus(
        name="frr", feed="kernel", fib="vpp", state=State.IN_SYNC, counts=counts, audit=audit
    )
    return plain.model_copy(update=changed)


def session(**changed: Any) -> Session:
    plain = Session(
        peer="192.0.2.1",
        description="transit",
        family="IPv4 unicast",
        remote_as=64500,
        state="Established",
        established=True,
        since_seconds=3_600.0,
    )
    return plain.model_copy(update=changed)


def found(
    *pipelines: PipelineStatus, agent: AgentView = UP, sessions: tuple[Session, ...] = ()
) -> tuple[Finding, ...]:
    told = Sessions(local_as=64512, router_id="192.0.2.9", rows=sessions)
    return findings(agent=agent, pipelines=pipelines, sessions=told, now=NOW)


def test_all_is_well_and_it_says_how_many_routes() -> None:
    pipelines = (pipeline(name="exabgp", counts=()), pipeline())
    assert found(*pipelines, sessions=(session(),)) == ()
    said = verdict((), pipelines)
    assert (said.tone, said.word) == (Tone.GOOD, "In sync")
    assert "1,000 IPv4 and 20 IPv6 routes" in said.what


def test_notes_do_not_spoil_the_verdict() -> None:
    all_found = found(pipeline(passed_over={"tos": 3}), sessions=(session(),))
    assert [finding.tone for finding in all_found] == [Tone.NOTE]
    assert verdict(all_found, ()).tone is Tone.GOOD


AGENT_DOWN = AgentView(
    up=False, heard=NOW, silent_since=NOW - timedelta(minutes=3), problem="connection refused"
)


@pytest.mark.parametrize(
    ("changed", "tone", "word", "what"),
    [
        ({"state": State.FIB_LOST, "error": "no socket"}, Tone.BAD, "FIB lost", "no socket"),
        ({"state": State.FEED_LOST}, Tone.BAD, "Feed lost", "keeps what it holds"),
        ({"state": State.FAILED, "error": "source in use"}, Tone.BAD, "Failed", "source in use"),
        ({"state": State.SYNCING}, Tone.WARN, "Not in sync", "1,000 of 1,000 IPv4"),
        ({"state": State.READING_FIB, "counts": ()}, Tone.WARN, "Not in sync", "nothing is known"),
        ({"error": "zebra is away"}, Tone.WARN, "Feed in trouble", "zebra is away"),
        (
            {"capacity": CapacityStatus(exhausted=True, shortage="main heap: raise it", withheld=7)},
            Tone.BAD,
            "No room",
            "7 routes are not added: main heap",
        ),
        (
            {"capacity": CapacityStatus(exhausted=False, unknown="no socket")},
            Tone.NOTE,
            "Memory not watched",
            "no socket",
        ),
        (
            {"counts": (FamilyCounts(family=Family.IPV4, desired=9, not_in_fib={Reason.REJECTED: 9}),)},
            Tone.BAD,
            "Routes missing",
            "9 rejected",
        ),
        (
            {
                "counts": (
                    FamilyCounts(family=Family.IPV6, desired=1, not_in_fib={Reason.UNRESOLVED_NEXT_HOP: 1}),
                )
            },
            Tone.WARN,
            "Routes missing",
            "1 unresolved-next-hop",
        ),
        (
            {"audit": AuditStatus(action="report", rate=1, standing=4)},
            Tone.BAD,
            "Drift",
            "4 routes are lost or altered",
        ),
        (
            {"audit": AuditStatus(action="repair", rate=1, unexplained=2)},
            Tone.WARN,
            "Unexplained entries",
            "2 entries",
        ),
        ({"mirror": MirrorStatus(aspects=("mtu",), problem="no VPP")}, Tone.BAD, "Not mirrored", "no VPP"),
        (
            {"mirror": MirrorStatus(aspects=("mtu",), refused=("set mtu of eth1",))},
            Tone.WARN,
            "Not mirrored",
            "cannot set mtu of eth1",
        ),
        ({"lag_seconds": 75.0}, Tone.WARN, "Changes wait", "1 min 15 s"),
    ],
)
def test_what_is_wrong_with_a_pipeline_is_said(
    changed: dict[str, Any], tone: Tone, word: str, what: str
) -> None:
    (only,) = found(pipeline(**changed), sessions=(session(),))
    assert (only.tone, only.word) == (tone, word)
    assert what in only.what
    assert only.do or tone is Tone.NOTE
    assert (verdict((only,), ()) == only) == (tone is not Tone.NOTE)


@pytest.mark.parametrize("state", list(State))
def test_every_state_but_one_is_said(state: State) -> None:
    assert bool(found(pipeline(state=state))) == (state is not State.IN_SYNC)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_said(reason: Reason) -> None:
    counts = (FamilyCounts(family=Family.IPV4, desired=1, not_in_fib={reason: 1}),)
    (only,) = found(pipeline(counts=counts))
    assert reason in only.what


def test_an_agent_that_is_down_is_the_verdict_and_its_old_state_is_none() -> None:
    all_found = found(pipeline(state=State.SYNCING), agent=AGENT_DOWN, sessions=(session(),))
    (only,) = all_found
    assert only.word == "Agent down"
    assert "since 2026-01-02 03:01:05 UTC (3 min): connection refused" in only.what
    assert "systemctl status router-agent" in only.do


def test_a_session_that_is_down_is_a_warning_and_all_of_them_are_worse() -> None:
    down = session(established=False, state="Active", since_seconds=90.0, peer="192.0.2.2")
    (one,) = found(pipeline(), sessions=(session(), down))
    assert (one.tone, one.word) == (Tone.WARN, "Session down")
    assert "192.0.2.2 (AS 64500, transit) is not established: Active, for 1 min 30 s" in one.what
    (both, _) = found(pipeline(), sessions=(down, down))
    assert (both.tone, both.word) == (Tone.BAD, "No session")


def test_a_session_that_was_shut_down_on_purpose_is_a_note() -> None:
    down = session(established=False, state="Idle (Admin)", since_seconds=None)
    (only,) = found(pipeline(), sessions=(session(), down))
    assert (only.tone, only.do) == (Tone.NOTE, "")
    assert "never established" in only.what


def test_sessions_that_nobody_can_read_are_a_warning() -> None:
    told = Sessions(problem="there is no vtysh here")
    (only,) = findings(agent=UP, pipelines=[pipeline()], sessions=told, now=NOW)
    assert (only.tone, only.word) == (Tone.WARN, "Sessions not known")


def test_a_mark_that_cannot_be_read_is_a_warning() -> None:
    (only,) = findings(agent=UP, pipelines=[pipeline()], sessions=None, now=NOW, unknown_mark="no permission")
    assert (only.tone, only.do) == (Tone.WARN, "router-agent drained")


def test_the_worst_comes_first() -> None:
    all_found = found(
        pipeline(passed_over={"tos": 1}),
        pipeline(state=State.FIB_LOST),
        sessions=(session(), session(established=False, state="Connect")),
    )
    assert [finding.tone for finding in all_found] == [Tone.BAD, Tone.WARN, Tone.NOTE]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (86_400, "1 d")],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert ago(seconds) == words
