"""FRR's bfdd: its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router_agent.observe import ask
from router_agent.observe.ask import NotHereError, NotKnownError
from router_agent.snapshot.model import Bfd, BfdPeer
from router_agent.snapshot.sources import frr
from router_agent.snapshot.sources.router import Router


def read(router: Router) -> Bfd:
    """Return what bfdd says.

    Raises:
        NotHereError: FRR is not installed, or runs without bfdd.
        NotKnownError: FRR does not answer.
    """
    if "bfdd" not in frr.running(router.vtysh):
        raise NotHereError("FRR runs without bfdd")
    return Bfd(peers=peers(ask.json_of([*router.vtysh, "-c", "show bfd peers json"], seconds=frr.SECONDS)))


def peers(answer: Sequence[Any]) -> tuple[BfdPeer, ...]:
    """Return the sessions out of ``show bfd peers json``.

    Raises:
        NotKnownError: it is not a list of sessions.
    """
    if not isinstance(answer, list):
        raise NotKnownError(f"FRR answers 'show bfd peers json' with {str(answer)[:60]}, expected a list")
    return tuple(
        BfdPeer(
            peer=str(row.get("peer", "")),
            local=str(row.get("local", "")),
            vrf=str(row.get("vrf", "default")),
            interface=str(row.get("interface", "")),
            multihop=bool(row.get("multihop")),
            status=str(row.get("status", "unknown")),
            uptime_seconds=row.get("uptime"),
            diagnostic=str(row.get("diagnostic", "")),
        )
        for row in answer
    )
