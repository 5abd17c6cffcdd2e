"""Compares two snapshots of one router.

A comparison of a snapshot with itself finds no change, and the same things have changed whichever of two
comes first; only what is thought of them differs. What one of the snapshots does not know is `Unknown`, never
the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from router_agent.snapshot.changes import Change, Difference, Judged, Side, Unknown
from router_agent.snapshot.model import Asked, Reading, Snapshot, Vpp
from router_agent.snapshot.rules.bfd import bfd_changes
from router_agent.snapshot.rules.host import (
    boot_changes,
    configuration_changes,
    drained_changes,
    graceful_shutdown_changes,
    restart_changes,
    version_changes,
)
from router_agent.snapshot.rules.interfaces import interface_changes
from router_agent.snapshot.rules.sessions import session_changes
from router_agent.snapshot.rules.tables import table_changes, table_faults
from router_agent.snapshot.span import Span
from router_agent.snapshot.tolerances import Tolerances


class CannotCompareError(Exception):
    """The snapshots are not of one router."""


def compare(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> Difference:
    """Return what has changed from one snapshot to the other.

    Raises:
        CannotCompareError: they are of two hosts.
    """
    if before.host != after.host:
        raise CannotCompareError(
            f"found snapshots of {before.host} and of {after.host}, expected two of one router"
        )
    return Difference(
        host=after.host,
        before=Side(label=before.label, taken_at=before.taken_at),
        after=Side(label=after.label, taken_at=after.taken_at),
        changes=tuple(_changes(before, after, tolerances)),
        faults=tuple(table_faults(before, after, tolerances)),
        unknown=tuple(_unknown(before, after, tolerances)),
    )


def _unknown(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> Iterator[Unknown]:
    earlier, later = before.unreadable, after.unreadable
    for name in before.sources:
        if name in earlier or name in later:
            yield Unknown(
                source=name,
                before=earlier.get(name),
                after=later.get(name),
                tolerated=name in tolerances.unreadable,
            )
    if before.configurations.content and after.configurations.content:
        unknown = before.configurations.content.unknown, after.configurations.content.unknown
        for path in sorted(unknown[0].keys() | unknown[1].keys()):
            yield Unknown(
                source=path,
                before=unknown[0].get(path),
                after=unknown[1].get(path),
                tolerated="configurations" in tolerances.unreadable,
            )


def _changes(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> Iterator[Change]:
    span = Span.between(before, after)
    yield from boot_changes(before, after)
    for name in before.sources:
        yield from _presence(name, before.sources[name], after.sources[name], tolerances)
    yield from _sessions(before, after, span, tolerances)
    if before.bfd.content and after.bfd.content:
        yield from bfd_changes(before.bfd.content, after.bfd.content, tolerances)
    yield from table_changes(before, after, span, tolerances)
    if before.links.content and after.links.content:
        links = before.links.content.links, after.links.content.links
        yield from interface_changes("kernel", *links, span, tolerances)
    if before.vpp.content and after.vpp.content:
        earlier, later = before.vpp.content.instances, after.vpp.content.instances
        for name in sorted(earlier.keys() & later.keys()):
            yield from _vpp(earlier[name], later[name], span, tolerances)
    yield from version_changes(before, after, tolerances)
    if before.configurations.content and after.configurations.content:
        files = before.configurations.content, after.configurations.content
        yield from configuration_changes(*files, tolerances)
    if before.drained.content and after.drained.content:
        yield from drained_changes(before.drained.content, after.drained.content, tolerances)


def _presence(
    name: str, was: Reading[BaseModel], now: Reading[BaseModel], tolerances: Tolerances
) -> Iterator[Change]:
    """Yield a source that this host did not have, or no longer has; one that did not answer is unknown."""
    if {was.state, now.state} != {Asked.READ, Asked.ABSENT}:
        return
    gone = now.state is Asked.ABSENT
    judged = Judged.BEYOND if gone else Judged.WITHIN
    yield Change(
        what="source",
        subject=name,
        aspect="there",
        before=was.reason or "there",
        after=now.reason or "there",
        judged=Judged.EXPECTED if name in tolerances.unreadable else judged,
        why="the router no longer has it" if gone else "",
    )


def _sessions(before: Snapshot, after: Snapshot, span: Span, tolerances: Tolerances) -> Iterator[Change]:
    if before.bgp.content and after.bgp.content:
        was, now = before.bgp.content, after.bgp.content
        yield from session_changes("FRR", was.sessions, now.sessions, span, tolerances)
        yield from graceful_shutdown_changes(was, now, tolerances)
    if before.exabgp.content and after.exabgp.content:
        sessions = before.exabgp.content.sessions, after.exabgp.content.sessions
        yield from session_changes("ExaBGP", *sessions, span, tolerances)


def _vpp(was: Vpp, now: Vpp, span: Span, tolerances: Tolerances) -> Iterator[Change]:
    yield from restart_changes(was, now, span, tolerances)
    restarted = was.started != now.started
    yield from interface_changes("VPP", was.links, now.links, span, tolerances, restarted=restarted)
