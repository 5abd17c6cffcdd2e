"""What is wrong with a router, from what its agent and FRR say, and what to do about it: the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from router_agent.host_reader.answers import Session, Sessions
from router_agent.model import Family, Reason
from router_agent.observe.answers import AuditStatus, PipelineStatus, State
from router_agent.web.view import AgentView, Finding, Tone

LATE_SECONDS = 10.0
"""A change that waits longer than this for the FIB is worth a remark."""
_DROPPED = {Reason.REJECTED, Reason.OVER_CAPACITY, Reason.LOST, Reason.ALTERED, Reason.UNHEARD}
"""The FIB does not do what BGP wants. The other reasons are the network's or the FIB's nature."""


def findings(
    *,
    agent: AgentView,
    pipelines: Iterable[PipelineStatus],
    sessions: Sessions | None,
    now: datetime,
    unknown_mark: str | None = None,
) -> tuple[Finding, ...]:
    """Return what is worth saying, the worst first.

    Args:
        agent: whether it answers.
        pipelines: as it said last.
        sessions: of FRR.
        now: the time.
        unknown_mark: why nobody knows whether the router is drained.
    """
    found = list(_of_agent(agent, now))
    if agent.up:
        found += [finding for pipeline in pipelines for finding in _of_pipeline(pipeline)]
    if sessions is not None:
        found += _of_sessions(sessions)
    if unknown_mark is not None:
        found.append(
            Finding(
                tone=Tone.WARN,
                word="Drained or not",
                what=f"Whether the router is drained is not known: {unknown_mark}.",
                do="router-agent drained",
            )
        )
    return tuple(sorted(found, key=lambda finding: -finding.tone.rank))


def verdict(found: Iterable[Finding], pipelines: Iterable[PipelineStatus]) -> Finding:
    """Return the worst finding; that all is well, where there is none that is worse than a note."""
    worst = max(found, key=lambda finding: finding.tone.rank, default=None)
    if worst is not None and worst.tone.rank > Tone.NOTE.rank:
        return worst
    return Finding(tone=Tone.GOOD, word="In sync", what=f"The FIB holds what it should: {held(pipelines)}.")


def held(pipelines: Iterable[PipelineStatus]) -> str:
    """Return how many routes the last FIB on the way holds, in words."""
    last = list(pipelines)[-1:]
    words = [f"{counts.in_fib:,} {counts.family.label}" for pipeline in last for counts in pipeline.counts]
    return f"{' and '.join(words)} routes" if words else "no routes"


def ago(seconds: float) -> str:
    """Return a length of time in words of one or two units."""
    whole = max(0, round(seconds))
    for size, unit, smaller, small in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _of_agent(agent: AgentView, now: datetime) -> Iterator[Finding]:
    if agent.up:
        return
    since = agent.silent_since or now
    yield Finding(
        tone=Tone.BAD,
        word="Agent down",
        what=f"router-agent has not answered since {since:%Y-%m-%d %H:%M:%S} UTC "
        f"({ago((now - since).total_seconds())}): {agent.problem or 'no reason known'}. What the FIB holds "
        "forwards on, but nothing follows BGP.",
        do="systemctl status router-agent; journalctl -u router-agent",
    )


def _of_pipeline(pipeline: PipelineStatus) -> Iterator[Finding]:
    yield from _of_state(pipeline)
    yield from _of_capacity(pipeline)
    yield from _of_counts(pipeline)
    if pipeline.audit is not None:
        yield from _of_audit(pipeline.name, pipeline.audit)
    yield from _of_mirror(pipeline)
    if pipeline.state is State.IN_SYNC and pipeline.lag_seconds > LATE_SECONDS:
        yield Finding(
            tone=Tone.WARN,
            word="Changes wait",
            what=f"{pipeline.name}: the oldest change has waited {ago(pipeline.lag_seconds)} for the FIB.",
            do="router-agent show status",
        )


def _of_state(pipeline: PipelineStatus) -> Iterator[Finding]:
    name, why = pipeline.name, f": {pipeline.error}" if pipeline.error else ""
    match pipeline.state:
        case State.IN_SYNC:
            if pipeline.error:
                yield Finding(
                    tone=Tone.WARN,
                    word="Feed in trouble",
                    what=f"{name}{why}.",
                    do="router-agent show status; journalctl -u router-agent",
                )
        case State.FIB_LOST:
            yield Finding(
                tone=Tone.BAD,
                word="FIB lost",
                what=f"{name}: the forwarding plane ({pipeline.fib}) has gone{why}. The agent fills it again "
                "by itself once it is back.",
                do=_service(pipeline.fib),
            )
        case State.FEED_LOST:
            yield Finding(
                tone=Tone.BAD,
                word="Feed lost",
                what=f"{name}: the source of routes ({pipeline.feed}) has gone{why}. The FIB keeps what it "
                "holds.",
                do=_service(pipeline.feed),
            )
        case State.FAILED:
            yield Finding(
                tone=Tone.BAD,
                word="Failed",
                what=f"{name} cannot go on by itself{why}.",
                do="journalctl -u router-agent; mend what it says, then systemctl restart router-agent",
            )
        case _:
            yield Finding(
                tone=Tone.WARN,
                word="Not in sync",
                what=f"{name} is {pipeline.state}: {_progress(pipeline)}{why}.",
                do="wait until it is in sync before the router takes traffic",
            )


def _progress(pipeline: PipelineStatus) -> str:
    if unknown := sum(counts.unknown for counts in pipeline.counts):
        return f"nobody knows whether {unknown:,} routes are in the FIB"
    words = [f"{c.in_fib:,} of {c.desired:,} {c.family.label}" for c in pipeline.counts]
    return f"{' and '.join(words)} routes are in the FIB" if words else "nothing is known of its routes yet"


def _service(kind: str) -> str:
    unit = {"vpp": "vpp", "exabgp": "exabgp", "kernel": "frr", "fpm": "frr"}.get(kind, "router-agent")
    return f"systemctl status {unit}; journalctl -u {unit}; journalctl -u router-agent"


def _of_capacity(pipeline: PipelineStatus) -> Iterator[Finding]:
    capacity = pipeline.capacity
    if capacity is None:
        return
    if capacity.exhausted or capacity.shortage:
        yield Finding(
            tone=Tone.BAD,
            word="No room",
            what=f"{pipeline.name}: {capacity.withheld:,} routes are not added: {capacity.shortage}.",
            do="more room: raise router_expected_routes and run the playbook; or take fewer prefixes",
        )
    elif capacity.unknown:
        yield Finding(
            tone=Tone.NOTE,
            word="Memory not watched",
            what=f"{pipeline.name}: the FIB's memory is not watched: {capacity.unknown}.",
        )


def _of_counts(pipeline: PipelineStatus) -> Iterator[Finding]:
    for counts in pipeline.counts:
        absent = {reason: n for reason, n in counts.not_in_fib.items() if n}
        if not absent:
            continue
        bad = any(reason in _DROPPED for reason in absent)
        words = ", ".join(f"{n:,} {reason}" for reason, n in absent.items())
        yield Finding(
            tone=Tone.BAD if bad else Tone.WARN,
            word="Routes missing",
            what=f"{pipeline.name}: {sum(absent.values()):,} {counts.family.label} routes are wanted and "
            f"not in the FIB: {words}.",
            do=f"router-agent show routes --absent; router-agent explain {_example(counts.family)}",
        )
    if pipeline.passed_over:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(pipeline.passed_over.items()))
        yield Finding(
            tone=Tone.NOTE,
            word="Routes passed over",
            what=f"{pipeline.name}: no FIB can be asked to hold {kinds}.",
        )


def _example(family: Family) -> str:
    return "203.0.113.0/24" if family is Family.IPV4 else "2001:db8::/32"


def _of_audit(name: str, audit: AuditStatus) -> Iterator[Finding]:
    if audit.standing:
        yield Finding(
            tone=Tone.BAD,
            word="Drift",
            what=f"{name}: {audit.standing:,} routes are lost or altered in the FIB and left so "
            f"(audit.action is {audit.action}).",
            do="router-agent audit names them; find who writes there: vppctl show api clients",
        )
    if audit.unexplained:
        yield Finding(
            tone=Tone.WARN,
            word="Unexplained entries",
            what=f"{name}: the FIB has {audit.unexplained:,} entries nobody accounts for.",
            do="router-agent audit --full",
        )


def _of_mirror(pipeline: PipelineStatus) -> Iterator[Finding]:
    mirror = pipeline.mirror
    if mirror is None:
        return
    if mirror.problem:
        yield Finding(
            tone=Tone.BAD,
            word="Not mirrored",
            what=f"{pipeline.name}: interfaces are not mirrored: {mirror.problem}.",
            do="router-agent show status; journalctl -u router-agent",
        )
    for words in mirror.refused:
        yield Finding(
            tone=Tone.WARN,
            word="Not mirrored",
            what=f"{pipeline.name}: cannot {words}.",
            do="journalctl -u router-agent",
        )


def _of_sessions(sessions: Sessions) -> Iterator[Finding]:
    if sessions.problem:
        yield Finding(
            tone=Tone.WARN,
            word="Sessions not known",
            what=f"BGP sessions cannot be read: {sessions.problem}.",
            do="systemctl status frr router-agent-host-reader",
        )
        return
    down = [row for row in sessions.rows if not row.established]
    all_down = len(down) == len(sessions.rows)
    for row in down:
        on_purpose = "Admin" in row.state
        yield Finding(
            tone=Tone.NOTE if on_purpose and not all_down else Tone.BAD if all_down else Tone.WARN,
            word="No session" if all_down else "Session down",
            what=f"{row.family} with {named(row)} is not established: {row.state}{_since(row)}.",
            do="" if on_purpose else f"vtysh -c 'show bgp neighbors {row.peer}'; journalctl -u frr",
        )


def named(row: Session) -> str:
    """Return a peer's address with its AS and what it was described as."""
    words = f", {row.description}" if row.description else ""
    return f"{row.peer} (AS {row.remote_as}{words})"


def _since(row: Session) -> str:
    return f", for {ago(row.since_seconds)}" if row.since_seconds is not None else ", never established"
