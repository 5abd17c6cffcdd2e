"""Answers about running pipelines: status, routes, neighbours and audits."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np

from router_agent.audit import Audit, Tally
from router_agent.model import ABSENT, U64, Family, Outcome, Prefix, Reason, keys_of, prefixes_of
from router_agent.observe.answers import (
    AuditStatus,
    CapacityStatus,
    Confirmations,
    FamilyCounts,
    FeedSession,
    FibLoad,
    InFib,
    LagHistogram,
    MirrorStatus,
    NeighbourRow,
    PipelineAudit,
    PipelineStatus,
    RouteFilter,
    RouteRow,
    TableCounts,
    Writes,
)
from router_agent.observe.words import describe_paths
from router_agent.pipeline import LAG_BOUNDS, Pipeline
from router_agent.reconcile import REASONS, Reconciler

if TYPE_CHECKING:
    from router_agent.feeds.exabgp import ExabgpFeed
    from router_agent.feeds.fpm import FpmFeed
    from router_agent.mirror.mirror import Mirror

_ROWS_AT_A_TIME = 1_000
_FINDINGS = 50


def pipeline_status(pipeline: Pipeline, feed: str, fib: str, audit: Audit) -> PipelineStatus:
    """Return the state and counts of one pipeline; costs some 20 ms at a million routes."""
    last = None
    if pipeline.last_snapshot is not None:
        age = asyncio.get_running_loop().time() - pipeline.last_snapshot
        last = datetime.now(UTC) - timedelta(seconds=age)
    writes, load, tables = pipeline.counts.writes, pipeline.fib.load, tuple(_table_counts(pipeline))
    return PipelineStatus(
        name=pipeline.name,
        feed=feed,
        fib=fib,
        state=pipeline.state,
        error=pipeline.problem or pipeline.feed.problem,
        counts=tuple(_family_counts(tables)),
        tables=tables,
        lag_seconds=pipeline.waiting_seconds,
        lag_p50_seconds=pipeline.lags.percentile(50),
        lag_p99_seconds=pipeline.lags.percentile(99),
        lags=LagHistogram(
            bounds=LAG_BOUNDS, counts=tuple(pipeline.lags.buckets), sum_seconds=pipeline.lags.total
        ),
        last_resync=last,
        resyncs=pipeline.counts.snapshots,
        unclean_resyncs=pipeline.counts.unclean_snapshots,
        fib_losses=pipeline.counts.fib_losses,
        feed_losses=pipeline.counts.feed_losses,
        overruns=pipeline.feed.overruns,
        events=pipeline.counts.route_events,
        path_sets=pipeline.feed.paths_kept + pipeline.fib.path_limit - 1,
        passed_over=dict(pipeline.feed.passed_over),
        writes=Writes(
            added=writes.added, replaced=writes.replaced, deleted=writes.deleted, refused=writes.refused
        ),
        neighbours=len(pipeline.neighbours_known),
        fib_load=FibLoad(
            unanswered=load.unanswered,
            highest_unanswered=load.highest_unanswered,
            window=load.window,
            entries=load.entries,
            refused_neighbours=load.refused_neighbours,
        ),
        confirmations=_confirmations(pipeline),
        audit=audit_status(audit),
        capacity=_capacity_status(pipeline),
    )


def _capacity_status(pipeline: Pipeline) -> CapacityStatus | None:
    capacity = pipeline.fib.capacity
    if capacity is None:
        return None
    used = capacity.used
    return CapacityStatus(
        exhausted=pipeline.shortage is not None,
        shortage=pipeline.shortage,
        unknown=capacity.unknown,
        withheld=sum(len(r.withheld) for r in pipeline.reconcilers.values()),
        room=capacity.room,
        used_bytes={name: bytes_used for name, (bytes_used, _) in used.items()},
        total_bytes={name: total for name, (_, total) in used.items()},
    )


def _confirmations(pipeline: Pipeline) -> Confirmations | None:
    if not pipeline.confirmers:
        return None
    counts = [confirmer.counts() for confirmer in pipeline.confirmers.values()]
    confirmed, failed, waiting = (
        sum(count[outcome] for count in counts)
        for outcome in (Outcome.IN_FIB, Outcome.FAILED, Outcome.UNKNOWN)
    )
    return Confirmations(confirmed=confirmed, failed=failed, waiting=waiting)


def zebra_answers(told: Confirmations, feed: FpmFeed) -> Confirmations:
    """Return what zebra was told, with how it was."""
    return told.model_copy(
        update={
            "connected": feed.connected,
            "answered": feed.answered[True],
            "answered_failed": feed.answered[False],
        }
    )


def exabgp_sessions(feed: ExabgpFeed) -> tuple[FeedSession, ...]:
    """Return the BGP sessions that ExaBGP reports."""
    return tuple(
        FeedSession(
            peer=str(view.session.peer),
            peer_as=view.peer_as,
            up=view.up,
            up_seconds=view.up_seconds,
            routes=view.routes,
        )
        for view in feed.sessions()
    )


def mirror_status(mirror: Mirror) -> MirrorStatus:
    """Return how the interfaces of one pipeline are mirrored."""
    return MirrorStatus(
        aspects=tuple(sorted(mirror.aspects)),
        passes=mirror.passes,
        problem=mirror.problem,
        refused=mirror.refused,
    )


def audit_status(audit: Audit) -> AuditStatus:
    """Return how the audit of one pipeline goes."""
    last, now = audit.last, asyncio.get_running_loop().time()
    return AuditStatus(
        action="repair" if audit.repair else "report",
        rate=audit.rate,
        passes=audit.passes,
        readings=audit.readings,
        progress=audit.progress,
        last_pass_age_seconds=None if audit.last_ended is None else now - audit.last_ended,
        last_pass_seconds=last.seconds if last else None,
        checked=last.checked if last else 0,
        compared=last.compared if last else 0,
        covered=last.covered if last else 0,
        unexplained=last.unexplained if last else 0,
        found=dict(audit.found),
        repaired=audit.repaired,
        shared=audit.shared,
        standing=sum(len(r.drifted) for r in audit.pipeline.reconcilers.values()),
    )


def pipeline_audit(audit: Audit, tally: Tally | None) -> PipelineAudit:
    """Return what a pass found, or the last findings where none was asked for."""
    rows = list(audit.findings)[-_FINDINGS:] if tally is None else tally.rows[:_FINDINGS]
    shown = audit.last if tally is None else tally
    return PipelineAudit(
        pipeline=audit.pipeline.name,
        status=audit_status(audit),
        found=dict(shown.found) if shown else {},
        shared=shown.shared if shown else 0,
        rows=tuple(rows),
    )


async def routes(pipelines: Sequence[Pipeline], wanted: RouteFilter) -> AsyncIterator[RouteRow]:
    """Yield the wanted routes in order of pipeline, table and prefix."""
    left = wanted.limit if wanted.limit is not None else 1 << 62
    for pipeline in pipelines:
        if wanted.pipeline not in (None, pipeline.name):
            continue
        for (family, table), reconciler in pipeline.reconcilers.items():
            if wanted.table not in (None, table) or not family_matches(family, wanted.prefix):
                continue
            keys = _inside(reconciler.rib.prefixes.keys(reconciler.rib.prefixes.rows()), wanted.prefix)
            if wanted.absent:
                keys = keys[reconciler.outcomes(keys) == Outcome.FAILED]
            keys = _sorted(keys)
            for start in range(0, len(keys), _ROWS_AT_A_TIME):
                for row in _rows(pipeline, reconciler, table, keys[start : start + _ROWS_AT_A_TIME]):
                    if wanted.absent and row.in_fib is not InFib.NO:
                        continue
                    if not left:
                        return
                    left -= 1
                    yield row
                await asyncio.sleep(0)


def neighbours(pipelines: Sequence[Pipeline]) -> Iterator[NeighbourRow]:
    """Yield every neighbour the feeds know, with the interface it was copied to."""
    for pipeline in pipelines:
        for (interface, address), mac in sorted(pipeline.neighbours_known.items()):
            link = pipeline.links_known.get(interface)
            yield NeighbourRow(
                pipeline=pipeline.name,
                interface=link.name if link else f"interface {interface}",
                address=str(ip_address(address)),
                mac=mac.hex(":"),
                fib_interface=pipeline.fib.counterpart(interface),
            )


def _table_counts(pipeline: Pipeline) -> Iterator[TableCounts]:
    for (family, table), reconciler in pipeline.reconcilers.items():
        desired = len(reconciler.rib)
        if not pipeline.fib_known:
            absent = reconciler.impossible()
            yield TableCounts(
                family=family,
                table=table,
                fib_table=reconciler.table,
                desired=desired,
                unknown=desired - sum(absent.values()),
                not_in_fib=absent,
            )
            continue
        absent = reconciler.unplaced()
        placeable = max(desired - sum(absent.values()), 0)
        held = min(len(reconciler.held), placeable)
        waiting = min(reconciler.pending, placeable)
        pending = max(placeable - held, waiting)
        yield TableCounts(
            family=family,
            table=table,
            fib_table=reconciler.table,
            desired=desired,
            in_fib=placeable - pending,
            pending=pending,
            not_in_fib=absent,
        )


def _family_counts(tables: Sequence[TableCounts]) -> Iterator[FamilyCounts]:
    for family in Family:
        chosen = [counts for counts in tables if counts.family is family]
        if not chosen:
            continue
        absent: Counter[Reason] = Counter()
        for counts in chosen:
            absent.update(counts.not_in_fib)
        yield FamilyCounts(
            family=family,
            desired=sum(counts.desired for counts in chosen),
            in_fib=sum(counts.in_fib for counts in chosen),
            pending=sum(counts.pending for counts in chosen),
            unknown=sum(counts.unknown for counts in chosen),
            not_in_fib=dict(absent),
        )


def family_matches(family: Family, prefix: Prefix | None) -> bool:
    """Tell whether a prefix, if there is one, is of a family."""
    return prefix is None or (prefix.version == 4) == (family is Family.IPV4)


def _inside(keys: U64, prefix: Prefix | None) -> U64:
    """Keep the keys of a prefix and of everything within it."""
    if prefix is None or not len(keys):
        return keys
    first, last = keys_of([prefix])[0], int(prefix.broadcast_address)
    inside = (keys[:, -1] & np.uint64(0xFF)) >= np.uint64(prefix.prefixlen)
    if prefix.version == 4:
        address = keys[:, 0] >> np.uint64(8)
        inside &= (address >= first[0] >> np.uint64(8)) & (address <= np.uint64(last))
    else:
        high, low = np.uint64(last >> 64), np.uint64(last & (1 << 64) - 1)
        inside &= (keys[:, 0] > first[0]) | ((keys[:, 0] == first[0]) & (keys[:, 1] >= first[1]))
        inside &= (keys[:, 0] < high) | ((keys[:, 0] == high) & (keys[:, 1] <= low))
    chosen: U64 = keys[inside]
    return chosen


def _sorted(keys: U64) -> U64:
    columns = [keys[:, word] for word in range(keys.shape[1])]
    ordered: U64 = keys[np.lexsort(columns[::-1])]
    return ordered


def _link_name(pipeline: Pipeline, interface: int) -> str | None:
    link = pipeline.links_known.get(interface)
    return link.name if link else None


def feed_words(pipeline: Pipeline, path: int) -> tuple[str, ...]:
    """Return what a path id of the feed leads to, in words."""
    return describe_paths(pipeline.feed.resolve(path), lambda number: _link_name(pipeline, number))


def fib_words(pipeline: Pipeline, path: int) -> tuple[str, ...]:
    """Return what a path id of the FIB leads to, in words; nothing for `ABSENT`."""
    if path == ABSENT:
        return ()
    return describe_paths(pipeline.fib.path_set(path), pipeline.fib.interface_name)


def _error_words(code: int) -> str:
    name = errno.errorcode.get(-code)
    return f"error {code}" + (f" ({name}: {os.strerror(-code)})" if name else "")


def _rows(pipeline: Pipeline, reconciler: Reconciler, table: int, keys: U64) -> Iterator[RouteRow]:
    wanted, held = reconciler.wanted(keys), reconciler.held_paths(keys)
    for row, prefix in enumerate(prefixes_of(keys)):
        best = reconciler.rib.candidates(keys[row : row + 1])[0]
        in_fib, reason, detail = placed(
            pipeline, reconciler, keys[row : row + 1], int(wanted[row]), int(held[row])
        )
        yield RouteRow(
            pipeline=pipeline.name,
            prefix=str(prefix),
            table=table,
            metric=best.metric,
            paths=feed_words(pipeline, best.path),
            in_fib=in_fib,
            fib_table=reconciler.table,
            reason=reason,
            detail=detail,
        )


def placed(
    pipeline: Pipeline, reconciler: Reconciler, key: U64, wanted: int, held: int
) -> tuple[InFib, Reason | None, str | None]:
    """Tell whether one route is in the FIB, and if not why."""
    if wanted < 0:
        return InFib.NO, REASONS[-wanted - 1], None
    if not pipeline.fib_known:
        return InFib.UNKNOWN, None, None
    drift = reconciler.drift_of(key)
    if drift is not None:
        return InFib.NO, drift, None
    if wanted == held and wanted != ABSENT:
        return InFib.YES, None, None
    if reconciler.out_of_room and reconciler.withheld.find(key)[0] >= 0:
        return InFib.NO, Reason.OVER_CAPACITY, pipeline.shortage
    refusal = reconciler.refusal(key)
    if refusal is not None and refusal.path == wanted:
        return InFib.NO, Reason.REJECTED, _error_words(refusal.code)
    return InFib.PENDING, None, None
