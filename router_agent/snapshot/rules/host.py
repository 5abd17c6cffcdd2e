"""The host: versions installed and running, rendered files, whether it is drained, restarts and reboots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from router_agent.snapshot.changes import Change, Judged
from router_agent.snapshot.model import Bgp, Configurations, Drained, Snapshot, Versions, Vpp
from router_agent.snapshot.span import Span
from router_agent.snapshot.tolerances import Part, Tolerances

_PARTS = {part.value: part for part in Part}
_SHOWN = 12
"""Digits of a hash that are shown."""


def version_changes(before: Snapshot, after: Snapshot, tolerances: Tolerances) -> Iterator[Change]:
    """Yield programs whose version is another, installed or running."""
    if before.versions.content and after.versions.content:
        was, now = _installed(before.versions.content), _installed(after.versions.content)
        for name in sorted(was.keys() | now.keys()):
            yield from _version(name, "installed", was.get(name), now.get(name), tolerances)
    was, now = _running(before), _running(after)
    # a program that does not answer tells no version, and its source is named as one that is not known
    for name in sorted(was.keys() & now.keys()):
        yield from _version(name, "running", was[name], now[name], tolerances)


def _version(
    name: str, aspect: str, was: str | None, now: str | None, tolerances: Tolerances
) -> Iterator[Change]:
    if was == now:
        return
    expected = name in _PARTS and tolerances.expects(_PARTS[name])
    yield Change(
        what="version",
        subject=name,
        aspect=aspect,
        before=was or "none",
        after=now or "none",
        judged=Judged.EXPECTED if expected else Judged.BEYOND,
        why="" if expected else "nobody said that it would change",
    )


def _installed(versions: Versions) -> Mapping[str, str]:
    return {**versions.installed, **({"debian": versions.debian} if versions.debian else {})}


def _running(snapshot: Snapshot) -> Mapping[str, str]:
    found = {}
    if (versions := snapshot.versions.content) is not None:
        found["kernel"] = versions.kernel
    if (bgp := snapshot.bgp.content) is not None:
        found["frr"] = bgp.version
    if (agent := snapshot.agent.content) is not None:
        found["agent"] = agent.version
    for vpp in snapshot.vpp.content.instances.values() if snapshot.vpp.content else ():
        found |= {"vpp": vpp.version} | ({"dpdk": vpp.dpdk} if vpp.dpdk else {})
    return found


def configuration_changes(
    before: Configurations, after: Configurations, tolerances: Tolerances
) -> Iterator[Change]:
    """Yield rendered files that are not as they were."""
    for path in sorted(before.hashes.keys() | after.hashes.keys()):
        was, now = before.hashes.get(path), after.hashes.get(path)
        if was == now or path in before.unknown or path in after.unknown:
            continue
        expected = tolerances.expects(Part.CONFIGURATION) or path in tolerances.changed
        yield Change(
            what="configuration",
            subject=path,
            aspect="SHA-256",
            before=was[:_SHOWN] if was else "none",
            after=now[:_SHOWN] if now else "none",
            judged=Judged.EXPECTED if expected else Judged.BEYOND,
            why="" if expected else "nobody said that it would change",
        )


def drained_changes(before: Drained, after: Drained, tolerances: Tolerances) -> Iterator[Change]:
    """Yield a mark that came or went."""
    if before.drained == after.drained:
        return
    expected = tolerances.expects(Part.DRAINED)
    # to be undrained again is what a router is there for
    judged = Judged.BEYOND if after.drained else Judged.WITHIN
    yield Change(
        what="drained",
        subject="router",
        aspect="mark",
        before=_mark(before),
        after=_mark(after),
        judged=Judged.EXPECTED if expected else judged,
        why="it takes no traffic" if after.drained else "",
    )


def graceful_shutdown_changes(before: Bgp, after: Bgp, tolerances: Tolerances) -> Iterator[Change]:
    """Yield that FRR asks its neighbours to go elsewhere, or no longer does."""
    if before.graceful_shutdown == after.graceful_shutdown:
        return
    judged = Judged.BEYOND if after.graceful_shutdown else Judged.WITHIN
    yield Change(
        what="drained",
        subject="FRR",
        aspect="bgp graceful-shutdown",
        before="set" if before.graceful_shutdown else "not set",
        after="set" if after.graceful_shutdown else "not set",
        judged=Judged.EXPECTED if tolerances.expects(Part.DRAINED) else judged,
        why="neighbours prefer other routers" if after.graceful_shutdown else "",
    )


def _mark(drained: Drained) -> str:
    if not drained.drained:
        return "not drained"
    words = [f"drained since {drained.since}", f"by {drained.by}" if drained.by else "", drained.reason or ""]
    return ", ".join(filter(None, words))


def restart_changes(before: Vpp, after: Vpp, span: Span, tolerances: Tolerances) -> Iterator[Change]:
    """Yield a restart of VPP, which loses packets: nobody wants it beside a change of VPP or a reboot."""
    if before.started == after.started:
        return
    meant = tolerances.expects(Part.VPP) or tolerances.expects(Part.CONFIGURATION)
    judged = Judged.EXPECTED if meant else Judged.WITHIN if span.rebooted else Judged.BEYOND
    yield Change(
        what="vpp",
        subject="VPP",
        aspect="started",
        before=_moment(before.started),
        after=_moment(after.started),
        judged=judged,
        why="it was restarted; its counters began anew",
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ")


def boot_changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Yield a reboot."""
    if before.boot != after.boot:
        yield Change(
            what="host",
            subject=after.host,
            aspect="boot",
            before=f"up for {before.boot_seconds:,.0f} s",
            after=f"up for {after.boot_seconds:,.0f} s",
            judged=Judged.WITHIN,
            why="it was rebooted",
        )
