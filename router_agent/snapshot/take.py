"""Takes a snapshot: asks every source, and the counts of routes again while routes are on their way."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel

from router_agent.observe.ask import NotHereError, NotKnownError
from router_agent.snapshot.agreement import disagreements
from router_agent.snapshot.model import Asked, Reading, Snapshot
from router_agent.snapshot.sources import (
    agent,
    bfd,
    bgp,
    configurations,
    drained,
    kernel_routes,
    links,
    versions,
    vpp,
    zebra,
)
from router_agent.snapshot.sources.router import Router

SETTLE_SECONDS = 5.0
"""For so long counts are read again while they differ: a change is on its way for less than a second."""
_PAUSE_SECONDS = 0.2
_BOOT_ID = "proc/sys/kernel/random/boot_id"

T = TypeVar("T", bound=BaseModel)


def take(
    router: Router,
    *,
    label: str = "",
    settle_seconds: float = SETTLE_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Return what the router is like now. Changes nothing on it.

    Args:
        router: what there is to ask.
        label: what the snapshot is taken for.
        settle_seconds: for how long counts that differ are read again.
        pause: called with seconds between two readings.
    """
    began = time.monotonic()
    snapshot = Snapshot(
        host=platform.node(),
        label=label,
        taken_at=datetime.now(UTC),
        boot=(router.root / _BOOT_ID).read_text().strip(),
        boot_seconds=time.clock_gettime(time.CLOCK_BOOTTIME),
        bgp=reading(lambda: bgp.read(router)),
        zebra=reading(lambda: zebra.read(router)),
        bfd=reading(lambda: bfd.read(router)),
        exabgp=reading(lambda: agent.read_exabgp(router)),
        agent=reading(lambda: agent.read(router)),
        kernel=reading(lambda: kernel_routes.read(router)),
        links=reading(lambda: links.read(router)),
        vpp=reading(lambda: vpp.read(router)),
        versions=reading(lambda: versions.read(router)),
        configurations=reading(lambda: configurations.read(router)),
        drained=reading(lambda: drained.read(router)),
    )
    while disagreements(snapshot) and time.monotonic() - began < settle_seconds:
        pause(_PAUSE_SECONDS)
        snapshot = _counted_again(snapshot, router)
    return snapshot.model_copy(update={"seconds": time.monotonic() - began})


def _counted_again(snapshot: Snapshot, router: Router) -> Snapshot:
    """Return a snapshot with its counts of routes read anew, in the order in which routes go through them."""
    return snapshot.model_copy(
        update={
            "zebra": reading(lambda: zebra.read(router)),
            "kernel": reading(lambda: kernel_routes.read(router)),
            "agent": reading(lambda: agent.read(router)),
            "vpp": reading(lambda: vpp.read(router)),
            "readings": snapshot.readings + 1,
        }
    )


def reading(read: Callable[[], T]) -> Reading[T]:
    """Ask one source; what it raises becomes the reason why there is no content."""
    began = time.monotonic()
    try:
        content = read()
    except NotHereError as error:
        return Reading[T](state=Asked.ABSENT, reason=str(error), seconds=time.monotonic() - began)
    except NotKnownError as error:
        return Reading[T](state=Asked.UNREADABLE, reason=str(error), seconds=time.monotonic() - began)
    return Reading[T](state=Asked.READ, content=content, seconds=time.monotonic() - began)
