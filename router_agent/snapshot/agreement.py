"""Whether the counts of one snapshot agree: BGP = kernel = FIB.

    zebra's installed BGP routes  =  the kernel's of protocol bgp
    the kernel's that a pipeline follows  =  those the agent wants
    those the agent says are in the FIB  =  the FIB's own count

Of VPP only the number of entries of all sources is had cheaply, some of which are not the agent's: fewer of
them than routes is a gap, more is none (`Pipeline.unexplained` is the agent's own account of those).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from router_agent.snapshot.model import Pipeline, Snapshot


@dataclass(frozen=True, slots=True)
class Gap:
    """Two counts that should be the same.

    Attributes:
        subject: what is counted, for example ``pipeline fib, IPv4``.
        left: where the first count is from, and itself.
        right: likewise.
    """

    subject: str
    left: tuple[str, int]
    right: tuple[str, int]

    @property
    def size(self) -> int:
        """By how many they differ."""
        return abs(self.left[1] - self.right[1])

    @property
    def percent(self) -> float:
        """The same, in percent of the larger one."""
        return 100.0 * self.size / max(self.left[1], self.right[1], 1)


def gaps(snapshot: Snapshot) -> Iterator[Gap]:
    """Yield every pair of counts that differ."""
    yield from (gap for gap in (*_bgp(snapshot), *_pipelines(snapshot)) if gap.size)


def disagreements(snapshot: Snapshot) -> bool:
    """Return whether counts differ, or routes are on their way."""
    agent = snapshot.agent.content
    pending = any(
        counts.pending or counts.unknown
        for pipeline in (agent.pipelines if agent else ())
        for counts in pipeline.counts.values()
    )
    return pending or any(gaps(snapshot))


def _bgp(snapshot: Snapshot) -> Iterator[Gap]:
    zebra, kernel = snapshot.zebra.content, snapshot.kernel.content
    if zebra is None or kernel is None:
        return
    for family, routes in zebra.routes.items():
        if family in kernel.bgp:
            yield Gap(
                f"BGP, {family}", ("zebra's installed", routes.fib), ("the kernel's", kernel.bgp[family])
            )


def _pipelines(snapshot: Snapshot) -> Iterator[Gap]:
    for pipeline in snapshot.agent.content.pipelines if snapshot.agent.content else ():
        for family, counts in pipeline.counts.items():
            subject = f"pipeline {pipeline.name}, {family}"
            if (followed := _followed(snapshot, pipeline, family)) is not None:
                yield Gap(subject, ("the kernel's", followed), ("wanted by the agent", counts.desired))
            if (held := fib_count(snapshot, pipeline, family)) is None:
                continue
            if pipeline.fib == "kernel" or held < counts.in_fib:
                yield Gap(subject, ("in the FIB for the agent", counts.in_fib), ("in the FIB", held))


def _followed(snapshot: Snapshot, pipeline: Pipeline, family: str) -> int | None:
    kernel = snapshot.kernel.content
    return None if kernel is None else kernel.feeds.get(pipeline.name, {}).get(family)


def fib_count(snapshot: Snapshot, pipeline: Pipeline, family: str) -> int | None:
    """Return how many entries the FIB of a pipeline has by its own count; None where that is not known.

    Of a kernel those of the agent's protocol, of VPP those of all sources.
    """
    if pipeline.fib == "kernel":
        kernel = snapshot.kernel.content
        return None if kernel is None else kernel.fibs.get(pipeline.name, {}).get(family)
    for vpp in snapshot.vpp.content.instances.values() if snapshot.vpp.content else ():
        if family in vpp.tables.get(pipeline.name, {}):
            return vpp.tables[pipeline.name][family].entries
    return None
