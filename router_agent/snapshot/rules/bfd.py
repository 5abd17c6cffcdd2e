"""BFD sessions that are no longer up."""

from __future__ import annotations

from collections.abc import Iterator

from router_agent.snapshot.changes import Change, Judged
from router_agent.snapshot.model import Bfd, BfdPeer
from router_agent.snapshot.tolerances import Tolerances

_UP = "up"


def bfd_changes(before: Bfd, after: Bfd, tolerances: Tolerances) -> Iterator[Change]:
    """Yield what changed."""
    earlier, later = ({peer.key: peer for peer in found.peers} for found in (before, after))
    for key in sorted(earlier.keys() | later.keys()):
        was, now = earlier.get(key), later.get(key)
        if _status(was) != _status(now):
            yield _changed(key, was, now, tolerances)


def _status(peer: BfdPeer | None) -> str:
    """Return what is compared: a session that is not up may go back and forth between down and init."""
    if peer is None:
        return "none"
    return _UP if peer.status == _UP else "not up"


def _changed(key: str, was: BfdPeer | None, now: BfdPeer | None, tolerances: Tolerances) -> Change:
    judged, why = Judged.WITHIN, ""
    if was is not None and was.status == _UP:
        judged, why = Judged.BEYOND, f"down: {now.diagnostic}" if now else "no longer configured"
        if was.peer in tolerances.sessions_lost:
            judged, why = Judged.EXPECTED, f"{why}, as it may be"
    return Change(
        what="bfd",
        subject=key,
        aspect="status",
        before=was.status if was else "none",
        after=now.status if now else "none",
        judged=judged,
        why=why,
    )
