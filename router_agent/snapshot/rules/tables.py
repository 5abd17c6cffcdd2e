"""Sizes of tables on the way from BGP to the FIB, and what the agent says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from router_agent.snapshot.agreement import fib_count, gaps
from router_agent.snapshot.changes import Change, Fault, Judged
from router_agent.snapshot.model import Pipeline, Snapshot
from router_agent.snapshot.rules.counting import count_changed
from router_agent.snapshot.span import Span
from router_agent.snapshot.tolerances import Tolerances

_IN_SYNC = "in-sync"
_CLOCKS_SECONDS = 10.0


def table_changes(before: Snapshot, after: Snapshot, span: Span, tolerances: Tolerances) -> Iterator[Change]:
    """Yield what changed, of sources that both snapshots have."""
    if before.bgp.content and after.bgp.content:
        prefixes = before.bgp.content.prefixes, after.bgp.content.prefixes
        yield from _counts("table", "BGP", "prefixes", *prefixes, tolerances)
    if before.zebra.content and after.zebra.content:
        for aspect in ("rib", "fib"):
            was, now = (
                {family: getattr(routes, aspect) for family, routes in zebra.routes.items()}
                for zebra in (before.zebra.content, after.zebra.content)
            )
            yield from _counts("table", "zebra, BGP's", aspect, was, now, tolerances)
    if before.kernel.content and after.kernel.content:
        held = before.kernel.content.bgp, after.kernel.content.bgp
        yield from _counts("table", "kernel, BGP's", "routes", *held, tolerances)
    if before.agent.content and after.agent.content:
        yield from _agent_changes(before, after, span, tolerances)


def _counts(
    what: str,
    subject: str,
    aspect: str,
    before: Mapping[str, int],
    after: Mapping[str, int],
    tolerances: Tolerances,
) -> Iterator[Change]:
    for family in sorted(before.keys() | after.keys()):
        had, has = before.get(family), after.get(family)
        if had != has:
            yield count_changed(what, f"{subject}, {family}", aspect, had, has, tolerances)


def _agent_changes(before: Snapshot, after: Snapshot, span: Span, tolerances: Tolerances) -> Iterator[Change]:
    was, now = before.agent.content, after.agent.content
    assert was is not None
    assert now is not None
    if abs(now.uptime_seconds - was.uptime_seconds - span.elapsed) > _CLOCKS_SECONDS:
        yield Change(
            what="agent",
            subject="router-agent",
            aspect="started",
            before=f"up for {was.uptime_seconds:,.0f} s",
            after=f"up for {now.uptime_seconds:,.0f} s",
            judged=Judged.WITHIN,
            why="it was restarted, which loses nothing",
        )
    earlier, later = ({pipeline.name: pipeline for pipeline in found.pipelines} for found in (was, now))
    for name in sorted(earlier.keys() | later.keys()):
        yield from _pipeline(earlier.get(name), later.get(name), before, after, tolerances)


def _pipeline(
    was: Pipeline | None, now: Pipeline | None, before: Snapshot, after: Snapshot, tolerances: Tolerances
) -> Iterator[Change]:
    if was is None or now is None:
        found = was or now
        assert found is not None
        yield Change(
            what="pipeline",
            subject=found.name,
            aspect="there",
            before=f"{was.feed} -> {was.fib}" if was else "none",
            after=f"{now.feed} -> {now.fib}" if now else "none",
            judged=Judged.BEYOND if was else Judged.WITHIN,
            why="the pipeline is gone" if was else "",
        )
        return
    subject = f"pipeline {was.name}"
    if was.state != now.state:
        yield Change(
            what="pipeline",
            subject=was.name,
            aspect="state",
            before=was.state,
            after=now.state,
            judged=Judged.WITHIN if now.state == _IN_SYNC else Judged.BEYOND,
            why=now.error or "",
        )
    for aspect in ("desired", "in_fib"):
        had, has = (
            {family: getattr(counts, aspect) for family, counts in pipeline.counts.items()}
            for pipeline in (was, now)
        )
        yield from _counts("table", subject, aspect, had, has, tolerances)
    yield from _fibs(subject, was, now, before, after, tolerances)
    yield from _absent(subject, was, now, tolerances)


def _fibs(
    subject: str, was: Pipeline, now: Pipeline, before: Snapshot, after: Snapshot, tolerances: Tolerances
) -> Iterator[Change]:
    for family in sorted(was.counts.keys() & now.counts.keys()):
        had, has = fib_count(before, was, family), fib_count(after, now, family)
        if had is not None and has is not None and had != has:
            yield count_changed("table", f"{subject}, {family}", "FIB's own count", had, has, tolerances)


def _absent(subject: str, was: Pipeline, now: Pipeline, tolerances: Tolerances) -> Iterator[Change]:
    """Yield routes that are kept out of the FIB for another number of reasons than before."""
    for family in sorted(was.counts.keys() & now.counts.keys()):
        had, has = was.counts[family].not_in_fib, now.counts[family].not_in_fib
        desired = max(now.counts[family].desired, 1)
        for reason in sorted(had.keys() | has.keys()):
            more = has.get(reason, 0) - had.get(reason, 0)
            if not more:
                continue
            beyond = 100.0 * more / desired > tolerances.fib_gap_percent
            yield Change(
                what="table",
                subject=f"{subject}, {family}",
                aspect=f"not in the FIB: {reason}",
                before=f"{had.get(reason, 0):,}",
                after=f"{has.get(reason, 0):,}",
                judged=Judged.BEYOND if beyond else Judged.WITHIN,
                why=f"{abs(more):,} {'more' if more > 0 else 'fewer'} of {desired:,} routes",
            )


def table_faults(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> Iterator[Fault]:
    """Yield where the later snapshot's counts do not agree, or the agent says that its FIB is not right."""
    earlier = {fault.subject for fault in _faults(before, tolerances)}
    for fault in _faults(after, tolerances):
        yield fault.model_copy(update={"before": fault.subject in earlier})


def _faults(snapshot: Snapshot, tolerances: Tolerances) -> Iterator[Fault]:
    for gap in gaps(snapshot):
        if gap.percent > tolerances.fib_gap_percent:
            (left, left_count), (right, right_count) = gap.left, gap.right
            yield Fault(
                subject=f"{gap.subject}: {left} and {right}",
                words=f"{left} {left_count:,}, {right} {right_count:,}: {gap.size:,} apart "
                f"({gap.percent:.3g} %), expected at most {tolerances.fib_gap_percent:g} %",
            )
    for pipeline in snapshot.agent.content.pipelines if snapshot.agent.content else ():
        yield from _pipeline_faults(pipeline)


def _pipeline_faults(pipeline: Pipeline) -> Iterator[Fault]:
    if pipeline.state != _IN_SYNC:
        error = f": {pipeline.error}" if pipeline.error else ""
        yield Fault(
            subject=f"pipeline {pipeline.name}: state",
            words=f"found {pipeline.state}, expected {_IN_SYNC}{error}",
        )
    if pipeline.standing:
        yield Fault(
            subject=f"pipeline {pipeline.name}: audit",
            words=f"{pipeline.standing:,} routes are lost or altered in the FIB and left so",
        )
    if pipeline.unexplained:
        yield Fault(
            subject=f"pipeline {pipeline.name}: entries",
            words=f"the FIB has {pipeline.unexplained:,} entries nobody accounts for; "
            "see router-agent audit --full",
        )
