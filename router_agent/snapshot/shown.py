"""Snapshots and what has changed between two of them, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from router_agent.snapshot.agreement import gaps
from router_agent.snapshot.changes import Difference, Judged
from router_agent.snapshot.model import Asked, Snapshot
from router_agent.terminal import new_table

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {Judged.BEYOND: "bold red", Judged.EXPECTED: "green", Judged.WITHIN: ""}
_ORDER = (Judged.BEYOND, Judged.EXPECTED, Judged.WITHIN)


def sources_table(snapshot: Snapshot) -> Table:
    """Return what was asked and what came of it."""
    title = f"{snapshot.host}, {snapshot.taken_at:%Y-%m-%d %H:%M:%S} UTC, {snapshot.label or 'no label'}"
    table = new_table(title, "source", "", "found", numbers=("s",))
    found = dict(_found(snapshot))
    for name, reading in snapshot.sources.items():
        style = "bold red" if reading.state is Asked.UNREADABLE else ""
        words = reading.reason or found.get(name, "")
        table.add_row(name, reading.state.value, words, f"{reading.seconds:.2f}", style=style)
    return table


def _found(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield the most telling counts of each source that was read."""
    if bgp := snapshot.bgp.content:
        up = sum(session.established for session in bgp.sessions)
        shutdown = ", graceful shutdown" if bgp.graceful_shutdown else ""
        yield "bgp", f"{up} of {len(bgp.sessions)} sessions up, prefixes {_by_family(bgp.prefixes)}{shutdown}"
    if zebra := snapshot.zebra.content:
        counts = {family: routes.fib for family, routes in zebra.routes.items()}
        yield "zebra", f"BGP's routes installed {_by_family(counts)}"
    if bfd := snapshot.bfd.content:
        yield "bfd", f"{sum(peer.status == 'up' for peer in bfd.peers)} of {len(bfd.peers)} up"
    if exabgp := snapshot.exabgp.content:
        up = sum(session.established for session in exabgp.sessions)
        yield "exabgp", f"{up} of {len(exabgp.sessions)} sessions up"
    if agent := snapshot.agent.content:
        yield (
            "agent",
            "; ".join(
                f"{pipeline.name} {pipeline.state}, in the FIB "
                + _by_family({family: counts.in_fib for family, counts in pipeline.counts.items()})
                for pipeline in agent.pipelines
            ),
        )
    if kernel := snapshot.kernel.content:
        yield "kernel", f"of protocol bgp {_by_family(kernel.bgp)}"
    if links := snapshot.links.content:
        up = sum(link.up and link.carrier for link in links.links.values())
        yield "links", f"{up} of {len(links.links)} up"
    for vpp in snapshot.vpp.content.instances.values() if snapshot.vpp.content else ():
        up = sum(link.up and link.carrier for link in vpp.links.values())
        yield "vpp", f"{vpp.version}, {up} of {len(vpp.links)} interfaces up"
    if versions := snapshot.versions.content:
        installed = ", ".join(f"{name} {version}" for name, version in versions.installed.items())
        yield "versions", f"kernel {versions.kernel}, {installed}"
    if configurations := snapshot.configurations.content:
        yield "configurations", f"{len(configurations.hashes)} files"
    if drained := snapshot.drained.content:
        yield "drained", "drained" if drained.drained else "not drained"


def _by_family(counts: dict[str, int] | object) -> str:
    assert hasattr(counts, "items")
    return ", ".join(f"{family} {count:,}" for family, count in counts.items()) or "none"


def gap_lines(snapshot: Snapshot) -> list[str]:
    """Return where a snapshot's own counts do not agree."""
    return [
        f"{gap.subject}: {gap.left[0]} {gap.left[1]:,}, {gap.right[0]} {gap.right[1]:,}"
        for gap in gaps(snapshot)
    ]


def changes_table(difference: Difference) -> Table:
    """Return what has changed, what is beyond the tolerances first."""
    title = f"{difference.host}: {_side(difference, 'before')} -> {_side(difference, 'after')}"
    table = new_table(title, "", "what", "which", "of it", "why", numbers=("before", "after"))
    rows = sorted(difference.changes, key=lambda change: _ORDER.index(change.judged))
    for change in rows:
        words = (change.judged.value, change.what, change.subject, change.aspect, change.why)
        table.add_row(*words, change.before, change.after, style=_STYLES[change.judged])
    return table


def _side(difference: Difference, name: str) -> str:
    side = difference.before if name == "before" else difference.after
    return f"{side.label or 'no label'} ({side.taken_at:%Y-%m-%d %H:%M:%S})"


def fault_lines(difference: Difference) -> list[str]:
    """Return what is wrong in the later snapshot, and what was not compared."""
    lines = [
        f"WRONG {fault.subject}: {fault.words}{' (as before)' if fault.before else ''}"
        for fault in difference.faults
    ]
    for unknown in difference.unknown:
        mark = "not compared" if unknown.tolerated else "UNKNOWN"
        sides = (("before", unknown.before), ("after", unknown.after))
        words = "; ".join(f"{side}: {reason}" for side, reason in sides if reason)
        lines.append(f"{mark} {unknown.source}: {words}")
    return lines


def verdict(difference: Difference) -> str:
    """Return the outcome in a line."""
    beyond = sum(change.judged is Judged.BEYOND for change in difference.changes)
    unknown = sum(not unknown.tolerated for unknown in difference.unknown)
    if difference.within:
        return f"within tolerances: {len(difference.changes)} changes"
    counts = ((beyond, "beyond tolerances"), (len(difference.faults), "wrong"), (unknown, "unknown"))
    return "NOT within tolerances: " + ", ".join(f"{count} {word}" for count, word in counts if count)
